"""What owners of certificates meet: the pages behind their invitations, and the trailer in outbound mail."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack

from aiohttp import web

from keyserver.admin.acts import ACTOR, Actor
from keyserver.app.parts import Parts
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.app import make_runner
from keyserver.faces.http.connection import HttpLimits
from keyserver.faces.http.exchange import at_work
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.faces.invite.app import Deed, Note, Owners, make_pages
from keyserver.mailflow.trailing import Trailing
from keyserver.store.invitations import Invitation

OWNER = "the owner"
"""Who acts, in the audit."""
CONNECTIONS = 1000


async def owners_server(parts: Parts, tls: ssl.SSLContext | None, closing: AsyncExitStack) -> HttpServer:
    """The owners' pages, not open yet."""
    app = make_pages(
        Owners(
            store=parts.store,
            hygiene=parts.cache.hygiene,
            clock=parts.clocks.now,
            sender=lambda: parts.rules.invite().sender,
            note=_note(parts),
        )
    )
    app.middlewares.insert(0, at_work)
    runner = make_runner(app)
    await runner.setup()
    closing.push_async_callback(runner.cleanup)
    assert runner.server is not None
    return HttpServer(
        runner.server,
        HotAnswers(MemoryLimit(0, parts.changes, parts.clocks.now)),  # nothing here is said twice
        HttpLimits(parts.config.limits.connections_per_client, parts.trust, connections=CONNECTIONS),
        face="invite",
        tls=tls,
    )


def _note(parts: Parts) -> Note:
    """What owners do is an act like an administrator's, of somebody whose address logs show as they may."""
    acts, trust, identity = parts.operations.acts, parts.trust, parts.observer.identity

    async def note(deed: Deed, invitation: Invitation, request: web.Request) -> None:
        parts.observer.invitation(invitation.stage)
        client = trust.client(request.remote or "", request.headers.getall(trust.header, []))
        ACTOR.set(Actor(OWNER, "invitation", identity(client) if client else ""))
        facts = {"source": invitation.source.value, "invitation": invitation.id}
        acts.note(deed.value, invitation.fingerprint, **facts, address=identity(invitation.address))
        await acts.written()

    return note


def trailing_of(parts: Parts) -> Trailing:
    """What decides on outbound mail."""

    def link() -> str:
        url = parts.rules.invite().public_url
        return f"{url.rstrip('/')}/" if url else ""

    return Trailing(
        store=parts.store,
        hygiene=parts.cache.hygiene,
        rules=parts.rules.mail,
        link=link,
        clock=parts.clocks.now,
        registry=parts.observer.registry,
    )
