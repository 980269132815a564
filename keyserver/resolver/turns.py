"""One search per query in the cluster: what another node is searching is waited for, and seldom asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from keyserver.model import Absent, Found, Step
from keyserver.policy import OnRecord, on_record
from keyserver.resolver.inflight import Search
from keyserver.resolver.rules import Rules
from keyserver.rules import InForce
from keyserver.store.base import Store, StoreError
from keyserver.store.cluster import NOBODY_ELSE, Turn

SHARE = 3  # a node that has died in a search delays others by this part of the deadline at most


@dataclass(frozen=True, slots=True)
class InTurn:
    """Searches, each when it is this node's turn."""

    store: Store
    rules: InForce[Rules]
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    search: Callable[[Search, OnRecord], Awaitable[None]]

    async def run(self, search: Search, known: OnRecord) -> None:
        """Search, or take what another node has found meanwhile.

        A refresh really asks, and so does a question that came through another frontend: that one may be waiting for
        the very search that we would wait for."""
        if search.refresh or search.via or search.begun < 0:
            return await self.search(search, known)
        try:
            async with asyncio.timeout(self.rules().deadline):  # by then nobody waits for us
                turn = await self._turn(search)
        except (StoreError, TimeoutError):
            turn = NOBODY_ELSE
        if turn is NOBODY_ELSE:
            return await self.search(search, known)
        giving = asyncio.create_task(self._give(search, turn))
        try:
            if turn.waited:
                known = await self._look_again(search, known)
            if not search.proven:
                await self.search(search, known)
        finally:
            search.settled.set()
            await giving
        return None

    async def _turn(self, search: Search) -> Turn:
        asks = ";".join(",".join(sorted(upstream.spec.name for upstream in tier)) for tier in search.asks)
        return await self.store.cluster.turn(search.query.name, asks, search.begun, self.rules().deadline / SHARE)

    async def _give(self, search: Search, turn: Turn) -> None:
        """Others go on as soon as those who wait here do."""
        await search.settled.wait()
        await turn.over()

    async def _look_again(self, search: Search, known: OnRecord) -> OnRecord:
        """What is on record now; where the other node has found something, that is this search's result, too."""
        self._tell(search, "waited", "another node was searching for it")
        search.wrote = True  # whoever waits looks at the store again
        names = [upstream.spec.name for tier in search.asks for upstream in tier]
        try:
            snapshot = await self.store.look(search.query.name)
        except StoreError:
            return known
        now = on_record(snapshot.records, names, self.clock(), self.rules().terms)
        new = {name: record for name in names if (record := now.living.get(name)) != known.living.get(name) and record}
        if any(record.found for record in new.values()):
            search.proven = True
            for name, record in new.items():
                search.outcomes[name] = Found(()) if record.found else Absent("it said so to another node")
            self._tell(search, "found", "by another node")
        return now

    def _tell(self, search: Search, what: str, why: str) -> None:
        search.tell(Step((self.monotonic() - search.started) * 1000, "search", what, why))
