"""`/api/v1/history`: what changed and when, and forgetting an address."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import body_of, json_of, query_of, whole
from keyserver.admin.history import Histories
from keyserver.admin.problems import Unusable


class HistoryApi:
    """The handlers."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/history", self.list, allow_head=False),
            web.post("/api/v1/history/forget", self.forget),
        ]

    @viewer
    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/history?q=&limit=&cursor=`: latest first; without `q` everything."""
        given = query_of(request, "q", "limit", "cursor")
        limit = whole(given.get("limit", "100"), "limit")
        return json_of(await self._histories.events(given.get("q", ""), limit, given.get("cursor")))

    @operator
    async def forget(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/history/forget` with `{"address": "…"}`; `"with_cache": true` deletes certificates, too."""
        query_of(request)
        body = await body_of(request, {"address": str, "with_cache": bool})
        if not body.get("address"):
            raise Unusable('address is missing; accepted is {"address": "alice@example.org"}')
        return json_of(await self._histories.forget(str(body["address"]), with_cache=bool(body.get("with_cache"))))
