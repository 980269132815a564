"""Tiers, combined outcomes, and what outcomes say of health."""

import asyncio
from dataclasses import replace
from ipaddress import ip_network

from keyserver.listen.trust import Trust
from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.policy import Terms
from keyserver.query import ByAddress, ByFingerprint, Query
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.inflight import InFlight, Search
from keyserver.resolver.plan import (
    HELD_AFTER,
    LONGEST_OBEYED,
    OPENS_AFTER,
    Health,
    Hold,
    Question,
    after,
    asked_for,
    combine,
    held,
    lists,
    tiers_of,
)
from keyserver.resolver.ratelimit import SearchRateLimit
from keyserver.upstreams.base import Asking
from support.upstreams import Told

FOUND = Found((Raw(Kind.OPENPGP, b"x"),))
ABSENT = Absent("no")
FAILED = Failed("down")


def test_combine() -> None:
    assert isinstance(combine({"a": FAILED, "b": FOUND, "c": ABSENT}), Found)
    assert combine({"a": ABSENT, "b": FAILED}) == FAILED
    assert combine({"a": ABSENT}) == ABSENT
    both = combine({"a": ABSENT, "b": Absent("loop", remember=False)})
    assert isinstance(both, Absent)
    assert not both.remember


def test_the_optional_may_fail_where_another_has_spoken() -> None:
    outcome = combine({"a": ABSENT, "b": FAILED}, {"b"})
    assert outcome == Absent("no, without the word of b", remember=False)
    assert combine({"b": FAILED}, {"b"}) == FAILED  # nobody has spoken
    required = Failed("required")
    assert combine({"a": required, "b": FAILED, "c": ABSENT}, {"b"}) == required
    assert isinstance(combine({"a": FOUND, "b": FAILED}, {"b"}), Found)


def test_tiers_by_priority_and_who_is_left_out() -> None:
    specs = [UpstreamSpec("c", 20), UpstreamSpec("a", 10), UpstreamSpec("b", 10), UpstreamSpec("t", 1, template=True)]
    tiers = tiers_of(specs, ByFingerprint("AA" * 20), Terms())
    assert [[s.name for s in tier] for tier in tiers.tiers] == [["a", "b"], ["c"]]
    assert list(tiers.left_out) == ["t"]
    assert tiers_of(specs, ByAddress("a", "x.org"), Terms()).tiers[0][0].name == "t"


def failing(health: Health, now: float, *names: str, client: str = "x", alone: bool = True) -> Health:
    for name in names:
        health = after(health, FAILED, now, 0.5, Question(name, client), alone=alone)
    return health


DOWN = [f"q{n}" for n in range(OPENS_AFTER)]


def test_the_circuit_opens_after_different_queries_failed_and_backs_off() -> None:
    health, now = failing(Health(), 0.0, *DOWN[:-1]), 0.0
    assert health.state(now) == "closed"
    pauses = []
    for _ in range(12):
        health = failing(health, now, DOWN[-1])
        assert health.state(now) == "open"
        assert failing(health, now, "more", "and more") == replace(health, suspects=health.suspects + MORE), "told once"
        pauses.append(health.closed_until - now)
        now = health.closed_until
        assert health.state(now) == "half-open"
    assert pauses == sorted(pauses)
    assert pauses[1] == 2 * pauses[0]
    assert pauses[-1] == 300
    assert after(health, ABSENT, now, 0.5, Question("q"), alone=True) == Health()


MORE = (Question("more", "x"), Question("and more", "x"))


def test_one_query_opens_nothing_however_often_it_fails() -> None:
    assert failing(Health(), 0.0, *["poison"] * 100).state(0.0) == "closed"


def test_one_client_opens_nothing_where_there_are_two() -> None:
    names = [f"q{n}" for n in range(50)]
    health = failing(Health(), 0.0, *names, alone=False)
    assert health.state(0.0) == "closed"
    assert len(health.suspects) <= 16
    assert failing(health, 0.0, "other", client="y", alone=False).state(0.0) == "open"
    assert failing(Health(), 0.0, *names).state(0.0) == "open", "nobody else asks"


def test_what_somebody_has_to_mend_closes_for_long_but_not_by_one_query() -> None:
    denied = Failed("403", Fault.CONFIGURATION)
    health = after(Health(), denied, 0.0, 0.5, Question("poison"), alone=True)
    assert health.state(0.0) == "closed"
    assert after(health, denied, 0.0, 0.5, Question("other"), alone=True).closed_until == 600


def test_a_query_that_fails_by_itself_is_held_back_by_itself() -> None:
    hold, now = Hold(), 100.0
    for _ in range(HELD_AFTER - 1):
        hold = held(hold, FAILED, now)
        assert hold.until <= now
    pauses = [(hold := held(hold, FAILED, now)).until - now for _ in range(8)]
    assert pauses[0] == 5 and pauses == sorted(pauses) and pauses[-1] == 60


def test_jitter_spreads_probes() -> None:
    broken = failing(Health(), 0, *DOWN[:-1])
    last = Question(DOWN[-1], "x")
    early, late = (after(broken, FAILED, 0, jitter, last, alone=True) for jitter in (0.0, 1.0))
    assert early.closed_until < late.closed_until


def test_retry_after_is_obeyed_up_to_an_hour() -> None:
    def until(outcome: Failed) -> float:
        one = after(Health(), outcome, 0, 0.5, Question("poison"), alone=True)
        assert one.state(0) == "closed", "one query is held back by itself"
        assert held(Hold(), outcome, 0).until == after(one, outcome, 0, 0.5, Question("q"), alone=True).closed_until
        return after(one, outcome, 0, 0.5, Question("q"), alone=True).closed_until

    assert until(Failed("429", Fault.BUSY, 120.0)) == 120
    assert until(Failed("429", Fault.BUSY, 1e9)) == LONGEST_OBEYED
    assert until(Failed("429", Fault.BUSY)) == 60


def test_our_own_limits_are_not_the_upstreams_fault() -> None:
    health = failing(Health(), 0, "a")
    assert after(health, Failed("full", Fault.LOCAL), 0, 0.5, Question("b"), alone=True) == health


def upstream(outcome: Outcome, delay: float = 0.0, **spec: object) -> Told:
    return Told(UpstreamSpec("peer", **spec), otherwise=outcome, delay=delay)  # type: ignore[arg-type]


ASK = ByFingerprint("AA" * 20)
OTHERS = [ByFingerprint(f"{n:02X}" * 20) for n in range(OPENS_AFTER)]


async def test_an_open_circuit_is_not_asked_and_one_probe_closes_it() -> None:
    now = 100.0
    circuit = CircuitBreaker(lambda: now, lambda: 0.5)
    peer = upstream(FAILED)
    for query in OTHERS:
        await circuit.ask(peer, query, 1, "via")
    assert circuit.status(peer).state == "open"
    refused = await circuit.ask(peer, ASK, 1, "via")
    assert isinstance(refused, Failed)
    assert "circuit" in refused.reason
    assert len(peer.asked) == OPENS_AFTER
    now += 10
    assert circuit.status(peer).state == "half-open"
    peer.otherwise, peer.delay = ABSENT, 0.05
    several = await asyncio.gather(*(circuit.ask(peer, ASK, 1, "via") for _ in range(5)))
    assert sum(isinstance(o, Absent) for o in several) == 1, "one probe only"
    assert circuit.status(peer).state == "closed"
    assert circuit.status(peer).absent == 1


async def test_a_forced_question_passes_an_open_circuit() -> None:
    circuit = CircuitBreaker(lambda: 100.0, lambda: 0.5)
    peer = upstream(Failed("no", Fault.CONFIGURATION))
    for query in OTHERS:
        await circuit.ask(peer, query, 1, "via")
    peer.otherwise = ABSENT
    assert isinstance(await circuit.ask(peer, ASK, 1, "via"), Failed)
    assert isinstance(await circuit.ask(peer, ASK, 1, "via", force=True), Absent)


async def test_a_poisoned_query_is_held_back_and_the_others_are_asked() -> None:
    now = 100.0
    circuit = CircuitBreaker(lambda: now, lambda: 0.5)
    peer = upstream(FAILED)
    for _ in range(20):
        await circuit.ask(peer, ASK, 1, "via", client="mallory")
    assert len(peer.asked) == HELD_AFTER
    refused = await circuit.ask(peer, ASK, 1, "via")
    assert isinstance(refused, Failed) and refused.fault is Fault.LOCAL and "this very query" in refused.reason
    peer.otherwise = ABSENT
    assert isinstance(await circuit.ask(peer, OTHERS[0], 1, "via"), Absent)
    now += 5
    assert isinstance(await circuit.ask(peer, ASK, 1, "via"), Absent), "asked again by and by"


async def test_an_ill_host_that_recovers_leaves_no_query_held_back() -> None:
    now = 100.0
    circuit = CircuitBreaker(lambda: now, lambda: 0.5)
    peer = upstream(FAILED)
    for query in OTHERS * HELD_AFTER:
        await circuit.ask(peer, query, 1, "via", force=True)
    now += 301
    peer.otherwise = ABSENT
    assert isinstance(await circuit.ask(peer, ASK, 1, "via"), Absent)
    assert all([isinstance(await circuit.ask(peer, query, 1, "via"), Absent) for query in OTHERS])


async def test_no_memory_here_is_nobodys_illness() -> None:
    circuit = CircuitBreaker(lambda: 100.0, lambda: 0.5)
    peer = upstream(ABSENT)

    async def fetch(query: Query, asking: Asking) -> Outcome:
        raise MemoryError

    peer.fetch = fetch  # type: ignore[method-assign]
    for query in OTHERS:
        outcome = await circuit.ask(peer, query, 1, "via")
        assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL
    assert circuit.status(peer).state == "closed"


async def test_questions_at_once_are_limited_and_waiting_counts() -> None:
    circuit = CircuitBreaker(asyncio.get_running_loop().time, lambda: 0.5)
    peer = upstream(ABSENT, delay=0.02)
    outcomes = await asyncio.gather(*(circuit.ask(peer, ASK, 2, "via") for _ in range(100)))
    assert all(isinstance(o, Absent) for o in outcomes)
    assert peer.most_at_once == 32


async def test_an_upstream_that_ignores_its_time_is_cut_off() -> None:
    circuit = CircuitBreaker(asyncio.get_running_loop().time, lambda: 0.5)
    outcome = await circuit.ask(upstream(ABSENT, delay=30, timeout=0.05), ASK, 5, "via")
    assert isinstance(outcome, Failed)
    assert "no answer within" in outcome.reason


def test_misses_are_limited_by_network_and_trusted_ones_left_alone() -> None:
    now = 0.0
    limit = SearchRateLimit(60, Trust([ip_network("10.0.0.0/8")]), lambda: now)
    assert sum(limit.take(f"192.0.2.{n}") for n in range(100)) == 60
    assert limit.take("198.51.100.1")
    assert all(limit.take("10.1.2.3") for _ in range(100))
    assert all(limit.take(None) for _ in range(100))
    assert not limit.take("::ffff:192.0.2.9")
    assert sum(limit.take(f"2001:db8::{n:x}") for n in range(100)) == 60
    now = 30.0
    assert sum(limit.take("192.0.2.1") for n in range(100)) == 30


async def test_a_search_leaves_the_register_even_when_it_breaks() -> None:
    asked = InFlight(10)

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


def test_an_address_is_listed_where_its_domain_is() -> None:
    spec = UpstreamSpec("a", domains=("x.example", "*.y.example"))
    assert lists(spec, ByAddress("a", "x.example"))
    assert lists(spec, ByAddress("a", "z.y.example"))
    assert not lists(spec, ByAddress("a", "y.example"))
    assert not lists(spec, ByFingerprint("AA" * 20))
    assert not lists(UpstreamSpec("b"), ByAddress("a", "x.example"))


def test_pauses_that_are_asked_for_and_holds_have_their_bounds() -> None:
    assert [asked_for(Failed("busy", Fault.BUSY, after)) for after in (None, 0.5, 1.5, 10**9)] == [
        60.0, 1.0, 1.5, LONGEST_OBEYED,
    ]  # fmt: skip
    assert held(Hold(4), Failed("busy", Fault.BUSY, 7.0), 100.0) == Hold(5, 107.0)
    times = [held(Hold(failures), FAILED, 100.0).until for failures in range(HELD_AFTER - 1, HELD_AFTER + 5)]
    assert times == [105.0, 110.0, 120.0, 140.0, 160.0, 160.0]
