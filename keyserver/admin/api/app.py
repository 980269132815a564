"""The admin listener's application: every route behind the guard, every error a problem document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from keyserver.admin.api.cache import CacheApi
from keyserver.admin.api.guard import guard, proof_routes
from keyserver.admin.api.lookups import LookupApi
from keyserver.admin.api.mailflow import MailflowApi
from keyserver.admin.api.problems import problems
from keyserver.admin.api.reading import MAX_JSON, json_of
from keyserver.admin.service import Service

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def make_api(
    service: Service,
    token: str,
    metrics: Callable[[], bytes],
    nodes: Callable[[], Sequence[Mapping[str, object]]] = tuple,
) -> web.Application:
    """The admin listener's application.

    token: what `Authorization: Bearer` must carry; metrics: the Prometheus text of the moment; nodes: the processes."""
    if not token:
        raise ValueError("the admin API needs a token")

    async def exposition(request: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics(), headers={"Content-Type": EXPOSITION})

    async def list_nodes(request: web.Request) -> web.StreamResponse:
        return json_of({"nodes": list(nodes())})

    app = web.Application(middlewares=[problems, guard(token)], client_max_size=MAX_JSON)
    for subject in (CacheApi(service), MailflowApi(service), LookupApi(service)):
        app.add_routes(subject.routes())
    app.add_routes(proof_routes(token))
    app.add_routes([web.get("/api/v1/nodes", list_nodes), web.get("/metrics", exposition)])
    return app
