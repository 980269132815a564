"""Entries in the order of a listing, from any place on: ranges of indexes, merged where there are several.

A listing by when entries end needs no column for it: within one source and origin it is the order of `at`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from heapq import merge
from typing import Any, TypeAlias

from keyserver.model import Source
from keyserver.store.listing import KEYS, NEVER, Listing, Place, Sort, Status, span
from keyserver.store.sqlite.reading import jump
from keyserver.store.sqlite.sifting import DOMAIN, Sieve, Value

Rows: TypeAlias = Generator[tuple[Any, ...], None, None]

_LAST = 2**62  # no id is larger

KEY_OF: Mapping[Sort, str] = {
    Sort.CACHED: "e.at, e.id",
    Sort.ADDRESS: "e.address, e.id",
    Sort.SOURCE: "e.source, e.origin, e.at, e.id",
    Sort.FINGERPRINT: "e.fingerprint, e.source, e.origin",
}
"""A place as columns; of `EXPIRES` it begins with when the entry ends."""

_KEYED: Mapping[Sort, tuple[str, tuple[str, ...], str]] = {
    Sort.ADDRESS: ("entry_address", ("e.address",), "e.id"),
    Sort.SOURCE: ("entry_age", ("e.source", "e.origin", "e.at"), "e.id"),
    Sort.FINGERPRINT: ("entry_identity", ("e.fingerprint", "e.source", "e.origin"), ""),
}
"""Index, its columns, and what decides between equal ones."""


@dataclass(frozen=True, slots=True)
class Range:
    """Part of an index, in the order of `at`; its entries end at `at + ttl`, or never."""

    index: str
    where: str = "1"
    values: Mapping[str, Value] = field(default_factory=dict)
    source: Source | None = None
    origin: str = ""
    table: str = "entry AS e INDEXED BY {}"
    at: str = "e.at"
    id: str = "e.id"


def walk(db: sqlite3.Connection, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    """Rows from behind a place on: the place of each entry, its id, and whether it matches. The same entry may come
    twice, at the same place."""
    if listing.sort in _KEYED:
        yield from _keyed(db, listing, sieve, after)
        return
    width = len(KEYS[listing.sort])
    rows = [_aged(db, one, listing, sieve, after) for one in ranges(db, listing)]
    yield from merge(*rows, key=lambda row: row[:width], reverse=listing.descending)


def ranges(db: sqlite3.Connection, listing: Listing) -> list[Range]:
    """Where all that may match lies, ordered by `at`: as few entries besides as may be."""
    what = listing.what
    if listing.sort is Sort.CACHED:
        if what.wanted.domain is not None:
            where, values = f"{DOMAIN} = :domain", {"domain": what.wanted.domain.lower()}
            table = "name AS n INDEXED BY {} CROSS JOIN entry AS e ON e.id = n.entry"
            return [Range("name_domain", where, values, table=table, at="n.at", id="n.entry")]
        if what.held or what.status is Status.HELD:
            return [Range("entry_held", "e.held")]
        if what.approved:
            return [Range("entry_approved", "e.approved")]
    return groups(db, listing)


def groups(db: sqlite3.Connection, listing: Listing) -> list[Range]:
    """One range for each source and origin with a time to live of its own, of those that a filter wants."""
    wanted = listing.what.wanted
    source = wanted.source if wanted.upstream is None else Source.KEYSERVER
    if wanted.source not in (None, source):
        return []
    found = []
    for one in Source:
        if source not in (None, one):
            continue
        if one is Source.MAILFLOW:
            found.append(Range("entry_mail", f"e.source = '{one}'", source=one))
            continue
        named = [wanted.upstream] if wanted.upstream is not None else None
        for origin in named or jump(db, "entry", "origin", "source = ?", (str(one),)):
            where = f"e.source = '{one}' AND e.origin = :origin"
            found.append(Range("entry_age", where, {"origin": origin}, one, origin))
    return found


def bounds(one: Range, listing: Listing) -> tuple[int, int]:
    """From <= at < before, as far as it is known."""
    return span(listing, one.source, one.origin)


def _aged(db: sqlite3.Connection, one: Range, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    low, high = bounds(one, listing)
    ttl = listing.lifetimes.of(one.source, one.origin) if one.source is not None else 0
    key = f"{one.at}, {one.id}"
    if listing.sort is Sort.EXPIRES:
        key = f"{':never' if ttl is None else f'{one.at} + {ttl}'}, {key}"
    select = f"SELECT {key}, {one.id}, {sieve.condition} FROM {one.table.format(one.index)} WHERE {one.where}"  # noqa: S608 - our own words
    values = {**sieve.values, **one.values}
    compare, turn = ("<", "DESC") if listing.descending else (">", "ASC")
    if after is not None:
        seek = after if listing.sort is Sort.CACHED else _seek(after, ttl, descending=listing.descending)
        if seek is None:
            return
        at, id_ = seek
        assert isinstance(at, int)
        if low <= at < high:
            sql = f"{select} AND {one.at} = :at AND {one.id} {compare} :id ORDER BY {one.id} {turn}"
            yield from _rows(db, sql, values | {"at": at, "id": id_})
        low, high = (low, min(high, at)) if listing.descending else (max(low, at + 1), high)
    if low < high:
        sql = f"{select} AND {one.at} >= :low AND {one.at} < :high ORDER BY {one.at} {turn}, {one.id} {turn}"
        yield from _rows(db, sql, values | {"low": low, "high": high})


def _seek(after: Place, ttl: int | None, *, descending: bool) -> tuple[int, int] | None:
    """Behind which `at` and id a range with this ttl goes on behind a place of `EXPIRES`; None: it is over."""
    end, at, id_ = (int(value) for value in after)
    if ttl is None:
        if end == NEVER:
            return at, id_
        if (end > NEVER) is descending:
            return (_LAST, _LAST) if descending else (-_LAST, -1)
        return None
    here = end - ttl
    return here, -1 if here > at else id_ if here == at else _LAST


def _keyed(db: sqlite3.Connection, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    index, columns, tie = _KEYED[listing.sort]
    wanted = listing.what.wanted
    where, fixed = "1", 0  # of the index's columns, those that the filter fixes
    if listing.sort is Sort.SOURCE and (wanted.source is not None or wanted.upstream is not None):
        source = Source.KEYSERVER if wanted.upstream is not None else wanted.source
        where, fixed = f"e.source = '{source}'", 1
        if wanted.upstream is not None:
            where, fixed = f"{where} AND e.origin = :wupstream", 2
    key = KEY_OF[listing.sort]
    select = f"SELECT {key}, e.id, {sieve.condition} FROM entry AS e INDEXED BY {index} WHERE {where}"  # noqa: S608 - our own words
    compare, turn = ("<", "DESC") if listing.descending else (">", "ASC")
    order = f" ORDER BY {', '.join(f'{column} {turn}' for column in (*columns, *filter(None, [tie])))}"
    if after is None:
        yield from _rows(db, select + order, sieve.values)
        return
    values = {**sieve.values, **{f"k{number}": value for number, value in enumerate(after)}}
    if tie:
        same = " AND ".join(f"{column} = :k{number}" for number, column in enumerate(columns))
        sql = f"{select} AND {same} AND {tie} {compare} :k{len(columns)} ORDER BY {tie} {turn}"
        yield from _rows(db, sql, values)
    places = ", ".join(f":k{number}" for number in range(fixed, len(columns)))
    yield from _rows(db, f"{select} AND ({', '.join(columns[fixed:])}) {compare} ({places}){order}", values)


def _rows(db: sqlite3.Connection, sql: str, values: Mapping[str, Value]) -> Rows:
    with closing(db.execute(sql, values)) as rows:
        yield from rows
