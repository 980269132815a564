"""`/nodes`: the nodes that share the cache, and the processes of this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from keyserver import __version__
from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.pages import Templates
from keyserver.resolver.membership import ClusterNode


class NodesPage:
    """The handler. processes: as `GET /api/v1/nodes` gives them; nodes: none where this one has the cache alone."""

    def __init__(
        self,
        processes: Callable[[], Sequence[Mapping[str, object]]],
        nodes: Callable[[], Sequence[ClusterNode]],
        templates: Templates,
    ) -> None:
        self._processes = processes
        self._nodes = nodes
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/nodes", self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /nodes`."""
        query_of(request)
        return self._templates.page(
            "nodes", processes=list(self._processes()), nodes=self._nodes(), version=__version__
        )
