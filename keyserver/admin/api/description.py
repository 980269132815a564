"""`/api/v1/openapi.json`: this API, described (OpenAPI 3.1). A test compares the description with every route."""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

from keyserver.admin.api.guard import viewer


class Description:
    """The handler."""

    def __init__(self) -> None:
        self._octets = (files("keyserver.admin.api") / "openapi.json").read_bytes()

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/api/v1/openapi.json", self.description)]

    @viewer
    async def description(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/openapi.json`."""
        return web.Response(body=self._octets, content_type="application/json", headers={"Cache-Control": "no-store"})
