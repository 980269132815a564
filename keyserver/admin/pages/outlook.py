"""`/outlook`: what is going to fail."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of, whole
from keyserver.admin.outlook import Outlooks
from keyserver.admin.pages import Templates
from keyserver.admin.pages.refusing import refused
from keyserver.admin.problems import Problem
from keyserver.store.base import StoreError

HERE = "/outlook"


class OutlookPage:
    """The handler."""

    def __init__(self, outlooks: Outlooks, templates: Templates) -> None:
        self._outlooks = outlooks
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get(HERE, self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /outlook?days=`."""
        given = query_of(request, "days")
        try:
            report = await self._outlooks.report(whole(given["days"], "days") if "days" in given else None)
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        return self._templates.page("outlook", report=report)
