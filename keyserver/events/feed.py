"""Events as they happen, for as many as listen: one look at the database for all of them, and none without any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection

from keyserver.store.history import Event, History, What

EVERY = 0.5  # seconds between two looks
BATCH = 100  # events that are read at once


class Feed:
    """`every`: seconds, as the constant."""

    def __init__(self, history: History, every: float = EVERY) -> None:
        self._history = history
        self._every = every
        self._newest = 0
        self._looking: asyncio.Task[None] | None = None

    async def begin(self, after: int | None) -> int:
        """The number behind which to follow: the one given, or the newest where there is none, or none so large (of
        another database). Raises StoreError."""
        newest = await self._history.newest()
        return newest if after is None else min(after, newest)

    async def follow(self, after: int, wanted: Collection[What] = ()) -> AsyncGenerator[Event]:
        """Those behind a number, in order, and then those to come; without any wanted all. Raises StoreError."""
        while True:
            events = await self._history.since(after, BATCH)
            for event in events:
                after = event.number
                if not wanted or event.what in wanted:
                    yield event
            if not events:
                await self._until_behind(after)

    async def _until_behind(self, number: int) -> None:
        while self._newest <= number:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)

    async def _look(self) -> None:
        await asyncio.sleep(self._every)
        self._newest = await self._history.newest()
