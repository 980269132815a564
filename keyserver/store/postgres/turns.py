"""Whose turn it is to search: leases that end by the database's clock, so that a node that dies or is paused gives them
up without a word. One that comes back finds its lease gone, which does no harm: what it puts is judged by its `begun`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from secrets import randbits
from typing import Any, Protocol, TypeVar

from keyserver.changes import Changes
from keyserver.model import Change, Name
from keyserver.store.base import StoreError
from keyserver.store.cluster import Turn
from keyserver.store.postgres.connections import Connection

T = TypeVar("T")

AGAIN = 0.01, 0.1  # seconds between two tries: the first after the name has changed, and the longest
RENEWALS = 3  # within the time that a lease lasts

# No disk is waited for: the table is unlogged, and a transaction of nothing else flushes nothing.
_TAKE = """
INSERT INTO lease AS l (search, token, begun, until)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4::float8))
ON CONFLICT (search) DO UPDATE SET token = excluded.token, begun = excluded.begun, until = excluded.until
WHERE l.until < clock_timestamp() OR l.begun < excluded.begun
RETURNING true
"""
_RENEW = (
    "UPDATE lease SET until = clock_timestamp() + make_interval(secs => $3::float8)"
    " WHERE search = $1 AND token = $2 RETURNING true"
)
_GIVE = "DELETE FROM lease WHERE search = $1 AND token = $2"


class _Reads(Protocol):
    async def read(self, work: Callable[[Connection], Awaitable[T]], *, long: bool = False) -> T:
        """On a kept connection, bounded by the time of a look. Raises StoreError."""


class Turns:
    """`Cluster.turn`, where other nodes live."""

    def __init__(self, connections: _Reads, changes: Changes) -> None:
        self._connections = connections
        self._waiting: defaultdict[Name, set[asyncio.Event]] = defaultdict(set)
        changes.subscribe(self._changed)

    async def turn(self, name: Name, asks: str, begun: int, seconds: float) -> Turn:
        """As `Cluster.turn`."""
        search = blake2b(f"{name}\n{asks}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        token, waited = randbits(63), False
        changed = asyncio.Event()
        self._waiting[name].add(changed)
        pause = AGAIN[0]
        try:
            while not await self.run(_TAKE, search, token, begun, seconds):
                waited = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await changed.wait()
                pause = AGAIN[0] if changed.is_set() else min(2 * pause, AGAIN[1])
                changed.clear()
        finally:
            self._waiting[name].discard(changed)
            if not self._waiting[name]:
                del self._waiting[name]
        return _Taken(self, search, token, seconds, waited=waited)

    async def run(self, sql: str, *values: object) -> Any:
        """One statement about leases. Raises StoreError."""
        return await self._connections.read(lambda db: db.fetchval(sql, *values))

    def _changed(self, change: Change) -> None:
        if not self._waiting:
            return
        for name in tuple(self._waiting) if change.everything else change.names & self._waiting.keys():
            for event in self._waiting[name]:
                event.set()


class _Taken(Turn):
    """A lease that is renewed until the search is over."""

    def __init__(self, turns: Turns, search: bytes, token: int, seconds: float, *, waited: bool) -> None:
        super().__init__(waited=waited)
        self._turns = turns
        self._lease = search, token
        self._renewing = asyncio.create_task(self._renew(seconds))

    async def _renew(self, seconds: float) -> None:
        kept = True
        while kept:
            await asyncio.sleep(seconds / RENEWALS)
            with contextlib.suppress(StoreError):  # once more, for as long as it may still be ours
                kept = await self._turns.run(_RENEW, *self._lease, seconds)

    async def over(self) -> None:
        """As `Turn.over`."""
        self._renewing.cancel()
        with contextlib.suppress(StoreError):  # it ends by itself
            await self._turns.run(_GIVE, *self._lease)
