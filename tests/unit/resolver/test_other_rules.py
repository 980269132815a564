"""The rules are replaced while searches are under way: nothing is answered, stored or asked by the old ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from keyserver.model import Answer, How, State, Step, View
from keyserver.query import parse
from keyserver.resolver.resolver import Resolver
from support.openpgp import make
from support.resolving import Ground, sends, until
from support.upstreams import Told

ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")
OTHER = make([f"Alice <{ALICE}>"], seed="other")


def reload(ground: Ground, resolver: Resolver, *peers: Told, **rules: object) -> None:
    """These upstreams hold from here on, with the specs that they have now."""
    terms = replace(ground.terms, upstreams={peer.spec.name: peer.spec for peer in peers})
    ground.change(**{"terms": terms, "upstreams": {peer.spec.name: peer for peer in peers}, **rules})
    resolver.rules_replaced()


def asking(resolver: Resolver, term: str = ALICE, **options: str) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(resolver.lookup(parse(term), View(), **options))


def found(answer: Answer) -> list[str]:
    return [each.certificate.fingerprint for each in answer.certificates]


def told(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [(step.who, step.what) for step in steps]


async def test_who_waits_for_an_upstream_that_leaves_is_answered_by_the_one_that_came(ground: Ground) -> None:
    old, new = ground.peer("old"), Told(replace(ground.peer("new").spec))
    old.otherwise, new.otherwise = sends(BY_ALICE), sends(OTHER)
    resolver = ground.resolver(misses=1)
    reload(ground, resolver, old)
    old.open.clear()
    waiting = asking(resolver, client="192.0.2.1")
    await until(lambda: old.asked)
    reload(ground, resolver, new)
    answer = await asyncio.wait_for(waiting, 1)
    assert (answer.state, answer.how, found(answer)) == (State.FOUND, How.MISS, [OTHER.fingerprint])
    assert ("search", "overtaken") in told(answer.steps)
    old.open.set()
    await until(lambda: not resolver.searches)
    assert (await ground.store.certificate(BY_ALICE.fingerprint)).entries == ()
    assert await ground.records(ALICE) == {"new": True}


async def test_an_upstream_that_may_not_be_told_any_more_is_not_believed_either(ground: Ground) -> None:
    peer = ground.peer("a")
    resolver = ground.resolver()
    for outcome in (sends(BY_ALICE), peer.otherwise):
        peer.otherwise = outcome
        peer.spec = replace(peer.spec, domains=())
        reload(ground, resolver, peer)
        peer.open.clear()
        waiting = asking(resolver)
        await until(lambda: peer.at_once)
        peer.spec = replace(peer.spec, domains=("elsewhere.example",))
        reload(ground, resolver, peer)
        peer.open.set()
        answer = await asyncio.wait_for(waiting, 1)
        assert (answer.state, answer.reason) == (State.ABSENT, "not cached, and no upstream may be asked")
        await until(lambda: not resolver.searches)
        assert (await ground.store.certificate(BY_ALICE.fingerprint)).entries == ()
        assert await ground.records(ALICE) == {}


async def test_what_does_not_concern_a_search_disturbs_nobody(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    resolver = ground.resolver()
    peer.open.clear()
    first = asking(resolver)
    await until(lambda: peer.asked)
    peer.spec = replace(peer.spec, ttl=7200, timeout=3.0)
    reload(ground, resolver, peer, deadline=4.0)
    second = asking(resolver)
    await asyncio.sleep(0.05)
    peer.open.set()
    answers = await asyncio.gather(first, second)
    assert peer.asked == [ALICE]
    assert [found(answer) for answer in answers] == [[BY_ALICE.fingerprint]] * 2
    assert ("search", "joined") in told(answers[1].steps)
    assert not any(what == "overtaken" for answer in answers for _, what in told(answer.steps))


async def test_the_next_tier_and_who_waits_for_a_place_are_not_asked_by_old_rules(ground: Ground) -> None:
    first, second = ground.peer("a", priority=1), ground.peer("b", priority=2)
    resolver = ground.resolver()
    first.open.clear()
    waiting = asking(resolver)
    await until(lambda: first.asked)
    reload(ground, resolver, first, searches=100)
    first.open.set()
    assert (await asyncio.wait_for(waiting, 1)).state is State.ABSENT
    await until(lambda: not resolver.searches)
    assert second.asked == []
    first.open.clear()
    crowd = [asking(resolver, f"user{number}@example.org") for number in range(40)]
    await until(lambda: first.at_once == 32)
    first.spec = replace(first.spec, domains=("elsewhere.example",))
    reload(ground, resolver, first)
    asked = len(first.asked)
    first.open.set()
    answers = await asyncio.wait_for(asyncio.gather(*crowd), 2)
    assert {answer.state for answer in answers} == {State.ABSENT}
    await until(lambda: not resolver.searches)
    assert len(first.asked) == asked, "questions that had no place yet were not put"
    (status,) = resolver.statuses()
    assert status.state == "closed"


async def test_reloads_that_come_and_go_at_once_leave_one_answer(ground: Ground) -> None:
    """The upstream leaves and is back before who waits has looked again."""
    peer, other = ground.peer("a"), ground.peer("b")
    peer.otherwise = sends(BY_ALICE)
    resolver = ground.resolver()
    reload(ground, resolver, peer)
    peer.open.clear()
    waiting = asking(resolver)
    await until(lambda: peer.asked)
    reload(ground, resolver, other)
    reload(ground, resolver, peer)
    await until(lambda: len(peer.asked) == 2)
    peer.open.set()
    assert found(await asyncio.wait_for(waiting, 1)) == [BY_ALICE.fingerprint]


async def test_reloads_without_pause_end_no_search(ground: Ground) -> None:
    """Each takes away what a search asks; what stays is stored all the same, and answers."""
    stays, comes = ground.peer("stays"), ground.peer("comes")
    stays.otherwise, stays.delay = sends(BY_ALICE), 0.3
    resolver = ground.resolver()
    waiting = asking(resolver)
    number = 0
    while not waiting.done():
        reload(ground, resolver, *((stays, comes) if number % 2 else (stays,)))
        number += 1
        await asyncio.sleep(0.05)
    assert found(waiting.result()) == [BY_ALICE.fingerprint]
    assert number > 4


async def test_a_refresh_goes_by_the_new_rules_too(ground: Ground) -> None:
    old, new = ground.peer("old"), ground.peer("new")
    new.otherwise = sends(BY_ALICE)
    resolver = ground.resolver()
    reload(ground, resolver, old)
    old.open.clear()
    refreshing = asyncio.ensure_future(resolver.refresh(parse(ALICE)))
    await until(lambda: old.asked)
    reload(ground, resolver, new)
    search = await asyncio.wait_for(refreshing, 1)
    assert search is not None
    assert set(search.outcomes) == {"new"}
    assert await ground.records(ALICE) == {"new": True}
    old.open.set()


async def test_a_view_answers_by_its_policy_of_now(ground: Ground) -> None:
    """Also where its question was put before."""
    peer = ground.peer("a")
    resolver = ground.resolver()
    await ground.put_mail(BY_ALICE, ALICE)
    peer.open.clear()
    waiting = asking(resolver)
    await until(lambda: peer.asked)
    ground.change(views={"default": View("default", answer_mailflow=True)})
    resolver.rules_replaced()
    peer.open.set()
    assert found(await asyncio.wait_for(waiting, 1)) == [BY_ALICE.fingerprint]


async def test_the_replacement_waits_for_what_is_being_stored(ground: Ground) -> None:
    peer = ground.peer("a")
    peer.otherwise = sends(BY_ALICE)
    resolver = ground.resolver()
    put, storing, go = ground.store.put, asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: object) -> object:
        storing.set()
        await go.wait()
        return await put(*arguments)  # type: ignore[arg-type]

    ground.store.put = slowly  # type: ignore[method-assign, assignment]
    waiting = asking(resolver)
    await storing.wait()
    reload(ground, resolver)
    replaced = asyncio.ensure_future(ground.rules.replaced())
    await asyncio.sleep(0.05)
    assert not replaced.done()
    go.set()
    await asyncio.wait_for(replaced, 1)
    assert (await ground.store.certificate(BY_ALICE.fingerprint)).entries, "it was judged before"
    assert found(await waiting) == [], "and is answered by nobody now"


async def test_a_directorys_search_goes_on_where_those_whose_word_counts_there_stay(ground: Ground) -> None:
    owner = ground.peer("owner", by_owner=True)
    public = ground.peer("public")
    owner.otherwise = public.otherwise = sends(BY_ALICE)
    resolver = ground.resolver(misses=2)
    owner.open.clear()
    waiting = asyncio.ensure_future(resolver.lookup(parse(ALICE), View(directory=True)))
    await until(lambda: owner.asked)
    reload(ground, resolver, owner, public)
    reload(ground, resolver, owner)
    joined = asyncio.ensure_future(resolver.lookup(parse(ALICE), View(directory=True)))
    await asyncio.sleep(0.01)
    owner.open.set()
    for answer in await asyncio.gather(waiting, joined):
        assert (answer.state, found(answer)) == (State.FOUND, [BY_ALICE.fingerprint])
        assert ("search", "overtaken") not in told(answer.steps)
    assert (len(owner.asked), public.asked) == (1, [])
