"""`/api/v1/outlook`: what is going to fail."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import json_of, query_of, whole
from keyserver.admin.outlook import Outlooks


class OutlookApi:
    """The handler."""

    def __init__(self, outlooks: Outlooks) -> None:
        self._outlooks = outlooks

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/api/v1/outlook", self.show, allow_head=False)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/outlook?days=`: so many days ahead, and so many back."""
        given = query_of(request, "days")
        return json_of(await self._outlooks.report(whole(given["days"], "days") if "days" in given else None))
