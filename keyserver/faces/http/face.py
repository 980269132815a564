"""The HTTP face: which protocols it speaks, and how it opens."""

from __future__ import annotations

from keyserver.faces.face import Face, Opening
from keyserver.faces.http import certs, hkp, hkp2, vks, wkd
from keyserver.faces.http.app import make_app, make_runner
from keyserver.faces.http.connection import HttpLimits
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer

ROUTES = (
    hkp.routes,
    hkp2.routes,
    vks.routes,
    wkd.routes,
    certs.routes,
)


async def _open(opening: Opening) -> HttpServer:
    config, context = opening.config, opening.context
    runner = make_runner(make_app(context, *ROUTES))
    await runner.setup()
    opening.closing.push_async_callback(runner.cleanup)
    assert runner.server is not None
    hot = HotAnswers(context.budget)
    opening.remember(hot)
    return HttpServer(
        runner.server,
        hot,
        HttpLimits(config.limits.connections_per_client, context.trust),
        own=context.instance,
        tell=opening.tell,
        tls=opening.tls(config.hkp.tls_certificate, config.hkp.tls_key_file),
    )


HTTP = Face("hkp", "http", _open)
