"""One search: whom it asks and when, what it proves, what it keeps, and when whoever waits is let go."""

from __future__ import annotations

import asyncio

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, Source
from keyserver.policy import on_record
from keyserver.resolver.inflight import Search
from keyserver.resolver.search import MAX_CLEANED
from keyserver.store.base import StoreError
from support.openpgp import make
from support.resolving import NOW, Ground, sends, steps, until

ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")


async def run(ground: Ground, search: Search) -> Search:
    names = ground.rules().tiers(search.query).names
    snapshot = await ground.store.look(search.query.name)
    known = on_record(snapshot.records, names, ground.now, ground.terms)
    await ground.searcher().run(search, known)
    return search


async def test_what_is_found_is_on_disk_with_its_record_before_anybody_hears_of_it(ground: Ground) -> None:
    ground.peer("a").otherwise = sends(BY_ALICE)
    search = await run(ground, await ground.search(ALICE))
    assert search.proven
    assert search.settled.is_set()
    (entry,) = (await ground.store.certificate(BY_ALICE.fingerprint)).entries
    assert (entry.source, entry.origin, entry.cached_at) == (Source.KEYSERVER, "a", NOW)
    assert await ground.records(ALICE) == {"a": True}
    assert steps(search) == [("a", "asked"), ("a", "found"), ("cache", "new")]


@pytest.mark.parametrize(
    ("outcome", "refresh", "records"),
    [
        (Absent("no"), False, {"a": False}),
        (Absent("no"), True, {}),  # what is cached stays whatever upstreams say
        (Absent("a loop", remember=False), False, {}),
        (Failed("ill"), False, {}),
    ],
)
async def test_only_an_absence_that_was_said_is_remembered(
    ground: Ground, outcome: Outcome, refresh: bool, records: dict[str, bool]
) -> None:
    ground.peer("a").otherwise = outcome
    search = await run(ground, await ground.search(ALICE, refresh=refresh))
    assert search.outcomes == {"a": outcome}
    assert not search.proven
    assert await ground.records(ALICE) == records


async def test_a_remembered_absence_is_not_asked_again_unless_refreshed(ground: Ground) -> None:
    a, b = ground.peer("a"), ground.peer("b")
    await ground.said(ALICE, "a", found=False)
    ground.now += 60
    search = await run(ground, await ground.search(ALICE))
    assert (len(a.asked), len(b.asked)) == (0, 1)
    assert search.outcomes["a"] == Absent("said so 60 s ago")
    await run(ground, await ground.search(ALICE, refresh=True))
    assert (len(a.asked), len(b.asked)) == (1, 2)


async def test_the_next_tier_is_asked_only_when_nothing_is_proven(ground: Ground) -> None:
    first, second = ground.peer("a", priority=1), ground.peer("b", priority=2)
    first.otherwise = sends(BY_ALICE)
    await run(ground, await ground.search(ALICE))
    assert len(second.asked) == 0
    first.otherwise = Absent("no")
    await run(ground, await ground.search(BY_ALICE.fingerprint))
    assert len(second.asked) == 1


async def test_a_tier_with_a_successor_gets_half_of_what_is_left(ground: Ground) -> None:
    slow, second = ground.peer("a", priority=1), ground.peer("b", priority=2)
    slow.open.clear()
    second.otherwise = sends(BY_ALICE)
    ground.change(deadline=0.4)
    search = await ground.search(ALICE)
    task = asyncio.ensure_future(run(ground, search))
    began = ground.monotonic()
    await asyncio.wait_for(search.settled.wait(), 2)
    assert 0.15 < ground.monotonic() - began < 0.35
    assert search.outcomes["a"] is None, "still under way"
    assert not task.done()
    slow.open.set()
    await task
    assert search.outcomes["a"] == Absent("it says so")
    assert await ground.records(ALICE) == {"a": False, "b": True}, "the straggler's word is kept"


async def test_a_fingerprint_settles_at_the_first_proof_and_an_address_with_its_tier(ground: Ground) -> None:
    quick, slow = ground.peer("a"), ground.peer("b")
    quick.otherwise = sends(BY_ALICE)
    slow.open.clear()
    for term, settles in ((BY_ALICE.fingerprint, True), (ALICE, False)):
        search = await ground.search(term)
        task = asyncio.ensure_future(run(ground, search))
        await until(lambda search=search: search.proven)
        await asyncio.sleep(0.05)
        assert search.settled.is_set() == settles, term
        slow.open.set()
        await task
        assert search.settled.is_set()
        slow.open.clear()


async def test_a_certificate_without_user_ids_is_kept_and_the_others_are_asked_too(ground: Ground) -> None:
    bare = make([], seed="bare")
    ground.peer("a", priority=1).otherwise = sends(bare)
    second = ground.peer("b", priority=2)
    search = await run(ground, await ground.search(bare.fingerprint))
    assert len(second.asked) == 1
    assert not search.proven
    assert search.outcomes["a"] == Found(())
    assert (await ground.store.certificate(bare.fingerprint)).entries


async def test_what_does_not_prove_the_query_is_dropped_and_counts_as_absent(ground: Ground) -> None:
    other = make(["Bob <bob@example.org>"], seed="bob")
    ground.peer("a").otherwise = sends(other)
    search = await run(ground, await ground.search(ALICE))
    assert search.outcomes == {"a": Absent("what it sent does not prove the query")}
    assert ("a", "dropped") in steps(search)
    assert not (await ground.store.certificate(other.fingerprint)).entries
    assert await ground.records(ALICE) == {"a": False}


async def test_what_cannot_be_read_is_a_failure_and_nobodys_illness(ground: Ground) -> None:
    ground.peer("a").otherwise = Found((Raw(Kind.OPENPGP, b"\x99garbage"),))
    search = await run(ground, await ground.search(ALICE))
    outcome = search.outcomes["a"]
    assert isinstance(outcome, Failed)
    assert outcome.fault is Fault.LOCAL
    assert await ground.records(ALICE) == {}


async def test_a_known_certificate_is_updated_by_a_copy_that_proves_nothing_of_the_query(ground: Ground) -> None:
    revoked = make([], seed="alice", revoked=2)
    assert revoked.fingerprint == BY_ALICE.fingerprint
    await ground.put(BY_ALICE, Source.KEYSERVER, "a")
    ground.peer("a").otherwise = sends(revoked)
    await run(ground, await ground.search(ALICE))
    assert (await ground.store.certificate(BY_ALICE.fingerprint)).revocations


async def test_at_most_64_certificates_are_cleaned(ground: Ground) -> None:
    one = Raw(Kind.OPENPGP, make(["Bob <bob@example.org>"], seed="bob").octets)
    ground.peer("a").otherwise = Found((one,) * (MAX_CLEANED + 6))
    search = await run(ground, await ground.search(ALICE))
    assert search.cleaned == MAX_CLEANED
    assert ("a", "cut") in steps(search)


async def test_what_was_deleted_meanwhile_is_not_brought_back(ground: Ground) -> None:
    await ground.put(BY_ALICE, Source.KEYSERVER, "a")
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    peer.open.clear()
    search = await ground.search(ALICE)
    task = asyncio.ensure_future(run(ground, search))
    await until(lambda: peer.asked)
    await ground.store.delete(BY_ALICE.fingerprint, NOW)
    peer.open.set()
    await task
    assert ("cache", "deleted") in steps(search)
    assert not search.uncached
    snapshot = await ground.store.look(search.query.name)
    assert (snapshot.entries, snapshot.records) == ((), ())


async def test_what_cannot_be_kept_is_handed_to_whoever_waits_with_its_revocations(ground: Ground) -> None:
    made = make([f"Alice <{ALICE}>"], seed="alice", revoked=2)
    ground.peer("a").otherwise = sends(made)

    async def full(*arguments: object) -> tuple[object, ...]:
        raise StoreError("disk full")

    search = await ground.search(ALICE)
    ground.store.put = full  # type: ignore[method-assign, assignment]
    await run(ground, search)
    assert search.proven
    (entry,) = search.uncached
    assert (entry.fingerprint, entry.origin, entry.cached_at) == (made.fingerprint, "a", NOW)
    assert set(search.revocations) == {made.fingerprint}


async def test_what_is_blocked_stays_so_while_the_store_cannot_say_it(ground: Ground) -> None:
    ground.peer("a").otherwise = sends(BY_ALICE)
    await ground.store.block(BY_ALICE.fingerprint, NOW)

    async def down(*arguments: object) -> tuple[object, ...]:
        raise StoreError("nobody answers")

    search, searcher = await ground.search(ALICE), ground.searcher()
    await searcher.blocks.renew(ground.store)
    ground.store.put = down  # type: ignore[method-assign, assignment]
    ground.store.blocked = down  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreError):
        await searcher.blocks.renew(ground.store)
    await searcher.run(search, on_record((), ground.rules().tiers(search.query).names, NOW, ground.terms))
    assert search.uncached == []
    assert ("cache", "blocked") in steps(search)


async def test_larger_certificates_than_allowed_are_refused(ground: Ground) -> None:
    ground.peer("a").otherwise = sends(BY_ALICE)
    ground.change(max_certificate=100)
    search = await run(ground, await ground.search(ALICE))
    assert search.outcomes == {"a": Absent("refused: larger than 100 octets")}


@pytest.mark.parametrize("peers", ["a", "ab"])
async def test_an_error_of_ours_is_no_silence(ground: Ground, peers: str) -> None:
    def broken() -> Outcome:
        raise RuntimeError("a programming error")

    for name in peers:
        ground.peer(name).otherwise = broken
    with pytest.raises(RuntimeError):
        await run(ground, await ground.search(ALICE))


@pytest.mark.parametrize("peers", ["a", "ab"])
async def test_a_cancelled_search_leaves_nothing_running(ground: Ground, peers: str) -> None:
    for name in peers:
        ground.peer(name).open.clear()
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(run(ground, await ground.search(ALICE)))
    await until(lambda: all(p.asked for p in ground.peers.values()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before
