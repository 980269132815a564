"""Tiers, combined outcomes, and what outcomes say of health."""

import asyncio
from ipaddress import ip_network

from keyserver.listen.trust import Trust
from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.policy import Terms
from keyserver.query import ByAddress, ByFingerprint, Query
from keyserver.resolver.asked import Asked, MissLimit, Search
from keyserver.resolver.gate import Gate
from keyserver.resolver.plan import LONGEST_OBEYED, OPENS_AFTER, Health, after, combine, tiers_of
from keyserver.upstreams.base import Asking

FOUND = Found((Raw(Kind.OPENPGP, b"x"),))
ABSENT = Absent("no")
FAILED = Failed("down")


def test_combine() -> None:
    assert isinstance(combine([FAILED, FOUND, ABSENT]), Found)
    assert combine([ABSENT, FAILED]) == FAILED
    assert combine([ABSENT]) == ABSENT
    both = combine([ABSENT, Absent("loop", remember=False)])
    assert isinstance(both, Absent)
    assert not both.remember


def test_tiers_by_priority_and_who_is_left_out() -> None:
    specs = [UpstreamSpec("c", 20), UpstreamSpec("a", 10), UpstreamSpec("b", 10), UpstreamSpec("t", 1, template=True)]
    tiers = tiers_of(specs, ByFingerprint("AA" * 20), Terms())
    assert [[s.name for s in tier] for tier in tiers.tiers] == [["a", "b"], ["c"]]
    assert list(tiers.left_out) == ["t"]
    assert tiers_of(specs, ByAddress("a", "x.org"), Terms()).tiers[0][0].name == "t"


def test_the_circuit_opens_after_repeated_failures_and_backs_off() -> None:
    health, now = Health(), 0.0
    for _ in range(OPENS_AFTER - 1):
        health = after(health, FAILED, now, 0.5)
        assert health.state(now) == "closed"
    pauses = []
    for _ in range(12):
        health = after(health, FAILED, now, 0.5)
        assert health.state(now) == "open"
        pauses.append(health.closed_until - now)
        now = health.closed_until
        assert health.state(now) == "half-open"
    assert pauses == sorted(pauses)
    assert pauses[1] == 2 * pauses[0]
    assert pauses[-1] == 300
    assert after(health, ABSENT, now, 0.5) == Health()


def test_jitter_spreads_probes() -> None:
    broken = Health(failures=OPENS_AFTER)
    assert after(broken, FAILED, 0, 0.0).closed_until < after(broken, FAILED, 0, 1.0).closed_until


def test_retry_after_is_obeyed_up_to_an_hour() -> None:
    assert after(Health(), Failed("429", Fault.BUSY, 120.0), 0, 0.5).closed_until == 120
    assert after(Health(), Failed("429", Fault.BUSY, 1e9), 0, 0.5).closed_until == LONGEST_OBEYED
    assert after(Health(), Failed("429", Fault.BUSY), 0, 0.5).closed_until == 60


def test_our_own_limits_are_not_the_upstreams_fault() -> None:
    assert after(Health(failures=2), Failed("full", Fault.LOCAL), 0, 0.5) == Health(failures=2)


class Peer:
    def __init__(self, outcome: Outcome, delay: float = 0.0, **spec: object) -> None:
        self.spec = UpstreamSpec("peer", **spec)  # type: ignore[arg-type]
        self.outcome = outcome
        self.delay = delay
        self.calls = self.now = self.most = 0

    def target(self, query: Query) -> str:
        return "peer"

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.now -= 1
        return self.outcome

    async def close(self) -> None: ...


ASK = ByFingerprint("AA" * 20)


async def test_an_open_circuit_is_not_asked_and_one_probe_closes_it() -> None:
    now = 100.0
    gate = Gate(lambda: now, lambda: 0.5)
    peer = Peer(FAILED)
    for _ in range(OPENS_AFTER):
        await gate.ask(peer, ASK, 1, "via")
    assert gate.status(peer).state == "open"
    refused = await gate.ask(peer, ASK, 1, "via")
    assert isinstance(refused, Failed)
    assert "circuit" in refused.reason
    assert peer.calls == OPENS_AFTER
    now += 10
    assert gate.status(peer).state == "half-open"
    peer.outcome, peer.delay = ABSENT, 0.05
    several = await asyncio.gather(*(gate.ask(peer, ASK, 1, "via") for _ in range(5)))
    assert sum(isinstance(o, Absent) for o in several) == 1, "one probe only"
    assert gate.status(peer).state == "closed"
    assert gate.status(peer).absent == 1


async def test_a_forced_question_passes_an_open_circuit() -> None:
    gate = Gate(lambda: 100.0, lambda: 0.5)
    peer = Peer(Failed("no", Fault.CONFIGURATION))
    await gate.ask(peer, ASK, 1, "via")
    peer.outcome = ABSENT
    assert isinstance(await gate.ask(peer, ASK, 1, "via", force=True), Absent)


async def test_questions_at_once_are_limited_and_waiting_counts() -> None:
    gate = Gate(asyncio.get_running_loop().time, lambda: 0.5)
    peer = Peer(ABSENT, delay=0.02)
    outcomes = await asyncio.gather(*(gate.ask(peer, ASK, 2, "via") for _ in range(100)))
    assert all(isinstance(o, Absent) for o in outcomes)
    assert peer.most == 32


async def test_an_upstream_that_ignores_its_time_is_cut_off() -> None:
    gate = Gate(asyncio.get_running_loop().time, lambda: 0.5)
    outcome = await gate.ask(Peer(ABSENT, delay=30, timeout=0.05), ASK, 5, "via")
    assert isinstance(outcome, Failed)
    assert "no answer within" in outcome.reason


def test_misses_are_limited_by_network_and_trusted_ones_left_alone() -> None:
    now = 0.0
    limit = MissLimit(60, Trust([ip_network("10.0.0.0/8")]), lambda: now)
    assert sum(limit.take(f"192.0.2.{n}") for n in range(100)) == 60
    assert limit.take("198.51.100.1")
    assert all(limit.take("10.1.2.3") for _ in range(100))
    assert all(limit.take(None) for _ in range(100))
    assert not limit.take("::ffff:192.0.2.9")
    assert sum(limit.take(f"2001:db8::{n:x}") for n in range(100)) == 60
    now = 30.0
    assert sum(limit.take("192.0.2.1") for n in range(100)) == 30


async def test_a_search_leaves_the_register_even_when_it_breaks() -> None:
    asked = Asked(10)

    async def broken(search: Search) -> None:
        raise RuntimeError("a programming error")

    loop = asyncio.get_running_loop()
    problems: list[object] = []
    loop.set_exception_handler(lambda loop, context: problems.append(context["exception"]))
    search = asked.start("key", Search(ASK, 0), broken)
    await search.settled.wait()
    assert asked.under_way("key") is None
    assert len(asked) == 0
    await asked.close()
