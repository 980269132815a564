"""One step of a listing, bounded in rows, in entries looked at and in time.

Where something in the filter leaves few entries (a domain, a text, what is held), those are gathered, and sorted here;
else the entries are gone over in order. The place where a step ends says the same either way.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from keyserver.model import Entry, Selection, Source
from keyserver.store.listing import (
    COUNTED,
    KEYS,
    Budget,
    Count,
    Filter,
    Listing,
    Page,
    Place,
    Sort,
    Status,
)
from keyserver.store.sqlite import gathering
from keyserver.store.sqlite.gathering import Few
from keyserver.store.sqlite.ordering import KEY_OF, walk
from keyserver.store.sqlite.reading import UPSTREAM, entry_of, instant
from keyserver.store.sqlite.sifting import DOMAIN, sieve

_AT_ONCE = 100  # rows between two looks at the clock
_COUNTED_DOMAIN = 100_000  # addresses of one domain, from which on it is most of the cache


@dataclass(frozen=True, slots=True)
class Step:
    """As `Page`, but of ids."""

    ids: tuple[int, ...]
    next: Place | None
    searched: int
    of: int
    count: Count | None


def page(db: sqlite3.Connection, listing: Listing, after: Place | None, budget: Budget) -> Page:
    """`Store.list`."""
    with instant(db):
        found = _step(db, listing, after, budget)
        return Page(_entries(db, found.ids), found.next, found.searched, found.of, found.count)


def step(db: sqlite3.Connection, listing: Listing, after: Place | None, budget: Budget) -> Step:
    """As `page`, without reading the entries."""
    with instant(db):
        return _step(db, listing, after, budget)


def _step(db: sqlite3.Connection, listing: Listing, after: Place | None, budget: Budget) -> Step:
    few = gathering.few(db, listing, budget.candidates)
    if few is not None:
        return _gathered(db, few, after, budget)
    return _walked(db, listing, after, budget)


# --- few entries


def _gathered(db: sqlite3.Connection, few: Few, after: Place | None, budget: Budget) -> Step:
    listing = few.listing
    sifted = sieve(listing)
    key = f"{sifted.end}, {KEY_OF[Sort.CACHED]}" if listing.sort is Sort.EXPIRES else KEY_OF[listing.sort]
    rows = db.execute(
        f"SELECT {key}, e.id FROM json_each(:ids) AS j CROSS JOIN entry AS e ON e.id = j.value"  # noqa: S608 - our own words
        f" WHERE {sifted.condition}",
        {**sifted.values, "ids": json.dumps(few.ids)},
    )
    found = sorted(rows, reverse=listing.descending)
    width = len(KEYS[listing.sort])
    rest = [row for row in found if after is None or _behind(row[:width], after, descending=listing.descending)]
    shown = rest[: budget.rows]
    following = shown[-1][:width] if len(rest) > len(shown) else None
    looked, of = 0 if following is not None else len(few.ids), len(few.ids)
    return Step(tuple(row[-1] for row in shown), following, looked, of, Count(len(found), exact=True))


def _behind(place: Place, after: Place, *, descending: bool) -> bool:
    return place < after if descending else place > after


# --- many


def _walked(db: sqlite3.Connection, listing: Listing, after: Place | None, budget: Budget) -> Step:
    kept, sifted = _kept(db, listing.what), sieve(listing)
    width = len(KEYS[listing.sort])
    counting = after is None and kept is None
    wanted = max(budget.rows, COUNTED if counting else 0) + 1  # one more says that there is more
    found: list[tuple[int, int, Place]] = []  # id, how many were looked at by then, place
    last, seen, whole = after, 0, True
    over = _timer(budget)
    with closing(walk(db, listing, sifted, after)) as rows:
        for row in rows:
            place = row[:width]
            if place == last:
                continue
            if len(found) == wanted or seen == budget.candidates or (seen % _AT_ONCE == _AT_ONCE - 1 and over()):
                whole = False
                break
            last, seen = place, seen + 1
            if row[-1]:
                found.append((row[-2], seen, place))
    shown = found[: budget.rows]
    following = shown[-1][2] if len(found) > len(shown) else None if whole else last
    searched = shown[-1][1] if len(found) > len(shown) else seen
    if kept is not None:
        count: Count | None = Count(kept, exact=True)
    else:
        count = Count(min(len(found), COUNTED), exact=whole and len(found) <= COUNTED) if counting else None
    short = following is not None and len(shown) < budget.rows
    of = _about(db, listing, exactly=short)
    return Step(tuple(id_ for id_, _, _ in shown), following, searched, of, count)


def _timer(budget: Budget) -> Callable[[], bool]:
    began = budget.clock()
    return lambda: budget.clock() - began >= budget.seconds


def _about(db: sqlite3.Connection, listing: Listing, *, exactly: bool) -> int:
    """How many entries are gone over in all, about. exactly: what must be counted is worth it."""
    what = listing.what
    tally = _tally(db)
    if listing.sort is Sort.CACHED and what.wanted.domain is not None and exactly:
        sql = f"SELECT count(*) FROM (SELECT 1 FROM name AS n INDEXED BY name_domain WHERE {DOMAIN} = ? LIMIT ?)"  # noqa: S608 - our own words
        of: int = db.execute(sql, (what.wanted.domain.lower(), _COUNTED_DOMAIN)).fetchone()[0]
        if of < _COUNTED_DOMAIN:
            return of
    elif listing.sort is Sort.CACHED and (what.held or what.status is Status.HELD or what.approved):
        return tally.get("held" if not what.approved else "approved", 0)
    elif listing.sort in (Sort.CACHED, Sort.EXPIRES, Sort.SOURCE):
        if what.wanted.upstream is not None:
            return tally.get(UPSTREAM + what.wanted.upstream, 0)
        if what.wanted.source is not None:
            return tally.get(str(what.wanted.source), 0)
    return _total(tally)


# --- what is kept


def _kept(db: sqlite3.Connection, what: Filter) -> int | None:
    """How many entries match, where somebody keeps that count."""
    if what == Filter():
        return _total(_tally(db))
    wanted = what.wanted
    if what == Filter(Selection(source=wanted.source)):
        return _tally(db).get(str(wanted.source), 0)
    if what == Filter(Selection(upstream=wanted.upstream)):
        return _tally(db).get(f"{UPSTREAM}{wanted.upstream}", 0)
    if what == Filter(held=what.held) or what == Filter(approved=what.approved):
        tally = _tally(db)
        has = tally.get("held" if what.held is not None else "approved", 0)
        return has if what.held or what.approved else _total(tally) - has
    return None


def _tally(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT what, n FROM tally"))


def _total(tally: dict[str, int]) -> int:
    return sum(tally.get(str(source), 0) for source in Source)


_ROW = (
    "SELECT e.fingerprint, e.kind, x'', e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id, e.identities"
    " FROM json_each(?) AS j CROSS JOIN entry AS e ON e.id = j.value"
)


def _entries(db: sqlite3.Connection, ids: Sequence[int]) -> tuple[Entry, ...]:
    """In this order, without their octets."""
    return tuple(map(entry_of, db.execute(_ROW, (json.dumps(ids),))))
