"""Deleting in `/api/v1/cache`, and `/api/v1/undo`."""

from __future__ import annotations

import re

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import id_of, json_of, query_of
from keyserver.admin.service import NotKnown, Unusable, plain, selection
from keyserver.admin.undoing import Deleted, Undoing
from keyserver.model import Source

_ACT = re.compile(r"[0-9a-f]{12}")


class DeleteApi:
    """The handlers."""

    def __init__(self, undoing: Undoing) -> None:
        self._undoing = undoing

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.delete("/api/v1/cache", self.delete_matching),
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
        done = await self._undoing.delete(id_of(request), source, given.get("origin"), act=self._act(given))
        if not done.deleted:
            raise NotKnown(f"{done.fingerprint} is not cached{f' from {source}' if source else ''}")
        return json_of(done)

    @operator
    async def delete_matching(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /api/v1/cache?source=&upstream=&domain=&q=[&undo=]`: every entry that matches."""
        given = query_of(request, "source", "upstream", "domain", "q", "undo")
        what = selection(given.get("source"), given.get("upstream"), given.get("domain"), given.get("q"))
        return json_of(_without_fingerprint(await self._undoing.delete_matching(what, act=self._act(given))))

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

    def _act(self, given: dict[str, str]) -> str | None:
        undo = given.get("undo", "1")
        if undo in ("0", "1"):
            return self._undoing.act() if undo == "1" else None
        if not _ACT.fullmatch(undo):
            raise Unusable(f"undo is {undo[:64]!r}; accepted are 0, 1 and the undo ID of an earlier delete")
        return undo


def _without_fingerprint(done: Deleted) -> object:
    shown = plain(done)
    assert isinstance(shown, dict)
    return {name: value for name, value in shown.items() if name != "fingerprint"}
