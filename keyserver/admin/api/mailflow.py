"""`/api/v1/harvest` and `/api/v1/mailflow`."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import Unsupported, chunks_of, json_of, query_of
from keyserver.admin.problems import Unusable
from keyserver.admin.service import Service

MAX_MAIL = 16 << 20  # octets of one mail that are read


class MailflowApi:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.post("/api/v1/harvest", self.harvest),
            web.get("/api/v1/mailflow", self.mailflow),
        ]

    @operator
    async def harvest(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/harvest[?explain=1]`: one mail, `message/rfc822`; says what was cached or why not."""
        given = query_of(request, "explain")
        explain = given.get("explain", "0")
        if explain not in ("0", "1"):
            raise Unusable(f"explain is {explain!r}; 0 and 1 are accepted")
        if request.content_type != "message/rfc822":
            raise Unsupported("Content-Type must be message/rfc822")
        pieces: list[bytes] = []
        size = 0
        async for chunk in chunks_of(request):
            size += len(chunk)
            if size <= MAX_MAIL:
                pieces.append(chunk)
            else:
                pieces.clear()
        octets = b"".join(pieces)
        del pieces
        return json_of(await self._service.harvest(octets, cut=size > MAX_MAIL, explain=explain == "1"))

    @viewer
    async def mailflow(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/mailflow`: the queue, counts, the latest mails and changes."""
        return json_of(self._service.mailflow())
