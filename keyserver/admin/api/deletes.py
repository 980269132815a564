"""Deleting one certificate's entries, and `/api/v1/undo`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import id_of, json_of, query_of
from keyserver.admin.filters import selection
from keyserver.admin.problems import NotKnown, Unusable
from keyserver.admin.undoing import Undoing
from keyserver.model import Source

_ACT = re.compile(r"[0-9a-f]{12}")


class DeleteApi:
    """The handlers."""

    def __init__(self, undoing: Undoing) -> None:
        self._undoing = undoing

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.delete("/api/v1/cache/{id}", self.delete),
            web.get("/api/v1/undo", self.waiting),
            web.post("/api/v1/undo/{id}", self.undo),
        ]

    @operator
    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /api/v1/cache/{id}[?source=][&origin=][&undo=]`; `undo=0`: for good, or the ID of an earlier delete's
        undo: taken back together with it."""
        given = query_of(request, "source", "origin", "undo")
        source: Source | None = selection(given.get("source")).source
        done = await self._undoing.delete(id_of(request), source, given.get("origin"), act=act_of(given))
        if not done.deleted:
            raise NotKnown(f"{done.fingerprint} is not cached{f' from {source}' if source else ''}")
        return json_of(done)

    @operator
    async def waiting(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/undo`: the deletes that can be undone, the latest first."""
        query_of(request)
        return json_of({"undos": await self._undoing.waiting()})

    @operator
    async def undo(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/undo/{id}`."""
        query_of(request)
        return json_of(await self._undoing.undo(id_of(request)))


def act_of(given: Mapping[str, str]) -> str | None:
    """The ID under which a delete waits, by its parameter `undo`: a new one, an earlier delete's, or None for `0`."""
    undo = given.get("undo", "1")
    if undo in ("0", "1"):
        return Undoing.act() if undo == "1" else None
    if not _ACT.fullmatch(undo):
        raise Unusable(f"undo is {undo[:64]!r}; accepted are 0, 1 and the undo ID of an earlier delete")
    return undo
