"""Lookups from top to bottom: who searches, who joins, who is refused, and how long anybody waits."""

from __future__ import annotations

import asyncio

import pytest

from keyserver.model import Failed, How, Source, State, Step, View
from keyserver.query import parse
from keyserver.resolver.failures import MOST, Failures
from keyserver.resolver.lookup import CLOCK_SET
from keyserver.resolver.resolver import Resolver
from keyserver.store.history import WHO, Word
from support.openpgp import make
from support.resolving import NOW, Ground, sends, until

ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")
STRANGER = "192.0.2.1"


def resolver_of(ground: Ground, *, misses: int = 100, **rules: float) -> Resolver:
    ground.change(**rules)
    return ground.resolver(misses)


async def test_a_miss_a_hit_and_who_was_asked_for(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    resolver = resolver_of(ground)
    query = parse(ALICE)
    first = await resolver.lookup(query, View())
    assert (first.state, first.how) == (State.FOUND, How.MISS)
    assert resolver.take_asked() == {}, "only what the cache answered"
    second = await resolver.lookup(query, View())
    assert (second.state, second.how) == (State.FOUND, How.HIT)
    assert len(peer.asked) == 1
    assert resolver.take_asked() == {query.name: NOW}
    for how in (How.MISS, How.HIT):
        nobody = await resolver.lookup(parse("nobody@example.org"), View())
        assert (nobody.state, nobody.how) == (State.ABSENT, how)
    assert resolver.take_asked() == {}, "an absence is not kept fresh"


async def test_those_who_ask_the_same_share_one_search_and_each_has_its_own_view(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.open.clear()
    resolver = resolver_of(ground)
    heard: list[Step] = []
    lookups = [asyncio.ensure_future(resolver.lookup(parse(ALICE), View(), hear=heard.append)) for _ in range(20)]
    await until(lambda: peer.asked and sum(step.what == "joined" for step in heard) == 19)
    peer.open.set()
    answers = await asyncio.gather(*lookups)
    assert len(peer.asked) == 1
    assert {a.state for a in answers} == {State.ABSENT}
    assert sum(any(s.what == "joined" for s in a.steps) for a in answers) == 19


async def test_a_search_is_not_joined_across_a_delete_nor_from_another_frontend(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.open.clear()
    resolver = resolver_of(ground)
    lookups = [asyncio.ensure_future(resolver.lookup(parse(ALICE), View()))]
    await until(lambda: peer.asked)
    lookups.append(asyncio.ensure_future(resolver.lookup(parse(ALICE), View(), via="there")))
    await until(lambda: len(peer.asked) == 2)
    await ground.store.delete(BY_ALICE.fingerprint, NOW)
    lookups.append(asyncio.ensure_future(resolver.lookup(parse(ALICE), View())))
    await until(lambda: len(peer.asked) == 3)
    peer.open.set()
    await asyncio.gather(*lookups)


async def test_a_client_that_leaves_takes_nothing_from_the_others(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    peer.open.clear()
    resolver = resolver_of(ground)
    leaves = asyncio.ensure_future(resolver.lookup(parse(ALICE), View()))
    stays = asyncio.ensure_future(resolver.lookup(parse(ALICE), View()))
    await until(lambda: peer.asked)
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    peer.open.set()
    assert (await stays).state is State.FOUND


async def test_the_deadline_ends_the_waiting_and_not_the_search(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    peer.open.clear()
    resolver = resolver_of(ground, deadline=0.1)
    answer = await asyncio.wait_for(resolver.lookup(parse(ALICE), View()), 1)
    assert (answer.state, answer.reason) == (State.FAILED, "no answer by the deadline")
    peer.open.set()
    await until(lambda: not resolver.searches)
    assert (await resolver.lookup(parse(ALICE), View())).how is How.HIT


async def test_too_many_searches_are_refused_and_what_is_known_is_answered(ground: Ground) -> None:
    ground.peer("a")
    full = resolver_of(ground, searches=0)
    answer = await full.lookup(parse(ALICE), View())
    assert (answer.state, answer.keep) == (State.BUSY, False)
    await ground.put(BY_ALICE, Source.KEYSERVER, "a")
    answer = await full.lookup(parse(ALICE), View())
    assert (answer.state, answer.how, answer.keep) == (State.FOUND, How.HIT, False)
    assert await full.refresh(parse(ALICE)) is None


async def test_each_network_starts_so_many_searches_a_minute(ground: Ground) -> None:
    ground.peer("a")
    resolver = resolver_of(ground, misses=2)
    for number, state in enumerate((State.ABSENT, State.ABSENT, State.BUSY)):
        answer = await resolver.lookup(parse(f"n{number}@example.org"), View(), client=STRANGER)
        assert answer.state is state
    assert (await resolver.lookup(parse("n9@example.org"), View(), client="127.0.0.1")).state is State.ABSENT
    assert (await resolver.lookup(parse("n0@example.org"), View(), client=STRANGER)).state is State.ABSENT, "a hit"


async def test_a_question_that_has_been_here_before_starts_nothing(ground: Ground) -> None:
    peer = ground.peer("a")
    answer = await resolver_of(ground).lookup(parse(ALICE), View(), looped=True)
    assert (answer.state, answer.keep) == (State.ABSENT, False)
    assert not peer.asked


@pytest.mark.parametrize("jump", [-7200, 2 * 86400])
async def test_what_was_found_before_the_clock_was_set_is_not_said_to_be_absent(ground: Ground, jump: int) -> None:
    """Dated by the clock of before it has expired, or comes from the future."""
    slow, peer = ground.peer("slow"), ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    slow.open.clear()
    resolver = ground.resolver(misses=1)
    waiting = asyncio.ensure_future(resolver.lookup(parse(ALICE), View(), client=STRANGER))
    while not await ground.records(ALICE):
        await asyncio.sleep(0.01)
    ground.now += jump
    slow.open.set()
    answer = await asyncio.wait_for(waiting, 1)
    assert (answer.state, answer.final) == (State.FOUND, True)
    assert (peer.asked, slow.asked) == ([ALICE] * 2, [ALICE]), "what is dated by the clock of now holds"
    assert (await resolver.lookup(parse(ALICE), View())).how is How.HIT


async def test_a_clock_that_is_set_and_a_deadline_that_is_over_are_a_failure(ground: Ground) -> None:
    slow, peer = ground.peer("slow"), ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    slow.open.clear()
    resolver = resolver_of(ground, deadline=0.2)
    waiting = asyncio.ensure_future(resolver.lookup(parse(ALICE), View()))
    while not await ground.records(ALICE):
        await asyncio.sleep(0.01)
    ground.now += 2 * 86400
    answer = await waiting
    assert (answer.state, answer.reason, answer.keep) == (State.FAILED, CLOCK_SET, False)
    slow.open.set()


async def test_free_text_is_told_to_nobody_unless_set(ground: Ground) -> None:
    peer = ground.peer("a")
    answer = await resolver_of(ground).lookup(parse("alice"), View())
    assert (answer.state, answer.keep) == (State.ABSENT, True)
    assert not peer.asked


async def test_a_refresh_asks_whatever_is_cached_and_takes_nothing_away(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    resolver = resolver_of(ground)
    await resolver.lookup(parse(ALICE), View())
    peer.otherwise = ground.peer("b").otherwise
    search = await resolver.refresh(parse(ALICE))
    assert search is not None
    assert search.settled.is_set()
    assert len(peer.asked) == 2
    assert (await resolver.lookup(parse(ALICE), View())).state is State.FOUND


async def test_failures_of_upstreams_go_to_the_history(ground: Ground) -> None:
    """Also of one that has not spoken when the time is up; what it says then is another word."""
    ill, slow = ground.peer("ill"), ground.peer("slow", timeout=2.0)
    ill.otherwise, slow.otherwise = Failed("no answer"), sends(BY_ALICE)
    slow.open.clear()
    resolver = resolver_of(ground, deadline=0.1)
    query = parse(ALICE)
    assert (await resolver.lookup(query, View())).state is State.FAILED
    await resolver.keep_failures()
    words = {said.upstream: said.word for said in await ground.store.history.words(query.name, 10)}
    assert words == {"ill": Word.FAILED, "slow": Word.FAILED}
    ground.now += 5
    slow.open.set()
    await until(lambda: not resolver.searches)
    await resolver.keep_failures()
    words = {said.upstream: said.word for said in (await ground.store.history.past(query.name, NOW + 5)).said}
    assert words == {"ill": Word.FAILED, "slow": Word.FOUND}


async def test_what_an_administrator_asks_for_is_still_the_upstreams_word(ground: Ground) -> None:
    ground.peer("a").otherwise = sends(BY_ALICE)
    WHO.set("anna")
    await resolver_of(ground).lookup(parse(ALICE), View())
    assert [event.who for event in await ground.store.history.events(10)] == [""]


def test_only_so_many_failures_wait() -> None:
    failures = Failures()
    for number in range(MOST + 1):
        failures.note(str(number), ("a",), NOW)
    failures.note("0", ("a",), NOW + 1)
    taken = failures.take()
    assert (len(taken), taken["0", "a"]) == (MOST, NOW + 1)
    assert failures.take() == {}
