"""Who may do what, asked before every handler: the name that was called, the token or session, the role.

Each route says who may, by one of three marks on its handler; what has none is refused when the application is made.
A browser's session counts only for requests of our own pages: `Sec-Fetch-Site` says so, or where there is none (plain
HTTP) `Origin`; a bearer token is no browser's, and proves itself.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from aiohttp import web
from aiohttp.typedefs import Handler

from keyserver.admin.access import Access, Holder, Role, TooManyAttempts
from keyserver.admin.acts import ACTOR, Actor, Acts
from keyserver.admin.api.places import Places, Reached, same_origin
from keyserver.admin.api.problems import problem
from keyserver.admin.api.reading import json_of, query_of
from keyserver.admin.masking import Hash
from keyserver.admin.problems import Unusable
from keyserver.install import address_of, proof
from keyserver.listen.trust import Trust
from keyserver.state import peer_of
from keyserver.store.history import WHO


@dataclass(frozen=True, slots=True)
class Standing:
    """A request that was let in. For answers that last (streams): `still` says whether it would be let in now, and is
    no sign of life of its session."""

    still: Callable[[], Awaitable[bool]]


STANDING = web.RequestKey("standing", Standing)

H = TypeVar("H", bound=Callable[..., Awaitable[web.StreamResponse]])

SIGN_IN = "/sign-in"
CURE = (
    "this connection is neither encrypted nor inside one machine: a token typed here could be read on its way. Give the"
    ' listener TLS (admin.tls_certificate, admin.tls_key_file, and "tls:" before the address in admin.listen), or put a'
    " proxy with TLS before it and name its address in admin.public_url, or come through an ssh tunnel to localhost"
)

_SAFE = ("GET", "HEAD", "OPTIONS")
_NONCE = re.compile(r"[0-9a-f]{32,128}")
_ANYONE = "anyone"


def viewer(handler: H) -> H:
    """Whoever has a token or session may: it reads what is cached and known."""
    return _marked(handler, Role.VIEWER)


def operator(handler: H) -> H:
    """Operators may: it changes something, or asks upstreams."""
    return _marked(handler, Role.OPERATOR)


def anyone(handler: H) -> H:
    """Nobody is asked who they are."""
    return _marked(handler, _ANYONE)


def _marked(handler: H, who: str) -> H:
    handler.may = who  # type: ignore[attr-defined]
    return handler


def may(handler: object) -> str | None:
    """Who may, by a handler's mark; None where it has none."""
    found = getattr(handler, "may", None)
    return found if isinstance(found, str) else None


def refuse_unmarked(app: web.Application) -> None:
    """Raises ValueError where a route does not say who may."""
    for route in app.router.routes():
        if may(route.handler) is None:
            raise ValueError(f"{route.method} {route} does not say who may")


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guard goes by. hash_: set where viewers see neither addresses nor names (`masking`)."""

    places: Places
    trust: Trust
    hash_: Hash | None = None


class Guard:
    """Before every handler."""

    def __init__(self, access: Access, acts: Acts, rules: Rules) -> None:
        self._access = access
        self._acts = acts
        self._rules = rules

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets anywhere without a token or session; not even to know what is there."""
        reached = reached_of(request)
        if not self._rules.places.ours(reached):
            return _refused(421, "Misdirected request", f"Host is {reached.host[:80]!r}; {_HOSTS}")
        wanted = may(request.match_info.handler) or Role.VIEWER  # unmarked is only what aiohttp says of no such route
        bearer = "Authorization" in request.headers
        concerned = wanted == _ANYONE or request.cookies  # nobody acts by mistake who has neither token nor cookie
        if not bearer and concerned and not self._from_our_page(request, reached):
            return _refused(403, "Forbidden", "this request does not come from our own page")
        if wanted != _ANYONE:
            try:
                holder = await (self._by_bearer(request) if bearer else self._by_session(request, reached))
            except TooManyAttempts as many:
                return too_many(many)
            if holder is None:
                return _unknown(request)
            if not holder.role.covers(Role(wanted)):
                return _refused(403, "Forbidden", f"the role {holder.role} does not suffice; {wanted} does")
            actor = self.actor(request, holder, "" if bearer else "page")
            ACTOR.set(actor)
            WHO.set(actor.who)
        try:
            return await handler(request)
        finally:
            if request.method not in _SAFE:
                await self._acts.written()

    def actor(self, request: web.Request, holder: Holder, way: str = "") -> Actor:
        """Who acts with this request, by the holder of its token or session."""
        if not way:
            way = "cli" if request.headers.get("User-Agent", "").startswith("keyserver-cli/") else "api"
        hash_ = self._rules.hash_ if holder.role is Role.VIEWER else None
        return Actor(holder.name, way, self.place(request), holder.role, hash_)

    def client(self, request: web.Request) -> str:
        """The address that a request comes from, also behind our proxies; empty for a Unix socket."""
        trust = self._rules.trust
        return trust.client(request.remote or "", request.headers.getall(trust.header, []))

    def place(self, request: web.Request) -> str:
        """The same for people: an address, or the user at the other end of a Unix socket."""
        if client := self.client(request):
            return client
        found = request.transport.get_extra_info("peer_socket") if request.transport is not None else None
        if found is not None and found.family == socket.AF_UNIX:
            with socket.socket(fileno=os.dup(found.fileno())) as connection:
                return f"user {peer_of(connection)}"
        return ""

    def protected(self, request: web.Request) -> bool:
        """May a token be typed here? See `Places.protected`."""
        return self._rules.places.protected(reached_of(request))

    def secure(self, request: web.Request) -> bool:
        """Does the browser come by https?"""
        return self._rules.places.origin(reached_of(request)).startswith("https:")

    def cookie(self, request: web.Request) -> str:
        """The name of the session's cookie. With `__Host-` nobody else's page can set it, which needs TLS."""
        return "__Host-keyserver" if self.secure(request) else "keyserver-session"

    def _from_our_page(self, request: web.Request, reached: Reached) -> bool:
        site = request.headers.get("Sec-Fetch-Site")
        if request.method in _SAFE:  # a page may be linked to; the API is nobody else's to read or to make ask
            return not _api(request) or site in (None, "same-origin", "none")
        if site is not None:
            return site == "same-origin"
        origin = request.headers.get("Origin")
        return origin is not None and same_origin(origin, self._rules.places.origin(reached))

    async def _by_bearer(self, request: web.Request) -> Holder | None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return None
        found = await self._access.holder(given.strip(), self.client(request))
        if found is None:
            self._acts.refuse("api", self.place(request), "the token is nobody's")
        else:
            request[STANDING] = Standing(lambda: self._access.valid(found))
        return found

    async def _by_session(self, request: web.Request, reached: Reached) -> Holder | None:
        cookie = request.cookies.get(self.cookie(request))
        if not cookie or not self._rules.places.protected(reached):
            return None

        async def still() -> bool:
            return await self._access.signed_in(cookie, use=False) is not None

        request[STANDING] = Standing(still)
        return await self._access.signed_in(cookie)


_HOSTS = (
    "accepted are localhost, the listener's own addresses, what admin.hosts names, and the host of admin.public_url"
)


def reached_of(request: web.Request) -> Reached:
    """How a request reached us."""
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    address = str(here[0]) if isinstance(here, tuple) else ""
    return Reached(request.headers.get("Host", ""), address, request.secure)


def too_many(many: TooManyAttempts) -> web.Response:
    """429, with the time after which trying again makes sense."""
    response = _refused(429, "Too many requests", str(many))
    response.headers["Retry-After"] = str(many.wait)
    return response


def _api(request: web.Request) -> bool:
    return request.path.startswith("/api/") or request.path == "/metrics"


def _unknown(request: web.Request) -> web.Response:
    """401; a browser that wants a page is led to the way in."""
    pages = not _api(request) and "text/html" in request.headers.get("Accept", "")
    if pages and "Authorization" not in request.headers:
        back = quote(request.raw_path, safe="") if request.method == "GET" else ""
        response = web.Response(status=303, headers={"Location": f"{SIGN_IN}?to={back}" if back else SIGN_IN})
        response.headers["Cache-Control"] = "no-store"
        response.force_close()
        return response
    response = _refused(401, "Unauthorized", "Authorization: Bearer <token> is missing or wrong")
    response.headers["WWW-Authenticate"] = 'Bearer realm="keyserver"'
    return response


def _refused(status: int, title: str, detail: str) -> web.Response:
    response = problem(status, title, detail)
    response.force_close()  # a body that nobody may send is not read either
    return response


def proof_routes(token: str) -> list[web.RouteDef]:
    """`GET /api/v1/proof`."""

    @anyone
    async def prove(request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/proof?nonce=…`, without the token: shows who knows it that we know it too (`install.proof`)."""
        nonce = query_of(request, "nonce").get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            raise Unusable("nonce is missing; 32 to 128 hex digits are accepted")
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return json_of({"proof": await asyncio.to_thread(proof, token, nonce, address_of(here))})

    return [web.get("/api/v1/proof", prove)]
