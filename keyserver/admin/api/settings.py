"""`/api/v1/settings` and `/api/v1/reload`."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import body_of, json_of, query_of
from keyserver.admin.reloading import Reloads
from keyserver.admin.settings import Settings


class SettingsApi:
    """The handlers."""

    def __init__(self, settings: Settings, reloads: Reloads) -> None:
        self._settings = settings
        self._reloads = reloads

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/settings", self.settings),
            web.post("/api/v1/reload", self.reload),
        ]

    @operator
    async def settings(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/settings`: what holds now, and what the file would change."""
        query_of(request)
        return json_of(await self._settings.show())

    @operator
    async def reload(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/reload`, without a body: answers when the new rules hold everywhere."""
        query_of(request)
        if request.can_read_body:
            await body_of(request, {})
        return json_of(await self._reloads.reload())
