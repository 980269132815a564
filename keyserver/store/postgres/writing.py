"""One write transaction of several statements: what it touches is gathered, and leaves as one change row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

from keyserver.model import Name, Source
from keyserver.store.deletion import names_of_fingerprint
from keyserver.store.listing import UPSTREAM
from keyserver.store.postgres.bell import CHANNEL
from keyserver.store.postgres.connections import Connection

OCTETS = "octets"
DELETING = 0x4B734465
"""Advisory lock: shared by whoever writes entries, exclusive for what must not be undone by them."""
CERTIFICATES = 0x4B73
"""First half of the advisory locks of certificates."""
BUCKETS = 1024
"""So many of them: a transaction of any size stays within the server's table of locks."""
ROW = 1000
"""Octets that an entry takes besides its certificate, with its names and their indexes, about."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction that is committed changed, and its number there."""

    xid: str
    names: frozenset[Name]
    everything: bool = False


class Writing:
    """A write transaction under way."""

    def __init__(self, db: Connection) -> None:
        self.db = db
        self.names: set[Name] = set()
        """Every name that was touched."""
        self.everything = False
        """Was more touched than can be named?"""
        self.tally: Counter[str] = Counter()
        """What the counts of `stats` change by."""

    async def tell(self, now: int | None, act: str = "") -> None:
        """As `sqlite.writing.Writing.tell`."""
        sql = "SELECT set_config('keyserver.now', $1, true), set_config('keyserver.act', $2, true)"
        await self.db.execute(sql, "" if now is None else str(now), act)

    async def lock(self, fingerprints: Iterable[str]) -> None:
        """Let nobody else change these certificates, nor delete anything, until this transaction is over. What is read
        in a statement after this one is as the last of those left it."""
        await self.db.execute("SELECT pg_advisory_xact_lock_shared($1)", DELETING)
        for bucket in buckets(fingerprints):
            await self.db.execute("SELECT pg_advisory_xact_lock($1::int, $2::int)", CERTIFICATES, bucket)

    async def touch(self, fingerprints: Iterable[str]) -> Mapping[Name, str]:
        """Note that certificates are touched: every name of every entry of them, and those of their fingerprints, with
        a certificate that has it."""
        chosen = sorted(set(fingerprints))
        rows = await self.db.fetch(
            "SELECT DISTINCT n.name, e.fingerprint FROM entry AS e JOIN name AS n ON n.entry = e.id"
            " WHERE e.fingerprint = ANY($1)",
            chosen,
        )
        names = {name: fingerprint for fingerprint in chosen for name in names_of_fingerprint(fingerprint)}
        names.update(rows)
        self.names.update(names)
        return names

    async def forget(self, names: Collection[Name], undo: int = 0) -> None:
        """Forget the records of some names, so that the next lookup asks again. Those that wait to be undone, too, but
        for what this very `undo` has taken."""
        chosen = sorted(names)
        for (found,) in await self.db.fetch("DELETE FROM record WHERE name = ANY($1) RETURNING found", chosen):
            self.tally["found" if found else "absent"] -= 1
        await self.db.execute("DELETE FROM undo_record WHERE name = ANY($1) AND undo <> $2", chosen, undo)

    def count(self, by: int, source: str, origin: str, octets: int, *, held: bool, approved: bool) -> None:
        """Count an entry of this kind in (1) or out (-1)."""
        self.tally.update(counted(by, source, origin, octets, held=held, approved=approved))

    async def finish(self, *, aloud: bool) -> Written | None:
        """Write counts and change row; None where nothing was touched. aloud: tell other nodes with the commit."""
        changed = [(what, n) for what, n in self.tally.items() if n]
        if changed:
            await self.db.execute(
                "INSERT INTO delta SELECT * FROM unnest($1::text[], $2::bigint[])",
                [what for what, _ in changed],
                [n for _, n in changed],
            )
        if not self.names and not self.everything:
            return None
        names = [] if self.everything else sorted(self.names)
        sql = "INSERT INTO change (everything, names) VALUES ($1, $2) RETURNING xid::text"
        if aloud:
            sql += f", pg_notify('{CHANNEL}', '')"
        xid = await self.db.fetchval(sql, self.everything, names)
        return Written(xid, frozenset(self.names), self.everything)


def buckets(fingerprints: Iterable[str]) -> list[int]:
    """The locks of certificates, in the one order in which they are taken."""
    return sorted({crc32(fingerprint.encode()) % BUCKETS for fingerprint in fingerprints})


def counted(by: int, source: str, origin: str, octets: int, *, held: bool, approved: bool) -> Counter[str]:
    """What an entry adds to the counts of `stats`, or takes from them."""
    found = Counter({source: by, OCTETS: by * (octets + ROW), "held": by * held, "approved": by * approved})
    if source == Source.KEYSERVER:
        found[UPSTREAM + origin] = by
    return found
