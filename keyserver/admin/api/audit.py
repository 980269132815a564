"""`/api/v1/audit`: who did what, when and from where."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import cast

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import json_of, query_of, visible, whole
from keyserver.admin.api.tables import TYPES, format_of, row, spelled, written
from keyserver.admin.auditing import ActResource, Auditing
from keyserver.admin.filters import instant
from keyserver.admin.problems import Unusable
from keyserver.store.administration import ActFilter

FILTERS = ("who", "act", "certificate", "from", "to")
"""The parameters that choose acts."""

_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
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
        """`GET /api/v1/audit`, with any of `FILTERS`, `limit`, `cursor`, `format`: latest first; csv or jsonl gives all
        that match."""
        given = query_of(request, *FILTERS, "limit", "cursor", "format")
        what = filter_of(given)
        format_ = format_of(given)
        if format_ == "json":
            return json_of(
                await self._auditing.list(what, whole(given.get("limit", "100"), "limit"), given.get("cursor"))
            )
        return await written(request, _lines(self._auditing.export(what), format_), TYPES[format_])


def filter_of(given: Mapping[str, str]) -> ActFilter:
    """Which acts `FILTERS` mean. Raises Unusable."""
    certificate = given.get("certificate")
    if certificate is not None:
        certificate = "".join(certificate.split()).upper().removeprefix("0X")
        if not _FINGERPRINT.fullmatch(certificate):
            raise Unusable(f"certificate is {certificate[:80]!r}; a fingerprint of 40 or 64 digits is accepted")
    return ActFilter(given.get("who"), given.get("act"), certificate, instant(given, "from"), instant(given, "to"))


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
