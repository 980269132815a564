"""Keyrings and files of X.509 certificates of any size into the cache, in bounded memory: split, clean, store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from keyserver.model import Find, Kind, Piece, Refused, Skipped, Source
from keyserver.openpgp.keyring import Splitter
from keyserver.resolver.cleaner import Cleaner
from keyserver.store.base import Store, Stored
from keyserver.wire.pem import HEAD, Blocks, is_x509

MAX_RAW = 16 << 20  # octets of one certificate before cleaning; a flooded one is that large
MAX_X509 = 1 << 20  # of one DER or PKCS#7 value
BATCH = 32  # certificates cleaned and stored together, or
BATCH_OCTETS = 4 << 20
MAX_PROBLEMS = 50  # remarks that a report holds


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of an import, so far or at its end."""

    read: int = 0  # certificates seen
    new: int = 0
    changed: int = 0
    same: int = 0
    blocked: int = 0
    refused: int = 0  # not clean, too large, not public, not stored
    problems: tuple[str, ...] = ()  # the first of the reasons


Tell = Callable[[ImportReport], None]


class Importing:
    """One import."""

    def __init__(
        self, store: Store, cleaner: Cleaner, clock: Callable[[], int], origin: str, max_certificate: int
    ) -> None:
        self._store = store
        self._cleaner = cleaner
        self._clock = clock
        self._origin = origin
        self._max_certificate = max_certificate
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []
        self._kind = Kind.OPENPGP

    async def run(self, chunks: AsyncIterator[bytes], tell: Tell | None = None) -> ImportReport:
        """Read to the end. What was stored before an error stays stored."""
        head = bytearray()
        splitter: Splitter | Blocks | None = None
        batch: list[bytes] = []
        async for chunk in chunks:
            if splitter is None:
                head += chunk
                if len(head) < HEAD:
                    continue
                chunk, splitter = bytes(head), self._splitter(head)
            for piece in splitter.feed(chunk):
                await self._take(piece, batch, tell)
        if splitter is None:
            splitter = self._splitter(head)
            for piece in splitter.feed(bytes(head)):
                await self._take(piece, batch, tell)
        for piece in splitter.end():
            await self._take(piece, batch, tell)
        await self._store_batch(batch)
        return self.report()

    def _splitter(self, head: bytearray) -> Splitter | Blocks:
        """What reads a stream that begins so."""
        if is_x509(bytes(head[:HEAD])):  # however large the first pieces are
            self._kind = Kind.X509
            return Blocks(MAX_X509)
        return Splitter(MAX_RAW)

    def report(self) -> ImportReport:
        """How far it is."""
        c = self._counts
        return ImportReport(
            read=c["read"],
            new=c[Stored.NEW],
            changed=c[Stored.CHANGED],
            same=c[Stored.SAME],
            blocked=c[Stored.BLOCKED],
            refused=c["refused"],
            problems=tuple(self._problems),
        )

    async def _take(self, piece: Piece, batch: list[bytes], tell: Tell | None) -> None:
        self._counts["read"] += 1
        if isinstance(piece, Skipped):
            self._refuse(piece.reason)
            return
        batch.append(piece.octets)
        if len(batch) >= BATCH or sum(map(len, batch)) >= BATCH_OCTETS:
            await self._store_batch(batch)
            if tell is not None:
                tell(self.report())

    async def _store_batch(self, batch: list[bytes]) -> None:
        now = self._clock()
        begun = await self._store.begin()
        results = await asyncio.gather(*(self._cleaner.clean(self._kind, octets, now) for octets in batch))
        batch.clear()
        finds: list[Find] = []
        for result in results:
            for item in result:
                if isinstance(item, Refused):
                    self._refuse(f"{item.fingerprint}: {item.reason}" if item.fingerprint else item.reason)
                elif len(item.octets) > self._max_certificate:
                    self._refuse(f"{item.fingerprint}: larger than {self._max_certificate} octets after cleaning")
                else:
                    # An older keyring must not take away what a newer one brought: merged, not replaced.
                    finds.append(Find(item, Source.LOCAL, self._origin, replace=False))
        if not finds:
            return
        for find, verdict in zip(finds, await self._store.put(finds, [], begun, now), strict=True):
            self._counts[verdict] += 1
            if verdict is Stored.FULL:
                self._refuse(f"{find.certificate.fingerprint}: cache.max_size is reached")
            elif verdict is Stored.DELETED:
                self._refuse(f"{find.certificate.fingerprint}: deleted at the same moment")

    def _refuse(self, reason: str) -> None:
        self._counts["refused"] += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(reason)
