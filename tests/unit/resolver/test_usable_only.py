"""A view that is told only what can be encrypted to: absent with the reason, never failed, searched again in time."""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import PASSED_OVER, Failed, How, Source, State, View
from keyserver.query import parse
from support.openpgp import CREATED, make
from support.resolving import NOW, Ground, sends

ALICE = "alice@example.org"
SIGNER = make([f"Alice <{ALICE}>"], seed="signer", encryption=None)
FINE = make([f"Alice <{ALICE}>"], seed="fine")
GATEWAY = View("gateway", usable_only=True)
WHY = "this view hands out only what can be encrypted to"


def ground_with(ground: Ground) -> Ground:
    ground.change(views={"gateway": GATEWAY, "default": View()})
    return ground


async def test_nothing_else_known_is_absent_with_the_reason(ground: Ground) -> None:
    peer = ground_with(ground).peer("a")
    peer.otherwise = sends(SIGNER)
    resolver, query = ground.resolver(), parse(ALICE)
    for how in (How.MISS, How.HIT):
        answer = await resolver.lookup(query, View("gateway"))
        assert (answer.state, answer.how, answer.certificates) == (State.ABSENT, how, ())
        assert WHY in answer.reason
        assert [s.why for s in answer.steps if s.what == PASSED_OVER and WHY in s.why]
    assert (await resolver.lookup(query, View())).state is State.FOUND
    assert len(peer.asked) == 1


async def test_it_is_searched_again_as_often_as_an_absence(ground: Ground) -> None:
    peer = ground_with(ground).peer("a")
    peer.otherwise = sends(SIGNER)
    resolver, query = ground.resolver(), parse(ALICE)
    await resolver.lookup(query, GATEWAY)
    kept = await resolver.lookup(query, GATEWAY)
    assert (kept.keep, kept.until) == (True, NOW + ground.terms.negative_ttl)
    ground.now = kept.until - 1
    await resolver.lookup(query, GATEWAY)
    assert len(peer.asked) == 1
    ground.now = kept.until
    peer.otherwise = sends(FINE)
    assert (await resolver.lookup(query, GATEWAY)).state is State.FOUND
    assert len(peer.asked) == 2


async def test_what_expires_is_kept_back_from_that_instant_and_searched_again(ground: Ground) -> None:
    """Rule 12 holds in both views."""
    expiring = make([f"Alice <{ALICE}>"], seed="fine", expires=NOW - CREATED + 60)
    peer = ground_with(ground).peer("a")
    peer.otherwise = sends(expiring)
    resolver, query = ground.resolver(), parse(ALICE)
    assert (await resolver.lookup(query, GATEWAY)).until == NOW + 60
    ground.now += 60
    gone = await resolver.lookup(query, GATEWAY)
    assert (gone.state, gone.how) == (State.ABSENT, How.HIT)
    assert "(it is expired)" in gone.reason
    ground.now = gone.until
    peer.otherwise = sends(FINE)  # renewed
    assert (await resolver.lookup(query, GATEWAY)).state is State.FOUND
    assert len(peer.asked) == 2


async def test_a_failure_is_never_absence(ground: Ground) -> None:
    peer = ground_with(ground).peer("a")
    peer.otherwise = Failed("it is down")
    await ground.put(SIGNER, Source.KEYSERVER, "a")
    answer = await ground.resolver().lookup(parse(ALICE), GATEWAY)
    assert (answer.state, answer.keep, answer.final) == (State.FAILED, False, False)


async def test_what_is_local_and_cannot_be_used_is_kept_back_whoever_may_be_asked(ground: Ground) -> None:
    ground_with(ground)
    await ground.put(SIGNER, Source.LOCAL, "admin")
    resolver = ground.resolver()
    alone = await resolver.lookup(parse(ALICE), GATEWAY)
    assert (alone.state, WHY in alone.reason) == (State.ABSENT, True)
    ground.peer("a")
    for _ in range(2):
        answer = await resolver.lookup(parse(ALICE), GATEWAY)
        assert (answer.state, answer.keep, WHY in answer.reason) == (State.ABSENT, True, True)
    ground.change(views={"gateway": replace(GATEWAY, usable_only=False)})
    assert (await resolver.lookup(parse(ALICE), GATEWAY)).state is State.FOUND
