"""`/api/v1/invitations`: asking owners of cached certificates to opt in, and what became of it."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import body_of, json_of, query_of, whole
from keyserver.admin.filters import selection
from keyserver.admin.invitations import Invitations
from keyserver.admin.problems import Unusable


class InvitationsApi:
    """The handlers."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/invitations", self.list, allow_head=False),
            web.post("/api/v1/invitations", self.invite),
        ]

    @viewer
    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/invitations?limit=&cursor=&address=`: the latest first."""
        given = query_of(request, "limit", "cursor", "address")
        limit = whole(given.get("limit", "100"), "limit")
        return json_of(await self._invitations.list(limit, given.get("cursor"), given.get("address")))

    @operator
    async def invite(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/invitations` with `{"address": "…"}`, and `fingerprint`, `source`, `upstream` where several
        entries fit: returns when the relay has taken the mail."""
        body = await body_of(request, {"address": str, "fingerprint": str, "source": str, "upstream": str})
        if "address" not in body:
            raise Unusable('address is missing; accepted is {"address": "alice@example.org"}')
        given = {name: str(value) for name, value in body.items() if value}
        what = selection(given.get("source"), given.get("upstream"))
        made = await self._invitations.invite(
            given.get("address", ""), given.get("fingerprint"), what.source, what.upstream
        )
        return json_of(made)
