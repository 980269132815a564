"""What the store promises about undoing a delete, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyserver.model import Entry, Kind, Selection, Source, Voucher
from keyserver.store.base import Store, Stored, Undo, Undone, Waiting
from support.listed import listed
from tests.conformance.conftest import Backend, Heard, Made, addr, said

ALICE = Made(1, ("Alice <alice@example.org>",))
OTHER = Made(2, ("Other <alice@example.org>",))
CAROL = Made(3, ("Carol <carol@example.net>",))
K, M, L = Source.KEYSERVER, Source.MAILFLOW, Source.LOCAL
NOW = 1_800_000_000
UNDO = Undo("first", NOW + 600)
NAME = addr("alice@example.org")


async def put(store: Store, *finds: object, now: int = NOW, records: object = ()) -> tuple[Stored, ...]:
    return await store.put(list(finds), list(records), await store.begin(), now)  # type: ignore[call-overload]


async def undo(store: Store, id_: str = "first", now: int = NOW + 1, **cutoffs: Any) -> Undone | None:
    return await store.undo(id_, now, {(Source(source), None): at for source, at in cutoffs.items()})


async def entries(store: Store, name: str = NAME) -> set[Entry]:
    return set((await store.look(name)).entries)


async def test_what_was_deleted_comes_back_as_it_was(store: Store, heard: Heard) -> None:
    behind = (
        Voucher("alice@example.org", authenticated=True, seen_at=NOW - 7),
        Voucher("a@example.org", held=True, seen_at=NOW - 8),
    )
    found = said(NAME, True, NOW - 50, asked_at=NOW - 10)
    await put(store, ALICE.find(), now=NOW - 50, records=[found])
    await put(store, ALICE.find(M, "example.org", vouchers=behind, detail="<1@x>"), now=NOW - 7)
    await put(store, ALICE.find(L, "administrator", chained=True), now=NOW - 3)
    await store.approve(ALICE.fingerprint, M, "example.org", "alice@example.org")
    before, counts = await store.look(NAME), await store.stats()
    assert await store.delete(ALICE.fingerprint, NOW, undo=UNDO) == 3
    assert (await store.look(NAME)).entries == ()
    heard.clear()
    assert await undo(store) == Undone(3, 3)
    after = await store.look(NAME)
    assert set(after.entries) == set(before.entries)
    assert after.records == (found,)
    assert heard.names >= ALICE.names
    assert replace(await store.stats(), octets=counts.octets) == counts
    assert await undo(store) is None, "each once"


async def test_an_absent_word_is_forgotten_for_good(store: Store) -> None:
    await put(store, ALICE.find(), records=[said(NAME, False, NOW, "two"), said(NAME, True, NOW)])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await undo(store)
    assert (await store.look(NAME)).records == (said(NAME, True, NOW),)


async def test_what_was_found_for_a_name_stands_first_again(store: Store) -> None:
    """Before 64 others that only claim it."""
    await put(store, ALICE.find(), records=[said(NAME, True, NOW)])
    await put(store, *(Made(n, ALICE.texts).find() for n in range(10, 80)), now=NOW + 9)
    await store.delete(ALICE.fingerprint, NOW + 10, undo=UNDO)
    await undo(store, now=NOW + 11)
    assert (await store.look(NAME)).entries[0].fingerprint == ALICE.fingerprint


async def test_only_what_the_delete_named_comes_back(store: Store) -> None:
    await put(store, ALICE.find(), ALICE.find(M, "example.org"), CAROL.find())
    await store.delete(ALICE.fingerprint, NOW, M, undo=UNDO)
    await store.delete(CAROL.fingerprint, NOW, undo=Undo("second", NOW + 600))
    assert {e.source for e in await entries(store)} == {K}
    await undo(store)
    assert {e.source for e in await entries(store)} == {K, M}
    assert not await entries(store, CAROL.fpr)


async def test_deletes_of_one_id_are_one_act(store: Store) -> None:
    """Certificates of one address too, whose records the first of them took."""
    await put(store, ALICE.find(), OTHER.find(), records=[said(NAME, True, NOW)])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await store.delete(OTHER.fingerprint, NOW + 5, undo=Undo("first", NOW + 605))
    assert await store.undos(NOW + 6) == (Waiting("first", NOW + 5, NOW + 605, 2),)
    assert await undo(store, now=NOW + 604) == Undone(2, 2)
    assert len(await entries(store)) == 2
    assert (await store.look(NAME)).records == (said(NAME, True, NOW),)


async def test_another_delete_leaves_its_records_forgotten(store: Store) -> None:
    """After it the next lookup asks again, whatever of another certificate comes back."""
    await put(store, ALICE.find(), OTHER.find(), records=[said(NAME, True, NOW)])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await store.delete(OTHER.fingerprint, NOW, undo=Undo("second", NOW + 600))
    await undo(store)
    shelf = await store.look(NAME)
    assert [e.fingerprint for e in shelf.entries] == [ALICE.fingerprint]
    assert shelf.records == ()


async def test_a_purge_can_wait_to_be_undone_when_it_says_so(store: Store) -> None:
    made = [Made(n, (f"n{n}@example.org",)) for n in range(10, 460)]
    await put(store, *(m.find() for m in made), CAROL.find())
    assert await store.purge(Selection(domain="example.org"), NOW, UNDO) == 450
    assert len(await listed(store)) == 1
    assert await undo(store) == Undone(450, 450)
    assert len(await listed(store)) == 451


@pytest.mark.parametrize(
    ("what", "stays"),
    [
        (Selection(domain="EXAMPLE.org"), False),
        (Selection(domain="ample.org"), True),
        (Selection(text="alice@"), False),
        (Selection(text="al"), False),  # too short to be looked for inside
        (Selection(text="lice"), False),
        (Selection(text="li"), True),
        (Selection(text=ALICE.fingerprint[:9]), False),
        (Selection(text=ALICE.fingerprint[-16:]), False),  # its key ID
        (Selection(text="bob"), True),
        (Selection(kind=Kind.OPENPGP), False),
        (Selection(kind=Kind.X509), True),
        (Selection(source=Source.LOCAL), True),
        (Selection(upstream="one"), False),
        (Selection(upstream="two"), True),
    ],
)
async def test_a_purge_for_good_takes_what_waits_by_the_same_words(store: Store, what: Selection, stays: bool) -> None:
    await put(store, ALICE.find())
    taken = await store.purge(what, NOW, UNDO)
    assert taken == (not stays), "of what lives"
    if stays:
        await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await store.purge(what, NOW)
    assert await undo(store) == (Undone(1, 1) if stays else Undone(0, 1))


async def test_until_its_time_is_over(store: Store) -> None:
    await put(store, ALICE.find())
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    assert len(await store.undos(NOW + 599)) == 1
    assert await store.erase_undos(NOW + 599) == 0
    assert await store.undos(NOW + 600) == ()
    assert await undo(store, now=NOW + 600) is None
    assert await store.erase_undos(NOW + 600) == 1
    assert await undo(store, now=NOW + 1) is None


async def test_what_waits_by_a_wrong_clock_is_erased(store: Store) -> None:
    await put(store, ALICE.find())
    await store.delete(ALICE.fingerprint, NOW + 90_000, undo=Undo("first", NOW + 90_600))
    assert await store.erase_undos(NOW) == 1


async def test_what_waits_is_in_no_listing_and_no_count_but_takes_room(backend: Backend) -> None:
    own = (Voucher("alice@example.org", authenticated=True),)
    async with backend.opened(max_size=1 << 20) as (store, _):
        await put(store, Made(1, ALICE.texts, ballast=1 << 20).find(vouchers=own), records=[said(NAME, True, NOW)])
        await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
        stats = await store.stats()
        assert (stats.certificates, sum(stats.entries.values()), stats.records_found) == (0, 0, 0)
        assert await listed(store) == []
        assert not await store.answered("one", "example.org")
        assert await store.newest() is None
        assert await put(store, CAROL.find()) == (Stored.FULL,)
        await store.erase_undos(NOW + 600)
        assert await put(store, CAROL.find()) == (Stored.NEW,)


async def test_nothing_waits_where_nothing_was_deleted(store: Store) -> None:
    await put(store, records=[said(ALICE.fpr, True, NOW)])
    assert await store.delete(ALICE.fingerprint, NOW, undo=UNDO) == 0
    assert await store.undos(NOW) == ()


async def test_it_survives_a_restart_and_other_processes_hear_of_it(
    backend: Backend, store: Store, other: tuple[Store, Heard]
) -> None:
    await put(store, ALICE.find())
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await store.close()
    async with backend.opened() as (again, _):
        assert await undo(again) == Undone(1, 1)
        await other[0].poll()
        assert other[1].names >= ALICE.names
        assert len(await entries(other[0])) == 1


@pytest.mark.parametrize(
    "meanwhile",
    ["purge", "purge source", "purge upstream", "purge domain", "purge text", "purge all", "delete", "block", "revoke"],
)
async def test_what_befell_it_meanwhile_counts(store: Store, meanwhile: str) -> None:
    await put(store, ALICE.find(), CAROL.find(M, "example.net"), records=[said(NAME, True, NOW)])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await store.delete(CAROL.fingerprint, NOW, undo=UNDO)
    everything = meanwhile in ("purge", "purge all")
    match meanwhile:
        case "purge":
            await store.purge(Selection(), NOW)
        case "purge source":
            await store.purge(Selection(source=K), NOW)
        case "purge upstream":
            await store.purge(Selection(upstream="one"), NOW)
        case "purge domain":
            await store.purge(Selection(domain="Example.org"), NOW)
        case "purge text":
            await store.purge(Selection(text="aLICE <"), NOW)
        case "purge all":
            await store.purge_all(NOW)
        case "delete":
            assert await store.delete(ALICE.fingerprint, NOW, K, "one") == 0
        case "block":
            await store.block(ALICE.fingerprint, NOW)
            await store.unblock(ALICE.fingerprint, NOW)
        case "revoke":  # by way of a question about another origin's copy, begun before
            await store.put([Made(1, ALICE.texts, ("r",)).find(origin="two")], [], 0, NOW)
    done = await undo(store)
    assert done == (None if meanwhile == "purge all" else Undone(0 if everything else 1, 2))
    assert not await entries(store)
    assert len(await entries(store, CAROL.fpr)) == (0 if everything else 1)
    assert (await store.look(NAME)).records == ()


async def test_a_purge_of_others_leaves_it(store: Store) -> None:
    await put(store, ALICE.find())
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    for what in (Selection(source=M), Selection(upstream="two"), Selection(domain="ample.org"), Selection(text="bob")):
        await store.purge(what, NOW)
    assert await undo(store) == Undone(1, 1)


async def test_what_was_blocked_already_comes_back_blocked(store: Store) -> None:
    await put(store, ALICE.find())
    await store.block(ALICE.fingerprint, NOW)
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    assert await undo(store) == Undone(1, 1)
    assert not await entries(store)
    assert len((await store.certificate(ALICE.fingerprint)).entries) == 1


async def test_a_newer_copy_of_the_same_origin_stays(store: Store) -> None:
    newer = Made(1, ("Alice <new@example.org>",))
    await put(store, ALICE.find(), ALICE.find(origin="two"), now=NOW - 9)
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await put(store, newer.find(), now=NOW + 1)
    assert await undo(store, now=NOW + 2) == Undone(1, 2)
    copies = {e.origin: (e.octets, e.cached_at) for e in await entries(store, ALICE.fpr)}
    assert copies == {"one": (newer.octets, NOW + 1), "two": (ALICE.octets, NOW - 9)}


async def test_a_newer_copy_counts_though_it_is_gone_again(store: Store) -> None:
    await put(store, ALICE.find())
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await put(store, ALICE.find(), now=NOW + 1)
    await store.delete(ALICE.fingerprint, NOW + 2)
    assert await undo(store, now=NOW + 3) == Undone(0, 1)
    assert not await entries(store)


async def test_a_newer_word_of_the_same_upstream_stays(store: Store) -> None:
    await put(store, ALICE.find(), records=[said(NAME, True, NOW), said(NAME, True, NOW, "two")])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    await put(store, records=[said(NAME, False, NOW + 1)])
    await store.purge_expired({}, NOW + 2, 10)  # the word itself is forgotten again
    await undo(store, now=NOW + 3)
    assert (await store.look(NAME)).records == (said(NAME, True, NOW, "two"),)


async def test_what_has_expired_stays_away(store: Store) -> None:
    await put(store, ALICE.find(), now=NOW - 100, records=[said(NAME, True, NOW - 100)])
    await put(store, ALICE.find(origin="two"), now=NOW - 99, records=[said(NAME, True, NOW - 99, "two")])
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    assert await undo(store, keyserver=NOW - 99) == Undone(1, 2)
    shelf = await store.look(NAME)
    assert [e.origin for e in shelf.entries] == ["two"]
    assert shelf.records == (said(NAME, True, NOW - 99, "two"),)


async def test_what_was_begun_before_the_delete_stays_refused(store: Store) -> None:
    await put(store, ALICE.find(), now=NOW - 5)
    begun = await store.begin()
    await store.delete(ALICE.fingerprint, NOW, undo=UNDO)
    later = await store.begin()
    await undo(store)
    stale = Made(1, ("Alice <stale@example.org>",))
    late = [said(NAME, False, NOW + 1)]
    assert await store.put([stale.find()], late, begun, NOW + 2) == (Stored.DELETED,)
    shelf = await store.look(NAME)
    assert [(e.octets, e.cached_at) for e in shelf.entries] == [(ALICE.octets, NOW - 5)]
    assert shelf.records == ()
    assert await store.put([stale.find()], [], later, NOW + 3) == (Stored.CHANGED,)  # begun after it: news
