"""What a filter of the cache shows, as lines of a table of any length."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import cast

from keyserver.admin.api.reading import visible
from keyserver.admin.api.tables import row, spelled
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
)


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
