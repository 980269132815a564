"""Certificates that nobody asks upstreams about again: revocations and renewals reach them, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Entry, Failed, Source, State, Validity, View
from keyserver.query import parse
from keyserver.resolver.renewing import PLACE, turns
from support.openpgp import CREATED, Made, make, new_key
from support.resolving import NOW, Ground, renewing, sends

DAY = 86400
HOUR = 3600


class World(Ground):
    """A ground with a certificate that an administrator imported, and copies of it that its owner has made since."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.key = new_key("ed25519", CREATED, 4, "alice")
        self.round = renewing(self)

    def alice(self, *user_ids: str, **more: Any) -> Made:
        return make(user_ids or ("Alice <alice@example.org>",), primary=self.key, seed="alice", **more)

    async def entries(self) -> tuple[Entry, ...]:
        return (await self.store.certificate(self.alice().fingerprint)).entries

    async def entry(self) -> Entry:
        (entry,) = await self.entries()
        return entry

    async def renew(self) -> None:
        await self.round.renew(self.alice().fingerprint)

    async def validity(self) -> Validity:
        answer = await self.resolver().lookup(parse("alice@example.org"), View())
        assert answer.state is State.FOUND
        return answer.certificates[0].certificate.proof.validity


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.store.open()
    yield made
    await made.cleaner.close()
    await made.store.close()


async def test_a_revocation_is_seen_though_a_local_entry_is_a_hit_by_itself(world: World) -> None:
    await world.put(world.alice(), Source.LOCAL, "administrator")
    peer = world.peer("one")
    peer.answers[world.alice().fingerprint] = sends(world.alice(revoked=0))
    assert await world.validity() is Validity.VALID
    assert not peer.asked
    await world.renew()
    assert peer.asked == [world.alice().fingerprint]
    assert await world.validity() is Validity.REVOKED


async def test_a_renewal_is_merged_and_the_entry_keeps_its_time(world: World) -> None:
    ends = (NOW - CREATED) + DAY
    await world.put_mail(world.alice(expires=ends), "alice@example.org")
    before = await world.entry()
    world.now += 2 * DAY
    renewed = world.alice(expires=ends + 400 * DAY, signed_at=NOW)
    world.peer("one").answers[world.alice().fingerprint] = sends(renewed)
    await world.renew()
    after = await world.entry()
    assert after == replace(before, octets=after.octets, identities=after.identities)
    proof = world.hygiene[after.kind].prove(after.octets, world.now)
    assert proof.validity is Validity.VALID and proof.expires == CREATED + ends + 400 * DAY


async def test_what_the_entry_does_not_name_stays_out(world: World) -> None:
    """A server's copy may have user IDs that no origin here speaks for, and it is no entry of its own."""
    await world.put(world.alice(), Source.LOCAL, "administrator")
    more = world.alice("Alice <alice@example.org>", "The bank <ceo@bank.example>", signed_at=CREATED + 9)
    world.peer("one").answers[world.alice().fingerprint] = sends(more)
    await world.renew()
    entry = await world.entry()
    assert entry.identities == ("Alice <alice@example.org>",)
    assert entry.octets != world.clean(world.alice()).octets, "the newer self-signature has come"
    answer = await world.resolver().lookup(parse("ceo@bank.example"), View())
    assert not answer.certificates


async def test_a_copy_without_user_ids_brings_revocations_too(world: World) -> None:
    """Verifying keyservers hand out such copies (nameless)."""
    await world.put(world.alice(), Source.LOCAL, "administrator")
    bare = make((), primary=world.key, revoked=0)
    world.peer("vks", nameless=False).answers[world.alice().fingerprint] = sends(bare)
    await world.renew()
    assert await world.validity() is Validity.REVOKED


async def test_another_certificate_in_the_answer_is_passed_over(world: World) -> None:
    await world.put(world.alice(), Source.LOCAL, "administrator")
    other = make(["Alice <alice@example.org>"], seed="mallory", revoked=0)
    world.peer("one").answers[world.alice().fingerprint] = sends(other)
    await world.renew()
    assert not (await world.store.certificate(other.fingerprint)).entries
    assert await world.validity() is Validity.VALID


async def test_failures_change_nothing(world: World) -> None:
    await world.put(world.alice(), Source.LOCAL, "administrator")
    before = await world.entry()
    world.peer("one", priority=1).otherwise = Failed("down")
    other = world.peer("two", priority=2)
    await world.renew()
    assert await world.entry() == before
    assert other.asked, "the next is asked all the same"
    assert await world.records(world.alice().fingerprint) == {}


async def test_what_was_deleted_meanwhile_does_not_come_back(world: World) -> None:
    await world.put(world.alice(), Source.LOCAL, "administrator")
    peer = world.peer("one")
    peer.open.clear()
    peer.answers[world.alice().fingerprint] = sends(world.alice(signed_at=CREATED + 9))
    renewal = asyncio.ensure_future(world.renew())
    while not peer.asked:
        await asyncio.sleep(0.001)
    await world.store.delete(world.alice().fingerprint, world.now)
    peer.open.set()
    await renewal
    assert not await world.entries()


@pytest.mark.parametrize(("domains", "asked"), [((), False), (("example.org",), True), (("example.net",), False)])
async def test_our_own_peoples_certificates_are_asked_for_where_they_are_listed(
    world: World, domains: tuple[str, ...], asked: bool
) -> None:
    await world.put(world.alice(), Source.LOCAL, "administrator")
    peer = world.peer("one", domains=domains)
    world.change(terms=replace(world.terms, internal_domains=("example.org",)))
    await world.renew()
    assert bool(peer.asked) is asked


@pytest.mark.parametrize("what", ["expired mail", "blocked", "keyserver"])
async def test_what_has_no_answer_is_not_asked_for(world: World, what: str) -> None:
    peer = world.peer("one")
    if what == "keyserver":
        await world.put(world.alice(), Source.KEYSERVER, "one")
    else:
        await world.put_mail(world.alice(), "alice@example.org")
    if what == "blocked":
        await world.store.block(world.alice().fingerprint, world.now)
    if what == "expired mail":
        world.now += 181 * DAY
    await world.renew()
    assert not peer.asked


async def test_each_has_its_turn_once_in_an_interval(world: World) -> None:
    made = [make([f"n{n}@example.org"], seed=str(n)) for n in range(40)]
    for one in made:
        await world.put(one, Source.LOCAL, "administrator")
    peer = world.peer("one")
    world.now = NOW - NOW % DAY + 5 * HOUR  # within a round
    assert await world.round.run() == 0, "nothing at once when we start"
    counts = []
    for _ in range(24):
        world.now += HOUR
        counts.append(await world.round.run())
    assert sorted(peer.asked) == sorted(one.fingerprint for one in made)
    assert max(counts) < 10, "spread over the day"
    peer.asked.clear()
    world.now += 30 * DAY  # asleep: each once, and not thirty times
    await world.round.run()
    assert sorted(peer.asked) == sorted(one.fingerprint for one in made)
    peer.asked.clear()
    world.now -= DAY
    assert await world.round.run() == 0, "a clock that was set back"
    assert not peer.asked


async def test_a_restart_or_another_node_goes_on_where_the_round_was(world: World) -> None:
    for n in range(12):
        await world.put(make([f"n{n}@example.org"], seed=str(n)), Source.LOCAL, "administrator")
    peer = world.peer("one")
    world.now = NOW - NOW % DAY
    await world.round.run()
    world.now += DAY // 2
    first = await world.round.run()
    world.now += DAY // 2
    assert first + await renewing(world).run() == 12
    assert len(set(peer.asked)) == 12


async def test_the_place_is_written_where_somebody_had_his_turn(world: World) -> None:
    """Each write waits for the disk."""
    place, written = world.store.history.cursor, set[int | None]()
    world.now = NOW - NOW % DAY
    await world.round.run()
    for _ in range(DAY // 600):
        world.now += 600
        assert await world.round.run() == 0
        written.add(await place(PLACE))
    assert len(written) <= 24, "with nobody's turn now and then"
    await world.put(world.alice(), Source.LOCAL, "administrator")
    while not await world.round.run():
        world.now += 600
    assert await place(PLACE) == world.now
    peer = world.peer("one")
    world.now += 60
    assert await world.round.run() + await renewing(world).run() == 0, "neither we nor who goes on behind us asks again"
    assert not peer.asked


async def test_what_comes_behind_the_place_waits_for_its_turn(world: World) -> None:
    world.now = NOW - NOW % DAY
    await world.round.run()
    world.now += int(world.alice().fingerprint[:12], 16) * DAY // 16**12 - 5  # before its turn
    await world.round.run()
    world.now += 10
    await world.round.run()
    assert await world.store.history.cursor(PLACE) == world.now - 10
    await world.put(world.alice(), Source.LOCAL, "administrator")
    world.now += 10
    assert await world.round.run() == 0, "though the place that was written lies before it"
    assert await renewing(world).run() == 1, "as somebody sees who goes on from there"


@given(
    since=st.integers(0, 10**9), steps=st.lists(st.integers(1, 40_000), max_size=30), place=st.integers(0, 16**12 - 1)
)
def test_every_fingerprint_lies_in_one_range_of_a_round(since: int, steps: list[int], place: int) -> None:
    interval, fingerprint = 40_000, f"{place:012X}" + "0" * 28
    now, times = since, 0
    for step in steps:
        times += sum(after < fingerprint <= upto for after, upto in turns(now, now + step, interval))
        now += step
    assert (now - since) // interval <= times <= (now - since) // interval + 1
