"""`/nodes`: the service's processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from keyserver import __version__
from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.pages import Templates


class NodesPage:
    """The handler. nodes: the processes, as `GET /api/v1/nodes` gives them."""

    def __init__(self, nodes: Callable[[], Sequence[Mapping[str, object]]], templates: Templates) -> None:
        self._nodes = nodes
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/nodes", self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /nodes`."""
        query_of(request)
        return self._templates.page("nodes", nodes=list(self._nodes()), version=__version__)
