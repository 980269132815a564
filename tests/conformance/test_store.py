"""The promises of keyserver/store/base.py, one by one. Every backend passes all of them, in every run."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from keyserver.changes import Changes
from keyserver.model import Change, Find, Kind, Selection, Source, Voucher
from keyserver.store.base import Store, Stored, StoreError
from keyserver.store.names import MOST
from support.listed import listed
from tests.conformance.conftest import Backend, Heard, Made, addr, said

ALICE = Made(1, ("Alice <alice@example.org>",))
BOB = Made(2, ("Bob <bob@example.org>",))
CAROL = Made(3, ("Carol <carol@example.net>",))
K, M, L = Source.KEYSERVER, Source.MAILFLOW, Source.LOCAL
NOW = 1_800_000_000


async def put(store: Store, *finds: object, now: int = NOW, records: object = ()) -> tuple[Stored, ...]:
    return await store.put(list(finds), list(records), await store.begin(), now)  # type: ignore[call-overload]


async def entries(store: Store, name: str) -> list[tuple[str, Source, str]]:
    return sorted((e.fingerprint, e.source, e.origin) for e in (await store.look(name)).entries)


# --- open, close


async def test_a_closed_store_says_so_and_a_second_close_does_nothing(backend: Backend) -> None:
    store, _ = backend.make()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="not open"):
        await store.look(ALICE.fpr)


async def test_what_was_put_is_there_after_a_restart(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await put(store, ALICE.find(), records=[said(ALICE.fpr, True, NOW)])
        await store.block(BOB.fingerprint, NOW)
        counter = await store.begin()
        before = await store.look(ALICE.fpr)
    async with backend.opened() as (store, heard):
        assert await store.look(ALICE.fpr) == before
        assert await store.blocked() == (BOB.fingerprint,)
        assert await store.begin() == counter
        await store.poll()
        assert heard == []  # restarting changes nothing


async def test_close_finishes_what_is_under_way(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        begun = await store.begin()
        puts = [asyncio.ensure_future(store.put([Made(n).find()], [], begun, NOW)) for n in range(20)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*puts) == [(Stored.NEW,)] * 20
    async with backend.opened() as (store, _):
        assert (await store.stats()).certificates == 20


async def test_two_processes_may_create_it_at_once(backend: Backend) -> None:
    pairs = [backend.make() for _ in range(4)]
    await asyncio.gather(*(store.open() for store, _ in pairs))
    await put(pairs[0][0], ALICE.find())
    for store, _ in pairs:
        assert await entries(store, ALICE.fpr)
        await store.close()


# --- look, certificate


async def test_an_unknown_name_is_an_empty_shelf(store: Store) -> None:
    shelf = await store.look(ALICE.fpr)
    assert (shelf.entries, dict(shelf.revocations), shelf.records) == ((), {}, ())


async def test_look_brings_every_entry_revocation_and_record_of_the_name(store: Store) -> None:
    revoked = Made(1, ALICE.texts, ("r1",))
    held = (Voucher("alice@example.org", held=True),)
    await put(store, ALICE.find(origin="one"), revoked.find(origin="two"), ALICE.find(M, "example.org", vouchers=held))
    await put(store, records=[said(ALICE.fpr, True, 5), said(ALICE.fpr, False, 6, "two"), said(BOB.fpr, True, 7)])
    shelf = await store.look(ALICE.fpr)
    assert {(e.source, e.origin, e.octets, e.held) for e in shelf.entries} == {
        (K, "one", ALICE.octets, False),
        (K, "two", revoked.octets, False),
        (M, "example.org", ALICE.octets, True),
    }
    assert shelf.revocations == {ALICE.fingerprint: b'["r1"]'}
    assert set(shelf.records) == {said(ALICE.fpr, True, 5), said(ALICE.fpr, False, 6, "two")}


async def test_whether_an_upstream_ever_answered_for_a_domain(store: Store) -> None:
    """For each domain's own host: a certificate that another one sent may name whomever it likes."""
    both = Made(1, ("Alice <alice@example.org>", "Alice <alice@victim.example>"))
    own = (Voucher("alice@example.org", authenticated=True),)
    await put(store, both.find(origin="one", vouchers=own), CAROL.find(M, "example.net"))
    await put(store, records=[said(addr("bob@b.example"), True, 5), said(addr("c@c.example"), False, 6)])
    assert await store.answered("one", "example.org")
    assert await store.answered("one", "b.example")
    for upstream, domain in (
        ("two", "example.org"),
        ("two", "b.example"),
        ("one", "victim.example"),
        ("one", "c.example"),  # it said absent, and may have done so by not existing
        ("one", "example.net"),  # by mail
        ("example.net", "example.net"),
        ("one", "xample.org"),
        ("one", "org"),
        ("one", "%"),
    ):
        assert not await store.answered(upstream, domain), (upstream, domain)
    await store.delete(ALICE.fingerprint, NOW + 1)
    assert not await store.answered("one", "example.org")


async def test_the_addresses_of_a_domain(store: Store) -> None:
    assert await store.addresses("example.org", 10) == ()
    await put(store, ALICE.find(origin="one"), ALICE.find(origin="two"), CAROL.find(M, "example.net"))
    await put(store, records=[said(addr("bob@example.org"), True, 5)])
    mine = sorted(name.removeprefix("openpgp:addr:") for name in ALICE.names if name.endswith("@example.org"))
    assert mine
    assert sorted(await store.addresses("example.org", 10)) == mine
    assert len(await store.addresses("example.org", 0)) == 0
    for domain in ("xample.org", "org", "EXAMPLE.ORG", "%", ""):
        assert await store.addresses(domain, 10) == (), domain
    await store.delete(ALICE.fingerprint, NOW + 1)
    assert await store.addresses("example.org", 10) == ()


async def test_a_certificate_is_found_under_each_name_of_its_index_and_no_other(store: Store) -> None:
    await put(store, ALICE.find())
    for name in ALICE.names:
        assert await entries(store, name) == [(ALICE.fingerprint, K, "one")]
    for name in BOB.names | {addr("alice@example.org", Kind.X509), "openpgp:text:alice"}:
        assert await entries(store, name) == []


async def test_all_entries_come_even_where_only_one_copy_has_the_name(store: Store) -> None:
    bare = Made(1, ())
    await put(store, ALICE.find(origin="one"), bare.find(origin="two"))
    assert len(await entries(store, addr("alice@example.org"))) == 2


async def test_every_field_of_an_entry_comes_back(store: Store) -> None:
    behind = (Voucher("alice@example.org", authenticated=True, held=True, seen_at=NOW),)
    find = ALICE.find(M, "example.org", chained=True, vouchers=behind, detail="<1@x>\udcff")
    await put(store, find)
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert (entry.fingerprint, entry.kind, entry.octets) == (ALICE.fingerprint, Kind.OPENPGP, ALICE.octets)
    assert (entry.source, entry.origin, entry.cached_at, entry.seen_at) == (M, "example.org", NOW, NOW)
    assert (entry.approved, entry.held, entry.chained, entry.detail) == (False, True, True, "<1@x>?")
    assert entry.identities == ALICE.texts
    assert entry.vouchers == behind


async def test_both_kinds_live_side_by_side(store: Store) -> None:
    mail = Made(4, ("alice@example.org",), kind=Kind.X509)
    await put(store, ALICE.find(), mail.find())
    assert await entries(store, addr("alice@example.org")) == [(ALICE.fingerprint, K, "one")]
    assert await entries(store, addr("alice@example.org", Kind.X509)) == [(mail.fingerprint, K, "one")]


async def test_of_many_certificates_of_one_address_come_64_the_worthiest(store: Store) -> None:
    crowd = [Made(n, ("Boss <boss@example.org>",)) for n in range(100, 300)]
    begun = await store.begin()
    for n, made in enumerate(crowd):
        await store.put([made.find()], [], begun, NOW + n)
    await store.put([crowd[0].find(L, "admin")], [], begun, NOW)
    assert await store.approve(crowd[1].fingerprint, K, "one", "boss@example.org")
    await store.put([crowd[2].find()], [], begun, NOW + 1000)  # refreshed: the newest now
    shelf = await store.look(addr("boss@example.org"))
    found = list(dict.fromkeys(e.fingerprint for e in shelf.entries))
    newest = [made.fingerprint for made in reversed(crowd[-61:])]
    assert found == [crowd[0].fingerprint, crowd[1].fingerprint, crowd[2].fingerprint, *newest]
    assert len(shelf.entries) == 65  # all entries of each: the first has two


async def test_many_that_only_claim_an_address_push_nobody_off_its_shelf(store: Store) -> None:
    """70 certificates of one stranger, though mailed later, and though one was approved for another address."""
    behind = Voucher("bob@example.org", authenticated=True, seen_at=NOW)
    own = Made(1, ("bob@example.org",))
    await put(store, own.find(M, "example.org", vouchers=(behind,)))
    for n in range(100, 170):
        both = Made(n, ("bob@example.org", "m@attacker.example"))
        held = (Voucher("m@attacker.example", authenticated=True), Voucher("bob@example.org", held=n > 150))
        await put(store, both.find(M, "attacker.example", vouchers=held[: 1 + (n > 150)]), now=NOW + n)
    assert await store.approve(both.fingerprint, M, "attacker.example", "m@attacker.example")
    await put(store, own.find(M, "example.org", detail="<2@x>"), now=NOW + 1)  # no news: it keeps its place
    shelf = await store.look(addr("bob@example.org"))
    assert shelf.entries[0].fingerprint == own.fingerprint
    assert (await store.look(addr("m@attacker.example"))).entries[0].fingerprint == both.fingerprint
    chained = Made(2, ("bob@example.org",), kind=Kind.X509)
    await put(store, chained.find(M, "example.org", chained=True, vouchers=(Voucher("bob@example.org"),)))
    for n in range(200, 270):
        await put(store, Made(n, ("bob@example.org",), kind=Kind.X509).find(), now=NOW + n)
    shelf = await store.look(addr("bob@example.org", Kind.X509))
    assert shelf.entries[0].fingerprint == chained.fingerprint


async def test_what_was_found_under_a_name_stands_before_what_claims_it(store: Store) -> None:
    own, asked = Made(1, ("bob@example.org",)), addr("bob@example.org")
    await put(store, own.find(), records=[said(asked, True, NOW)])
    for n in range(100, 170):
        await put(store, Made(n, ("bob@example.org",)).find(origin="two"), now=NOW + n)
    assert (await store.look(asked)).entries[0].fingerprint == own.fingerprint
    await put(store, own.find(), now=NOW + 1, records=[said(own.fpr, True, NOW + 1)])  # asked for by fingerprint
    assert (await store.look(asked)).entries[0].fingerprint == own.fingerprint
    await put(store, records=[said(asked, True, NOW, "two")])  # a word of another, that brought nothing
    assert (await store.look(asked)).entries[0].fingerprint == own.fingerprint
    await put(store, own.find(), now=NOW + 2, records=[said(asked, False, NOW + 2)])
    await put(store, own.find(), now=NOW + 3)
    assert own.fingerprint not in {e.fingerprint for e in (await store.look(asked)).entries}, "no longer found"


async def test_a_shelf_is_bounded_in_octets(store: Store) -> None:
    begun = await store.begin()
    for n in range(100, 120):
        await store.put([Made(n, ("boss@example.org",), ballast=1 << 20).find()], [], begun, NOW)
    assert 16 <= len((await store.look(addr("boss@example.org"))).entries) < 20


async def test_certificate_brings_blocked_ones_too_and_no_records(store: Store) -> None:
    revoked = Made(1, ALICE.texts, ("r1",))
    await put(store, revoked.find(), ALICE.find(L, "admin"), records=[said(ALICE.fpr, True, NOW)])
    await store.block(ALICE.fingerprint, NOW, "stolen")
    shelf = await store.certificate(ALICE.fingerprint)
    assert [e.source for e in shelf.entries] == [L, K]
    assert shelf.revocations == {ALICE.fingerprint: b'["r1"]'}
    assert shelf.records == ()
    assert (await store.certificate(BOB.fingerprint)).entries == ()


async def test_looks_go_on_while_something_is_written(store: Store) -> None:
    begun = await store.begin()
    await put(store, ALICE.find())
    many = [Made(n, (f"u{n}@example.org",), ballast=2000).find() for n in range(1000, 1500)]
    writing = asyncio.ensure_future(store.put(many, [], begun, NOW))
    looks = 0
    while not writing.done():
        assert await entries(store, ALICE.fpr)
        looks += 1
    assert looks > 20
    assert set(await writing) == {Stored.NEW}


# --- put


async def test_one_answer_per_find_in_order(store: Store) -> None:
    await put(store, BOB.find())
    await store.block(CAROL.fingerprint, NOW)
    answers = await put(store, CAROL.find(), ALICE.find(), BOB.find(), ALICE.find())
    assert answers == (Stored.BLOCKED, Stored.NEW, Stored.SAME, Stored.SAME)


async def test_same_octets_only_renew_the_time(store: Store) -> None:
    assert await put(store, ALICE.find()) == (Stored.NEW,)
    assert await put(store, ALICE.find(), now=NOW + 9) == (Stored.SAME,)
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert (entry.cached_at, entry.seen_at, entry.octets) == (NOW + 9, NOW + 9, ALICE.octets)


async def test_the_same_origin_replaces_and_its_old_names_are_gone(store: Store) -> None:
    await put(store, ALICE.find(), ALICE.find(origin="two"))
    renamed = Made(1, ("Alice <alice@example.com>",))
    assert await put(store, renamed.find(), now=NOW + 1) == (Stored.CHANGED,)
    one, two = sorted((await store.look(ALICE.fpr)).entries, key=lambda e: e.origin)
    assert (one.octets, one.identities) == (renamed.octets, renamed.texts)
    assert (two.octets, two.cached_at) == (ALICE.octets, NOW)  # each entry keeps its own copy
    assert await store.delete(ALICE.fingerprint, NOW, K, "two") == 1
    assert await entries(store, addr("alice@example.org")) == []
    assert await entries(store, addr("alice@example.com")) == [(ALICE.fingerprint, K, "one")]


async def test_without_replace_the_copies_are_merged(store: Store) -> None:
    await put(store, ALICE.find())
    other = Made(1, ("Alice <alice@example.com>",))
    assert await put(store, other.find(replace=False)) == (Stored.CHANGED,)
    assert await put(store, ALICE.find(replace=False)) == (Stored.SAME,)  # nothing new in it
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert set(entry.identities) == {*ALICE.texts, *other.texts}
    assert await entries(store, addr("alice@example.org")) == await entries(store, addr("alice@example.com"))


async def test_an_update_is_merged_and_leaves_the_rest_of_its_entry(store: Store, heard: Heard) -> None:
    vouched = (Voucher("alice@example.org", authenticated=True, seen_at=NOW),)
    await put(store, ALICE.find(M, "example.org", replace=False, detail="<1@x>", vouchers=vouched, chained=True))
    (before,) = (await store.look(ALICE.fpr)).entries
    news = Made(1, ("Alice <alice@example.com>",))
    stranger = (Voucher("eve@example.org", approved=True),)
    heard.clear()
    update = news.find(M, "example.org", replace=False, update=True, vouchers=stranger)
    assert await put(store, update, now=NOW + 99) == (Stored.CHANGED,)
    (after,) = (await store.look(ALICE.fpr)).entries
    assert set(after.identities) == {*ALICE.texts, *news.texts}
    assert after == replace(before, octets=after.octets, identities=after.identities)
    assert await entries(store, addr("alice@example.com"))
    assert ALICE.fpr in heard.names
    assert await put(store, update, now=NOW + 100) == (Stored.SAME,)
    assert (await store.look(ALICE.fpr)).entries == (after,)


async def test_an_update_of_an_entry_that_is_not_there_brings_its_revocations_alone(store: Store) -> None:
    await put(store, ALICE.find(L, "admin"))
    answers = await put(store, ALICE.find(M, "example.org", update=True), BOB.find(L, "admin", update=True))
    assert answers == (Stored.GONE, Stored.GONE)
    assert [(e.source, e.fingerprint) for e in (await store.certificate(ALICE.fingerprint)).entries] == [
        (L, ALICE.fingerprint)
    ]
    assert not (await store.certificate(BOB.fingerprint)).entries


async def test_what_lasts_comes_by_fingerprint(store: Store) -> None:
    await put(store, ALICE.find(L, "admin"), ALICE.find(M, "example.org"), BOB.find(M, "example.org"), CAROL.find())
    lasting = sorted({ALICE.fingerprint, BOB.fingerprint})
    assert await store.lasting("", "G", 9) == tuple(lasting)
    assert await store.lasting(lasting[0], "G", 9) == (lasting[1],)
    assert await store.lasting("", lasting[0], 9) == (lasting[0],)
    assert await store.lasting("", "G", 1) == (lasting[0],)


async def test_local_copies_are_always_merged(store: Store) -> None:
    await put(store, ALICE.find(L, "admin"))
    await put(store, Made(1, ("Alice <alice@example.com>",)).find(L, "admin"))
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert len(entry.identities) == 2


async def test_mailflow_entries_are_one_per_sender_domain_with_the_last_mail(store: Store) -> None:
    await put(store, ALICE.find(M, "example.org", replace=False, detail="<1@x>"))
    await put(store, ALICE.find(M, "example.net", replace=False, detail="<2@x>"))
    await put(store, ALICE.find(M, "example.org", replace=False, detail="<3@x>"), now=NOW + 5)
    found = {e.origin: (e.detail, e.seen_at) for e in (await store.look(ALICE.fpr)).entries}
    assert found == {"example.org": ("<3@x>", NOW + 5), "example.net": ("<2@x>", NOW)}


async def test_vouchers_are_merged_by_address(store: Store) -> None:
    """What stands stays: a later mail, perhaps a forged one, takes nothing away, nor does a better one approve."""

    async def behind() -> dict[str, tuple[bool, bool, bool, int]]:
        (entry,) = (await store.look(ALICE.fpr)).entries
        return {v.address: (v.authenticated, v.held, v.approved, v.seen_at) for v in entry.vouchers}

    def mail(address: str, **more: Any) -> Find:
        return ALICE.find(M, "example.org", vouchers=(Voucher(address, **more),))

    await put(store, mail("a@example.org", held=True, seen_at=5))
    await put(store, mail("a@example.org", authenticated=True, seen_at=9))
    assert await behind() == {"a@example.org": (True, True, False, 9)}
    await put(store, mail("b@example.org", authenticated=True, seen_at=7), mail("b@example.org", held=True, seen_at=6))
    assert (await behind())["b@example.org"] == (True, False, False, 7)
    assert await store.approve(ALICE.fingerprint, M, "example.org", "a@example.org")
    assert (await behind())["a@example.org"] == (True, False, True, 9)
    await put(store, mail("a@example.org", held=True, seen_at=10))
    assert (await behind())["a@example.org"] == (True, False, True, 10)
    await put(store, Made(1, ("Al <alice@example.org>",)).find(M, "example.org"))
    assert len(await behind()) == 2, "a mail without news takes nothing away"


async def test_64_vouchers_stay_the_approved_and_the_latest(store: Store) -> None:
    for n in range(70):
        voucher = Voucher(f"a{n}@example.org", authenticated=True, seen_at=n)
        await put(store, ALICE.find(M, "example.org", vouchers=(voucher,)))
        if n == 0:
            await store.approve(ALICE.fingerprint, M, "example.org", "a0@example.org")
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert {v.address for v in entry.vouchers} == {"a0@example.org", *(f"a{n}@example.org" for n in range(7, 70))}
    for n in range(70, 80):  # forged, later
        await put(store, ALICE.find(M, "example.org", vouchers=(Voucher(f"a{n}@example.org", held=True, seen_at=n),)))
    assert (await store.look(ALICE.fpr)).entries[0].vouchers == entry.vouchers


async def test_records_found_and_absent_replace_each_other(store: Store) -> None:
    name = addr("nobody@example.org")
    for found in (False, True, False):
        await put(store, records=[said(name, found, NOW + found)])
        assert (await store.look(name)).records == (said(name, found, NOW + found),)
    stats = await store.stats()
    assert (stats.records_found, stats.records_absent) == (0, 1)


async def test_revocations_are_merged_and_kept_apart(store: Store) -> None:
    await put(store, Made(1, ALICE.texts, ("r1",)).find())
    await put(store, Made(1, ALICE.texts, ("r2",)).find())  # an upstream that knows nothing of r1
    await put(store, ALICE.find())
    shelf = await store.look(ALICE.fpr)
    assert shelf.entries[0].octets == ALICE.octets
    assert json.loads(shelf.revocations[ALICE.fingerprint]) == ["r1", "r2"]


async def test_a_failing_put_leaves_nothing(store: Store, heard: Heard) -> None:
    broken = Made(5).find()
    broken = type(broken)(type(broken.certificate)(b"{", broken.certificate.proof), K, "one")
    with pytest.raises(ValueError, match="Expecting"):
        await put(store, ALICE.find(), broken, records=[said(ALICE.fpr, True, NOW)])
    shelf = await store.look(ALICE.fpr)
    assert (shelf.entries, shelf.records, heard) == ((), (), [])
    assert await put(store, ALICE.find()) == (Stored.NEW,)  # and the store goes on


async def test_a_put_whose_caller_is_gone_is_carried_out_and_published(store: Store, heard: Heard) -> None:
    begun = await store.begin()
    task = asyncio.ensure_future(store.put([ALICE.find()], [], begun, NOW))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await put(store, BOB.find())  # behind it
    assert await entries(store, ALICE.fpr)
    assert ALICE.names <= heard.names


async def test_puts_at_once_lose_nothing(store: Store) -> None:
    begun = await store.begin()
    copies = [Made(1, (f"Alice <alice{n}@example.org>",), (f"r{n}",)) for n in range(30)]
    await asyncio.gather(*(store.put([c.find(replace=False)], [], begun, NOW) for c in copies))
    shelf = await store.look(ALICE.fpr)
    assert len(shelf.entries[0].identities) == 30
    assert len(json.loads(shelf.revocations[ALICE.fingerprint])) == 30


# --- changes


async def test_a_put_publishes_every_name_before_it_returns(store: Store, heard: Heard) -> None:
    await put(store, ALICE.find(), records=[said(addr("alice@old.example"), False, NOW)])
    assert len(heard) == 1
    assert heard.names >= ALICE.names | {addr("alice@old.example")}
    heard.clear()
    renamed = Made(1, ("Alice <alice@example.com>",))
    await put(store, renamed.find())
    assert heard.names >= ALICE.names | renamed.names  # of the old copy and the new one


async def test_names_of_the_other_entries_are_published_too(store: Store, heard: Heard) -> None:
    await put(store, ALICE.find(origin="one"))
    heard.clear()
    await put(store, Made(1, (), ("r1",)).find(origin="two"))  # a merged answer for alice@ changes by this
    assert heard.names >= ALICE.names


@pytest.mark.parametrize("refused", ["deleted", "blocked"])
async def test_a_refused_find_leaves_no_trace_but_its_revocations(store: Store, heard: Heard, refused: str) -> None:
    begun = await store.begin()
    if refused == "blocked":
        await store.block(ALICE.fingerprint, NOW)
    else:
        await store.delete(ALICE.fingerprint, NOW)
    heard.clear()
    assert await store.put([ALICE.find()], [], begun, NOW) == (Stored(refused),)
    assert heard == []
    await store.put([Made(1, ALICE.texts, ("r1",)).find()], [], begun, NOW)
    shelf = await store.certificate(ALICE.fingerprint)
    assert (shelf.entries, shelf.revocations) == ((), {ALICE.fingerprint: b'["r1"]'})
    assert ALICE.fpr in heard.names
    assert (await store.stats()).certificates == 0


async def test_nothing_written_is_nothing_published(store: Store, heard: Heard) -> None:
    assert await put(store) == ()
    await store.touch({ALICE.fpr: NOW})
    await store.unblock(ALICE.fingerprint, NOW)
    await store.approve(ALICE.fingerprint, K, "one", "alice@example.org")
    assert heard == []


# --- deletes


async def test_delete_takes_all_entries_and_every_record_of_its_names(store: Store, heard: Heard) -> None:
    await put(store, ALICE.find(), ALICE.find(M, "example.org"), BOB.find())
    await put(store, records=[said(name, True, NOW, up) for name in ALICE.names for up in ("one", "two")])
    await put(store, records=[said(BOB.fpr, True, NOW)])
    heard.clear()
    assert await store.delete(ALICE.fingerprint, NOW) == 2
    for name in ALICE.names:
        shelf = await store.look(name)
        assert (shelf.entries, shelf.records) == ((), ())
    assert heard.names >= ALICE.names
    bob = await store.look(BOB.fpr)
    assert bob.entries
    assert bob.records
    assert await store.delete(ALICE.fingerprint, NOW) == 0


async def test_deleting_one_source_leaves_the_other(store: Store) -> None:
    await put(store, ALICE.find(origin="one"), ALICE.find(origin="two"), ALICE.find(L, "admin"))
    await put(store, records=[said(addr("alice@example.org"), True, NOW)])
    assert await store.delete(ALICE.fingerprint, NOW, M) == 0
    assert await store.delete(ALICE.fingerprint, NOW, K, "one") == 1
    assert await entries(store, ALICE.fpr) == [(ALICE.fingerprint, K, "two"), (ALICE.fingerprint, L, "admin")]
    assert (await store.look(addr("alice@example.org"))).records == ()  # the next lookup asks again
    assert await store.delete(ALICE.fingerprint, NOW, K) == 1
    assert await entries(store, ALICE.fpr) == [(ALICE.fingerprint, L, "admin")]


async def test_revocations_outlive_a_delete(store: Store) -> None:
    await put(store, Made(1, ALICE.texts, ("r1",)).find())
    await store.delete(ALICE.fingerprint, NOW)
    assert (await store.certificate(ALICE.fingerprint)).revocations == {ALICE.fingerprint: b'["r1"]'}
    await put(store, ALICE.find())
    assert (await store.look(ALICE.fpr)).revocations == {ALICE.fingerprint: b'["r1"]'}


@pytest.mark.parametrize("there", [True, False])
async def test_nothing_begun_before_a_delete_brings_it_back(store: Store, there: bool) -> None:
    if there:
        await put(store, ALICE.find())
    begun = await store.begin()
    await store.delete(ALICE.fingerprint, NOW)
    records = [said(addr("alice@example.org"), True, NOW), said(addr("bob@example.org"), True, NOW)]
    assert await store.put([ALICE.find(), BOB.find()], records, begun, NOW) == (Stored.DELETED, Stored.NEW)
    alice = await store.look(addr("alice@example.org"))
    assert (alice.entries, alice.records) == ((), ())
    assert (await store.look(addr("bob@example.org"))).records
    assert await put(store, ALICE.find()) == (Stored.NEW,)  # begun after it


async def test_absent_records_begun_before_a_delete_of_their_name_are_dropped(store: Store) -> None:
    await put(store, ALICE.find())
    begun = await store.begin()
    await store.delete(ALICE.fingerprint, NOW)
    await store.put([], [said(addr("alice@example.org"), False, NOW), said(ALICE.fpr, False, NOW)], begun, NOW)
    assert (await store.look(addr("alice@example.org"))).records == ()
    assert (await store.look(ALICE.fpr)).records == ()


async def test_a_delete_of_one_origin_refuses_only_that_origin(store: Store) -> None:
    begun = await store.begin()
    await store.delete(ALICE.fingerprint, NOW, K, "one")
    finds = [ALICE.find(origin="one"), ALICE.find(origin="two"), ALICE.find(M, "one")]
    assert await store.put(finds, [], begun, NOW) == (Stored.DELETED, Stored.NEW, Stored.NEW)


async def test_old_deletes_may_be_tidied_but_never_let_anything_back(store: Store) -> None:
    begun = await store.begin()
    await store.delete(ALICE.fingerprint, NOW)
    await store.delete(CAROL.fingerprint, NOW + 100_000)  # tidies the first away
    assert await store.put([ALICE.find()], [said(ALICE.fpr, True, NOW)], begun, NOW) == (Stored.DELETED,)
    assert (await store.look(ALICE.fpr)).records == ()
    assert await put(store, ALICE.find()) == (Stored.NEW,)


# --- purges


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        (Selection(source=M), {(1, M, "example.org"), (3, M, "example.net")}),
        (Selection(source=L), {(2, L, "admin")}),
        (Selection(upstream="one"), {(1, K, "one"), (3, K, "one")}),
        (Selection(upstream="admin"), set()),  # an upstream's name, not any origin
        (Selection(domain="example.org"), {(1, K, "one"), (1, K, "two"), (1, M, "example.org"), (2, L, "admin")}),
        (Selection(domain="EXAMPLE.net"), {(3, K, "one"), (3, M, "example.net")}),
        (Selection(domain="ample.net"), set()),
        (Selection(source=K, domain="example.org"), {(1, K, "one"), (1, K, "two")}),
        (Selection(kind=Kind.X509), set()),
        (Selection(text="ALICE"), {(1, K, "one"), (1, K, "two"), (1, M, "example.org")}),
        (Selection(text=BOB.fingerprint[:20].lower()), {(2, L, "admin")}),
    ],
)
async def test_purge_takes_what_was_named_also_before_it_is_there(
    store: Store, heard: Heard, what: Selection, gone: set[tuple[int, Source, str]]
) -> None:
    finds = {
        (1, K, "one"): ALICE.find(origin="one"),
        (1, K, "two"): ALICE.find(origin="two"),
        (1, M, "example.org"): ALICE.find(M, "example.org"),
        (2, L, "admin"): BOB.find(L, "admin"),
        (3, K, "one"): CAROL.find(origin="one"),
        (3, M, "example.net"): CAROL.find(M, "example.net"),
    }
    begun = await store.begin()
    records = [said(name, True, NOW) for made in (ALICE, BOB, CAROL) for name in made.names]
    await put(store, *finds.values(), records=records)
    heard.clear()
    assert len(await listed(store, what)) == len(gone)
    assert await store.purge(what, NOW) == len(gone)
    left = {(e.fingerprint, e.source, e.origin) for e in await listed(store)}
    made = {1: ALICE, 2: BOB, 3: CAROL}
    assert left == {(made[n].fingerprint, s, o) for n, s, o in finds.keys() - gone}
    for n, one in made.items():
        touched = any(g[0] == n for g in gone)
        assert ((await store.look(one.fpr)).records == ()) is touched
        assert (one.names <= heard.names) is touched
    answers = await store.put(list(finds.values()), [], begun, NOW)
    assert [a is Stored.DELETED for a in answers] == [key in gone for key in finds]


async def test_a_purge_of_many_is_done_in_batches_and_never_blocks_lookups(store: Store, heard: Heard) -> None:
    begun = await store.begin()
    await put(store, ALICE.find(L, "admin"))
    for start in range(1000, 2500, 500):
        many = [Made(n, (f"u{n}@example.org",)).find() for n in range(start, start + 500)]
        await store.put(many, [], begun, NOW)
    heard.clear()
    purging = asyncio.ensure_future(store.purge(Selection(source=K), NOW))
    looks = 0
    while not purging.done():
        assert await entries(store, ALICE.fpr)
        looks += 1
    assert await purging == 1500
    assert looks > 20
    assert len(heard) > 3
    assert (await store.stats()).certificates == 1


async def test_purge_all_forgets_everything_but_blocks(store: Store, heard: Heard) -> None:
    begun = await store.begin()
    await put(store, Made(1, ALICE.texts, ("r1",)).find(), BOB.find(L, "admin"), records=[said(ALICE.fpr, True, NOW)])
    await store.block(CAROL.fingerprint, NOW)
    heard.clear()
    assert await store.purge_all(NOW) == 2
    assert [change.everything for change in heard] == [True]
    shelf = await store.certificate(ALICE.fingerprint)
    assert (shelf.entries, dict(shelf.revocations)) == ((), {})
    assert (await store.look(ALICE.fpr)).records == ()
    assert await store.blocked() == (CAROL.fingerprint,)
    stats = await store.stats()
    assert (stats.certificates, stats.records_found, set(stats.entries.values())) == (0, 0, {0})
    assert await store.put([ALICE.find()], [said(BOB.fpr, True, 1)], begun, NOW) == (Stored.DELETED,)
    assert (await store.look(BOB.fpr)).records == ()
    assert await put(store, ALICE.find()) == (Stored.NEW,)
    assert (await store.look(ALICE.fpr)).revocations == {}


async def test_purge_expired_takes_what_lies_before_its_cutoff_and_nothing_else(store: Store, heard: Heard) -> None:
    for now in (100, 200):
        finds = [Made(now + n).find(origin=origin) for n, origin in enumerate(("one", "two", "three"))]
        finds += [Made(now + 10).find(M, "example.org"), Made(now + 11).find(L, "admin")]
        records = [said(f"openpgp:text:{now}", True, now, up) for up in ("one", "two")]
        records += [said(f"openpgp:text:{now}", False, now, "three")]
        await put(store, *finds, now=now, records=records)
    heard.clear()
    assert await store.purge_expired({}, 0, 100) == 0  # a source not named never expires
    assert heard == []
    cutoffs = {(K, "two"): 100, (K, None): 200, (M, None): 101}
    assert await store.purge_expired(cutoffs, 150, 100) == 5
    left = {(e.cached_at, e.source, e.origin) for e in await listed(store)}
    assert left == {
        (100, K, "two"),
        (200, K, "one"),
        (200, K, "two"),
        (200, K, "three"),
        (200, M, "example.org"),
        (100, L, "admin"),
        (200, L, "admin"),
    }
    assert {r.upstream for r in (await store.look("openpgp:text:100")).records} == {"two"}
    assert len((await store.look("openpgp:text:200")).records) == 3
    assert heard.names >= Made(100).names | {"openpgp:text:100"}
    assert not heard.names & Made(200).names


async def test_purge_expired_does_as_much_as_it_is_told(store: Store) -> None:
    begun = await store.begin()
    await store.put([Made(n).find() for n in range(500)], [said(f"n{n}", False, 1) for n in range(50)], begun, 100)
    await put(store, Made(9999).find(), now=500)
    gone = [await store.purge_expired({(K, None): 200}, 2, 220) for _ in range(4)]
    assert gone == [220, 220, 110, 0]
    assert (await store.stats()).certificates == 1


async def test_purge_expired_refuses_nothing_that_comes_later(store: Store) -> None:
    begun = await store.begin()
    await put(store, ALICE.find(), now=1)
    assert await store.purge_expired({(K, None): 10}, 0, 10) == 1
    assert await store.put([ALICE.find()], [], begun, 20) == (Stored.NEW,)


# --- approve, block


async def test_approve_is_for_one_entry_and_one_address_and_publishes(store: Store, heard: Heard) -> None:
    held = Voucher("alice@example.org", held=True)
    await put(store, ALICE.find(), ALICE.find(M, "example.org", vouchers=(held,)))
    heard.clear()
    assert await store.approve(ALICE.fingerprint, M, "example.org", "alice@example.org")
    assert heard.names >= ALICE.names
    found = {e.source: (e.approved, e.held) for e in (await store.look(ALICE.fpr)).entries}
    assert found == {M: (True, False), K: (False, False)}
    heard.clear()
    assert not await store.approve(ALICE.fingerprint, M, "example.net", "alice@example.org")
    assert not await store.approve(BOB.fingerprint, K, "one", "bob@example.org")
    assert heard == []


async def test_what_is_blocked_is_neither_answered_nor_cached_until_unblocked(store: Store, heard: Heard) -> None:
    await put(store, ALICE.find(), Made(9, ALICE.texts).find())
    heard.clear()
    await store.block(ALICE.fingerprint, NOW, "stolen")
    await store.block(ALICE.fingerprint, NOW, "stolen, twice said")
    assert heard.names >= ALICE.names
    assert await entries(store, ALICE.fpr) == []
    assert [f for f, *_ in await entries(store, addr("alice@example.org"))] == [Made(9).fingerprint]
    assert await put(store, ALICE.find(origin="two")) == (Stored.BLOCKED,)
    assert await store.search("alice", Kind.OPENPGP, 10) == (Made(9).fingerprint,)
    assert (await store.blocked(), (await store.stats()).blocked) == ((ALICE.fingerprint,), 1)
    heard.clear()
    assert await store.unblock(ALICE.fingerprint, NOW) is True
    assert await store.unblock(ALICE.fingerprint, NOW) is False
    assert heard.names >= ALICE.names
    assert await entries(store, ALICE.fpr) == [(ALICE.fingerprint, K, "one")]
    assert await store.blocked() == ()


# --- listings


async def test_search_finds_part_of_an_identity_without_case(store: Store) -> None:
    odd = Made(7, ("Straße 100%_ <weg@example.org>",))
    await put(
        store, ALICE.find(), ALICE.find(origin="two"), odd.find(), Made(8, ("alice@x.org",), kind=Kind.X509).find()
    )
    assert await store.search("alice", Kind.OPENPGP, 10) == (ALICE.fingerprint,)
    assert await store.search("strasse", Kind.OPENPGP, 10) == (odd.fingerprint,)
    assert await store.search("100%_", Kind.OPENPGP, 10) == (odd.fingerprint,)
    assert await store.search("10_%", Kind.OPENPGP, 10) == ()
    assert await store.search("alice", Kind.X509, 10) == (Made(8).fingerprint,)
    assert len(await store.search("e", Kind.OPENPGP, 1)) == 1
    first = await store.search("e", Kind.OPENPGP, 10)
    while await store.index_text(1):
        pass
    assert await store.search("e", Kind.OPENPGP, 10) == first, "too short for the index"
    assert await store.search("strasse", Kind.OPENPGP, 10) == (odd.fingerprint,), "by the index"
    assert await store.search("10_%", Kind.OPENPGP, 10) == ()
    assert await store.search("alice", Kind.X509, 10) == (Made(8).fingerprint,)


async def test_touch_goes_only_forward_and_only_where_there_are_records(store: Store) -> None:
    await put(store, records=[said(ALICE.fpr, True, 100), said(ALICE.fpr, False, 100, "two")])
    await store.touch({ALICE.fpr: 150, BOB.fpr: 150})
    await store.touch({ALICE.fpr: 120})
    assert {r.asked_at for r in (await store.look(ALICE.fpr)).records} == {150}
    assert (await store.look(BOB.fpr)).records == ()
    await store.touch({f"n{n}": 1 for n in range(1000)})
    await put(store, records=[said(ALICE.fpr, True, 200)])
    assert {(r.upstream, r.asked_at) for r in (await store.look(ALICE.fpr)).records} == {("one", 0), ("two", 150)}


async def test_due_are_found_records_asked_for_since_they_were_made(store: Store) -> None:
    await put(
        store,
        records=[
            said("n1", True, 100),
            said("n2", True, 90, asked_at=95),
            said("n3", True, 80, "two"),
            said("n4", True, 70, "three"),
            said("n5", False, 60),
            said("n6", True, 50),  # never asked for
            said("n7", True, 500),  # too young
        ],
    )
    await store.touch({f"n{n}": 600 for n in (1, 3, 4, 5, 7)})
    found = await store.due({"one": 200, "two": 80, None: 1000}, 10)
    assert [(r.name, r.at, r.asked_at) for r in found] == [("n4", 70, 600), ("n2", 90, 95), ("n1", 100, 600)]
    assert [r.name for r in await store.due({"one": 200, None: 1000}, 2)] == ["n4", "n3"]
    assert [r.name for r in await store.due({"two": 1000}, 10)] == ["n3"]
    assert await store.due({}, 10) == ()


async def test_stats_count_through_every_way_in_and_out(store: Store) -> None:
    await put(store, ALICE.find(), ALICE.find(origin="two"), BOB.find(L, "x"), CAROL.find(M, "example.net"))
    await put(store, records=[said(ALICE.fpr, True, 1), said(BOB.fpr, True, 1), said(CAROL.fpr, False, 1)])
    stats = await store.stats()
    assert (stats.certificates, stats.entries) == (3, {"keyserver": 2, "mailflow": 1, "local": 1})
    assert (stats.records_found, stats.records_absent, stats.blocked, stats.healthy) == (2, 1, 0, "")
    assert stats.octets > 0
    await store.delete(ALICE.fingerprint, NOW, K, "one")
    await store.purge_expired({(M, None): NOW + 1}, 2, 10)
    stats = await store.stats()
    assert (stats.certificates, stats.entries) == (2, {"keyserver": 1, "mailflow": 0, "local": 1})
    assert (stats.records_found, stats.records_absent) == (1, 0)


# --- max_size


async def test_above_max_size_new_finds_are_refused_and_old_ones_renewed(backend: Backend) -> None:
    async with backend.opened(max_size=2 << 20) as (store, _):
        answers: list[Stored] = []
        for start in range(0, 400, 40):
            answers += await put(store, *(Made(n, ballast=10_000).find() for n in range(start, start + 40)))
        assert answers.count(Stored.NEW) + answers.count(Stored.FULL) == 400
        assert 100 < answers.count(Stored.NEW) < 220
        assert answers[0] is Stored.NEW
        assert answers[-1] is Stored.FULL
        stats = await store.stats()
        assert stats.octets < 2.2 * (1 << 20)
        assert "max_size" in stats.healthy
        assert await put(store, Made(0, ("news",), ballast=10_000).find()) == (Stored.CHANGED,)
        store.limit(1 << 30)
        assert await put(store, Made(500, ballast=10_000).find()) == (Stored.NEW,)
        store.limit(2 << 20)
        assert await put(store, Made(501, ballast=10_000).find()) == (Stored.FULL,)
        # revocations of what is known are still taken, those of strangers are not
        finds = [Made(0, (), ("r1",)).find(origin="two"), Made(999, (), ("r1",)).find()]
        assert await put(store, *finds) == (Stored.FULL, Stored.FULL)
        assert (await store.certificate(Made(0).fingerprint)).revocations
        assert not (await store.certificate(Made(999).fingerprint)).revocations
        assert await store.purge(Selection(source=K), NOW) > 100
        assert await put(store, ALICE.find()) == (Stored.NEW,)
        assert (await store.stats()).healthy == ""


# --- several processes


async def test_a_change_of_another_process_is_published_by_poll_once(
    store: Store, heard: Heard, other: tuple[Store, Heard]
) -> None:
    away, far = other
    await put(store, ALICE.find())
    assert far == []
    for _ in range(2):
        await away.poll()
        await store.poll()
    assert [change.names for change in far] == [change.names for change in heard]
    assert len(heard) == 1
    await away.delete(ALICE.fingerprint, NOW)
    assert await entries(store, ALICE.fpr) == []
    assert len(heard) == 1
    await store.poll()
    assert len(heard) == 2
    assert heard[1].names >= ALICE.names
    assert not heard[1].everything


async def test_own_changes_between_those_of_others_are_published_once(
    store: Store, heard: Heard, other: tuple[Store, Heard]
) -> None:
    away, far = other
    for n in range(10):
        await put(store if n % 3 else away, Made(n).find())
        if n == 5:
            await asyncio.gather(store.poll(), put(store, Made(50).find()), away.poll())
    for _ in range(2):
        await asyncio.gather(store.poll(), away.poll(), store.poll())
    for events in (heard, far):
        numbers = [change.number for change in events]
        assert len(numbers) == len(set(numbers)) == 11
        assert events.names >= {Made(n).fpr for n in (*range(10), 50)}


async def test_a_poll_that_comes_too_late_says_everything(
    store: Store, heard: Heard, other: tuple[Store, Heard]
) -> None:
    away, _ = other
    begun = await away.begin()
    for start in range(0, 8000, 2000):
        await away.put([], [said(f"n{n}", False, NOW) for n in range(start, start + 2000)], begun, NOW)
    await store.poll()
    assert len(heard) == 4  # few enough to be named
    for start in range(0, 60_000, 10_000):
        await away.put([], [said(f"n{n}", False, NOW) for n in range(start, start + 10_000)], begun, NOW)
    heard.clear()
    await store.poll()
    assert [change.everything for change in heard] == [True]
    await put(away, ALICE.find())
    await store.poll()
    assert [change.everything for change in heard] == [True, False]
    await away.purge_all(NOW)
    await store.poll()
    assert heard[-1].everything


async def test_begun_holds_across_processes(store: Store, other: tuple[Store, Heard]) -> None:
    away, _ = other
    await put(store, ALICE.find())
    begun = await away.begin()
    await store.delete(ALICE.fingerprint, NOW)
    await store.purge(Selection(domain="example.net"), NOW)
    finds = [ALICE.find(), BOB.find(), CAROL.find()]
    assert await away.put(finds, [], begun, NOW) == (Stored.DELETED, Stored.NEW, Stored.DELETED)


async def test_two_processes_merging_lose_no_revocation(store: Store, other: tuple[Store, Heard]) -> None:
    pair = (store, other[0])
    begun = await store.begin()
    copies = [Made(1, (), (f"r{n}",)) for n in range(20)]
    await asyncio.gather(*(pair[n % 2].put([c.find()], [], begun, NOW) for n, c in enumerate(copies)))
    revocations = (await store.look(ALICE.fpr)).revocations[ALICE.fingerprint]
    assert len(json.loads(revocations)) == 20


def test_changes_remember_enough_for_fills_that_race() -> None:
    changes = Changes(memory=2)
    start = changes.published
    changes.publish(Change(1, frozenset({"a"})))
    assert changes.touched(start, {"a"})
    assert not changes.touched(start, {"b"})
    for number in range(2, 5):
        changes.publish(Change(number, frozenset({"c"})))
    assert changes.touched(start, {"b"})  # the memory does not reach back that far


async def test_look_brings_the_deletion_counter(store: Store) -> None:
    before = (await store.look("openpgp:fpr:" + "AA" * 20)).begun
    assert before == await store.begin()
    await store.delete("AA" * 20, NOW)
    assert (await store.look("openpgp:fpr:" + "AA" * 20)).begun == await store.begin() > before


# --- hostile text


@pytest.mark.parametrize(
    "odd", ["\x00", "a\x00b", "\ud800", "\udcff@x.example", "\U0010ffff", "x" * 100_000, "é" * 1400]
)
async def test_hostile_text_is_refused_or_kept_but_never_an_error(store: Store, odd: str) -> None:
    name = f"openpgp:text:{odd}"
    assert (await store.look(name)).entries == ()
    assert (await store.certificate(odd)).entries == ()
    assert not await store.answered(odd, odd)
    begun = await store.begin()
    find = ALICE.find(origin=odd[:300], detail=odd)
    assert await store.put([find], [said(name, True, NOW, odd[:300]), said(BOB.fpr, True, NOW)], begun, NOW) == (
        Stored.NEW,
    )
    (entry,) = (await store.look(ALICE.fpr)).entries
    assert "\x00" not in entry.detail
    assert (await store.look(BOB.fpr)).records
    await store.touch({name: NOW + 1})
    assert await store.search(odd, Kind.OPENPGP, 10) == ()
    assert len(await store.due({odd: NOW + 9, None: 0}, 10)) <= 1
    assert await store.purge(Selection(text=f"q{odd}"), NOW) == 0
    assert await store.purge(Selection(domain=odd or "x", upstream="none"), NOW) == 0
    assert not await store.approve(odd, K, odd, odd)
    await store.block(odd[:300], NOW, odd)
    assert await store.unblock(odd[:300], NOW)
    assert await store.undo(odd, NOW, {}) is None
    assert await store.purge_expired({(K, odd): NOW}, 0, 10) == 0
    assert await store.delete(ALICE.fingerprint, NOW, K, odd[:300]) == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("x" * 1987, True),
        ("x" * 1988, False),
        ("\u00e9" * 993, True),
        ("\u00e9" * 994, False),
        ("a\0b", False),
        ("\ud800", False),
        ("\U0001f511" * 512, False),
    ],
)
async def test_a_name_that_no_store_could_index_is_on_record_in_none(store: Store, value: str, kept: bool) -> None:
    name = f"openpgp:text:{value}"
    assert len("openpgp:text:") + 1987 == MOST
    await put(store, ALICE.find(), records=[said(name, False, NOW), said(BOB.fpr, False, NOW)])
    assert [record.name for record in (await store.look(name)).records] == [name] * kept
    assert (await store.look(BOB.fpr)).records
    stats = await store.stats()
    assert stats.records_absent == 1 + kept
