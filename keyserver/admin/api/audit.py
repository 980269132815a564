"""`/api/v1/audit`: who did what, when and from where."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import cast

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import json_of, query_of, visible, whole
from keyserver.admin.api.tables import TYPES, format_of, row, spelled, written
from keyserver.admin.auditing import ActResource, Auditing
from keyserver.admin.service import Unusable
from keyserver.store.administration import ActFilter

_COLUMNS = ("number", "at", "who", "way", "place", "act", "certificate", "facts")


class AuditApi:
    """The handlers."""

    def __init__(self, auditing: Auditing) -> None:
        self._auditing = auditing

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [web.get("/api/v1/audit", self.list, allow_head=False)]

    @viewer
    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/audit?who=&act=&from=&to=&limit=&cursor=&format=`: latest first. `format` csv or jsonl: all that
        match."""
        given = query_of(request, "who", "act", "from", "to", "limit", "cursor", "format")
        what = filter_of(given)
        format_ = format_of(given)
        if format_ == "json":
            return json_of(
                await self._auditing.list(what, whole(given.get("limit", "100"), "limit"), given.get("cursor"))
            )
        return await written(request, _lines(self._auditing.export(what), format_), TYPES[format_])


def filter_of(given: Mapping[str, str]) -> ActFilter:
    """Which acts `who`, `act`, `from` and `to` mean. Raises Unusable."""
    return ActFilter(given.get("who"), given.get("act"), _time(given, "from"), _time(given, "to"))


async def _lines(acts: AsyncIterator[ActResource], format_: str) -> AsyncIterator[str]:
    if format_ == "csv":
        yield row(_COLUMNS)
    async for act in acts:
        shown = cast("Mapping[str, object]", visible(act))
        if format_ == "csv":
            cells = {**shown, "at": spelled(act.at), "facts": json.dumps(shown["facts"])}
            yield row(tuple(cells[column] for column in _COLUMNS))
        else:
            yield json.dumps(shown) + "\n"


def _time(given: Mapping[str, str], name: str) -> int | None:
    """An instant as Unix seconds, from those or from RFC 3339. Raises Unusable."""
    text = given.get(name)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,11}", text):
        return int(text)
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        try:
            moment = datetime.fromisoformat(text)
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except (ValueError, OverflowError):
            pass
    raise Unusable(f"{name} is {text[:80]!r}; accepted are 2026-11-28, 2026-11-28T08:00:00Z and Unix seconds")
