"""Places that are shared: how many of them one query, client or host may take, so that the rest stays for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class _Slots:
    limit: asyncio.Semaphore
    users: int = 0


class KeyedSemaphore:
    """At most `each` places for each key. A key takes memory only while somebody holds a place or waits for one."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._shares: dict[Hashable, _Slots] = {}

    def __len__(self) -> int:
        return len(self._shares)

    @asynccontextmanager
    async def place(self, key: Hashable) -> AsyncIterator[None]:
        """One of the key's places; waits until there is one."""
        share = self._shares.setdefault(key, _Slots(asyncio.Semaphore(self._each)))
        share.users += 1
        try:
            async with share.limit:
                yield
        finally:
            share.users -= 1
            if not share.users:
                del self._shares[key]
