"""Searches in flight, joined by whoever asks the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from keyserver.model import Entry, Outcome, Record, Step, View
from keyserver.query import Query
from keyserver.store.snapshot import Snapshot
from keyserver.upstreams.base import Upstream


@dataclass(slots=True)
class Search:
    """One search and what came of it so far. What is joined is the search, never an answer: views differ."""

    query: Query
    begun: int  # the store's deletion counter when it started
    asks: tuple[tuple[Upstream, ...], ...] = ()  # one tier after the other
    known: Snapshot = field(default_factory=Snapshot)  # what was known as it started
    refresh: bool = False  # what is cached stays whatever upstreams say
    view: View = field(default_factory=View)  # of the question that started it: whose word counts there
    via: str = ""  # instances that the question which started it came through
    client: str = ""  # the network of whoever started it; empty: ourselves, or a Unix socket
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: dict[str, Outcome | None] = field(default_factory=dict)  # None: still under way
    records: list[Record] = field(default_factory=list)
    uncached: list[Entry] = field(default_factory=list)  # proven, but the store could not take them
    wrote: bool = False  # it has handed certificates to the store
    proven: bool = False  # something that can be handed out was found
    cleaned: int = 0  # certificates
    steps: list[Step] = field(default_factory=list)
    started: float = 0.0  # by the counting clock
    dated: int = 0  # Unix seconds: when that was by the wall clock
    revocations: dict[str, bytes] = field(default_factory=dict)  # of what is uncached
    overtaken: bool = False  # others would be asked by now, or the clock was set: who waits for it searches again
    hearing: list[Callable[[Step], None]] = field(default_factory=list)  # who hears each step as it happens

    def tell(self, step: Step) -> None:
        """One step more."""
        self.steps.append(step)
        for hear in self.hearing:
            hear(step)

    @contextmanager
    def heard(self, hear: Callable[[Step], None] | None) -> Iterator[None]:
        """Inside, `hear` is told each step as it happens, at once those from before; None: nobody is."""
        if hear is None:
            yield
            return
        for step in self.steps:
            hear(step)
        self.hearing.append(hear)
        try:
            yield
        finally:
            self.hearing.remove(hear)

    @property
    def key(self) -> Hashable:
        """What is one search. Not joined across a delete, nor where others would be asked now; nor by a question that
        came through another frontend, which may be the very one that our search is waiting for."""
        return self.query.name, self.begun, self.via, self.refresh, self.asks


class InFlight:
    """Searches by key. A search outlives the client that started it; `close` ends them all."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._flying: dict[Hashable, Search] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Is too much under way to start another search? Who waited for one that was overtaken takes its place."""
        return len(self._flying) >= self._limit()

    def overtake(self, stays: Callable[[Search], bool]) -> None:
        """Nobody joins searches that do not stay, and who waits for them looks again now. They go on: what their
        upstreams answer is judged by the rules that hold then."""
        for key, search in tuple(self._flying.items()):
            if not stays(search):
                del self._flying[key]
                search.overtaken = True
                search.settled.set()

    def under_way(self, key: Hashable) -> Search | None:
        """The search for exactly this, if one is under way: not one that has ended in this very turn of the loop."""
        search = self._flying.get(key)
        ended = search is not None and search.settled.is_set() and None not in search.outcomes.values()
        return None if ended else search

    def start(self, key: Hashable, search: Search, run: Callable[[Search], Coroutine[Any, Any, None]]) -> Search:
        """Start a search; it leaves the register whatever happens to it."""
        task = asyncio.get_running_loop().create_task(run(search))
        self._flying[key] = search
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if self._flying.get(key) is search:
                del self._flying[key]
            search.settled.set()

        task.add_done_callback(ended)
        return search

    async def close(self) -> None:
        """Cancel what is under way and wait for it."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
