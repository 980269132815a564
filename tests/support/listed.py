"""All that a store holds, whatever its size."""

from __future__ import annotations

from keyserver.model import Entry, Selection
from keyserver.store.base import Store
from keyserver.store.listing import Budget, Filter, Lifetimes, Listing, Place, Sort


async def listed(store: Store, what: Selection | None = None) -> list[Entry]:
    """Entries by fingerprint, source and origin, without their octets."""
    listing = Listing(Filter(what or Selection()), 0, Lifetimes(1, 1), Sort.FINGERPRINT, descending=False)
    found: list[Entry] = []
    after: Place | None = None
    while True:
        page = await store.list(listing, after, Budget(lambda: 0.0, rows=1000))
        found += page.entries
        after = page.next
        if after is None:
            return found
