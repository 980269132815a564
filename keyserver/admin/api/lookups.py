"""`/api/v1/lookup` and `/api/v1/upstreams`: what asks."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import body_of, json_of, query_of
from keyserver.admin.service import Service, Unusable


class LookupApi:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/upstreams", self.upstreams),
            web.post("/api/v1/upstreams/{name}/test", self.test),
            web.get("/api/v1/lookup", self.lookup),
        ]

    @viewer
    async def upstreams(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/upstreams`."""
        return json_of({"upstreams": self._service.upstreams()})

    @operator
    async def test(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/upstreams/{name}/test` with `{"query": "…"}`."""
        body = await body_of(request, {"query": str})
        if "query" not in body:
            raise Unusable('query is missing; accepted is {"query": "<fingerprint, key ID or address>"}')
        return json_of(await self._service.test(request.match_info["name"], str(body["query"])))

    @operator
    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/lookup?q=…&trace=1`."""
        given = query_of(request, "q", "trace")
        if "q" not in given:
            raise Unusable("q is missing: a fingerprint, a key ID or an address")
        trace = given.get("trace", "0")
        if trace not in ("0", "1"):
            raise Unusable(f"trace is {trace!r}; 0 and 1 are accepted")
        return json_of(await self._service.lookup(given["q"], trace=trace == "1"))
