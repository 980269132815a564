"""One step of a listing, bounded in rows, in entries looked at and in time.

Where something in the filter leaves few entries (a domain, a text, what is held), those are gathered, and sorted here;
else the entries are gone over in order. The place where a step ends says the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyserver.model import Selection, Source
from keyserver.store.gathering import Few
from keyserver.store.listing import COUNTED, KEYS, UPSTREAM, Budget, Count, Filter, Listing, Place, Sort, Status
from keyserver.store.ordering import KEY_OF
from keyserver.store.sifting import Asking, Dialect, sieve

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


# --- few entries


def gathered(dialect: Dialect, few: Few, after: Place | None, budget: Budget) -> Asking[Step]:
    """A step over a few entries."""
    listing = few.listing
    sifted = sieve(dialect, listing)
    key = f"{sifted.end}, {KEY_OF[Sort.CACHED]}" if listing.sort is Sort.EXPIRES else KEY_OF[listing.sort]
    sql = (
        f"SELECT {key}, e.id FROM {dialect.among} {dialect.join} entry AS e ON e.id = j.value WHERE {sifted.condition}"  # noqa: S608 - our own words
    )
    rows = yield sql, {**sifted.values, "ids": few.ids}
    found = sorted((tuple(row) for row in rows), reverse=listing.descending)
    width = len(KEYS[listing.sort])
    rest = [row for row in found if after is None or _behind(row[:width], after, descending=listing.descending)]
    shown = rest[: budget.rows]
    following = shown[-1][:width] if len(rest) > len(shown) else None
    looked, of = 0 if following is not None else len(few.ids), len(few.ids)
    return Step(tuple(row[-1] for row in shown), following, looked, of, Count(len(found), exact=True))


def _behind(place: Place, after: Place, *, descending: bool) -> bool:
    return place < after if descending else place > after


# --- many


class Walk:
    """Entries gone over in order, until the step has enough."""

    def __init__(self, listing: Listing, after: Place | None, budget: Budget, kept: int | None) -> None:
        """kept: how many match in all, where somebody keeps that count."""
        self._listing, self._budget, self._kept = listing, budget, kept
        self._width = len(KEYS[listing.sort])
        self._counting = after is None and kept is None
        self.wanted = max(budget.rows, COUNTED if self._counting else 0) + 1
        """Matching entries with which it is over; one more than needed says that there is more."""
        self._found: list[tuple[int, int, Place]] = []  # id, how many were looked at by then, place
        self.last, self._seen, self._whole = after, 0, True
        self._began = budget.clock()

    def take(self, row: Sequence[Any]) -> bool:
        """Look at an entry: its place, its id, whether it matches. False: that was one too many."""
        place = tuple(row[: self._width])
        if place == self.last:
            return True
        if len(self._found) == self.wanted or self._seen == self._budget.candidates or self._over():
            self._whole = False
            return False
        self.last, self._seen = place, self._seen + 1
        if row[-1]:
            self._found.append((row[-2], self._seen, place))
        return True

    def _over(self) -> bool:
        """Is its time over?"""
        if self._seen % _AT_ONCE != _AT_ONCE - 1:
            return False
        return self._budget.clock() - self._began >= self._budget.seconds

    def step(self, dialect: Dialect) -> Asking[Step]:
        """What it came to."""
        found, whole = self._found, self._whole
        shown = found[: self._budget.rows]
        following = shown[-1][2] if len(found) > len(shown) else None if whole else self.last
        searched = shown[-1][1] if len(found) > len(shown) else self._seen
        count = Count(self._kept, exact=True) if self._kept is not None else None
        if self._counting:
            count = Count(min(len(found), COUNTED), exact=whole and len(found) <= COUNTED)
        short = following is not None and len(shown) < self._budget.rows
        of = yield from _about(dialect, self._listing, exactly=short)
        return Step(tuple(id_ for id_, _, _ in shown), following, searched, of, count)


def _about(dialect: Dialect, listing: Listing, *, exactly: bool) -> Asking[int]:
    """How many entries are gone over in all, about. exactly: what must be counted is worth it."""
    what = listing.what
    tally = yield from _tally(dialect)
    if listing.sort is Sort.CACHED and what.wanted.domain is not None and exactly:
        names = f"name AS n{dialect.by.format('name_domain')} WHERE {dialect.domain} = :domain LIMIT :most"
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {names}) AS x"  # noqa: S608 - our own words
        rows = yield sql, {"domain": what.wanted.domain.lower(), "most": _COUNTED_DOMAIN}
        of: int = rows[0][0]
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


def kept(dialect: Dialect, what: Filter) -> Asking[int | None]:
    """How many entries match, where somebody keeps that count."""
    wanted = what.wanted
    if what == Filter():
        return _total((yield from _tally(dialect)))
    if what == Filter(Selection(source=wanted.source)):
        return (yield from _tally(dialect)).get(str(wanted.source), 0)
    if what == Filter(Selection(upstream=wanted.upstream)):
        return (yield from _tally(dialect)).get(f"{UPSTREAM}{wanted.upstream}", 0)
    if what == Filter(held=what.held) or what == Filter(approved=what.approved):
        tally = yield from _tally(dialect)
        has = tally.get("held" if what.held is not None else "approved", 0)
        return has if what.held or what.approved else _total(tally) - has
    return None


def _tally(dialect: Dialect) -> Asking[dict[str, int]]:
    rows = yield dialect.tally, {}
    return {row[0]: row[1] for row in rows}


def _total(tally: Mapping[str, int]) -> int:
    return sum(tally.get(str(source), 0) for source in Source)
