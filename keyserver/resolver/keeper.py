"""Background work of the cache, bounded: purge what has expired, search again what is asked for, notice other nodes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from keyserver.model import Record, Source
from keyserver.policy import MAILFLOW_TTL, Terms
from keyserver.query import from_name
from keyserver.resolver.clockwatch import ClockWatch
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.watch import Watch
from keyserver.store.base import Store, StoreError

PURGE_BATCH = 200  # entries in one transaction
BETWEEN_BATCHES = 0.02  # seconds that lookups have the store to themselves
PREFETCH_SHARE = 0.1  # the last tenth of a ttl
PREFETCH_BATCH = 64
PREFETCH_AT_ONCE = 4
FLUSH_EVERY = 5.0  # seconds: when names were last asked for
POLL_EVERY = 0.5  # seconds: changes by other processes; only the safety net behind events

log = logging.getLogger("keyserver.keeper")


class Keeper:
    """The loops; `run` is one task of the composition root."""

    def __init__(
        self,
        store: Store,
        resolver: Resolver,
        terms: Terms,
        *,
        clock: Callable[[], int],
        counting: Callable[[], float],
        purge_interval: int,
        prefetch: bool,
        asked: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`asked` makes whoever answers from memory report what was asked for (`Resolver.note_asked`); `counting`: a
        clock that nobody sets, in seconds."""
        self._store = store
        self._resolver = resolver
        self._terms = terms
        self._clock = clock
        self._purge_interval = purge_interval
        self._prefetch = prefetch
        self._asked = asked
        self._tried: dict[str, int] = {}
        self._counting = counting
        self.clockwatch = ClockWatch(clock(), counting())

    async def run(self) -> None:
        """Until cancelled; a store in trouble is reported and tried again."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(self._purge_interval, self.purge))
            group.create_task(_every(FLUSH_EVERY, self.flush))
            group.create_task(_every(POLL_EVERY, self.poll))
            if self._prefetch:
                shortest = min([self._terms.ttl, *(s.ttl for s in self._terms.upstreams.values() if s.ttl)])
                group.create_task(_every(max(1.0, shortest * PREFETCH_SHARE / 10), self.prefetch))

    async def begin(self) -> None:
        """What `run` does first: say at once what is wrong with the store, or the clock, that we begin with."""
        try:
            healthy = (await self._store.stats()).healthy
            self.clockwatch.newest(await self._store.newest(), self._clock(), self._counting())
        except StoreError as problem:
            healthy = str(problem)
        if healthy:
            log.error("the cache is not healthy: %s", healthy)

    async def poll(self) -> None:
        """Notice what other processes changed, and whether the clock has jumped."""
        self.clockwatch.look(self._clock(), self._counting())
        await self._store.poll()

    async def purge_now(self) -> int:
        """An administrator's word: delete what has expired by the clock as it is."""
        self.clockwatch.look(self._clock(), self._counting())
        self.clockwatch.trust()
        return await self.purge()

    async def purge(self) -> int:
        """Delete what has expired, in small batches; how many rows. Expiry is judged at lookup: this only tidies, and
        waits while the clock cannot be believed."""
        now, total = self._clock(), 0
        if not self.clockwatch.look(now, self._counting()):
            return 0
        kept = self._terms.serve_stale
        cutoffs: dict[tuple[Source, str | None], int] = {
            (Source.KEYSERVER, None): now - self._terms.ttl - kept,
            (Source.MAILFLOW, None): now - MAILFLOW_TTL,
        }
        for name in self._terms.upstreams:
            cutoffs[Source.KEYSERVER, name] = now - self._terms.ttl_of(name) - kept
        while True:
            gone = await self._store.purge_expired(cutoffs, now - self._terms.negative_ttl, PURGE_BATCH)
            total += gone
            if gone < PURGE_BATCH:
                return total
            await asyncio.sleep(BETWEEN_BATCHES)

    async def flush(self) -> None:
        """Write down which names were asked for lately: prefetch and rendering ahead go by it."""
        if self._asked is not None:
            await self._asked()
        asked = self._resolver.take_asked()
        if asked:
            await self._store.touch(asked)

    async def prefetch(self) -> int:
        """Search again what was asked for within its ttl and is about to expire; how many searches.

        A search that finds nothing leaves the entry until its time runs out."""
        await self.flush()
        now = self._clock()
        before: dict[str | None, int] = {None: now - _ripe(self._terms.ttl)}
        for name in self._terms.upstreams:
            before[name] = now - _ripe(self._terms.ttl_of(name))
        due = [r for r in await self._store.due(before, PREFETCH_BATCH) if self._ready(r, now)]
        free = asyncio.Semaphore(PREFETCH_AT_ONCE)

        async def again(record: Record) -> None:
            async with free:
                await self._resolver.refresh(from_name(record.name))

        await asyncio.gather(*(again(r) for r in {r.name: r for r in due}.values()))
        return len(due)

    def _ready(self, record: Record, now: int) -> bool:
        """Still within its ttl, and not tried a moment ago."""
        ttl = self._terms.ttl_of(record.upstream)
        last = self._tried.get(record.name, 0)
        if now >= record.at + ttl or now - last < max(30, (ttl - _ripe(ttl)) // 3):
            return False
        if len(self._tried) > 10_000:
            self._tried.clear()
        self._tried[record.name] = now
        return True


def _ripe(ttl: int) -> int:
    """The age at which something with this ttl is searched again."""
    return ttl - max(1, int(ttl * PREFETCH_SHARE))


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    watch = Watch()
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except StoreError as problem:
            watch.trouble(f"{getattr(work, '__name__', 'work')}: {problem}")
        else:
            watch.well()
