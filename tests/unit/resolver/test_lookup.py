"""One lookup: what it asks of the store, when the cache is the answer, and what is answered after a search."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest

from keyserver.model import PASSED_OVER, Absent, Failed, How, Source, State, Step, Validity
from keyserver.store.base import StoreError
from support.openpgp import CREATED, Made, make
from support.resolving import NOW, Ground, steps

ALICE = "alice@example.org"


def alice(**options: Any) -> Made:
    return make([f"Alice <{ALICE}>"], seed="alice", **options)


async def test_nothing_is_known_at_first(ground: Ground) -> None:
    ground.peer("a")
    lookup = ground.lookup(ALICE)
    known = await lookup.look()
    assert not lookup.is_answered(known)
    assert [(s.who, s.what, s.why) for s in lookup.steps] == [("cache", "looked", "0 entries, 0 records")]


async def test_a_local_entry_answers_by_itself(ground: Ground) -> None:
    ground.peer("a")
    await ground.put(alice(), Source.LOCAL, "admin")
    lookup = ground.lookup(ALICE)
    known = await lookup.look()
    assert lookup.is_answered(known)
    answer = lookup.cached(known)
    assert (answer.state, answer.how, answer.keep, answer.since) == (State.FOUND, How.HIT, True, NOW)
    assert answer.steps[-1].why == "proves the query by itself"


async def test_a_keyserver_entry_answers_an_address_by_its_own_upstreams_record(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("b")
    await ground.put(alice(), Source.KEYSERVER, "a")
    for upstream, answered in (("", False), ("b", False), ("a", True)):
        if upstream:
            await ground.said(ALICE, upstream, found=True)
        lookup = ground.lookup(ALICE)
        known = await lookup.look()
        assert bool(known.selected.certificates) == answered, upstream
        assert (("cache", PASSED_OVER) in steps(lookup)) == (not answered)
    assert lookup.cached(known).until == NOW + 86400


async def test_absent_only_when_everybody_has_said_so(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("b")
    await ground.said(ALICE, "a", found=False)
    lookup = ground.lookup(ALICE)
    assert not lookup.is_answered(await lookup.look())
    ground.now += 10
    await ground.said(ALICE, "b", found=False)
    lookup = ground.lookup(ALICE)
    known = await lookup.look()
    assert lookup.is_answered(known)
    answer = lookup.cached(known)
    assert (answer.state, answer.how, answer.keep) == (State.ABSENT, How.HIT, True)
    assert (answer.since, answer.until) == (NOW, NOW + 900), "the oldest word, and the first to end"
    ground.now = NOW + 900
    lookup = ground.lookup(ALICE)
    assert not lookup.is_answered(await lookup.look())


async def test_what_was_found_and_may_not_be_told_is_not_searched_for_again_at_once(ground: Ground) -> None:
    ground.peer("a")
    made = alice()
    await ground.put(made, Source.KEYSERVER, "a")
    await ground.said(ALICE, "a", found=True)
    await ground.store.block(made.fingerprint, NOW)
    for later, answered in ((899, True), (900, False)):
        ground.now = NOW + later
        lookup = ground.lookup(ALICE)
        known = await lookup.look()
        assert lookup.is_answered(known) == answered
    ground.now = NOW + 10
    ground.peers.clear()
    ground.peer("b")
    lookup = ground.lookup(ALICE)
    assert not lookup.is_answered(await lookup.look()), "b has not been asked"


async def test_what_has_expired_by_itself_is_searched_again_every_negative_ttl(ground: Ground) -> None:
    ground.peer("a")
    made = alice(expires=NOW - CREATED - 100)
    await ground.put(made, Source.KEYSERVER, "a")
    await ground.said(ALICE, "a", found=True)
    lookup = ground.lookup(ALICE)
    known = await lookup.look()
    (certificate,) = known.selected.certificates
    assert certificate.certificate.proof.validity is Validity.EXPIRED
    assert lookup.is_answered(known)
    assert lookup.cached(known).until == NOW + 900
    ground.now = NOW + 900
    lookup = ground.lookup(ALICE)
    assert not lookup.is_answered(await lookup.look())


async def test_a_certificate_without_user_ids_answers_when_nobody_is_left_to_ask(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("b")
    made = make([], seed="bare")
    await ground.put(made, Source.KEYSERVER, "a")
    await ground.said(made.fingerprint, "a", found=True)
    lookup = ground.lookup(made.fingerprint)
    known = await lookup.look()
    assert known.selected.certificates
    assert not lookup.is_answered(known)
    await ground.said(made.fingerprint, "b", found=False)
    lookup = ground.lookup(made.fingerprint)
    assert lookup.is_answered(await lookup.look())


async def test_free_text_finds_identities(ground: Ground) -> None:
    await ground.put(alice(), Source.LOCAL, "admin")
    await ground.put(make(["Bob <bob@example.org>"], seed="bob"), Source.LOCAL, "admin")
    lookup = ground.lookup("alice")
    known = await lookup.look()
    assert [a.certificate.fingerprint for a in known.selected.certificates] == [alice().fingerprint]


async def test_without_the_store_nothing_is_known_and_that_is_said_once(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.peer("a")

    async def broken(name: str) -> object:
        raise StoreError("disk on fire")

    lookup = ground.lookup(ALICE)
    ground.store.look = broken  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING):
        known = await lookup.look()
        await lookup.look(await ground.search(ALICE))
    assert known.snapshot.begun == -1
    assert not lookup.is_answered(known)
    assert steps(lookup) == [("cache", "unavailable")]
    assert [r.message for r in caplog.records] == ["the cache cannot be read: disk on fire"]


async def test_waiting_ends_at_the_deadline_and_tells_the_searchs_story(ground: Ground) -> None:
    ground.peer("a")
    lookup = ground.lookup(ALICE)
    search = await ground.search(ALICE)
    search.started = lookup.began + 0.5
    search.steps.append(Step(20.0, "a", "asked"))
    await lookup.wait(search, 0.05)
    assert 0.04 < ground.monotonic() - lookup.began < 1
    assert steps(lookup) == [("search", "deadline"), ("a", "asked")]
    assert lookup.steps[1].at == pytest.approx(520)
    search.settled.set()
    await asyncio.wait_for(lookup.wait(search, 0.0), 1)


async def test_what_the_store_could_not_take_is_answered_and_not_kept(ground: Ground) -> None:
    ground.peer("a")
    await ground.put(alice(), Source.KEYSERVER, "a")
    (entry,) = (await ground.store.certificate(alice().fingerprint)).entries
    await ground.store.delete(entry.fingerprint, NOW)
    lookup = ground.lookup(ALICE)
    search = await ground.search(ALICE)
    await ground.said(ALICE, "a", found=True)
    search.uncached.append(entry)
    answer = await lookup.searched(await lookup.look(search), search)
    assert (answer.state, answer.how, answer.keep) == (State.FOUND, How.MISS, False)


async def test_after_a_search_nothing_is_told_twice(ground: Ground) -> None:
    ground.peer("a")
    await ground.put(alice(), Source.KEYSERVER, "a")
    lookup = ground.lookup(ALICE)
    await lookup.look()
    await lookup.look(await ground.search(ALICE))
    assert steps(lookup) == [("cache", "looked"), ("cache", PASSED_OVER)]


async def test_the_store_is_read_again_only_if_it_can_have_changed_for_this_lookup(ground: Ground) -> None:
    ground.peer("a")
    look, reads = ground.store.look, 0

    async def counted(name: str) -> object:
        nonlocal reads
        reads += 1
        return await look(name)

    ground.store.look = counted  # type: ignore[method-assign, assignment]
    search = await ground.search(ALICE)
    lookup = ground.lookup(ALICE)
    await lookup.look()
    await lookup.look(search)
    assert reads == 1, "nothing was cached, and nothing came"
    await ground.put(alice(), Source.KEYSERVER, "a")
    await ground.said(ALICE, "a", found=True)
    search.wrote = True
    assert (await lookup.look(search)).selected.certificates
    assert reads == 2
    search.wrote = False
    lookup = ground.lookup(ALICE)
    assert (await lookup.look()).selected.certificates
    await ground.store.delete(alice().fingerprint, NOW)
    known = await lookup.look(search)
    assert (reads, known.snapshot.entries) == (4, ()), "deleted meanwhile"


async def test_without_finds_the_outcomes_speak(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("b")
    for outcomes, state, keep in (
        ({"a": Absent("no"), "b": Absent("no")}, State.ABSENT, False),
        ({"a": Absent("no"), "b": Failed("ill")}, State.FAILED, False),
        ({"a": Absent("no"), "b": None}, State.FAILED, False),
        ({}, State.FAILED, False),
    ):
        lookup = ground.lookup(ALICE)
        search = await ground.search(ALICE)
        search.outcomes.update(outcomes)  # type: ignore[arg-type]
        answer = await lookup.searched(await lookup.look(search), search)
        assert (answer.state, answer.how, answer.keep) == (state, How.MISS, keep), outcomes
    for name in "ab":
        await ground.said(ALICE, name, found=False)
    search.outcomes.update(a=Absent("no"), b=Absent("no"))
    assert (await lookup.searched(await lookup.look(search), search)).keep, "on record"


async def test_when_the_upstreams_fail_what_is_known_is_answered_then_what_is_stale(ground: Ground) -> None:
    ground.peer("a")
    ground.change(terms=replace(ground.terms, serve_stale=3600))
    await ground.put(alice(), Source.KEYSERVER, "a")
    for later, state, how in (
        (0, State.FOUND, How.HIT),
        (86400, State.FOUND, How.STALE),
        (86400 + 3600, State.FAILED, How.MISS),
    ):
        ground.now = NOW + later
        lookup = ground.lookup(ALICE)
        answer = await lookup.unsearched(await lookup.look(), State.FAILED, "ill")
        assert (answer.state, answer.how, answer.keep) == (state, how, False)


async def test_what_is_stale_is_not_mixed_with_what_is_fresh(ground: Ground) -> None:
    ground.peer("a")
    ground.change(terms=replace(ground.terms, serve_stale=3600))
    await ground.put(alice(), Source.KEYSERVER, "a")
    ground.now += 86400
    fresh = make([f"Alice <{ALICE}>"], seed="fresh")
    await ground.put(fresh, Source.KEYSERVER, "a")
    lookup = ground.lookup(ALICE)
    answer = await lookup.unsearched(await lookup.look(), State.FAILED, "ill")
    assert answer.how is How.HIT
    assert [a.certificate.fingerprint for a in answer.certificates] == [fresh.fingerprint]


async def test_where_nobody_may_be_asked_the_cache_is_all_there_is(ground: Ground) -> None:
    ground.peer("a", domains=("elsewhere.example",))
    lookup = ground.lookup(ALICE)
    answer = await lookup.alone(await lookup.look())
    assert (answer.state, answer.how, answer.keep, answer.until) == (State.ABSENT, How.HIT, True, NOW + 900)
    assert ("a", "not asked") in steps(lookup)
    made = alice()
    await ground.put(made, Source.KEYSERVER, "a")
    lookup = ground.lookup(made.fingerprint)
    assert (await lookup.alone(await lookup.look())).state is State.FOUND


async def test_a_loop_is_answered_for_the_moment_only(ground: Ground) -> None:
    ground.peer("a")
    lookup = ground.lookup(ALICE)
    await lookup.look()
    answer = lookup.looped()
    assert (answer.state, answer.keep, answer.until) == (State.ABSENT, False, 0)
