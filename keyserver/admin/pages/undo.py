"""`/undo/{id}`: takes a delete back, and returns to the page that showed it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import id_of, query_of
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import address, on
from keyserver.admin.pages.notices import PARAMETERS, after
from keyserver.admin.pages.refusing import refused
from keyserver.admin.problems import Problem
from keyserver.admin.undoing import Undoing
from keyserver.store.base import StoreError

_FROM = ("/cache", "/mailflow")


class UndoPage:
    """The handler."""

    def __init__(self, undoing: Undoing, templates: Templates) -> None:
        self._undoing = undoing
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.post("/undo/{id}", self.undo)]

    @operator
    async def undo(self, request: web.Request) -> web.StreamResponse:
        """`POST /undo/{id}`."""
        query_of(request)
        back = back_of(request.headers.get("Referer", ""))
        try:
            done = await self._undoing.undo(id_of(request))
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, "/cache", back)
        return on(after(back, "undone", done.restored, done.deleted - done.restored))


def back_of(referer: str) -> str:
    """The page of ours that a form was on, without what it said of an earlier act. Never another host's."""
    try:
        split = urlsplit(referer)
    except ValueError:
        return "/cache"
    inside = split.path in _FROM or split.path.startswith("/cache/")
    if not inside or split.path.startswith("/cache/act") or not split.path.isprintable() or not split.path.isascii():
        return "/cache"
    return address(split.path, [(name, value) for name, value in parse_qsl(split.query) if name not in PARAMETERS])
