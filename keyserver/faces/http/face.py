"""The HTTP face: which protocols it speaks, and how it opens."""

from __future__ import annotations

from keyserver.faces.face import Face, Opening
from keyserver.faces.http import certs, hkp
from keyserver.faces.http.app import make_app, make_runner
from keyserver.faces.http.door import Door
from keyserver.faces.http.front import DoorLimits
from keyserver.faces.http.hot import HotAnswers

ROUTES = (
    hkp.routes,
    certs.routes,
)


async def _open(opening: Opening) -> Door:
    config, desk = opening.config, opening.desk
    runner = make_runner(make_app(desk, *ROUTES))
    await runner.setup()
    opening.closing.push_async_callback(runner.cleanup)
    assert runner.server is not None
    hot = HotAnswers(desk.budget)
    opening.remember(hot)
    return Door(
        runner.server,
        hot,
        DoorLimits(config.limits.connections_per_client, desk.trust),
        own=desk.instance,
        tell=opening.tell,
        tls=opening.tls(config.hkp.tls_certificate, config.hkp.tls_key_file),
    )


HTTP = Face("hkp", "http", _open)
