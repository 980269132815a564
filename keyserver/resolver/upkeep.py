"""Background work of the cache, bounded: purge what has expired, search again what is asked for or lasts, notice other
nodes.

Of nodes that share a cache the one that leads purges, erases and searches again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from cachetools import FIFOCache

from keyserver.clocks import Clocks
from keyserver.model import Name
from keyserver.policy import absent_before, due_before, is_due, prefetch_interval, purged_before
from keyserver.query import from_name
from keyserver.resolver.membership import BEAT_EVERY, WATCH_EVERY, Membership
from keyserver.resolver.renewing import Renewing
from keyserver.resolver.reported import Reported
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.resolver.settings import settings_document
from keyserver.rules import InForce
from keyserver.store.base import Store, StoreError

PURGE_BATCH = 200  # entries in one transaction
BETWEEN_BATCHES = 0.02  # seconds that lookups have the store to themselves
INDEX_BATCH = 1000  # entries whose texts are indexed in one transaction
INDEX_EVERY = 2.0  # seconds; what is not yet indexed, listings look at one by one
PREFETCH_BATCH = 64
PREFETCH_AT_ONCE = 4
MOST_TRIED = 10_000  # names whose last prefetch is remembered
FLUSH_EVERY = 5.0  # seconds: when names were last asked for, which upstreams failed, by which settings we go
TIDY_EVERY = 10.0  # seconds: the history's bounds
TIDY_BATCH = 500  # rows of the history in one transaction
ERASE_EVERY = 30.0  # seconds: what can not be undone any more
KEEP_EVERY = 60.0  # seconds: what upstreams were told
RENEW_EVERY = 10.0  # seconds: local and mailflow certificates whose turn has come
POLL_EVERY = 0.5  # seconds: changes by other processes; only the safety net behind events

log = logging.getLogger("keyserver.upkeep")


class Upkeep:
    """The loops; `run` is one task of the composition root."""

    def __init__(
        self,
        store: Store,
        resolver: Resolver,
        rules: InForce[Rules],
        membership: Membership,
        clocks: Clocks,
        renewing: Renewing,
        *,
        asked: Callable[[], Awaitable[None]] | None = None,
        notes: Sequence[Callable[[], Awaitable[object]]] = (),
    ) -> None:
        """membership: says whether this node does what only one may; `asked` makes whoever answers from memory report
        what was asked for (`Resolver.note_asked`); `notes` write down what else was gathered, after it."""
        self._store = store
        self._resolver = resolver
        self._rules = rules
        self._clocks = clocks
        self._renewing = renewing
        self._replaced = asyncio.Event()
        self._asked = asked
        self._notes = notes
        self._tried: FIFOCache[Name, int] = FIFOCache(MOST_TRIED)  # when they were searched again last
        self._noted: Rules | None = None  # those whose settings the history has from us
        self.membership = membership
        self.clockwatch = membership.clockwatch

    async def run(self) -> None:
        """Until cancelled; a store in trouble is reported and tried again."""
        await self.begin()
        async with asyncio.TaskGroup() as group:
            if self.membership.shared:
                group.create_task(self._every(lambda: BEAT_EVERY, self.membership.beat))
                group.create_task(self._every(lambda: WATCH_EVERY, self.membership.watch))
            group.create_task(self._every(lambda: BEAT_EVERY, self._resolver.know_blocks))
            group.create_task(self._every(lambda: self._rules().purge_interval, self.purge))
            group.create_task(self._every(lambda: ERASE_EVERY, self.erase_undos))
            group.create_task(self._every(lambda: FLUSH_EVERY, self.flush))
            group.create_task(self._every(lambda: FLUSH_EVERY, self._resolver.keep_failures))
            group.create_task(self._every(lambda: FLUSH_EVERY, self.note_settings))
            for note in self._notes:
                group.create_task(self._every(lambda: FLUSH_EVERY, note))
            group.create_task(self._every(lambda: TIDY_EVERY, self.tidy))
            group.create_task(self._every(lambda: KEEP_EVERY, self._resolver.keep_told))
            group.create_task(self._every(lambda: POLL_EVERY, self.poll))
            group.create_task(self._store.cluster.listen(self._caught_up))
            group.create_task(self._every(lambda: INDEX_EVERY, self.index))
            group.create_task(self._every(lambda: prefetch_interval(self._rules().terms), self.prefetch))
            group.create_task(self._every(lambda: RENEW_EVERY, self.renew))

    def rules_replaced(self) -> None:
        """Other rules hold from now on: intervals begun go by them, too."""
        self._replaced.set()
        self._replaced = asyncio.Event()

    async def begin(self) -> None:
        """What `run` does first: say at once what is wrong with the store, or the clock, that we begin with."""
        try:
            await self.membership.beat()
            await self._resolver.know_blocks()
            await self.note_settings()
            healthy = (await self._store.stats()).healthy
            self.clockwatch.newest(await self._store.newest(), self._clocks.now(), self._clocks.counting())
        except StoreError as problem:
            healthy = str(problem)
        if healthy:
            log.error("the cache is not healthy: %s", healthy)

    async def poll(self) -> None:
        """Notice what other processes changed, and whether the clock has jumped."""
        self._look()
        asked = self._clocks.counting()  # what is answered may be as old
        await self._store.poll()
        self.membership.caught_up(asked)

    def _caught_up(self, ago: float) -> None:
        self.membership.caught_up(self._clocks.counting() - ago)

    async def purge_now(self) -> int:
        """An administrator's word: delete what has expired by the clock as it is."""
        self._look()
        self.clockwatch.trust()
        return await self._purge(self._clocks.now())

    async def purge(self) -> int:
        """Delete what has expired, in small batches; how many rows. Expiry is judged at lookup: this only tidies, where
        this node leads, and waits while the clock cannot be believed."""
        return await self._purge(self._clocks.now()) if self._tidies() else 0

    def _look(self) -> bool:
        """It is the machine's clock that is watched: what it says is still compared with the database's."""
        return self.clockwatch.look(self._clocks.own(), self._clocks.counting())

    def _tidies(self) -> bool:
        return self._look() and self.membership.leads

    async def _purge(self, now: int) -> int:
        await self._resolver.remember()  # of what is gone, nobody may say any more that it answered
        total = 0
        while True:
            with self._rules.acting() as rules:
                cutoffs, absent = purged_before(now, rules.terms), absent_before(now, rules.terms)
                gone = await self._store.purge_expired(cutoffs, absent, PURGE_BATCH, now)
            total += gone
            if gone < PURGE_BATCH:
                return total
            await asyncio.sleep(BETWEEN_BATCHES)

    async def note_settings(self) -> None:
        """Tell the history by which settings answers are made, where this node leads and has not said so yet.

        Of nodes that share a cache it is the leader's that are on record: they agree, but for the time of a change."""
        rules = self._rules()
        if not self.membership.leads:
            self._noted = None
        elif rules is not self._noted:
            await self._store.history.settings(settings_document(rules), self._clocks.now())
            self._noted = rules

    async def tidy(self) -> int:
        """Let go of what lies outside the history's bounds, as `purge` does; how many rows."""
        total = 0
        while self._tidies() and (gone := await self._store.history.tidy(self._clocks.now(), TIDY_BATCH)):
            total += gone
            await asyncio.sleep(BETWEEN_BATCHES)
        return total

    async def index(self) -> None:
        """Let listings find by text what was cached since, in batches."""
        while True:
            if not await self._store.index_text(INDEX_BATCH):
                return
            await asyncio.sleep(BETWEEN_BATCHES)

    async def erase_undos(self) -> int:
        """Erase deleted entries whose time to be undone is over, as `purge` does; how many."""
        return await self._store.erase_undos(self._clocks.now()) if self._tidies() else 0

    async def flush(self) -> None:
        """Write down which names were asked for lately (prefetch and rendering ahead go by it), and what answered."""
        if self._asked is not None:
            await self._asked()
        asked = self._resolver.take_asked()
        if asked:
            await self._store.touch(asked)
        await self._resolver.remember()

    async def prefetch(self) -> int:
        """Search again what was asked for within its ttl and is about to expire; how many searches.

        A search that finds nothing leaves the entry until its time runs out."""
        if not self._rules().prefetch or not self.membership.leads:
            return 0
        await self.flush()
        now, terms = self._clocks.now(), self._rules().terms
        ripe = await self._store.due(due_before(now, terms), PREFETCH_BATCH)
        due = dict.fromkeys(r.name for r in ripe if is_due(r, self._tried.get(r.name, 0), now, terms))
        self._tried.update(dict.fromkeys(due, now))
        free = asyncio.Semaphore(PREFETCH_AT_ONCE)

        async def again(name: Name) -> None:
            async with free:
                await self._resolver.refresh(from_name(name))

        await asyncio.gather(*map(again, due))
        return len(due)

    async def renew(self) -> int:
        """Ask for what no lookup asks for again, where its turn has come; for how many certificates."""
        return await self._renewing.run() if self._tidies() else 0

    async def _every(self, seconds: Callable[[], float], work: Callable[[], Awaitable[object]]) -> None:
        watch, loop = Reported(), asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(0)
            while (left := began + seconds() - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._replaced.wait()
            try:
                await work()
            except StoreError as problem:
                watch.trouble(f"{getattr(work, '__name__', 'work')}: {problem}")
            else:
                watch.well()
