"""One step of a listing, of one instant."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from keyserver.model import Entry
from keyserver.store import gathering
from keyserver.store.listing import Budget, Listing, Page, Place
from keyserver.store.sifting import sieve
from keyserver.store.sqlite.asking import answer
from keyserver.store.sqlite.dialect import DIALECT
from keyserver.store.sqlite.ordering import walk
from keyserver.store.sqlite.reading import entry_of, instant
from keyserver.store.stepping import Step, Walk, gathered, kept


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
    few = answer(db, gathering.few(DIALECT, listing, budget.candidates))
    if few is not None:
        return answer(db, gathered(DIALECT, few, after, budget))
    going = Walk(listing, after, budget, answer(db, kept(DIALECT, listing.what)))
    with closing(walk(db, listing, sieve(DIALECT, listing), after)) as rows:
        for row in rows:
            if not going.take(row):
                break
    return answer(db, going.step(DIALECT))


_ROW = (
    "SELECT e.fingerprint, e.kind, x'', e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id, e.identities"
    " FROM json_each(?) AS j CROSS JOIN entry AS e ON e.id = j.value"
)


def _entries(db: sqlite3.Connection, ids: Sequence[int]) -> tuple[Entry, ...]:
    """In this order, without their octets."""
    return tuple(map(entry_of, db.execute(_ROW, (json.dumps(ids),))))
