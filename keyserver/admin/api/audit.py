"""`/api/v1/audit`: who did what, when and from where."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import cast

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import json_of, query_of, visible, whole
from keyserver.admin.auditing import ActResource, Auditing
from keyserver.admin.service import Unusable
from keyserver.store.administration import ActFilter

_COLUMNS = ("number", "at", "who", "way", "place", "act", "certificate", "facts")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/jsonl; charset=utf-8"}


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
        what = ActFilter(given.get("who"), given.get("act"), _time(given, "from"), _time(given, "to"))
        format_ = given.get("format", "json")
        if format_ == "json":
            return json_of(
                await self._auditing.list(what, whole(given.get("limit", "100"), "limit"), given.get("cursor"))
            )
        if format_ not in _TYPES:
            raise Unusable(f"format is {format_[:80]!r}; json, csv and jsonl are accepted")
        if "limit" in given or "cursor" in given:
            raise Unusable(f"limit and cursor are for format=json; {format_} has all that match")
        return await _written(request, _lines(self._auditing.export(what), format_), _TYPES[format_])


async def _written(request: web.Request, lines: AsyncIterator[str], type_: str) -> web.StreamResponse:
    first = await anext(lines, "")  # what is wrong with the store must still be able to become an error
    response = web.StreamResponse(headers={"Content-Type": type_, "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(first.encode())
    async for line in lines:
        await response.write(line.encode())
    await response.write_eof()
    return response


async def _lines(acts: AsyncIterator[ActResource], format_: str) -> AsyncIterator[str]:
    if format_ == "csv":
        yield _row(_COLUMNS)
    async for act in acts:
        shown = cast("Mapping[str, object]", visible(act))
        if format_ == "csv":
            cells = {**shown, "at": _spelled(act.at), "facts": json.dumps(shown["facts"])}
            yield _row(tuple(cells[column] for column in _COLUMNS))
        else:
            yield json.dumps(shown) + "\n"


def _row(cells: tuple[object, ...]) -> str:
    """A line of CSV (RFC 4180). What spreadsheets take for a formula stands behind an apostrophe."""
    line = io.StringIO()
    texts = [str(cell) for cell in cells]
    csv.writer(line).writerow([f"'{text}" if text.startswith(_FORMULA) else text for text in texts])
    return line.getvalue()


def _spelled(at: int) -> str:
    return datetime.fromtimestamp(max(0, min(at, 253402300799)), UTC).isoformat().replace("+00:00", "Z")


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
