"""Upstreams that need not speak, that are asked so often at most, and that send what only updates."""

from __future__ import annotations

import asyncio

from keyserver.model import Absent, Failed, Fault, Found, How, Kind, Rate, Raw, State, View
from keyserver.query import parse
from keyserver.resolver.missing import BELIEVED
from support.openpgp import make
from support.resolving import Ground, sends

ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")
NAMELESS = make([], seed="alice")
DOWN = Failed("it is down")


async def test_an_absence_without_the_word_of_an_optional_one_holds_for_a_minute(ground: Ground) -> None:
    must, may = ground.peer("must"), ground.peer("may", required=False)
    may.otherwise = DOWN
    resolver = ground.resolver()
    first = await resolver.lookup(parse(ALICE), View())
    assert (first.state, first.how) == (State.ABSENT, How.MISS)
    assert "without the word of may" in first.reason
    assert (first.keep, first.until) == (True, ground.now + BELIEVED)
    assert ("may", "failed") in [(s.who, s.what) for s in first.steps]
    assert await ground.records(ALICE) == {"must": False}, "a failure is no word"
    ground.now += BELIEVED - 1
    again = await resolver.lookup(parse(ALICE), View())
    assert (again.state, again.how, len(may.asked)) == (State.ABSENT, How.HIT, 1)
    assert any("without the word of may" in s.why for s in again.steps)
    ground.now += 1
    may.otherwise = sends(BY_ALICE)
    found = await resolver.lookup(parse(ALICE), View())
    assert (found.state, len(may.asked), len(must.asked)) == (State.FOUND, 2, 1)


async def test_it_fails_where_nobody_else_has_spoken_or_where_one_that_must_fails_too(ground: Ground) -> None:
    ground.peer("may", required=False).otherwise = DOWN
    resolver = ground.resolver()
    assert (await resolver.lookup(parse(ALICE), View())).state is State.FAILED
    must = ground.peer("must")
    must.otherwise = DOWN
    answer = await resolver.lookup(parse(ALICE), View())
    assert (answer.state, answer.keep) == (State.FAILED, False)
    must.otherwise = Absent("no")
    assert (await resolver.lookup(parse(ALICE), View())).state is State.ABSENT


async def test_an_optional_one_that_is_too_slow_is_missed(ground: Ground) -> None:
    ground.peer("must")
    ground.peer("may", required=False).open.clear()
    ground.change(deadline=0.2)
    answer = await ground.resolver().lookup(parse(ALICE), View())
    assert (answer.state, answer.keep) == (State.ABSENT, False)
    assert "without the word of may" in answer.reason


async def test_what_an_optional_one_found_is_an_answer_like_any_other(ground: Ground) -> None:
    ground.peer("must").otherwise = DOWN
    ground.peer("may", required=False).otherwise = sends(BY_ALICE)
    assert (await ground.resolver().lookup(parse(ALICE), View())).state is State.FOUND


async def test_no_more_questions_than_its_rate_whatever_the_load(ground: Ground) -> None:
    ground.peer("must")
    may = ground.peer("may", required=False, rate=Rate(2, 60), id_rate=Rate(5, 1))
    resolver = ground.resolver(misses=1000)
    answers = [await resolver.lookup(parse(f"a{n}@example.org"), View()) for n in range(20)]
    assert len(may.asked) == 2
    assert {a.state for a in answers} == {State.ABSENT}
    assert any("2/min at most" in s.why for s in answers[-1].steps)
    assert [a.keep for a in answers] == [True] * 20


async def test_what_its_rate_admits_within_the_deadline_waits(ground: Ground) -> None:
    peer = ground.peer("a", rate=Rate(1, 60), id_rate=Rate(2, 1))
    resolver = ground.resolver(misses=1000)
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(resolver.lookup(parse(f"{n:040X}"), View()) for n in range(4)))
    assert {a.state for a in answers} == {State.ABSENT}
    assert len(peer.asked) == 4
    assert 0.9 < asyncio.get_running_loop().time() - began < 2


async def test_what_must_wait_past_its_time_has_failed_and_is_not_absent(ground: Ground) -> None:
    peer = ground.peer("a", rate=Rate(1, 60))
    resolver = ground.resolver()
    assert (await resolver.lookup(parse(ALICE), View())).state is State.ABSENT
    late = await resolver.lookup(parse("bob@example.org"), View())
    assert (late.state, len(peer.asked)) == (State.FAILED, 1)
    assert resolver.statuses()[0].state == "closed", "our own limit says nothing of its health"


async def test_one_that_says_how_often_it_is_asked_is_left_alone_at_its_first_429(ground: Ground) -> None:
    peer = ground.peer("a", rate=Rate(100, 1))
    peer.otherwise = Failed("it asks for a pause", Fault.BUSY, 30.0)
    resolver = ground.resolver()
    for n in range(3):
        answer = await resolver.lookup(parse(f"a{n}@example.org"), View(), client=f"192.0.{n}.1")
        assert answer.state is State.FAILED
    assert len(peer.asked) == 1


async def test_what_has_no_user_id_only_updates_where_its_upstream_is_such(ground: Ground) -> None:
    vks = ground.peer("vks", nameless=False)
    vks.otherwise = Found((Raw(Kind.OPENPGP, NAMELESS.octets),), method="vks")
    resolver = ground.resolver()
    alone = await resolver.lookup(parse(BY_ALICE.fingerprint), View())
    assert alone.state is State.ABSENT
    assert not (await ground.store.look(parse(BY_ALICE.fingerprint).name)).entries
    other = ground.peer("hkp", priority=20)
    other.otherwise = sends(BY_ALICE)
    ground.now += 1000
    answer = await resolver.lookup(parse(BY_ALICE.fingerprint), View())
    assert [e.origin for e in answer.certificates[0].entries] == ["hkp"]
    await resolver.refresh(parse(BY_ALICE.fingerprint))
    entries = (await ground.store.look(parse(BY_ALICE.fingerprint).name)).entries
    assert {e.origin for e in entries} == {"hkp", "vks"}


async def test_the_method_is_in_the_trace_and_kept_with_the_entry(ground: Ground) -> None:
    ground.peer("a").otherwise = Found((Raw(Kind.OPENPGP, BY_ALICE.octets),), method="wkd direct example.org")
    answer = await ground.resolver().lookup(parse(ALICE), View())
    assert any(s.what == "found" and "wkd direct example.org" in s.why for s in answer.steps)
    assert (await ground.store.look(parse(ALICE).name)).entries[0].detail == "wkd direct example.org"
