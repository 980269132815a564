"""The admin listener's application: every route behind the guard, every error a problem document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from keyserver.admin.api.audit import AuditApi
from keyserver.admin.api.cache import CacheApi
from keyserver.admin.api.deletes import DeleteApi
from keyserver.admin.api.description import Description
from keyserver.admin.api.guard import Guard, Rules, proof_routes, refuse_unmarked, viewer
from keyserver.admin.api.lookups import LookupApi
from keyserver.admin.api.mailflow import MailflowApi
from keyserver.admin.api.problems import problems
from keyserver.admin.api.reading import MAX_JSON, json_of
from keyserver.admin.api.streams import Streams
from keyserver.admin.api.tokens import TokensApi
from keyserver.admin.api.upstreams import UpstreamApi
from keyserver.admin.operations import Operations
from keyserver.admin.pages import Templates
from keyserver.admin.pages.assets import Assets
from keyserver.admin.pages.cache import CachePage
from keyserver.admin.pages.certificate import CertificatePage
from keyserver.admin.pages.lookup import LookupPage
from keyserver.admin.pages.mailflow import MailflowPage
from keyserver.admin.pages.signing import Signing
from keyserver.admin.pages.undo import UndoPage

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Subject(Protocol):
    """One module's part of the API."""

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""


def make_api(
    operations: Operations,
    rules: Rules,
    token: str,
    metrics: Callable[[], Awaitable[bytes]],
    nodes: Callable[[], Sequence[Mapping[str, object]]] = tuple,
    subjects: Iterable[Subject] = (),
) -> web.Application:
    """The admin listener's application.

    token: the first operator's, which we show that we know; metrics: the Prometheus text of the moment; nodes: the
    processes; subjects: of further operations."""

    @viewer
    async def exposition(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await metrics(), headers={"Content-Type": EXPOSITION})

    @viewer
    async def list_nodes(request: web.Request) -> web.StreamResponse:
        return json_of({"nodes": list(nodes())})

    service, guard = operations.service, Guard(operations.access, operations.acts, rules)
    streams = Streams()
    app = web.Application(middlewares=[problems, guard.middleware], client_max_size=MAX_JSON)
    own: tuple[Subject, ...] = (
        CacheApi(service),
        DeleteApi(operations.undoing),
        MailflowApi(service),
        LookupApi(service, streams),
        TokensApi(operations.tokens),
        AuditApi(operations.auditing),
        Description(),
        UpstreamApi(operations.pausing),
    )
    for subject in (*own, *subjects):
        app.add_routes(subject.routes())
    app.on_shutdown.append(streams.close)
    app.add_routes(proof_routes(token))
    app.add_routes([web.get("/api/v1/nodes", list_nodes), web.get("/metrics", exposition)])
    assets = Assets()
    templates = Templates(assets.places, operations.clock)
    app.add_routes(assets.routes())
    app.add_routes(Signing(operations.access, operations.acts, guard, templates).routes())
    app.add_routes(CachePage(operations, templates).routes())
    app.add_routes(MailflowPage(operations, templates).routes())
    app.add_routes(CertificatePage(operations, templates).routes())
    app.add_routes(UndoPage(operations.undoing, templates).routes())
    app.add_routes(LookupPage(service, streams, templates).routes())
    refuse_unmarked(app)
    return app
