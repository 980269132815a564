"""Which local part a hash stands for: a Web Key Directory may be asked without `l`, and a hash cannot be undone.

A domain's addresses are read from the store when a hash of it is first asked for, and hashed in a thread. Names that
come later are added as changes tell them. A name that is gone stays; the lookup then finds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from keyserver.changes import Changes
from keyserver.model import Change, Kind
from keyserver.query import name_of
from keyserver.store.base import Store
from keyserver.wire.wkd import hash_of

MOST = 100_000
"""Addresses of all domains together; some 25 MB."""

_ADDRESS = name_of(Kind.OPENPGP, "addr", "")


@dataclass(eq=False, slots=True)
class _Domain:
    locals: dict[str, str] = field(default_factory=dict)
    """By their hashes."""
    read: asyncio.Task[None] | None = None


class HashIndex:
    """Hashes of the local parts that the store knows, by domain."""

    def __init__(self, store: Store, changes: Changes, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._domains: dict[str, _Domain] = {}  # read last, last
        changes.subscribe(self._changed)

    async def find(self, domain: str, hashed: str) -> str | None:
        """The local part with this hash, None where no certificate names one. Raises StoreError."""
        known = self._domains.get(domain)
        if known is None:
            known = self._domains[domain] = _Domain()
            known.read = asyncio.get_running_loop().create_task(self._read(domain, known))
            known.read.add_done_callback(lambda task: task.cancelled() or task.exception())  # whoever asked may be gone
        assert known.read is not None
        await asyncio.shield(known.read)
        return known.locals.get(hashed)

    async def _read(self, domain: str, known: _Domain) -> None:
        try:
            addresses = await self._store.addresses(domain, self._most)
            known.locals.update(await asyncio.to_thread(_hashed, addresses))
        finally:
            if not known.locals and self._domains.get(domain) is known:  # also where the store could not be read
                del self._domains[domain]
        while sum(len(other.locals) for other in self._domains.values()) > self._most:
            oldest = next(iter(self._domains))
            if oldest == domain:
                break
            del self._domains[oldest]

    def _changed(self, change: Change) -> None:
        if change.everything:
            self._domains.clear()
            return
        for name in change.names if self._domains else ():
            local, _, domain = name.removeprefix(_ADDRESS).rpartition("@")
            known = self._domains.get(domain) if name.startswith(_ADDRESS) else None
            if known is None:
                continue
            known.locals[hash_of(local)] = local
            if len(known.locals) > 2 * self._most:  # names that were only asked for are among them: read again
                del self._domains[domain]


def _hashed(addresses: Iterable[str]) -> Mapping[str, str]:
    locals_ = (address.rpartition("@")[0] for address in addresses)
    return {hash_of(local): local for local in locals_}
