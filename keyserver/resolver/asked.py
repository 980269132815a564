"""Searches under way, joined by whoever asks the same; and who may start how many."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from cachetools import FIFOCache

from keyserver.listen.trust import Trust, address_of
from keyserver.model import Entry, Outcome, Record, Step
from keyserver.query import Query

NETWORKS = 50_000  # client networks whose misses are counted


@dataclass(slots=True)
class Search:
    """One search and what came of it so far. What is joined is the search, never an answer: views differ."""

    query: Query
    begun: int  # the store's deletion counter when it started
    refresh: bool = False  # what is cached stays whatever upstreams say
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
    started: float = 0.0
    revocations: dict[str, bytes] = field(default_factory=dict)  # of what is uncached

    @property
    def key(self) -> Hashable:
        """What is one search. Not joined across a delete; nor by a question that came through another frontend, which
        may be the very one that our search is waiting for."""
        return self.query.name, self.begun, self.via, self.refresh


class Asked:
    """Searches by key. A search outlives the client that started it; `close` ends them all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._flying: dict[Hashable, Search] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def full(self) -> bool:
        """Is too much under way to start another search?"""
        return len(self._tasks) >= self._limit

    def under_way(self, key: Hashable) -> Search | None:
        """The search for exactly this, if one is under way."""
        return self._flying.get(key)

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


def network_of(client: str | None) -> str:
    """The network of a client's address (IPv4 /24, IPv6 /64); empty where it has none (a Unix socket)."""
    address = address_of(client or "")
    if address is None:
        return ""
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


class MissLimit:
    """A token bucket of searches for each client network (IPv4 /24, IPv6 /64); whom we trust is left alone."""

    def __init__(self, per_minute: int, trust: Trust, monotonic: Callable[[], float]) -> None:
        self._rate = per_minute / 60
        self._burst = float(max(1, per_minute))
        self._trust = trust
        self._monotonic = monotonic
        self._buckets: FIFOCache[str, tuple[float, float]] = FIFOCache(NETWORKS)

    def take(self, client: str | None) -> bool:
        """May this client start one more search now? None is ourselves, a Unix socket's client is the empty string."""
        if client is None or self._trust.trusts(client):
            return True
        network = network_of(client) or client
        now = self._monotonic()
        tokens, then = self._buckets.pop(network, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1
        self._buckets[network] = (tokens - 1 if allowed else tokens, now)
        return allowed
