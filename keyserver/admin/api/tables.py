"""Lists of any length as CSV (RFC 4180) and as JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

from aiohttp import web

from keyserver.admin.problems import Unusable

TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/jsonl; charset=utf-8"}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def format_of(given: Mapping[str, str]) -> str:
    """`format`: json for one page, csv or jsonl for all that match, without `limit` and `cursor`. Raises Unusable."""
    format_ = given.get("format", "json")
    if format_ != "json":
        if format_ not in TYPES:
            raise Unusable(f"format is {format_[:80]!r}; json, csv and jsonl are accepted")
        if "limit" in given or "cursor" in given:
            raise Unusable(f"limit and cursor are for format=json; {format_} has all that match")
    return format_


async def written(request: web.Request, parts: AsyncIterator[str | bytes], type_: str) -> web.StreamResponse:
    """An answer of lines or octets, written as they come."""
    first = await anext(parts, b"")  # what is wrong with the store must still be able to become an error
    response = web.StreamResponse(headers={"Content-Type": type_, "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(_octets(first))
    async for part in parts:
        await response.write(_octets(part))
    await response.write_eof()
    return response


def _octets(part: str | bytes) -> bytes:
    return part if isinstance(part, bytes) else part.encode("utf-8", "replace")


def row(cells: Sequence[object]) -> str:
    """A line of CSV. What spreadsheets take for a formula stands behind an apostrophe."""
    line = io.StringIO()
    texts = [str(cell) for cell in cells]
    csv.writer(line).writerow([f"'{text}" if text.startswith(_FORMULA) else text for text in texts])
    return line.getvalue()


def spelled(at: int) -> str:
    """An instant by RFC 3339."""
    return datetime.fromtimestamp(max(0, min(at, 253402300799)), UTC).isoformat().replace("+00:00", "Z")
