"""`/api/v1/lookup` and `/api/v1/upstreams`: what asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import body_of, json_of, query_of
from keyserver.admin.api.streams import Streams, event
from keyserver.admin.filters import instant
from keyserver.admin.history import Histories
from keyserver.admin.problems import Unusable
from keyserver.admin.service import Service
from keyserver.admin.watching import watched
from keyserver.model import Step


class LookupApi:
    """The handlers."""

    def __init__(self, service: Service, histories: Histories, streams: Streams) -> None:
        self._service = service
        self._histories = histories
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/upstreams", self.upstreams),
            web.post("/api/v1/upstreams/{name}/test", self.test),
            web.get("/api/v1/lookup", self.lookup),
            web.get("/api/v1/lookup/stream", self.stream, allow_head=False),
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
        """`GET /api/v1/lookup?q=…&trace=1`; with `at`, what would have been answered at that time."""
        given = query_of(request, "q", "trace", "at")
        if "q" not in given:
            raise Unusable("q is missing: a fingerprint, a key ID or an address")
        trace = given.get("trace", "0")
        if trace not in ("0", "1"):
            raise Unusable(f"trace is {trace!r}; 0 and 1 are accepted")
        if (at := instant(given, "at", None)) is not None:
            return json_of(await self._histories.then(given["q"], at, trace=trace == "1"))
        return json_of(await self._service.lookup(given["q"], trace=trace == "1"))

    @operator
    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/lookup/stream?q=…`: server-sent events, each `step` as it happens, then `result`."""
        given = query_of(request, "q")
        if "q" not in given:
            raise Unusable("q is missing: a fingerprint, a key ID or an address")
        return await self._streams.send(request, self._events(given["q"]))

    async def _events(self, term: str) -> AsyncIterator[bytes]:
        async with aclosing(watched(self._service.lookup, term)) as steps:
            async for step in steps:
                yield event("step" if isinstance(step, Step) else "result", step)
