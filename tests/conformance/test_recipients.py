"""What the store promises about who was asked for, and whether mail to them could be encrypted."""

from __future__ import annotations

import os

import pytest

from keyserver.model import Kind, Selection, Source
from keyserver.store.base import Store
from keyserver.store.history import Bounds
from keyserver.store.recipients import DAY, MAX_KEPT, MAX_NAMED, MAX_REASON, Coverage, Ending, Looked, Lost
from keyserver.store.recipients import Encryptable as Can
from tests.conformance.conftest import Backend, Heard, Made

NOW = 20_000 * DAY + 5
TODAY = 20_000
ANN = Made(1, ("Ann <ann@a.example>", "ann@b.example"))
BEN = Made(2, ("ben@a.example",))
EXPIRES = "it expires"


def yes(at: int = NOW, one: Made = ANN, until: int | None = NOW + 10 * DAY, cause: str = EXPIRES) -> Looked:
    return Looked(Can.YES, at, Kind.OPENPGP, one.fingerprint, until, cause)


def no(at: int = NOW, reason: str = "it is revoked") -> Looked:
    return Looked(Can.NO, at, reason=reason)


def unknown(at: int = NOW) -> Looked:
    return Looked(Can.UNKNOWN, at)


async def cached(store: Store, *made: Made, at: int = NOW) -> None:
    await store.put([one.find() for one in made], [], await store.begin(), at)


async def lost(store: Store) -> list[Lost]:
    return list(await store.recipients.lost(0, 0, 100))


async def ending(store: Store, since_day: int = 0) -> list[Ending]:
    return list(await store.recipients.ending(NOW, NOW + 30 * DAY, since_day, 100))


async def test_domains_come_by_how_many_were_asked_for(store: Store, heard: Heard) -> None:
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": no(), "cy@b.example": unknown()})
    await store.recipients.note(
        {"dee@c.example": yes(), "eve@a.example": unknown(), "old@d.example": no(NOW - 9 * DAY)}
    )
    every = [Coverage("a.example", 3, 1, 1, 1), Coverage("b.example", 1, 0, 0, 1), Coverage("c.example", 1, 1, 0, 0)]
    assert list(await store.recipients.domains(TODAY, 10)) == every
    assert list(await store.recipients.domains(TODAY, 3)) == every
    assert list(await store.recipients.domains(TODAY, 1)) == [every[0], Coverage("", 2, 1, 0, 1)]
    assert list(await store.recipients.domains(TODAY - 9, 0)) == [Coverage("", 6, 2, 2, 2)]
    assert list(await store.recipients.domains(TODAY + 1, 3)) == []
    assert heard == []


async def test_an_address_is_noted_once_a_day(store: Store, other: tuple[Store, Heard]) -> None:
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": no(NOW - DAY)})
    asked = ("ann@a.example", "ben@a.example", "cy@a.example")
    assert await other[0].recipients.asked_today(asked, TODAY) == {"ann@a.example"}
    assert await other[0].recipients.asked_today(asked, TODAY - 1) == {"ann@a.example", "ben@a.example"}
    assert await other[0].recipients.asked_today((), TODAY) == set()
    await other[0].recipients.note({"ann@a.example": no(NOW - DAY)})  # its clock is behind
    assert await store.recipients.asked_today(asked, TODAY) == {"ann@a.example"}


async def test_what_is_unknown_takes_nothing_away(store: Store) -> None:
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": no(), "cy@a.example": unknown()})
    later = unknown(NOW + DAY)
    await store.recipients.note({"ann@a.example": later, "ben@a.example": later, "cy@a.example": later})
    assert list(await store.recipients.domains(TODAY + 1, 9)) == [Coverage("a.example", 3, 1, 1, 1)]
    assert [one.fingerprint for one in await ending(store, TODAY + 1)] == [ANN.fingerprint]
    await store.recipients.note({"cy@a.example": no(NOW + 2 * DAY)})
    assert await lost(store) == [], "nobody had ever been able to"


async def test_a_word_that_turns_is_known_since_then(store: Store) -> None:
    await cached(store, ANN)
    await store.recipients.note({"ann@a.example": yes(), "zed@a.example": yes(), "ben@a.example": no()})
    assert await lost(store) == []
    await store.recipients.note({"ann@a.example": no(NOW + 5), "zed@a.example": no(NOW + 3, "it expired")})
    await store.recipients.note({"ann@a.example": no(NOW + DAY, "it is gone"), "ben@a.example": no(NOW + 7)})
    ann = Lost("a.example", NOW + 5, ANN.fingerprint, "it is gone", "ann@a.example")
    zed = Lost("a.example", NOW + 3, ANN.fingerprint, "it expired", "")
    assert await lost(store) == [ann, zed]
    assert list(await store.recipients.lost(0, 0, 1)) == [ann]
    assert list(await store.recipients.lost(NOW + 5, 0, 9)) == [ann]
    assert list(await store.recipients.lost(0, TODAY + 1, 9)) == [ann], "the other was not asked for since"
    await store.recipients.note({"ann@a.example": unknown(NOW + DAY)})
    assert await lost(store) == [ann, zed]
    await store.recipients.note({"ann@a.example": yes(NOW + DAY)})
    assert await lost(store) == [zed]


async def test_certificates_in_use_end_the_soonest_first(store: Store) -> None:
    await cached(store, ANN, BEN)
    key = "its key for encryption expires"
    await store.recipients.note(
        {
            "zed@z.example": yes(until=NOW + 4 * DAY),
            "ann@a.example": yes(until=NOW + 9 * DAY, cause=key),  # it was renewed meanwhile
            "ann@b.example": yes(NOW - DAY, until=NOW + 4 * DAY),
            "ben@a.example": yes(one=BEN, until=NOW + 2 * DAY),
        }
    )
    ben = Ending(BEN.fingerprint, Kind.OPENPGP, NOW + 2 * DAY, EXPIRES, "a.example", ("ben@a.example",), 1)
    both = ("ann@a.example", "ann@b.example")
    ann = Ending(ANN.fingerprint, Kind.OPENPGP, NOW + 9 * DAY, key, "a.example", both, 3)
    assert await ending(store) == [ben, ann]
    assert list(await store.recipients.ending(NOW, NOW + 30 * DAY, 0, 1)) == [ben]
    assert list(await store.recipients.ending(NOW, NOW + 9 * DAY, 0, 9)) == [ben, ann]
    assert list(await store.recipients.ending(NOW, NOW + 9 * DAY - 1, 0, 9)) == [ben]
    assert list(await store.recipients.ending(NOW + 2 * DAY, NOW + 9 * DAY, 0, 9)) == [ann]
    assert [one.recipients for one in await ending(store, TODAY)] == [1, 2]
    assert (await ending(store, TODAY))[1].addresses == ("ann@a.example",)
    await store.recipients.note({"ann@b.example": yes(until=None)})
    assert await ending(store) == [ben], "it does not end any more"
    await store.recipients.note({"ben@a.example": no()})
    assert await ending(store) == []


async def test_addresses_are_named_of_what_the_history_knows_too(store: Store) -> None:
    await cached(store, ANN)
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": yes(one=BEN)})
    await store.delete(ANN.fingerprint, NOW + 1)
    assert {one.fingerprint: one.addresses for one in await ending(store)} == {
        ANN.fingerprint: ("ann@a.example",),
        BEN.fingerprint: (),
    }


async def test_only_some_addresses_of_a_certificate_are_named(store: Store) -> None:
    many = Made(3, tuple(f"n{n:02}@a.example" for n in range(MAX_NAMED + 3)))
    await cached(store, many)
    await store.recipients.note({address: yes(one=many) for address in many.texts})
    (one,) = await ending(store)
    assert (one.addresses, one.recipients) == (many.texts[:MAX_NAMED], MAX_NAMED + 3)


async def test_reasons_and_addresses_are_bounded(store: Store) -> None:
    await store.recipients.note({"ann@a.example": yes(), "n" * 5000 + "@a.example": yes()})
    await store.recipients.note({"ann@a.example": no(NOW, "x" * 1000 + "\0")})
    assert [len(one.reason) for one in await lost(store)] == [MAX_REASON]
    assert list(await store.recipients.domains(0, 9)) == [Coverage("a.example", 1, 0, 1, 0)]


async def test_nothing_is_noted_without_a_history(store: Store) -> None:
    await store.recipients.note({"ann@a.example": yes()})
    store.history.limit(Bounds(0, 0))
    while await store.history.tidy(NOW, 100):
        pass
    assert list(await store.recipients.domains(0, 9)) == []
    await store.recipients.note({"ben@a.example": yes()})
    assert list(await store.recipients.domains(0, 9)) == []
    assert await store.recipients.asked_today(["ben@a.example", "cy@a.example"], TODAY) == {
        "ben@a.example",
        "cy@a.example",
    }


@pytest.mark.parametrize(("keep", "stays"), [(10 * DAY, 10), (10_000 * DAY, MAX_KEPT)])
async def test_notes_go_once_they_are_older_than_the_history(store: Store, keep: int, stays: int) -> None:
    await cached(store, ANN, at=NOW)
    await store.recipients.note(
        {"new@a.example": yes(NOW - stays * DAY), "old@a.example": yes(NOW - (stays + 1) * DAY)}
    )
    store.history.limit(Bounds(keep, 1 << 30))
    while await store.history.tidy(NOW, 1):
        pass
    assert list(await store.recipients.domains(0, 9)) == [Coverage("a.example", 1, 1, 0, 0)]
    assert await store.recipients.asked_today(["new@a.example", "old@a.example"], 0) == {"new@a.example"}


async def test_notes_count_for_the_size_of_the_history(store: Store) -> None:
    await store.history.settings({"a": 1}, NOW - 40 * DAY)
    for day in range(40, -1, -1):
        await store.recipients.note({f"{day}-{n}@a.example": no(NOW - day * DAY) for n in range(20)})
    rows, octets = await store.history.size()
    assert rows == 1 + 41 * 20
    store.history.limit(Bounds(1000 * DAY, octets // 2))
    while await store.history.tidy(NOW, 100):
        pass
    assert 200 < (await store.history.size())[0] < 420
    assert await store.recipients.asked_today(["0-1@a.example", "40-1@a.example"], 0) == {"0-1@a.example"}


async def test_a_certificate_that_nobody_knows_is_not_named(store: Store) -> None:
    await cached(store, BEN, at=NOW - 100 * DAY)
    await store.delete(BEN.fingerprint, NOW - 99 * DAY)
    await cached(store, ANN, at=NOW)
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": yes(one=BEN)})
    await store.recipients.note({"ben@a.example": no()})
    store.history.limit(Bounds(10 * DAY, 1 << 30))
    while await store.history.tidy(NOW, 100):
        pass
    assert await lost(store) == [Lost("a.example", NOW, "", "it is revoked", "")]
    assert [one.fingerprint for one in await ending(store)] == [ANN.fingerprint]


async def test_notes_are_erased_with_the_history(store: Store) -> None:
    await store.recipients.note({"ann@a.example": yes(), "ben@a.example": no()})
    assert await store.history.forget("ann@a.example") == 1
    assert list(await store.recipients.domains(0, 9)) == [Coverage("a.example", 1, 0, 1, 0)]
    await store.history.forget_all()
    assert list(await store.recipients.domains(0, 9)) == []
    await store.recipients.note({"ann@a.example": yes()})
    await store.purge(Selection(source=Source.KEYSERVER), NOW)
    assert list(await store.recipients.domains(0, 9)) == [Coverage("a.example", 1, 1, 0, 0)]
    await store.purge_all(NOW)
    assert list(await store.recipients.domains(0, 9)) == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_no_note_has_an_address_in_clear(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await store.recipients.note({"somebody@a.example": yes(), "else@a.example": no()})
    octets = b"".join(path.read_bytes() for path in backend.path.parent.iterdir() if os.path.isfile(path))
    assert b"a.example" in octets
    assert b"somebody" not in octets
