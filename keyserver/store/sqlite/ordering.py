"""Entries in the order of a listing, from any place on: ranges of indexes, merged where there are several."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing
from heapq import merge
from typing import Any, TypeAlias

from keyserver.store.listing import KEYS, Listing, Place, Sort
from keyserver.store.ordering import KEY_OF, KEYED, Range, bounds, fixed, lifetime, ranges, seek
from keyserver.store.sifting import Sieve, Values
from keyserver.store.sqlite.asking import answer
from keyserver.store.sqlite.dialect import DIALECT

Rows: TypeAlias = Generator[tuple[Any, ...], None, None]
_NAMED = "name AS n INDEXED BY {} CROSS JOIN entry AS e ON e.id = n.entry"


def walk(db: sqlite3.Connection, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    """Rows from behind a place on: the place of each entry, its id, and whether it matches. The same entry may come
    twice, at the same place."""
    if listing.sort in KEYED:
        yield from _keyed(db, listing, sieve, after)
        return
    width = len(KEYS[listing.sort])
    rows = [_aged(db, one, listing, sieve, after) for one in answer(db, ranges(DIALECT, listing))]
    yield from merge(*rows, key=lambda row: row[:width], reverse=listing.descending)


def _aged(db: sqlite3.Connection, one: Range, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    low, high = bounds(one, listing)
    ttl = lifetime(one, listing)
    at_, id_ = one.key
    key = f"{at_}, {id_}"
    if listing.sort is Sort.EXPIRES:
        key = f"{':never' if ttl is None else f'{at_} + {ttl}'}, {key}"
    table = _NAMED if one.named else "entry AS e INDEXED BY {}"
    select = f"SELECT {key}, {id_}, {sieve.condition} FROM {table.format(one.index)} WHERE {one.where}"  # noqa: S608 - our own words
    values = {**sieve.values, **one.values}
    compare, turn = ("<", "DESC") if listing.descending else (">", "ASC")
    if after is not None:
        behind = seek(listing, after, ttl)
        if behind is None:
            return
        at, id_there = behind
        if low <= at < high:
            sql = f"{select} AND {at_} = :at AND {id_} {compare} :id ORDER BY {id_} {turn}"
            yield from _rows(db, sql, values | {"at": at, "id": id_there})
        low, high = (low, min(high, at)) if listing.descending else (max(low, at + 1), high)
    if low < high:
        sql = f"{select} AND {at_} >= :low AND {at_} < :high ORDER BY {at_} {turn}, {id_} {turn}"
        yield from _rows(db, sql, values | {"low": low, "high": high})


def _keyed(db: sqlite3.Connection, listing: Listing, sieve: Sieve, after: Place | None) -> Rows:
    index, columns, tie = KEYED[listing.sort]
    where, known = fixed(listing)
    where = where or DIALECT.true
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
    places = ", ".join(f":k{number}" for number in range(known, len(columns)))
    yield from _rows(db, f"{select} AND ({', '.join(columns[known:])}) {compare} ({places}){order}", values)


def _rows(db: sqlite3.Connection, sql: str, values: Values) -> Rows:
    with closing(db.execute(sql, values)) as rows:
        yield from rows
