"""Lists of any length as CSV (RFC 4180) and as JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from aiohttp import web

TYPES = {"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/jsonl; charset=utf-8"}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def written(request: web.Request, lines: AsyncIterator[str], type_: str) -> web.StreamResponse:
    """An answer of lines, written as they come."""
    first = await anext(lines, "")  # what is wrong with the store must still be able to become an error
    response = web.StreamResponse(headers={"Content-Type": type_, "Cache-Control": "no-store"})
    await response.prepare(request)
    await response.write(first.encode("utf-8", "replace"))
    async for line in lines:
        await response.write(line.encode("utf-8", "replace"))
    await response.write_eof()
    return response


def row(cells: Sequence[object]) -> str:
    """A line of CSV. What spreadsheets take for a formula stands behind an apostrophe."""
    line = io.StringIO()
    texts = [str(cell) for cell in cells]
    csv.writer(line).writerow([f"'{text}" if text.startswith(_FORMULA) else text for text in texts])
    return line.getvalue()


def spelled(at: int) -> str:
    """An instant by RFC 3339."""
    return datetime.fromtimestamp(max(0, min(at, 253402300799)), UTC).isoformat().replace("+00:00", "Z")
