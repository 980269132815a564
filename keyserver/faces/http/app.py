"""The aiohttp application of one HTTP listener: routes, manners that hold for every reply, health, the search page.

The protocols themselves are modules of their own beside this one; each gives the routes that it answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

from keyserver.faces.context import FaceContext
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.replies import document, plain
from keyserver.store.base import StoreError

Routes = Callable[[FaceContext, Pages], Iterable[web.RouteDef]]
"""What a protocol's module gives: its routes over one listener's surroundings."""

_LOG = logging.getLogger("keyserver.http")


def make_app(context: FaceContext, *faces: Routes) -> web.Application:
    """One listener's application. `faces`: the protocols it speaks, for example `faces.hkp.routes`."""
    pages = Pages()

    async def search_page(request: web.Request) -> web.StreamResponse:
        response = document(pages.search())
        response.headers["Cache-Control"] = "max-age=300"
        return response

    async def alive(request: web.Request) -> web.StreamResponse:
        return plain(200, "ok")

    async def ready(request: web.Request) -> web.StreamResponse:
        problem = await unready(context)
        if problem:
            return plain(503, problem)
        complaint = context.complaint()
        return plain(200, f"ok, but {complaint}" if complaint else "ok")

    app = web.Application(middlewares=[manners])
    app.router.add_get("/", search_page)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    for face in faces:
        app.router.add_routes(face(context, pages))
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner that keeps requests out of the logs: they name addresses.

    What aiohttp itself would log, bytes that are not HTTP, goes nowhere; errors of ours are logged by `manners`. A body
    that nobody wants is read on for a second behind the reply, so that the client gets to see it."""
    silent = logging.Logger("silent", logging.CRITICAL + 1)
    return web.AppRunner(app, handle_signals=False, access_log=None, logger=silent, lingering_time=1.0)


async def unready(context: FaceContext) -> str:
    """What keeps us from doing our work, in one line; empty when nothing does."""
    problems: list[str] = []
    detached = context.detached()
    if detached is not None:
        return detached.text if detached.over else ""
    try:
        stats = await context.store.stats()
    except StoreError as problem:
        problems.append(f"the store is unavailable: {problem}")
    else:
        if stats.healthy:
            problems.append(f"the store is not healthy: {stats.healthy}")
        most = context.rules().max_size
        if most and stats.octets >= most and "max_size" not in stats.healthy:
            problems.append("cache.max_size is reached: new finds are answered but not cached")
    states = [health.state for health in context.lookups.statuses() if health.state != "paused"]
    if states and all(state == "open" for state in states):
        problems.append("no upstream can be asked: every circuit is open")
    return " ".join("; ".join(problems).split())


@web.middleware
async def manners(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What holds for every reply, errors too: CORS, OPTIONS, one shape of errors, nothing after HTTP/1.0's body."""
    try:
        response = await handler(request)
    except web.HTTPMethodNotAllowed as refusal:
        response = _methods(request, refusal.allowed_methods)
    except web.HTTPException as refusal:
        response = plain(refusal.status, f"{refusal.status} {refusal.reason}")
    except ConnectionError:
        raise  # the client is gone: nobody is there to be told
    except Exception:
        # The route's pattern, never the request: it names addresses.
        resource = request.match_info.route.resource
        _LOG.exception("unhandled error at %s", resource.canonical if resource is not None else "an unknown path")
        response = plain(500, "Internal error. Please try again later.")
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "keyserver"
    if request.version < HttpVersion11:
        response.force_close()  # whatever `Connection` asks for: a widely used client reads until we close
        response.headers["Connection"] = "close"
    return response


def _methods(request: web.Request, allowed: Iterable[str]) -> web.Response:
    allow = ", ".join(sorted({*allowed, "OPTIONS"}))
    if request.method != "OPTIONS":
        return plain(405, f"This address accepts {allow}.", {"Allow": allow})
    headers = {
        "Allow": allow,
        "Access-Control-Allow-Methods": allow,
        "Access-Control-Allow-Headers": "Content-Type, If-None-Match",
        "Access-Control-Max-Age": "86400",
    }
    return web.Response(headers=headers)
