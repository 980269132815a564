"""The admin listener's application: every route behind the guard, every error a problem document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from aiohttp import web

from keyserver.admin.api.audit import AuditApi
from keyserver.admin.api.bulk import BulkApi
from keyserver.admin.api.cache import CacheApi
from keyserver.admin.api.deletes import DeleteApi
from keyserver.admin.api.description import Description
from keyserver.admin.api.encrypting import EncryptingApi
from keyserver.admin.api.events import MOST as FEEDS
from keyserver.admin.api.events import EventsApi
from keyserver.admin.api.guard import Guard, Rules, proof_routes, refuse_unmarked, viewer
from keyserver.admin.api.history import HistoryApi
from keyserver.admin.api.invitations import InvitationsApi
from keyserver.admin.api.lookups import LookupApi
from keyserver.admin.api.mailflow import MailflowApi
from keyserver.admin.api.outlook import OutlookApi
from keyserver.admin.api.problems import problems
from keyserver.admin.api.reading import MAX_JSON, json_of
from keyserver.admin.api.settings import SettingsApi
from keyserver.admin.api.streams import Streams
from keyserver.admin.api.tokens import TokensApi
from keyserver.admin.api.upstreams import UpstreamApi
from keyserver.admin.operations import Operations
from keyserver.admin.pages import Templates
from keyserver.admin.pages.assets import Assets
from keyserver.admin.pages.audit import AuditPage
from keyserver.admin.pages.cache import CachePage
from keyserver.admin.pages.certificate import CertificatePage
from keyserver.admin.pages.encrypting import EncryptingPage
from keyserver.admin.pages.history import HistoryPage
from keyserver.admin.pages.invitations import InvitationsPage
from keyserver.admin.pages.lookup import LookupPage
from keyserver.admin.pages.mailflow import MailflowPage
from keyserver.admin.pages.nodes import NodesPage
from keyserver.admin.pages.outlook import OutlookPage
from keyserver.admin.pages.overview import OverviewPage
from keyserver.admin.pages.settings import SettingsPage
from keyserver.admin.pages.signing import Signing
from keyserver.admin.pages.tokens import TokensPage
from keyserver.admin.pages.troubles import troubles
from keyserver.admin.pages.undo import UndoPage
from keyserver.admin.pages.upstreams import UpstreamsPage
from keyserver.admin.reloading import NoService, Reloads
from keyserver.admin.settings import Settings
from keyserver.config import Config

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def make_api(
    operations: Operations,
    rules: Rules,
    token: str,
    metrics: Callable[[], Awaitable[bytes]],
    nodes: Callable[[], Sequence[Mapping[str, object]]] = tuple,
    config: Callable[[], Config] = Config,
    reloads: Reloads = NoService(),
) -> web.Application:
    """The admin listener's application.

    token: the first operator's, which we show that we know; metrics: the Prometheus text of the moment; nodes: the
    processes; config: the one that holds now; reloads: who reads it again."""

    @viewer
    async def exposition(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await metrics(), headers={"Content-Type": EXPOSITION})

    @viewer
    async def list_nodes(request: web.Request) -> web.StreamResponse:
        return json_of({"nodes": list(nodes()), "cluster": [asdict(node) for node in operations.nodes()]})

    service, guard = operations.service, Guard(operations.access, operations.acts, rules)
    streams, feeds = Streams(), Streams(FEEDS)
    assets = Assets()
    templates = Templates(assets.places, operations.clock)
    settings = Settings(config)
    app = web.Application(middlewares=[troubles(templates), problems, guard.middleware], client_max_size=MAX_JSON)
    for subject in (
        BulkApi(operations.bulk),
        CacheApi(service),
        DeleteApi(operations.undoing),
        MailflowApi(service),
        LookupApi(service, operations.histories, streams),
        HistoryApi(operations.histories),
        OutlookApi(operations.outlooks),
        EncryptingApi(operations.encrypting, streams),
        InvitationsApi(operations.invitations),
        TokensApi(operations.tokens),
        AuditApi(operations.auditing),
        EventsApi(operations.feed, feeds),
        Description(),
        UpstreamApi(operations.pausing),
        SettingsApi(settings, reloads),
    ):
        app.add_routes(subject.routes())
    app.on_shutdown.extend((streams.close, feeds.close))
    app.add_routes(proof_routes(token))
    app.add_routes([web.get("/api/v1/nodes", list_nodes), web.get("/metrics", exposition)])
    for page in (
        assets,
        Signing(operations.access, operations.acts, guard, templates),
        OverviewPage(operations.overview, config, templates),
        SettingsPage(settings, reloads, templates),
        TokensPage(operations.tokens, templates),
        UpstreamsPage(service, operations.pausing, operations.pulses, config, templates),
        AuditPage(operations.auditing, templates),
        HistoryPage(operations.histories, templates),
        OutlookPage(operations.outlooks, templates),
        NodesPage(nodes, operations.nodes, templates),
        CachePage(operations, templates),
        MailflowPage(operations, templates),
        CertificatePage(operations, templates),
        UndoPage(operations.undoing, templates),
        LookupPage(service, streams, templates),
        EncryptingPage(operations.encrypting, streams, templates),
        InvitationsPage(operations.invitations, templates),
    ):
        app.add_routes(page.routes())
    refuse_unmarked(app)
    return app
