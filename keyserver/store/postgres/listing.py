"""Listings, as far as the tests of the other parts need them: by fingerprint, of a selection."""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import Kind
from keyserver.store.listing import Budget, Listing, Page, Place
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.reading import entry_of
from keyserver.store.postgres.sifting import Values, condition
from keyserver.store.postgres.text import text


async def page(db: Connection, listing: Listing, after: Place | None, budget: Budget) -> Page:
    """One step of a listing."""
    bound = Values(*(after or ("", "", "")), budget.rows)
    rows = await db.fetch(
        "SELECT e.fingerprint, e.kind, e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id, e.identities,"  # noqa: S608
        " '\\x'::bytea AS octets FROM entry AS e WHERE (e.fingerprint, e.source, e.origin) > ($1, $2, $3)"
        f" AND {condition(listing.what.wanted, bound)} ORDER BY e.fingerprint, e.source, e.origin LIMIT $4",
        *bound.all,
    )
    entries = tuple(replace(entry_of(row), octets=b"") for row in rows)
    last = entries[-1] if len(entries) == budget.rows else None
    return Page(entries, (last.fingerprint, str(last.source), last.origin) if last else None)


async def search(db: Connection, needle: str, kind: Kind, limit: int) -> tuple[str, ...]:
    """`Store.search`."""
    rows = await db.fetch(
        "SELECT fingerprint FROM entry AS e WHERE kind = $1 AND strpos(folded, $2) > 0"
        " AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint)"
        " GROUP BY fingerprint ORDER BY max(id) DESC LIMIT $3",
        str(kind),
        text(needle),
        limit,
    )
    return tuple(row[0] for row in rows)
