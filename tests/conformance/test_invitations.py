"""The promises of keyserver/store/invitations.py, one by one. Every backend passes all of them, in every run."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from keyserver.model import Kind, Source, Voucher
from keyserver.store.base import Store, StoreError, Undo
from keyserver.store.invitations import OPEN, Invitation, Invitations, Quota, Refused, Stage
from keyserver.store.postgres import invitations as postgres_invitations
from keyserver.store.postgres import schema as postgres_schema
from keyserver.store.postgres.schema import bring_forward
from keyserver.store.sqlite import invitations as sqlite_invitations
from keyserver.store.sqlite import migration
from keyserver.store.sqlite import schema as sqlite_schema
from keyserver.store.sqlite.session import connect, run
from support.postgres import shared
from tests.conformance.conftest import Backend, Heard, Made, addr, said

NOW = 1_800_000_000
HOUR, DAY = 3600, 86400
LATER = NOW + 7 * DAY
PLENTY = Quota(10_000, 10_000, 10_000)
ALICE = Made(1, ("Alice <alice@a.example>", "alice@b.example"))


@pytest.fixture
async def kept(store: Store) -> Invitations:
    """With one entry to be invited for."""
    await put(store, ALICE)
    return store.invitations


async def put(store: Store, *made: Made, now: int = NOW) -> None:
    await store.put([one.find() for one in made], [], await store.begin(), now)


def invitation(n: int = 0, made: Made = ALICE, **more: Any) -> Invitation:
    given = {"id": f"{n:032x}", "address": "alice@a.example", "fingerprint": made.fingerprint, "kind": made.kind,
             "source": Source.KEYSERVER, "origin": "one", "made_at": NOW, "made_by": "ops",
             "expires_at": LATER}  # fmt: skip
    return Invitation(**{**given, **more})


def confirm_of(n: int) -> bytes:
    return b"c" * 28 + n.to_bytes(4)


def withdraw_of(n: int) -> bytes:
    return b"w" * 28 + n.to_bytes(4)


async def prepared(kept: Invitations, n: int = 0, quota: Quota = PLENTY, **more: Any) -> Refused | None:
    return await kept.prepare(invitation(n, **more), confirm_of(n), withdraw_of(n), quota)


async def stages(kept: Invitations) -> list[tuple[int, Stage]]:
    return [(int(one.id, 16), one.stage) for one in await kept.invitations(1000)]


async def approved(store: Store, made: Made = ALICE) -> dict[tuple[Source, str], list[str]]:
    entries = (await store.certificate(made.fingerprint)).entries
    return {(e.source, e.origin): [v.address for v in e.vouchers if v.approved] for e in entries}


# --- prepare


async def test_a_new_one_is_prepared_and_numbered(kept: Invitations) -> None:
    given = invitation(1, note="x", stage=Stage.CONFIRMED, confirmed_at=5, number=77, made_by="örtlich")
    assert await kept.prepare(given, confirm_of(1), withdraw_of(1), PLENTY) is None
    assert await prepared(kept, 2, address="alice@b.example") is None
    second, first = await kept.invitations(10)
    begun = {"note": "", "stage": Stage.PREPARED, "confirmed_at": 0, "changed_at": NOW}
    assert first == replace(given, number=first.number, **begun)
    assert 0 < first.number < second.number


async def test_there_must_be_such_an_entry_that_names_the_address(store: Store, kept: Invitations) -> None:
    bob = Made(2, ("bob@a.example",), kind=Kind.X509)
    await store.put([bob.find(Source.MAILFLOW, "a.example")], [], await store.begin(), NOW)
    for wrong in (
        {"made": Made(3)},
        {"origin": "two"},
        {"source": Source.LOCAL},
        {"address": "bob@a.example"},
        {"kind": Kind.X509},
    ):
        assert await prepared(kept, **wrong) is Refused.GONE, wrong
    assert await kept.invitations(10) == ()
    mailed = {"made": bob, "address": "bob@a.example", "source": Source.MAILFLOW, "origin": "a.example"}
    assert await prepared(kept, **mailed) is None


async def test_a_blocked_certificate_is_not_invited_for(store: Store, kept: Invitations) -> None:
    await store.block(ALICE.fingerprint, NOW)
    assert await prepared(kept) is Refused.BLOCKED
    await store.unblock(ALICE.fingerprint, NOW)
    assert await prepared(kept) is None


@pytest.mark.parametrize(
    ("quota", "seconds", "refused"),
    [
        (replace(PLENTY, per_address=2), DAY, Refused.PER_ADDRESS),
        (replace(PLENTY, per_domain=2), HOUR, Refused.PER_DOMAIN),
        (replace(PLENTY, per_hour=2), HOUR, Refused.PER_HOUR),
    ],
)
async def test_a_quota_holds_for_its_time(kept: Invitations, quota: Quota, seconds: int, refused: Refused) -> None:
    assert await prepared(kept, 1) is None
    assert await prepared(kept, 2, made_at=NOW + 10) is None
    assert await prepared(kept, 3, quota, made_at=NOW + 20) is refused
    assert await stages(kept) == [(2, Stage.PREPARED), (1, Stage.REPLACED)]  # a refused one replaces nothing
    assert await prepared(kept, 4, quota, made_at=NOW + seconds - 1) is refused
    assert await prepared(kept, 5, quota, made_at=NOW + seconds) is None
    assert await prepared(kept, 6, quota, made_at=NOW + seconds + 9) is refused


async def test_quotas_of_others_do_not_count(store: Store, kept: Invitations) -> None:
    texts = ("alice@b.example", "bob@a.example", "carol@sub.a.example", "carol@xa.example")
    await put(store, made := Made(2, texts))
    for n, address in enumerate(texts):
        assert await prepared(kept, n, made=made, address=address) is None
    assert await prepared(kept, 10, Quota(10, per_address=1, per_domain=2)) is None
    assert await prepared(kept, 11, Quota(10, per_address=2, per_domain=2)) is Refused.PER_DOMAIN


async def test_what_failed_does_not_count(kept: Invitations) -> None:
    once = Quota(1, 1, 1)
    assert await prepared(kept, 1, once) is None
    await kept.delivered(invitation(1).id, NOW, "550 no")
    assert await prepared(kept, 2, once) is None
    assert await prepared(kept, 3, once) is Refused.PER_ADDRESS


async def test_a_clock_that_was_wrong_does_not_count(kept: Invitations) -> None:
    assert await prepared(kept, 1, made_at=NOW + DAY) is None
    assert await prepared(kept, 2, Quota(1, 1, 1)) is None


@pytest.mark.parametrize("before", [*OPEN, Stage.FAILED, Stage.CONFIRMED, Stage.WITHDRAWN])
async def test_an_open_one_of_the_same_entry_and_address_is_replaced(
    store: Store, kept: Invitations, before: Stage
) -> None:
    await prepared(kept, 1, address="alice@b.example")
    await prepared(kept, 2)
    await reach(kept, 2, before)
    await put(store, ALICE)  # where it was deleted
    await prepared(kept, 3, made_at=NOW + 9)
    after = {int(one.id, 16): one for one in await kept.invitations(10)}
    assert after[1].stage is after[3].stage is Stage.PREPARED
    assert after[2].stage is (Stage.REPLACED if before in OPEN else before)
    assert (after[2].changed_at == NOW + 9) is (before in OPEN)


async def reach(kept: Invitations, n: int, stage: Stage) -> None:
    """Take a prepared one to a stage."""
    if stage in (Stage.SENT, Stage.FAILED, Stage.BOUNCED):
        await kept.delivered(invitation(n).id, NOW + 1, "no" if stage is Stage.FAILED else "")
    if stage is Stage.BOUNCED:
        assert await kept.bounced(invitation(n).id, NOW + 2, "full")
    elif stage is Stage.CONFIRMED:
        assert isinstance(await kept.confirm(confirm_of(n), NOW + 2), Invitation)
    elif stage is Stage.WITHDRAWN:
        assert isinstance(await kept.withdraw(withdraw_of(n), NOW + 2), Invitation)


# --- on its way


async def test_the_relay_takes_it_or_not(kept: Invitations) -> None:
    for n in (1, 2):
        await prepared(kept, n, address=("alice@a.example", "alice@b.example")[n - 1])
    await kept.delivered(invitation(1).id, NOW + 1)
    await kept.delivered(invitation(2).id, NOW + 2, "550 nö")
    await kept.delivered("nobody's", NOW + 2)
    refused, taken = await kept.invitations(10)
    assert (taken.stage, taken.changed_at, taken.note) == (Stage.SENT, NOW + 1, "")
    assert (refused.stage, refused.changed_at, refused.note) == (Stage.FAILED, NOW + 2, "550 nö")


@pytest.mark.parametrize("stage", [*Stage])
async def test_what_has_gone_further_is_left(kept: Invitations, stage: Stage) -> None:
    await prepared(kept, 1)
    await reach(kept, 1, stage)
    if stage is Stage.REPLACED:
        await prepared(kept, 2)
    (*_, before) = await kept.invitations(10)
    assert before.stage is stage
    await kept.delivered(before.id, NOW + 5, "late")
    assert ((await kept.invitations(10))[-1] == before) is (stage is not Stage.PREPARED)


@pytest.mark.parametrize("stage", [*Stage])
async def test_an_open_one_comes_back(kept: Invitations, stage: Stage) -> None:
    await prepared(kept, 1)
    await reach(kept, 1, stage)
    if stage is Stage.REPLACED:
        await prepared(kept, 2)
    assert await kept.bounced(invitation(1).id, NOW + 5, "no such üser") is (stage in OPEN)
    (*_, after) = await kept.invitations(10)
    wanted = (Stage.BOUNCED, NOW + 5, "no such üser") if stage in OPEN else (stage, after.changed_at, after.note)
    assert (after.stage, after.changed_at, after.note) == wanted
    assert not await kept.bounced("nobody's", NOW, "x")


async def test_the_link_of_one_that_came_back_works(kept: Invitations) -> None:
    await prepared(kept, 1)
    await reach(kept, 1, Stage.BOUNCED)
    assert isinstance(await kept.confirm(confirm_of(1), NOW), Invitation)


async def test_tokens_find_theirs_and_read_only(kept: Invitations, heard: Heard) -> None:
    await prepared(kept, 1)
    heard.clear()
    (one,) = await kept.invitations(10)
    for _ in range(2):
        assert await kept.by_confirm(confirm_of(1)) == await kept.by_withdraw(withdraw_of(1)) == one
        for digest in (withdraw_of(1), confirm_of(2), b""):
            assert await kept.by_confirm(digest) is None
        assert await kept.by_withdraw(confirm_of(1)) is None
    assert await kept.invitations(10) == (one,)
    assert heard == []


# --- confirm


async def test_confirming_approves_the_entry_for_the_address_alone(
    store: Store, kept: Invitations, heard: Heard, other: tuple[Store, Heard]
) -> None:
    far, far_heard = other
    await store.put([ALICE.find(origin="two"), ALICE.find(Source.LOCAL, "x")], [], await store.begin(), NOW)
    await prepared(kept, 1)
    await far.poll()
    heard.clear()
    far_heard.clear()
    done = await far.invitations.confirm(confirm_of(1), NOW + 5)
    (one,) = await kept.invitations(10)
    assert done == one
    assert (one.stage, one.changed_at, one.confirmed_at) == (Stage.CONFIRMED, NOW + 5, NOW + 5)
    wanted = {(Source.KEYSERVER, "one"): ["alice@a.example"], (Source.KEYSERVER, "two"): [], (Source.LOCAL, "x"): []}
    assert await approved(store) == wanted
    assert (await store.stats()).approved == 1
    await store.poll()
    assert heard.names >= ALICE.names
    assert far_heard.names >= ALICE.names


async def test_what_is_held_waits_no_more(store: Store) -> None:
    held = Voucher("alice@a.example", authenticated=True, held=True, seen_at=NOW)
    mailed = ALICE.find(Source.MAILFLOW, "a.example", vouchers=(held,))
    await store.put([mailed], [], await store.begin(), NOW)
    await prepared(store.invitations, 1, source=Source.MAILFLOW, origin="a.example")
    assert (await store.stats()).held == 1
    await store.invitations.confirm(confirm_of(1), NOW)
    stats = await store.stats()
    assert (stats.held, stats.approved) == (0, 1)


async def test_a_consent_outlives_what_an_approval_outlives(store: Store, kept: Invitations) -> None:
    bob = Made(2, ("alice@a.example",))
    await put(store, bob)
    await prepared(kept, 1)
    await kept.confirm(confirm_of(1), NOW)
    await store.approve(bob.fingerprint, Source.KEYSERVER, "one", "alice@a.example")
    seen = replace(ALICE, texts=(*ALICE.texts, "new@a.example"))
    for made in (seen, replace(bob, texts=(*bob.texts, "new@a.example"))):
        await store.put([made.find()], [], await store.begin(), NOW + 1)
    await store.delete(ALICE.fingerprint, NOW + 2, undo=Undo("u", NOW + 600))
    await store.delete(bob.fingerprint, NOW + 2, undo=Undo("u", NOW + 600))
    await store.undo("u", NOW + 3, {})
    vouched = [(await store.certificate(made.fingerprint)).entries[0].vouchers for made in (ALICE, bob)]
    assert vouched[0] == vouched[1] == (Voucher("alice@a.example", approved=True),)


async def test_it_works_once_in_time_and_in_no_other_stage(store: Store, kept: Invitations) -> None:
    assert await kept.confirm(confirm_of(1), NOW) is Refused.UNKNOWN
    await prepared(kept, 1)
    assert await kept.confirm(withdraw_of(1), NOW) is Refused.UNKNOWN  # the other link's token
    assert await kept.confirm(confirm_of(1), LATER) is Refused.EXPIRED
    assert await kept.confirm(confirm_of(1), LATER + 1) is Refused.EXPIRED
    assert await approved(store) == {(Source.KEYSERVER, "one"): []}
    assert isinstance(await kept.confirm(confirm_of(1), LATER - 1), Invitation)
    assert await kept.confirm(confirm_of(1), LATER) is Refused.USED
    assert (await kept.invitations(10))[0].confirmed_at == LATER - 1
    await prepared(kept, 2)
    await prepared(kept, 3)
    assert await kept.confirm(confirm_of(2), NOW) is Refused.REPLACED
    await reach(kept, 3, Stage.WITHDRAWN)
    assert await kept.confirm(confirm_of(3), NOW) is Refused.WITHDRAWN
    await put(store, ALICE)
    await prepared(kept, 4)
    await reach(kept, 4, Stage.FAILED)
    assert await kept.confirm(confirm_of(4), NOW) is Refused.UNKNOWN


@pytest.mark.parametrize("how", ["deleted", "deleted for a while", "replaced", "source", "address", "expired"])
async def test_what_it_was_about_must_be_there(store: Store, kept: Invitations, how: str) -> None:
    await prepared(kept, 1)
    match how:
        case "deleted":
            await store.delete(ALICE.fingerprint, NOW)
        case "deleted for a while":
            await store.delete(ALICE.fingerprint, NOW, undo=Undo("u", NOW + 600))
        case "replaced":
            await store.delete(ALICE.fingerprint, NOW)
            await put(store, replace(ALICE, n=2))
        case "source":
            await store.delete(ALICE.fingerprint, NOW)
            await store.put([ALICE.find(origin="two")], [], await store.begin(), NOW)
        case "address":
            await put(store, replace(ALICE, texts=("alice@b.example",)))
        case "expired":
            assert await store.purge_expired({(Source.KEYSERVER, None): NOW + 1}, 0, 10) == 1
    assert await kept.confirm(confirm_of(1), NOW) is Refused.GONE
    assert await stages(kept) == [(1, Stage.PREPARED)]
    assert (await store.stats()).approved == 0


async def test_a_blocked_one_is_not_confirmed(store: Store, kept: Invitations) -> None:
    await prepared(kept, 1)
    await store.block(ALICE.fingerprint, NOW)
    assert await kept.confirm(confirm_of(1), NOW) is Refused.BLOCKED
    assert await approved(store) == {(Source.KEYSERVER, "one"): []}


# --- withdraw


async def test_withdrawing_deletes_the_entry_alone(
    store: Store, kept: Invitations, heard: Heard, other: tuple[Store, Heard]
) -> None:
    found = said(addr("alice@a.example"), True, NOW)
    await store.put([ALICE.find(origin="two")], [found], await store.begin(), NOW)
    await prepared(kept, 1)
    await kept.confirm(confirm_of(1), NOW + 1)
    begun = await store.begin()
    heard.clear()
    done = await other[0].invitations.withdraw(withdraw_of(1), LATER + DAY)  # at any time
    (one,) = await kept.invitations(10)
    assert done == one
    assert (one.stage, one.changed_at, one.confirmed_at) == (Stage.WITHDRAWN, LATER + DAY, NOW + 1)
    assert await approved(store) == {(Source.KEYSERVER, "two"): []}
    assert (await store.look(addr("alice@a.example"))).records == ()  # as for every delete
    await store.poll()
    assert heard.names >= ALICE.names
    assert [str(one) for one in await store.put([ALICE.find()], [], begun, LATER)] == ["deleted"]
    assert await store.undos(LATER + DAY) == ()


async def test_what_waits_to_be_undone_loses_the_entry(store: Store, kept: Invitations) -> None:
    bob = Made(2, ("bob@a.example",))
    await put(store, bob)
    await prepared(kept, 1)
    for made in (ALICE, bob):
        await store.delete(made.fingerprint, NOW, undo=Undo("u", NOW + 600))
    assert isinstance(await kept.withdraw(withdraw_of(1), NOW), Invitation)
    undone = await store.undo("u", NOW, {})
    assert undone is not None
    assert undone.restored == 1
    assert (await store.certificate(ALICE.fingerprint)).entries == ()


@pytest.mark.parametrize("before", [*OPEN, Stage.FAILED, Stage.CONFIRMED])
@pytest.mark.parametrize("there", [True, False])
async def test_it_is_withdrawn_once_from_every_stage(
    store: Store, kept: Invitations, before: Stage, there: bool
) -> None:
    await prepared(kept, 1)
    await reach(kept, 1, before)
    if not there:
        await store.delete(ALICE.fingerprint, NOW)
    begun = await store.begin()
    assert isinstance(await kept.withdraw(withdraw_of(1), NOW), Invitation)
    assert (await store.certificate(ALICE.fingerprint)).entries == ()
    assert [str(one) for one in await store.put([ALICE.find()], [], begun, NOW)] == ["deleted"]
    assert await kept.confirm(confirm_of(1), NOW) is Refused.WITHDRAWN
    await put(store, ALICE)
    assert await kept.withdraw(withdraw_of(1), NOW + 9) is Refused.WITHDRAWN
    assert await approved(store) == {(Source.KEYSERVER, "one"): []}  # what came again is another's word
    assert (await kept.invitations(10))[0].changed_at == NOW


async def test_who_may_not_withdraw(store: Store, kept: Invitations) -> None:
    await prepared(kept, 1)
    await prepared(kept, 2)
    assert await kept.withdraw(withdraw_of(3), NOW) is Refused.UNKNOWN
    assert await kept.withdraw(confirm_of(2), NOW) is Refused.UNKNOWN
    assert await kept.withdraw(withdraw_of(1), NOW) is Refused.REPLACED
    assert await approved(store) == {(Source.KEYSERVER, "one"): []}
    assert await stages(kept) == [(2, Stage.PREPARED), (1, Stage.REPLACED)]


async def test_a_consent_is_not_replaced_and_can_be_withdrawn(store: Store, kept: Invitations) -> None:
    await prepared(kept, 1)
    await kept.confirm(confirm_of(1), NOW)
    await prepared(kept, 2)
    assert isinstance(await kept.withdraw(withdraw_of(1), NOW), Invitation)
    assert await stages(kept) == [(2, Stage.PREPARED), (1, Stage.WITHDRAWN)]
    assert await kept.confirm(confirm_of(2), NOW) is Refused.GONE


# --- lists and bounds


async def test_they_are_paged_and_chosen_by_address(kept: Invitations) -> None:
    for n in range(10):
        await prepared(kept, n, address=("alice@a.example", "alice@b.example")[n % 2])
    seen: list[Invitation] = []
    while page := await kept.invitations(3, seen[-1].number if seen else None):
        seen += page
        await prepared(kept, 100 + len(seen))
    assert [int(one.id, 16) for one in seen] == [*range(9, -1, -1)]
    mine = await kept.invitations(2, address="alice@b.example")
    assert [int(one.id, 16) for one in mine] == [9, 7]
    mine = await kept.invitations(2, mine[-1].number, "alice@b.example")
    assert [int(one.id, 16) for one in mine] == [5, 3]
    assert await kept.invitations(2, address="b.example") == ()


async def test_the_oldest_make_room_but_consents_stay(
    store: Store, kept: Invitations, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_invitations, postgres_invitations):
        monkeypatch.setattr(module, "MAX_INVITATIONS", 20)
    for n in range(10):
        await prepared(kept, n)
        await reach(kept, n, Stage.CONFIRMED if n % 2 else Stage.WITHDRAWN)
        await put(store, ALICE)
    for n in range(10, 210):
        await prepared(kept, n)
    left = [n for n, _ in await stages(kept)]
    idle = [n for n in left if n >= 10]
    assert left[-10:] == [*range(9, -1, -1)]
    assert 20 <= len(idle) <= 20 + 64
    assert idle == [*range(209, 209 - len(idle), -1)]


async def test_purging_everything_leaves_them_alone(store: Store, kept: Invitations) -> None:
    await prepared(kept, 1)
    await reach(kept, 1, Stage.CONFIRMED)
    await prepared(kept, 2)
    before = await kept.invitations(10)
    await store.purge_all(NOW)
    assert await kept.invitations(10) == before
    assert await kept.confirm(confirm_of(2), NOW) is Refused.GONE
    assert isinstance(await kept.withdraw(withdraw_of(1), NOW), Invitation)


@pytest.mark.parametrize("hostile", ["\0", "\ud800", "'; DROP TABLE invitation; --", "\U0001f600" * 3000])
async def test_hostile_text_is_kept_as_far_as_the_database_takes_it(kept: Invitations, hostile: str) -> None:
    assert await prepared(kept, address=f"{hostile}@a.example", id=hostile) is Refused.GONE
    await kept.delivered(hostile, NOW, hostile)
    assert not await kept.bounced(hostile, NOW, hostile)
    assert await kept.invitations(10, address=hostile) == ()
    await prepared(kept, 1, made_by=hostile)
    await prepared(kept, 2, address="alice@b.example")
    await kept.delivered(invitation(1).id, NOW, hostile)
    assert await kept.bounced(invitation(2).id, NOW, hostile)
    second, first = await kept.invitations(10)
    assert {first.made_by, first.note, second.note} <= {hostile, "\ufffd", "?"}


# --- several at once


async def both(one: Store, other: Store, method: str, *given: Any) -> Counter[Any]:
    """The same call at once from two processes, several times each."""
    calls = [getattr(store.invitations, method)(*given) for _ in range(4) for store in (one, other)]
    return Counter(
        type(answer) if isinstance(answer, Invitation) else answer for answer in await asyncio.gather(*calls)
    )


async def test_of_two_that_race_one_wins(store: Store, kept: Invitations, other: tuple[Store, Heard]) -> None:
    await prepared(kept, 1)
    assert await both(store, other[0], "confirm", confirm_of(1), NOW) == {Invitation: 1, Refused.USED: 7}
    assert await both(store, other[0], "withdraw", withdraw_of(1), NOW) == {Invitation: 1, Refused.WITHDRAWN: 7}


async def test_a_quota_holds_among_several(store: Store, kept: Invitations, other: tuple[Store, Heard]) -> None:
    quota = replace(PLENTY, per_hour=3)
    near, far = kept, other[0].invitations
    answers = await asyncio.gather(*(prepared((near, far)[n % 2], n, quota) for n in range(10)))
    assert Counter(answers) == {None: 3, Refused.PER_HOUR: 7}
    assert Counter(stage for _, stage in await stages(kept)) == {Stage.REPLACED: 2, Stage.PREPARED: 1}


async def test_confirmed_and_withdrawn_at_once_it_is_withdrawn(
    store: Store, kept: Invitations, other: tuple[Store, Heard]
) -> None:
    for n in range(10):
        await put(store, ALICE)
        await prepared(kept, n)
        answers = await asyncio.gather(
            kept.confirm(confirm_of(n), NOW), other[0].invitations.withdraw(withdraw_of(n), NOW)
        )
        assert isinstance(answers[1], Invitation)
        assert answers[0] is Refused.WITHDRAWN or answers[1].confirmed_at == NOW
        assert (await kept.invitations(1))[0] == answers[1]
        assert (await store.certificate(ALICE.fingerprint)).entries == ()


async def test_a_consent_is_whole_whatever_else_is_written(
    store: Store, kept: Invitations, other: tuple[Store, Heard]
) -> None:
    """Puts, deletes and blocks of the same certificate beside a confirm: approved, or refused, never between."""
    for n in range(10):
        await put(store, ALICE)
        await prepared(kept, n)
        beside = (
            put(store, ALICE, now=NOW + 1),
            store.delete(ALICE.fingerprint, NOW),
            store.block(ALICE.fingerprint, NOW),
        )
        answer, _ = await asyncio.gather(other[0].invitations.confirm(confirm_of(n), NOW), beside[n % 3])
        for unused in (*beside[: n % 3], *beside[n % 3 + 1 :]):
            unused.close()
        consented = isinstance(answer, Invitation)
        assert consented or answer in (Refused.GONE, Refused.BLOCKED)
        assert ((await kept.invitations(1))[0].stage is Stage.CONFIRMED) is consented
        for addresses in (await approved(store)).values():
            assert bool(addresses) is consented
        await store.unblock(ALICE.fingerprint, NOW)
        await store.delete(ALICE.fingerprint, NOW)


async def test_they_are_there_after_a_restart_and_a_closed_store_says_so(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await put(store, ALICE)
        await prepared(store.invitations, 1)
        before = await store.invitations.invitations(10)
    for call in (
        store.invitations.by_confirm(confirm_of(1)),
        store.invitations.confirm(confirm_of(1), NOW),
        prepared(store.invitations, 2),
    ):
        with pytest.raises(StoreError, match="not open"):
            await call
    async with backend.opened() as (store, _):
        assert await store.invitations.invitations(10) == before
        assert isinstance(await store.invitations.confirm(confirm_of(1), NOW), Invitation)
        await prepared(store.invitations, 2)
        assert (await store.invitations.invitations(1))[0].number > before[0].number


# --- databases of older releases


async def test_an_older_file_is_brought_forward(tmp_path: Path) -> None:
    with Backend("sqlite", tmp_path) as backend:
        backend.path.parent.mkdir()
        sqlite_schema.create_file(backend.path)
        db = await connect(backend.path, writes=True)
        steps = sqlite_schema.STEPS[: sqlite_schema.STEPS.index(sqlite_schema.INVITATIONS)]
        await run(db, lambda c: migration.migrate(c, backend.path, steps))
        await run(db, lambda c: c.execute("INSERT INTO block VALUES ('AB', 1, 'why')"))
        await db.close()
        await works_after_an_upgrade(backend)


async def test_an_older_database_is_brought_forward_and_older_nodes_go_on(tmp_path: Path) -> None:
    with Backend("postgres", tmp_path) as backend:
        shared().give_back(backend.database)
        backend.database = shared().create()
        db = await asyncpg.connect(backend.url)
        steps = postgres_schema.STEPS[: postgres_schema.STEPS.index(postgres_schema.INVITATIONS)]
        await bring_forward(db, steps)
        await db.execute("INSERT INTO block VALUES ('AB', 1, 'why')")
        await bring_forward(db, (*steps, postgres_schema.INVITATIONS))
        await bring_forward(db, steps)  # a node of the older release starts again, and refuses nothing
        await db.close()
        await works_after_an_upgrade(backend)


async def works_after_an_upgrade(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        assert await store.blocked() == ("AB",)
        assert await store.invitations.invitations(10) == ()
        await put(store, ALICE)
        await prepared(store.invitations, 1)
        assert isinstance(await store.invitations.confirm(confirm_of(1), NOW), Invitation)


# --- forget


async def test_an_address_is_forgotten_with_its_consents_and_no_other_is(store: Store, kept: Invitations) -> None:
    assert await prepared(kept, 0) is None
    await kept.delivered("0" * 32, NOW)
    assert isinstance(await kept.confirm(confirm_of(0), NOW), Invitation)
    assert await prepared(kept, 1, address="alice@b.example") is None
    assert await kept.forget("alice@a.example") == 1
    assert await stages(kept) == [(1, Stage.PREPARED)]
    assert await kept.withdraw(withdraw_of(0), NOW) is Refused.UNKNOWN
    assert await kept.forget("alice@a.example") == 0
