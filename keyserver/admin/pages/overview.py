"""`/`: how the service does, at a glance."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.overview import Overview
from keyserver.admin.pages import Templates
from keyserver.config import Config
from keyserver.model import Source


class OverviewPage:
    """The handler. config: the one that holds now."""

    def __init__(self, overview: Overview, config: Callable[[], Config], templates: Templates) -> None:
        self._overview = overview
        self._config = config
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/", self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /`."""
        query_of(request)
        return self._templates.fragment(
            request, "overview", "glance", glance=await self._overview.show(self._config()), sources=list(Source)
        )
