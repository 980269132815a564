"""A cursor comes back as it was written, for its own listing only; whatever else is given for one is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Selection
from keyserver.store import cursors
from keyserver.store.listing import KEYS, Filter, Lifetimes, Listing, Place, Sort

LISTING = Listing(Filter(Selection(domain="example.org")), 1_800_000_000, Lifetimes(10, 20, {"one": 5}, 3))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBER = st.integers(-(2**62), 2**62)


@given(sort=st.sampled_from(list(Sort)), searched=st.integers(0, 10**9), data=st.data())
def test_what_was_written_is_read(sort: Sort, searched: int, data: st.DataObject) -> None:
    listing = replace(LISTING, sort=sort)
    place: Place = tuple(data.draw(NUMBER if key is int else TEXT) for key in KEYS[sort])
    cursor = cursors.written(listing, place, searched)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    if len(cursor) <= cursors.MOST:
        assert cursors.read(cursor, replace(listing, now=1)) == cursors.Progress(listing.now, place, searched)


@pytest.mark.parametrize(
    ("other", "error"),
    [
        (replace(LISTING, what=Filter(Selection(domain="example.net"))), cursors.BadCursor),
        (replace(LISTING, what=Filter(unwanted=Selection(domain="example.org"))), cursors.BadCursor),
        (replace(LISTING, sort=Sort.EXPIRES), cursors.BadCursor),
        (replace(LISTING, descending=False), cursors.BadCursor),
        (replace(LISTING, lifetimes=Lifetimes(11, 20, {"one": 5}, 3)), cursors.Outdated),
        (replace(LISTING, lifetimes=Lifetimes(10, 20, {"one": 6}, 3)), cursors.Outdated),
        (replace(LISTING, lifetimes=Lifetimes(10, 20, {"one": 5}, 4)), cursors.Outdated),
    ],
)
def test_it_is_for_one_listing_and_the_times_to_live_of_then(other: Listing, error: type[Exception]) -> None:
    cursor = cursors.written(LISTING, (7, 8), 9)
    with pytest.raises(error) as refused:
        cursors.read(cursor, other)
    assert type(refused.value) is error


def forged(*values: object) -> str:
    """A cursor of `LISTING` with other values behind what says so."""
    read = base64.urlsafe_b64decode(cursors.written(LISTING, (7, 8), 9) + "==")
    return base64.urlsafe_b64encode(json.dumps([*json.loads(read)[:3], *values]).encode()).decode().rstrip("=")


def test_a_forged_one_may_name_any_place() -> None:
    assert cursors.read(forged(1, 2, 3, 4), LISTING) == cursors.Progress(1, (3, 4), 2)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "what is this",
        "AB::0",
        "ä",
        "A" * (cursors.MOST + 1),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        forged(1, 2, 3),
        forged(1, 2, 3, 4, 5),
        forged(1, 2, 3, "4"),
        forged(1, 2, 3, 4.0),
        forged(1, 2, 3, None),
        forged(1, 2, 3, True),
        forged(1, 2, 3, 2**63),
        forged(1, 2, [3], 4),
        forged(-1, 2, 3, 4),
        forged(2**60, 2, 3, 4),
        forged(1, -2, 3, 4),
        forged("1", 2, 3, 4),
    ],
)
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(cursors.BadCursor, match="cursor is"):
        cursors.read(cursor, LISTING)


def test_text_that_no_database_takes_is_refused() -> None:
    listing = replace(LISTING, sort=Sort.ADDRESS)
    values = json.loads(base64.urlsafe_b64decode(cursors.written(listing, ("a", 8), 9) + "=="))
    values[-2] = "\ud800"
    cursor = base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")
    with pytest.raises(cursors.BadCursor):
        cursors.read(cursor, listing)


@given(st.text() | st.binary().map(lambda octets: base64.urlsafe_b64encode(octets).decode()))
def test_no_octets_raise_anything_else(cursor: str) -> None:
    with pytest.raises(cursors.BadCursor):
        cursors.read(cursor, LISTING)
