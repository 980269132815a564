"""`/api/v1/tokens`: further tokens of this listener."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import body_of, json_of, query_of
from keyserver.admin.problems import Unusable
from keyserver.admin.tokens import Tokens


class TokensApi:
    """The handlers."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/tokens", self.list),
            web.post("/api/v1/tokens", self.add),
            web.delete("/api/v1/tokens/{name}", self.revoke),
        ]

    @operator
    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/tokens`: all of them, without what is secret."""
        query_of(request)
        return json_of({"tokens": await self._tokens.list()})

    @operator
    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/tokens` with `{"name": "…", "role": "viewer|operator"}`: shows the token, this once."""
        body = await body_of(request, {"name": str, "role": str})
        for member in ("name", "role"):
            if member not in body:
                raise Unusable(f'{member} is missing; accepted is {{"name": "…", "role": "viewer"}}')
        return json_of(await self._tokens.add(str(body["name"]), str(body["role"])))

    @operator
    async def revoke(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /api/v1/tokens/{name}`."""
        name = request.match_info["name"]
        await self._tokens.revoke(name)
        return json_of({"name": name, "revoked": True})
