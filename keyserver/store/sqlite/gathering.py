"""The few entries that a listing can be about, by whatever word of its filter leaves few: ids from indexes alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

from keyserver.store.listing import Filter, Listing, Sort, Status, dated, needle
from keyserver.store.sqlite import trigrams
from keyserver.store.sqlite.ordering import bounds, groups
from keyserver.store.sqlite.sifting import AFTER_ALL, DOMAIN, Value

_NAMES = "SELECT entry FROM name WHERE name >= :first AND name < :last"

Gathered: TypeAlias = tuple[list[int], Filter] | None
"""Ids, and what of the filter is still to be looked at; None where the filter has no such word."""


@dataclass(frozen=True, slots=True)
class Few:
    """Ids of all entries that may match, some perhaps of what is no more, and a listing of what is left to ask."""

    ids: list[int]
    listing: Listing


def few(db: sqlite3.Connection, listing: Listing, most: int) -> Few | None:
    """At most `most` ids; None where no word of the filter leaves so few."""
    gathers: tuple[Callable[[sqlite3.Connection, Listing, int], Gathered], ...]
    gathers = (_by_domain, _by_text, _by_held, _by_approved, _by_block, _by_kind, _by_source, _by_age)
    for gather in gathers:
        try:
            found = gather(db, listing, most)
        except _TooMany:
            continue
        if found is not None and len(found[0]) <= most:
            return Few(sorted(set(found[0])), replace(listing, what=found[1]))
    return None


class _TooMany(Exception):
    """This word leaves more than a few."""


def _by_domain(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.domain is None:
        return None
    sql = f"SELECT n.entry FROM name AS n INDEXED BY name_domain WHERE {DOMAIN} = :domain"  # noqa: S608 - our own words
    ids = _ids(db, sql, most, domain=what.wanted.domain.lower())
    return ids, replace(what, wanted=replace(what.wanted, domain=None))


def _by_text(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.text is None:
        return None
    term = needle(what.wanted.text)
    if not term.inside:
        ids = [id_ for name in term.prefixes for id_ in _ids(db, _NAMES, most, first=name, last=name + AFTER_ALL)]
        return ids, replace(what, wanted=replace(what.wanted, text=None))
    found = trigrams.find(db, term.text, most + 1)
    if found is None:
        return None
    if term.digits:
        sql = "SELECT id FROM entry WHERE fingerprint >= :first AND fingerprint < :last"
        found += _ids(db, sql, most, first=term.digits, last=term.digits + "G")
    sql = "SELECT entry FROM name WHERE name = :name"
    return found + [id_ for name in term.names for id_ in _ids(db, sql, most, name=name)], what


def _by_held(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if not (what.held or what.status is Status.HELD):
        return None
    ids = _ids(db, "SELECT id FROM entry INDEXED BY entry_held WHERE held", most)
    return ids, replace(what, held=None) if what.held else what


def _by_approved(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    if not listing.what.approved:
        return None
    ids = _ids(db, "SELECT id FROM entry INDEXED BY entry_approved WHERE approved", most)
    return ids, replace(listing.what, approved=None)


def _by_block(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    """What is blocked, unless so much is that most of it may not even be here."""
    if listing.what.status is not Status.BLOCKED:
        return None
    _ids(db, "SELECT 1 FROM block", most)
    sql = "SELECT e.id FROM block AS b CROSS JOIN entry AS e ON e.fingerprint = b.fingerprint"
    return _ids(db, sql, most), replace(listing.what, status=None)


def _by_kind(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.kind is None:
        return None
    ids = _ids(db, _NAMES, most, first=f"{what.wanted.kind}:fpr:", last=f"{what.wanted.kind}:fpr;")
    return ids, replace(what, wanted=replace(what.wanted, kind=None))


def _by_source(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    """Of one source or upstream, unless they lie in order anyway."""
    what = listing.what
    if (what.wanted.source, what.wanted.upstream) == (None, None) or listing.sort not in (
        Sort.ADDRESS,
        Sort.FINGERPRINT,
    ):
        return None
    return _in_groups(db, listing, most), replace(what, wanted=replace(what.wanted, source=None, upstream=None))


def _by_age(db: sqlite3.Connection, listing: Listing, most: int) -> Gathered:
    """Of some time, unless they lie in order anyway."""
    if not dated(listing.what) or listing.sort in (Sort.CACHED, Sort.EXPIRES):
        return None
    return _in_groups(db, listing, most), listing.what


def _in_groups(db: sqlite3.Connection, listing: Listing, most: int) -> list[int]:
    found: list[int] = []
    for one in groups(db, listing):
        low, high = bounds(one, listing)
        sql = f"SELECT e.id FROM entry AS e INDEXED BY {one.index} WHERE {one.where} AND e.at >= :low AND e.at < :high"  # noqa: S608 - our own words
        found += _ids(db, sql, most - len(found), **one.values, low=low, high=high)
    return found


def _ids(db: sqlite3.Connection, sql: str, most: int, **values: Value) -> list[int]:
    """What a statement gives. Raises _TooMany; to know that, no row of them is brought here."""
    if db.execute(f"{sql} LIMIT 1 OFFSET :most", {**values, "most": most}).fetchone():
        raise _TooMany
    return [id_ for (id_,) in db.execute(sql, values)]
