"""One step of a listing, of one instant; and the search for a text."""

from __future__ import annotations

from collections.abc import Sequence

from keyserver.model import Entry, Kind
from keyserver.store import gathering
from keyserver.store.listing import Budget, Listing, Page, Place
from keyserver.store.postgres import ordering
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.reading import entry_of
from keyserver.store.postgres.sifting import DIALECT, answer
from keyserver.store.sifting import BLOCKED, Asking, Value, sieve
from keyserver.store.stepping import Step, Walk, gathered, kept

_AT_ONCE = 1000  # entries of one statement
_SEARCHED = 2_000_000  # entries that a search goes over where no index of texts helps, the newest ones
_FEW = 5000  # entries that such an index names, up to which each is looked at

_ROW = (
    "SELECT e.fingerprint, e.kind, '\\x'::bytea AS octets, e.source, e.origin, e.at, e.vouchers, e.chained,"
    " e.message_id, e.identities FROM unnest($1::bigint[]) WITH ORDINALITY AS j (value, number)"
    " JOIN entry AS e ON e.id = j.value ORDER BY j.number"
)


async def page(db: Connection, listing: Listing, after: Place | None, budget: Budget) -> Page:
    """`Store.list`."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        found = await answer(db, _step(listing, after, budget))
        return Page(await _entries(db, found.ids), found.next, found.searched, found.of, found.count)


def _step(listing: Listing, after: Place | None, budget: Budget) -> Asking[Step]:
    few = yield from gathering.few(DIALECT, listing, budget.candidates)
    if few is not None:
        return (yield from gathered(DIALECT, few, after, budget))
    going = Walk(listing, after, budget, (yield from kept(DIALECT, listing.what)))
    sifted, merged = sieve(DIALECT, listing), (yield from ordering.places(listing))
    limit = min(going.wanted + 1, _AT_ONCE)
    rows = yield from ordering.some(listing, sifted, merged, after, limit)
    while all(map(going.take, rows)) and len(rows) == limit:
        limit = _AT_ONCE
        rows = yield from ordering.some(listing, sifted, merged, going.last, limit)
    return (yield from going.step(DIALECT))


async def _entries(db: Connection, ids: Sequence[int]) -> tuple[Entry, ...]:
    """In this order, without their octets."""
    return tuple(map(entry_of, await db.fetch(_ROW, ids)))


async def search(db: Connection, text: str, kind: Kind, limit: int) -> tuple[str, ...]:
    """`Store.search`."""
    return await answer(db, _search(text, kind, limit))


def _search(text: str, kind: Kind, limit: int) -> Asking[tuple[str, ...]]:
    """The newest first; what no index narrows down is looked for in the newest entries."""
    ids = yield from DIALECT.containing(text, _FEW)
    values: dict[str, Value] = {"text": text, "kind": str(kind), "newest": _SEARCHED}
    pool = "(SELECT id, fingerprint, kind, folded FROM entry ORDER BY id DESC LIMIT :newest) AS e"
    if ids is not None and len(ids) < _FEW:
        pool = f"{DIALECT.among} JOIN entry AS e ON e.id = j.value"
        values["ids"] = ids
    contains = DIALECT.contains.format("e.folded", ":text")
    sql = f"SELECT e.fingerprint FROM {pool} WHERE e.kind = :kind AND {contains} AND NOT {BLOCKED}"  # noqa: S608
    most = limit
    while True:  # a certificate may be there once per origin: rarely a second time
        most *= 8
        rows = yield f"{sql} ORDER BY e.id DESC LIMIT :most", {**values, "most": most}
        found = dict.fromkeys(row[0] for row in rows)
        if len(found) >= limit or len(rows) < most:
            return tuple(found)[:limit]
