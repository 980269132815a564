"""A listing of the cache, as a request asks for it, and as lines of a table of any length."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import cast

from keyserver.admin.api.reading import identities_wanted, search_of, visible
from keyserver.admin.api.tables import row, spelled
from keyserver.admin.filters import filter_of, order_of
from keyserver.admin.service import Service
from keyserver.display import readable
from keyserver.store.listing import Filter, Sort

_STEP = 100  # entries in memory at once
_COLUMNS = (
    "fingerprint",
    "kind",
    "identities",
    "source",
    "origin",
    "cached_at",
    "expires_at",
    "status",
    "answered",
    "reason",
    "approved",
    "message_id",
    "method",
)


def listing_of(given: Mapping[str, str]) -> tuple[Filter, Sort, bool]:
    """The filter, the order, and whether it descends, of `FILTERS`, `sort` and `order`. Raises Unusable, and Forbidden
    for what would tell whoever may see no addresses."""
    for name in ("q", "not_q"):
        search_of(given.get(name))
    sort, descending = order_of(given)
    if sort is Sort.ADDRESS:  # its cursors name one
        identities_wanted()
    return filter_of(given), sort, descending


async def entry_lines(
    service: Service, what: Filter, sort: Sort, format_: str, *, descending: bool
) -> AsyncIterator[str]:
    """Everything that matches. csv: with a head, text of others as the pages show it; jsonl: as a listing has it."""
    cursor: str | None = None
    first = True
    while first or cursor is not None:
        page = await service.list(what, _STEP, cursor, sort, descending=descending)
        rows = [cast("Mapping[str, object]", visible(entry)) for entry in page.entries]
        if format_ == "csv":
            yield "".join([row(_COLUMNS) if first else "", *map(_csv, rows)])
        else:
            yield "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
        first, cursor = False, page.next


def _csv(entry: Mapping[str, object]) -> str:
    return row([_cell(name, entry[name]) for name in _COLUMNS])


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_at"):
        return spelled(cast("int", value))
    if isinstance(value, list):
        return "; ".join(readable(str(one)) for one in value)
    return readable(str(value))
