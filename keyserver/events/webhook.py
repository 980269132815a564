"""Each event is POSTed once, in order, by the node that leads, until it is taken.

The history is the queue, and a cursor in it says what the receiver has: nothing is lost by a restart, or when another
node takes the lead. Whoever ends between a POST and moving the cursor repeats one event: receivers know its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from keyserver.events.form import body_of, signed
from keyserver.events.posting import Became, Poster, Target
from keyserver.store.base import StoreError
from keyserver.store.history import Event, History

RECEIVER = "webhook"
"""The name of the cursor."""

EVERY = 0.5  # seconds between two looks whether there is an event, whether this node leads, whether all is as it was
BATCH = 100  # events that are read at once
FRESH = 1.0  # seconds after which they are read again: what was forgotten is not sent
FIRST, LONGEST = 1.0, 900.0  # seconds until the next attempt after the first failure, and after the tenth
COUNTED = 10.0  # seconds between two counts of a longer queue
COUNTING = 20  # times what one count takes lie between two at least

log = logging.getLogger("keyserver.events")


@dataclass(frozen=True, slots=True)
class WebhookStatus:
    """How it does on this node. error: why the last attempt failed, empty: it did not; waiting: events not taken yet;
    lost: those that left the history before they were taken, since the start."""

    error: str = ""
    waiting: int = 0
    lost: int = 0


class Webhook:
    """`run` is one task of the composition root."""

    def __init__(
        self,
        history: History,
        poster: Poster,
        *,
        leads: Callable[[], bool],
        told: Callable[[Event], Mapping[str, object]],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        registry: CollectorRegistry,
    ) -> None:
        """leads: does this node do what only one may? told: what is said of an event; random: 0 to 1."""
        self._history = history
        self._poster = poster
        self._leads = leads
        self._told = told
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._target: Target | None = None
        self._changed = asyncio.Event()
        self._after: int | None = None  # the receiver has everything up to there; None: the database is to say
        self._sent = 0  # the last one that this node delivered
        self._moved = True  # the database knows it
        self._counted = (0, 0)  # up to that number so many were waiting
        self._count_again = 0.0  # monotonic
        self._failures = 0
        self._error = ""
        self._lost = 0
        self._deliveries = Counter(
            "keyserver_webhook_deliveries", "POSTs of events, by what became of them", ["outcome"], registry=registry
        )
        self._losses = Counter(
            "keyserver_webhook_lost", "Events that left the history before they were taken", registry=registry
        )
        waiting = Gauge("keyserver_webhook_waiting", "Events not yet taken, where this node sends", registry=registry)
        waiting.set_function(lambda: self.status.waiting)
        for outcome in Became:
            self._deliveries.labels(outcome.value)

    @property
    def status(self) -> WebhookStatus:
        """At this moment."""
        return WebhookStatus(self._error, self._counted[1], self._lost)

    @property
    def target(self) -> Target | None:
        """Where events go now; None: nowhere."""
        return self._target

    def change(self, target: Target | None) -> None:
        """Events go there from now on; None: nowhere, and the cursor stays where it is."""
        if target != self._target:
            self._target, self._failures = target, 0
            self._changed.set()

    async def run(self) -> None:
        """Until cancelled; trouble is reported and tried again."""
        while True:
            self._changed.clear()
            try:
                wait = await self._round()
            except StoreError as problem:
                wait = self._failed(f"the cache database: {problem}")
            except Exception:  # such as an event that only a newer release knows: lookups go on
                log.exception("the webhook")
                wait = self._failed("a mistake of our own; see the log")
            await self._pause(wait)

    def _due(self) -> bool:
        return self._target is not None and self._leads()

    async def _round(self) -> float:
        """Deliver what is there; how long to wait, in seconds."""
        if not self._due():
            self._after, self._counted, self._error, self._failures = None, (0, 0), "", 0
            return EVERY
        after = await self._begin()
        events = await self._history.since(after, BATCH)
        await self._count(after, events)
        read = self._monotonic()
        for event in events:
            if not self._due() or self._changed.is_set() or self._monotonic() - read > FRESH:
                return 0
            if wait := await self._deliver(event):
                return wait
        return EVERY if len(events) < BATCH else 0

    async def _begin(self) -> int:
        """What the receiver has, also where another node has led meanwhile; at the very first it begins with what
        comes."""
        cursor = await self._history.cursor(RECEIVER)
        if cursor is None:
            cursor = await self._history.newest()
            await self._history.move(RECEIVER, cursor)
        after = max(cursor, self._sent)
        if after != self._after:
            self._after, self._counted = after, (after, 0)
        await self._move()
        return after

    async def _deliver(self, event: Event) -> float:
        """POST one event; how long to wait before the next attempt, 0 where it was taken."""
        target = self._target
        assert target is not None
        body = body_of(self._told(event))
        posted = await self._poster.post(target.url, signed(target.secret, event.number, self._clock(), body), body)
        self._deliveries.labels(posted.became.value).inc()
        if posted.became is not Became.DELIVERED:
            return self._failed(posted.why, posted.wait)
        self._well()
        self._after = self._sent = event.number
        self._moved = False
        upto, waiting = self._counted
        self._counted = upto, waiting - (event.number <= upto)
        await self._move()
        return 0

    async def _move(self) -> None:
        if not self._moved:
            await self._history.move(RECEIVER, self._sent)
            self._moved = True

    async def _count(self, after: int, events: Sequence[Event]) -> None:
        """How many wait, and how many of those that did have gone. events: the next ones behind `after`."""
        upto, waiting = self._counted
        if len(events) < BATCH:  # these are all
            self._lose(waiting - sum(event.number <= upto for event in events))
            self._counted = (max(upto, events[-1].number if events else after), len(events))
        elif (began := self._monotonic()) >= self._count_again:
            self._lose(waiting - await self._history.count(after, upto))
            newest = await self._history.newest()
            self._counted = newest, await self._history.count(after, newest)
            took = self._monotonic() - began
            self._count_again = began + max(COUNTED, COUNTING * took)

    def _lose(self, number: int) -> None:
        if number > 0:
            self._lost += number
            self._losses.inc(number)
            log.error("%d events left the history before the webhook took them", number)

    def _failed(self, why: str, asked: int = 0) -> float:
        """How long to wait: longer each time, and never all nodes of the world at once."""
        if why != self._error:
            log.error("the webhook does not take events, they wait: %s", " ".join(why.split()))
        self._error = why
        wait = min(LONGEST, FIRST * 2.0 ** min(self._failures, 20) * (1 + self._random()))
        self._failures += 1
        return max(wait, asked)

    def _well(self) -> None:
        if self._error:
            log.warning("the webhook takes events again")
        self._error, self._failures = "", 0

    async def _pause(self, seconds: float) -> None:
        """So long, unless something else is to be done; what waits is counted meanwhile."""
        until = counted = self._monotonic()
        until += seconds
        while (left := until - self._monotonic()) > 0 and not self._changed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, EVERY)):
                    await self._changed.wait()
            if seconds > EVERY and not self._due():
                return
            if self._after is not None and self._monotonic() - counted >= COUNTED:
                counted = self._monotonic()
                with contextlib.suppress(StoreError):
                    await self._count(self._after, await self._history.since(self._after, BATCH))
