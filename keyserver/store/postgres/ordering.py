"""Entries in the order of a listing, some at a time: one statement merges ranges of indexes, from any place on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyserver.store.listing import KEYS, NEVER, Listing, Place, Sort
from keyserver.store.ordering import KEY_OF, KEYED, Range, bounds, fixed, lifetime, ranges, seek
from keyserver.store.postgres.sifting import DIALECT
from keyserver.store.sifting import Asking, Sieve, Value


def places(listing: Listing) -> Asking[list[Range]]:
    """The ranges that a walk merges; none where the order is that of one index."""
    return [] if listing.sort in KEYED else (yield from ranges(DIALECT, listing))


def some(
    listing: Listing, sieve: Sieve, merged: Sequence[Range], after: Place | None, limit: int
) -> Asking[Sequence[Sequence[Any]]]:
    """Up to `limit` rows from behind a place on: the place of each entry, its id, and whether it matches. The same
    entry may come twice, at the same place."""
    values: dict[str, Value] = {**sieve.values, "limit": limit}
    if listing.sort in KEYED:
        return (yield _keyed(listing, sieve, after, values), values)
    arms = [arm for number, one in enumerate(merged) if (arm := _arm(listing, one, number, after, values))]
    if not arms:
        return []
    columns = [f"k{number}" for number in range(len(KEYS[listing.sort]))]
    turn = " DESC" if listing.descending else ""
    order = ", ".join(f"x.{column}{turn}" for column in columns)
    key = ", ".join(f"x.{column}" for column in columns)
    # The condition is looked at for what is left of the ranges, not for all that is read of each.
    inner = f"SELECT * FROM ({' UNION ALL '.join(arms)}) AS x ORDER BY {order} LIMIT :limit"  # noqa: S608 - our own words
    id_ = f"x.{columns[-1]}"
    sql = f"SELECT {key}, {id_}, {sieve.condition} FROM ({inner}) AS x JOIN entry AS e ON e.id = {id_}"  # noqa: S608
    return (yield f"{sql} ORDER BY {order}", values)


def _arm(listing: Listing, one: Range, number: int, after: Place | None, values: dict[str, Value]) -> str | None:
    """The next of one range; None: it is over."""
    at, id_ = one.key
    low, high = bounds(one, listing)
    ttl = lifetime(one, listing)
    parts = [one.where.replace(":origin", f":origin{number}")]
    values |= {f"origin{number}" if name == "origin" else name: value for name, value in one.values.items()}
    if after is not None:
        behind = seek(listing, after, ttl)
        if behind is None:
            return None
        compare = "<" if listing.descending else ">"
        parts.append(f"({at}, {id_}) {compare} (:at{number}, :id{number})")
        values |= {f"at{number}": behind[0], f"id{number}": behind[1]}
    if low >= high:
        return None
    for name, bound, compare in (("low", low, ">="), ("high", high, "<")):
        if abs(bound) != NEVER:
            parts.append(f"{at} {compare} :{name}{number}")
            values[f"{name}{number}"] = bound
    ends = ""
    if listing.sort is Sort.EXPIRES:
        ends = ":never AS k0, " if ttl is None else f"{at} + :ttl{number} AS k0, "
        values |= {} if ttl is None else {f"ttl{number}": ttl}
    first = 1 if ends else 0
    turn = " DESC" if listing.descending else ""
    table = "name AS n" if one.named else "entry AS e"
    return (
        f"(SELECT {ends}{at} AS k{first}, {id_} AS k{first + 1} FROM {table} WHERE {' AND '.join(parts)}"  # noqa: S608
        f" ORDER BY {at}{turn}, {id_}{turn} LIMIT :limit)"
    )


def _keyed(listing: Listing, sieve: Sieve, after: Place | None, values: dict[str, Value]) -> str:
    _, columns, tie = KEYED[listing.sort]
    where, known = fixed(listing)
    columns = (*columns, tie) if tie else columns
    parts = [where] if where else []
    if after is not None:
        values |= {f"k{number}": value for number, value in enumerate(after)}
        marks = ", ".join(f":k{number}" for number in range(known, len(columns)))
        parts.append(f"({', '.join(columns[known:])}) {'<' if listing.descending else '>'} ({marks})")
    turn = " DESC" if listing.descending else ""
    return (
        f"SELECT {KEY_OF[listing.sort]}, e.id, {sieve.condition} FROM entry AS e"  # noqa: S608
        f" WHERE {' AND '.join(parts) or DIALECT.true}"
        f" ORDER BY {', '.join(f'{column}{turn}' for column in columns)} LIMIT :limit"
    )
