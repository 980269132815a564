"""`/api/v1/upstreams/…`: pauses, and who was told what."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import json_of, query_of
from keyserver.admin.pausing import Pausing


class UpstreamApi:
    """The handlers."""

    def __init__(self, pausing: Pausing) -> None:
        self._pausing = pausing

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/upstreams/told", self.told),
            web.post("/api/v1/upstreams/{name}/pause", self.pause),
            web.post("/api/v1/upstreams/{name}/resume", self.resume),
        ]

    @viewer
    async def told(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/upstreams/told`."""
        query_of(request)
        return json_of({"upstreams": self._pausing.told()})

    @operator
    async def pause(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/upstreams/{name}/pause`."""
        query_of(request)
        return json_of(await self._pausing.pause(request.match_info["name"]))

    @operator
    async def resume(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/upstreams/{name}/resume`."""
        query_of(request)
        return json_of(await self._pausing.resume(request.match_info["name"]))
