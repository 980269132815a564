"""The few entries that a listing can be about, by whatever word of its filter leaves few: ids from indexes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from keyserver.store.listing import Filter, Listing, Sort, Status, dated, needle
from keyserver.store.ordering import bounds, groups
from keyserver.store.sifting import AFTER_ALL, Asking, Dialect, Value

_NAMES = "SELECT entry FROM name WHERE name >= :first AND name < :last"

Gathered: TypeAlias = Asking[tuple[list[int], Filter] | None]
"""Ids, and what of the filter is still to be looked at; None where the filter has no such word."""


@dataclass(frozen=True, slots=True)
class Few:
    """Ids of all entries that may match, some perhaps of what is no more, and a listing of what is left to ask."""

    ids: list[int]
    listing: Listing


def few(dialect: Dialect, listing: Listing, most: int) -> Asking[Few | None]:
    """At most `most` ids; None where no word of the filter leaves so few."""
    gathers = (_by_domain, _by_text, _by_held, _by_approved, _by_block, _by_kind, _by_source, _by_age)
    for gather in gathers:
        try:
            found = yield from gather(dialect, listing, most)
        except _TooMany:
            continue
        if found is not None and len(found[0]) <= most:
            return Few(sorted(set(found[0])), replace(listing, what=found[1]))
    return None


class _TooMany(Exception):
    """This word leaves more than a few."""


def _by_domain(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.domain is None:
        return None
    index = dialect.by.format("name_domain")
    sql = f"SELECT n.entry FROM name AS n{index} WHERE {dialect.domain} = :domain"  # noqa: S608 - our own words
    ids = yield from _ids(sql, most, domain=what.wanted.domain.lower())
    return ids, replace(what, wanted=replace(what.wanted, domain=None))


def _by_text(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.text is None:
        return None
    term = needle(what.wanted.text)
    if not term.inside:
        ids = []
        for name in term.prefixes:
            ids += yield from _ids(_NAMES, most, first=name, last=name + AFTER_ALL)
        return ids, replace(what, wanted=replace(what.wanted, text=None))
    found = yield from dialect.containing(term.text, most + 1)
    if found is None:
        return None
    if term.digits:
        sql = "SELECT id FROM entry WHERE fingerprint >= :first AND fingerprint < :last"
        found += yield from _ids(sql, most, first=term.digits, last=term.digits + "G")
    sql = "SELECT entry FROM name WHERE name = :name"
    for name in term.names:
        found += yield from _ids(sql, most, name=name)
    return found, what


def _by_held(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if not (what.held or what.status is Status.HELD):
        return None
    index = dialect.by.format("entry_held")
    ids = yield from _ids(f"SELECT id FROM entry{index} WHERE held", most)  # noqa: S608 - our own words
    return ids, replace(what, held=None) if what.held else what


def _by_approved(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    if not listing.what.approved:
        return None
    index = dialect.by.format("entry_approved")
    ids = yield from _ids(f"SELECT id FROM entry{index} WHERE approved", most)  # noqa: S608 - our own words
    return ids, replace(listing.what, approved=None)


def _by_block(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    """What is blocked, unless so much is that most of it may not even be here."""
    if listing.what.status is not Status.BLOCKED:
        return None
    yield from _ids("SELECT 1 FROM block", most)
    sql = f"SELECT e.id FROM block AS b {dialect.join} entry AS e ON e.fingerprint = b.fingerprint"  # noqa: S608
    return (yield from _ids(sql, most)), replace(listing.what, status=None)


def _by_kind(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    what = listing.what
    if what.wanted.kind is None:
        return None
    ids = yield from _ids(_NAMES, most, first=f"{what.wanted.kind}:fpr:", last=f"{what.wanted.kind}:fpr;")
    return ids, replace(what, wanted=replace(what.wanted, kind=None))


def _by_source(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    """Of one source or upstream, unless they lie in order anyway."""
    what = listing.what
    if (what.wanted.source, what.wanted.upstream) == (None, None) or listing.sort not in (
        Sort.ADDRESS,
        Sort.FINGERPRINT,
    ):
        return None
    return (yield from _in_groups(dialect, listing, most)), replace(
        what, wanted=replace(what.wanted, source=None, upstream=None)
    )


def _by_age(dialect: Dialect, listing: Listing, most: int) -> Gathered:
    """Of some time, unless they lie in order anyway."""
    if not dated(listing.what) or listing.sort in (Sort.CACHED, Sort.EXPIRES):
        return None
    return (yield from _in_groups(dialect, listing, most)), listing.what


def _in_groups(dialect: Dialect, listing: Listing, most: int) -> Asking[list[int]]:
    found: list[int] = []
    for one in (yield from groups(listing)):
        low, high = bounds(one, listing)
        index = dialect.by.format(one.index)
        sql = f"SELECT e.id FROM entry AS e{index} WHERE {one.where} AND e.at >= :low AND e.at < :high"  # noqa: S608 - our own words
        found += yield from _ids(sql, most - len(found), **one.values, low=low, high=high)
    return found


def _ids(sql: str, most: int, **values: Value) -> Asking[list[int]]:
    """What a statement gives. Raises _TooMany; to know that, no row of them is brought here."""
    if (yield f"{sql} LIMIT 1 OFFSET :most", {**values, "most": most}):
        raise _TooMany
    return [row[0] for row in (yield sql, values)]
