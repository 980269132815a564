"""Who may do what: the bearer token, and the proof that we know it too."""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import socket

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from keyserver.admin.acts import ACTOR, Actor
from keyserver.admin.api.problems import problem
from keyserver.admin.api.reading import json_of, query_of
from keyserver.admin.service import Unusable
from keyserver.install import address_of, proof
from keyserver.state import peer_of

_NONCE = re.compile(r"[0-9a-f]{32,128}")


def guard(token: str) -> Middleware:
    """What lets a request with the token through, and says whose act it is (`ACTOR`)."""
    expected = b"Bearer " + token.encode()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets anywhere without the token; not even to know what is there."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if request.path == "/api/v1/proof":
            return await handler(request)
        offered = b"Bearer " + given.strip().encode("utf-8", "surrogateescape")
        if scheme.lower() != "bearer" or not hmac.compare_digest(offered, expected):
            response = problem(401, "Unauthorized", "Authorization: Bearer <token> is missing or wrong")
            response.headers["WWW-Authenticate"] = 'Bearer realm="keyserver"'
            response.force_close()  # a body that nobody may send is not read either
            return response
        ACTOR.set(_actor(request))
        return await handler(request)

    return guarded


def _actor(request: web.Request) -> Actor:
    """Who acts with this request; the token was right. There is one token so far, the administrator's."""
    way = "cli" if request.headers.get("User-Agent", "").startswith("keyserver-cli/") else "api"
    place = request.remote or ""
    found = request.transport.get_extra_info("peer_socket") if request.transport is not None else None
    if found is not None and found.family == socket.AF_UNIX:
        with socket.socket(fileno=os.dup(found.fileno())) as connection:
            place = f"user {peer_of(connection)}"
    return Actor("admin", way, place)


def proof_routes(token: str) -> list[web.RouteDef]:
    """`GET /api/v1/proof`."""

    async def prove(request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/proof?nonce=…`, without the token: shows who knows it that we know it too (`install.proof`)."""
        nonce = query_of(request, "nonce").get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            raise Unusable("nonce is missing; 32 to 128 hex digits are accepted")
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return json_of({"proof": await asyncio.to_thread(proof, token, nonce, address_of(here))})

    return [web.get("/api/v1/proof", prove)]
