"""What stands before the upstreams: circuit breakers, queries held back by themselves, limits, counts and latencies.

Health belongs to a *target* (an upstream, or the host that a template makes), limits and counts to the upstream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from cachetools import FIFOCache

from keyserver.model import Absent, Failed, Fault, Found, Name, Outcome, Rate
from keyserver.query import Query
from keyserver.resolver.plan import Health, Hold, Question, after, held, rate_of
from keyserver.resolver.ratelimit import Pace
from keyserver.resolver.semaphores import KeyedSemaphore
from keyserver.upstreams.base import Asking, Upstream, nothing_known

TARGETS = 10_000  # hosts of templates whose health is remembered
AT_ONCE = 32  # questions to one upstream
CLIENT_AT_ONCE = 24  # of them of one client network: the other places are for other people
HOST_AT_ONCE = 8  # questions to one host that a template makes
TEMPLATES_AT_ONCE = 64  # questions to hosts made of addresses, all templates together
LATENCIES = 512
HOLDS = 10_000  # queries that failed by themselves
PACES = 4  # rates of one upstream that are kept to
ASKERS = 64  # client networks of one upstream that are remembered, each for LATELY
LATELY = 600.0  # seconds
PAUSED = "not asked, an administrator has paused it"
GRACE = 0.25  # seconds beyond its time, after which an upstream that does not keep it is cut off


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """One upstream as administrators see it. Latencies are milliseconds over the last 512 answers."""

    name: str
    priority: int
    state: str  # closed, open, half-open, paused
    found: int
    absent: int
    failed: int
    p50: float
    p99: float
    last_error: str
    retry_in: float  # seconds until the next probe, 0 when closed
    paused_at: int | None = None  # Unix seconds; None: it is not paused


@dataclass(slots=True)
class _Upstream:
    """The limit and the counts of one upstream."""

    limit: asyncio.Semaphore
    counts: Counter[str]
    latencies: deque[float]
    last_error: str = ""
    shares: KeyedSemaphore = field(default_factory=lambda: KeyedSemaphore(CLIENT_AT_ONCE))
    hosts: KeyedSemaphore = field(default_factory=lambda: KeyedSemaphore(HOST_AT_ONCE))
    askers: FIFOCache[str, float] = field(default_factory=lambda: FIFOCache(ASKERS))  # network -> when
    paces: FIFOCache[Rate, Pace] = field(default_factory=lambda: FIFOCache(PACES))

    def alone(self, client: str, now: float) -> bool:
        """Note that a client asks; has nobody else asked lately?"""
        self.askers[client] = now
        return not any(other != client and now - then < LATELY for other, then in self.askers.items())

    def turn(self, rate: Rate, now: float, most: float) -> float:
        """Seconds until it may be asked at this rate; the turn is taken unless it is further off than `most`."""
        if rate not in self.paces:
            self.paces[rate] = Pace(rate)
        return self.paces[rate].take(now, most)


class CircuitBreaker:
    """Every question to an upstream goes through `ask`."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        observe: Callable[[str, str, float], None] = lambda upstream, outcome, seconds: None,
        paused: Callable[[str], int | None] = lambda upstream: None,
        tell: Callable[[str, Query], None] = lambda upstream, query: None,
        pace: Callable[[str, Outcome, float], None] = lambda upstream, outcome, seconds: None,
    ) -> None:
        """`paused`: since when an upstream is, Unix seconds; `tell` hears what an upstream is told, `pace` in how many
        seconds it answered what."""
        self._monotonic = monotonic
        self._random = random
        self._observe = observe
        self._paused = paused
        self._tell = tell
        self._pace = pace
        self._health: FIFOCache[str, Health] = FIFOCache(TARGETS)
        self._probing: set[str] = set()
        self._holds: FIFOCache[tuple[str, Name], Hold] = FIFOCache(HOLDS)
        self._upstreams: dict[str, _Upstream] = {}
        self._templates = asyncio.Semaphore(TEMPLATES_AT_ONCE)

    async def ask(
        self,
        upstream: Upstream,
        query: Query,
        left: float,
        via: str,
        *,
        client: str = "",
        force: bool = False,
        answered: Callable[[], Awaitable[bool]] = nothing_known,
        silenced: Callable[[], str] = lambda: "",
    ) -> Outcome:
        """Ask once, if health and limits allow; waiting for a free place counts against `left` seconds.

        `client`: the network that asks; `force` asks although the circuit is open or the upstream paused (an
        administrator's test);
        `answered`: see `Asking`; `silenced`: why it may not be told this any more, looked at when the question's turn
        has come, and again when it has ended: one that nobody should ask says nothing of the upstream's health."""
        own = self._own(upstream)
        target = upstream.target(query)
        if not force and (reason := self.barred(upstream, query)):
            return Failed(reason, Fault.LOCAL)
        if self._state(target) == "half-open":
            self._probing.add(target)
        began = self._monotonic()
        alone = own.alone(client, began)
        asked: float | None = None  # seconds that it was given
        try:
            async with asyncio.timeout(left) as limit:
                async with (
                    own.shares.place(client) if client else contextlib.nullcontext(),
                    own.hosts.place(target) if upstream.spec.template else contextlib.nullcontext(),
                    own.limit,
                    self._templates if upstream.spec.template else contextlib.nullcontext(),
                ):
                    time = min(upstream.spec.timeout, left - (self._monotonic() - began))
                    net = asyncio.get_running_loop().time() + time + GRACE
                    if (end := limit.when()) is None or net < end:
                        asked = time
                        limit.reschedule(net)
                    if self.paused(upstream.spec.name) and not force:  # meanwhile
                        return Failed(PAUSED, Fault.LOCAL)
                    if why := silenced():
                        return Failed(f"not asked: {why}", Fault.LOCAL)
                    if (rate := rate_of(upstream.spec, query)) is not None:
                        wait = own.turn(rate, self._monotonic(), time)
                        if wait > time:
                            return Failed(f"not asked: it is asked {rate} at most, next in {wait:.1f} s", Fault.LOCAL)
                        await asyncio.sleep(wait)
                        time -= wait
                    self._tell(upstream.spec.name, query)
                    outcome = await upstream.fetch(query, Asking(time, via, answered))
        except TimeoutError:
            outcome = _late(asked)
        except MemoryError:
            outcome = Failed("no memory here to ask it", Fault.LOCAL)
        finally:
            self._probing.discard(target)
        if silenced():
            return outcome
        self._count(own, upstream.spec.name, outcome, self._monotonic() - began)
        self._judge(target, outcome, Question(query.name, client), alone, upstream.spec.rate is not None)
        return outcome

    def paused(self, upstream: str) -> bool:
        """Has an administrator paused the upstream of this name?"""
        return self._paused(upstream) is not None

    def barred(self, upstream: Upstream, query: Query) -> str:
        """Why this upstream is not asked now; empty where it is."""
        if self.paused(upstream.spec.name):
            return PAUSED
        target = upstream.target(query)
        state = self._state(target)
        if state == "open" or (state == "half-open" and target in self._probing):
            return f"not asked, its circuit is open: {self._health[target].reason}"
        hold = self._holds.get((target, query.name))
        if hold is not None and self._monotonic() < hold.until:
            return f"not asked, it failed {hold.failures} times for this very query"
        return ""

    def _state(self, target: str) -> str:
        return self._health.get(target, Health()).state(self._monotonic())

    def status(self, upstream: Upstream) -> UpstreamStatus:
        """Counts and health now; a template shows its worst host."""
        own, now, name = self._own(upstream), self._monotonic(), upstream.spec.name
        mine = [
            health
            for target, health in self._health.items()
            if target == name or (upstream.spec.template and target.startswith(f"{name}/"))
        ]
        worst = max(mine, key=lambda h: h.closed_until, default=Health())
        ordered, paused = sorted(own.latencies), self._paused(name)
        return UpstreamStatus(
            name=name,
            priority=upstream.spec.priority,
            state=worst.state(now) if paused is None else "paused",
            found=own.counts["found"],
            absent=own.counts["absent"],
            failed=own.counts["failed"],
            p50=_quantile(ordered, 0.5),
            p99=_quantile(ordered, 0.99),
            last_error=own.last_error,
            retry_in=round(max(0.0, worst.closed_until - now), 1),
            paused_at=paused,
        )

    def keep(self, names: Collection[str], anew: Collection[str]) -> None:
        """The upstreams are these now: what is known of others is forgotten. `anew`: those that are reached in another
        way than before, of whose health nothing is known."""
        for gone in [name for name in self._upstreams if name not in names]:
            del self._upstreams[gone]
        stays = frozenset(names) - frozenset(anew)
        for target in [target for target in self._health if target.partition("/")[0] not in stays]:
            del self._health[target]
        for key in [key for key in self._holds if key[0].partition("/")[0] not in stays]:
            del self._holds[key]

    def _own(self, upstream: Upstream) -> _Upstream:
        name = upstream.spec.name
        if name not in self._upstreams:
            self._upstreams[name] = _Upstream(asyncio.Semaphore(AT_ONCE), Counter(), deque(maxlen=LATENCIES))
        return self._upstreams[name]

    def _count(self, own: _Upstream, name: str, outcome: Outcome, seconds: float) -> None:
        word = {Found: "found", Absent: "absent", Failed: "failed"}[type(outcome)]
        own.counts[word] += 1
        own.latencies.append(seconds)
        self._observe(name, word, seconds)
        self._pace(name, outcome, seconds)
        if isinstance(outcome, Failed):
            own.last_error = outcome.reason

    def _judge(self, target: str, outcome: Outcome, by: Question, alone: bool, counted: bool) -> None:
        """What an outcome says of the host, and of the query itself."""
        now = self._monotonic()
        before = self._health.pop(target, Health())
        health = after(before, outcome, now, self._random(), by, alone=alone, counted=counted)
        if health != Health():
            self._health[target] = health
        hold = self._holds.pop((target, by.query), Hold())
        if isinstance(outcome, Failed) and outcome.fault in _ITS_OWN:
            self._holds[target, by.query] = held(hold, outcome, now)
        elif isinstance(outcome, Failed):
            self._holds[target, by.query] = hold
        elif before.trips:  # the host was ill: what failed meanwhile was not its own trouble
            for held_back in [key for key in self._holds if key[0] == target]:
                del self._holds[held_back]


_ITS_OWN = (Fault.TRANSIENT, Fault.CONFIGURATION, Fault.BUSY)
"""Faults that may be the query's own."""


def _late(asked: float | None) -> Failed:
    """The net below an upstream that keeps its own time, or no free place in time."""
    if asked is None:
        return Failed("too many questions to it under way", Fault.LOCAL)
    return Failed(f"no answer within {asked:.1f} s")


def _quantile(ordered: list[float], q: float) -> float:
    """Milliseconds, from sorted seconds."""
    return round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 1) if ordered else 0.0
