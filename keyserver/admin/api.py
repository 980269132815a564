"""The admin API: routes over `service`, a bearer token on all of them, errors as RFC 9457 problem documents."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from keyserver.admin.acts import ACTOR, Actor
from keyserver.admin.service import (
    Ambiguous,
    NotKnown,
    Problem,
    Refusal,
    Service,
    Undecided,
    Unusable,
    plain,
    selection,
)
from keyserver.install import address_of, proof
from keyserver.model import Kind, Source
from keyserver.state import peer_of
from keyserver.store.base import StoreError

MAX_JSON = 65536  # octets of a JSON body
CHUNK = 65536
SILENCE = 60  # seconds without an octet of a body; for the whole of a JSON body
MAX_MAIL = 16 << 20  # octets of one mail that are read
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"

_NONCE = re.compile(r"[0-9a-f]{32,128}")
_LOG = logging.getLogger("keyserver.admin")


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
    api = Api(service, metrics, token, nodes)
    app = web.Application(middlewares=[problems, _guard(token)], client_max_size=MAX_JSON)
    app.add_routes(
        [
            web.get("/api/v1/cache", api.list),
            web.get("/api/v1/cache/export", api.export, allow_head=False),
            web.post("/api/v1/cache/import", api.import_),
            web.post("/api/v1/cache/purge", api.purge),
            web.get("/api/v1/cache/{id}", api.show),
            web.delete("/api/v1/cache/{id}", api.delete),
            web.post("/api/v1/cache/{id}/approve", api.approve),
            web.post("/api/v1/cache/{id}/refresh", api.refresh),
            web.post("/api/v1/cache/{id}/keep", api.keep),
            web.post("/api/v1/cache/{id}/block", api.block),
            web.post("/api/v1/cache/{id}/unblock", api.unblock),
            web.post("/api/v1/harvest", api.harvest),
            web.get("/api/v1/mailflow", api.mailflow),
            web.get("/api/v1/nodes", api.nodes),
            web.get("/api/v1/upstreams", api.upstreams),
            web.post("/api/v1/upstreams/{name}/test", api.test),
            web.get("/api/v1/lookup", api.lookup),
            web.get("/api/v1/proof", api.proof),
            web.get("/metrics", api.metrics),
        ]
    )
    return app


class Api:
    """The handlers."""

    def __init__(
        self,
        service: Service,
        metrics: Callable[[], bytes],
        token: str,
        nodes: Callable[[], Sequence[Mapping[str, object]]],
    ) -> None:
        self._service = service
        self._nodes = nodes
        self._metrics = metrics
        self._token = token

    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache?source=&upstream=&domain=&q=&limit=&cursor=`."""
        given = _query(request, "source", "upstream", "domain", "q", "limit", "cursor")
        what = selection(given.get("source"), given.get("upstream"), given.get("domain"), given.get("q"))
        listing = await self._service.list(what, _whole(given.get("limit", "100"), "limit"), given.get("cursor"))
        return _json(listing)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache/{id}`: one certificate and its entries, of one source with `?source=`."""
        given = _query(request, "source")
        wanted = selection(given.get("source")).source
        shown = cast("dict[str, object]", plain(await self._service.show(_id(request))))
        if wanted is not None:
            rows = cast("list[dict[str, object]]", shown["entries"])
            shown["entries"] = [row for row in rows if row["source"] == wanted.value]
        return _json(shown)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /api/v1/cache/{id}[?source=][&origin=]`."""
        given = _query(request, "source", "origin")
        source: Source | None = selection(given.get("source")).source
        done = await self._service.delete(_id(request), source, given.get("origin"))
        if not done.count:
            raise NotKnown(f"{done.fingerprint} is not cached{f' from {source}' if source else ''}")
        return _json({"fingerprint": done.fingerprint, "deleted": done.count})

    async def approve(self, request: web.Request) -> web.StreamResponse:
        """`POST …/approve`, with any of `address`, `source`, `upstream` as JSON or `?address=&source=&upstream=`."""
        accepted: dict[str, type] = {"address": str, "source": str, "upstream": str}
        body = await _body(request, accepted) if request.can_read_body else {}
        given = _query(request, *accepted) | {name: str(value) for name, value in body.items() if value}
        what = selection(given.get("source"), given.get("upstream"))
        done = await self._service.approve(_id(request), given.get("address"), what.source, what.upstream)
        return _json(done)

    async def refresh(self, request: web.Request) -> web.StreamResponse:
        """`POST …/refresh`: answers when the upstreams have."""
        return _json(await self._service.refresh(_id(request)))

    async def keep(self, request: web.Request) -> web.StreamResponse:
        """`POST …/keep`."""
        done = await self._service.keep(_id(request))
        return _json({"fingerprint": done.fingerprint, "kept": True})

    async def block(self, request: web.Request) -> web.StreamResponse:
        """`POST …/block`, with `{"reason": "…"}` or without a body."""
        body = await _body(request, {"reason": str}) if request.can_read_body else {}
        done = await self._service.block(_id(request), str(body.get("reason", ""))[:500])
        return _json({"fingerprint": done.fingerprint, "blocked": True})

    async def unblock(self, request: web.Request) -> web.StreamResponse:
        """`POST …/unblock`."""
        done = await self._service.unblock(_id(request))
        return _json({"fingerprint": done.fingerprint, "blocked": False})

    async def purge(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/cache/purge`: JSON with exactly one of expired, source, upstream, domain, all."""
        accepted = {"expired": bool, "all": bool, "source": str, "upstream": str, "domain": str}
        body = await _body(request, accepted)
        chosen = {name: value for name, value in body.items() if value is not False}
        if len(chosen) != 1:
            raise Unusable(f"exactly one of {', '.join(accepted)} is accepted")
        name, value = chosen.popitem()
        if name == "expired":
            purged = await self._service.purge_expired()
        elif name == "all":
            purged = await self._service.purge_all()
        elif not value:
            raise Unusable(f"{name} is empty")
        else:
            purged = await self._service.purge(selection(**{name: str(value)}))
        return _json({"purged": purged})

    async def export(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache/export?source=&upstream=&domain=&q=&kind=`: armor, or with `kind=x509` PEM."""
        given = _query(request, "source", "upstream", "domain", "q", "kind")
        what = selection(
            given.get("source"), given.get("upstream"), given.get("domain"), given.get("q"), given.get("kind")
        )
        blocks = self._service.export(what)
        first = await anext(blocks, b"")  # what is wrong with the store must still be able to become an error
        type_ = "application/x-pem-file" if what.kind is Kind.X509 else "application/pgp-keys"
        response = web.StreamResponse(headers={"Content-Type": type_, "Cache-Control": "no-store"})
        await response.prepare(request)
        await response.write(first)
        async for block in blocks:
            await response.write(block)
        await response.write_eof()
        return response

    async def import_(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/cache/import`: a keyring (or PEM) of any size, read as it comes; answers with counts."""
        if request.content_type not in ("application/pgp-keys", "application/octet-stream"):
            raise _Unsupported("Content-Type must be application/pgp-keys or application/octet-stream")
        return _json(await self._service.import_keyring(_chunks(request)))

    async def harvest(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/harvest[?explain=1]`: one mail, `message/rfc822`; says what was cached or why not."""
        given = _query(request, "explain")
        explain = given.get("explain", "0")
        if explain not in ("0", "1"):
            raise Unusable(f"explain is {explain!r}; 0 and 1 are accepted")
        if request.content_type != "message/rfc822":
            raise _Unsupported("Content-Type must be message/rfc822")
        pieces: list[bytes] = []
        size = 0
        async for chunk in _chunks(request):
            size += len(chunk)
            if size <= MAX_MAIL:
                pieces.append(chunk)
            else:
                pieces.clear()
        octets = b"".join(pieces)
        del pieces
        return _json(await self._service.harvest(octets, cut=size > MAX_MAIL, explain=explain == "1"))

    async def mailflow(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/mailflow`: the queue, counts, the latest mails and changes."""
        return _json(self._service.mailflow())

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/nodes`."""
        return _json({"nodes": list(self._nodes())})

    async def upstreams(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/upstreams`."""
        return _json({"upstreams": self._service.upstreams()})

    async def test(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/upstreams/{name}/test` with `{"query": "…"}`."""
        body = await _body(request, {"query": str})
        if "query" not in body:
            raise Unusable('query is missing; accepted is {"query": "<fingerprint, key ID or address>"}')
        return _json(await self._service.test(request.match_info["name"], str(body["query"])))

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/lookup?q=…&trace=1`."""
        given = _query(request, "q", "trace")
        if "q" not in given:
            raise Unusable("q is missing: a fingerprint, a key ID or an address")
        trace = given.get("trace", "0")
        if trace not in ("0", "1"):
            raise Unusable(f"trace is {trace!r}; 0 and 1 are accepted")
        return _json(await self._service.lookup(given["q"], trace=trace == "1"))

    async def proof(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/proof?nonce=…`, without the token: shows who knows it that we know it too (`install.proof`)."""
        nonce = _query(request, "nonce").get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            raise Unusable("nonce is missing; 32 to 128 hex digits are accepted")
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return _json({"proof": await asyncio.to_thread(proof, self._token, nonce, address_of(here))})

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """`GET /metrics`."""
        return web.Response(body=self._metrics(), headers={"Content-Type": EXPOSITION})


class _Unsupported(Problem):
    """A body of a type that is not read."""


def problem(status: int, title: str, detail: str, **more: object) -> web.Response:
    """An `application/problem+json` document (RFC 9457 §3)."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store"},
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as a problem document."""
    try:
        response = await handler(request)
    except Ambiguous as refusal:
        candidates = plain(refusal.candidates)
        response = problem(409, "Ambiguous", str(refusal), certificates=candidates)
    except Undecided as refusal:
        response = problem(409, "Ambiguous", str(refusal), choices=plain(refusal.choices))
    except NotKnown as refusal:
        response = problem(404, "Not found", str(refusal))
    except Refusal as refusal:
        response = problem(409, "Conflict", str(refusal))
    except _Unsupported as refusal:
        response = problem(415, "Unsupported media type", str(refusal))
    except Problem as refusal:
        response = problem(400, "Bad request", str(refusal))
    except StoreError as trouble:
        response = problem(503, "Store unavailable", str(trouble))
    except web.HTTPMethodNotAllowed as refusal:
        allow = ", ".join(sorted(refusal.allowed_methods))
        response = problem(405, "Method not allowed", f"this address accepts {allow}")
        response.headers["Allow"] = allow
    except web.HTTPException as refusal:
        response = problem(refusal.status, refusal.reason, _DETAILS.get(refusal.status, refusal.reason))
    except ConnectionError:
        raise  # the client is gone
    except Exception:
        resource = request.match_info.route.resource
        _LOG.exception("unhandled error at %s", resource.canonical if resource is not None else "an unknown path")
        response = problem(500, "Internal error", "see the log")
    if not response.prepared:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "keyserver"
    return response


_DETAILS = {404: "there is nothing at this address", 413: f"a JSON body of more than {MAX_JSON} octets"}


def _guard(token: str) -> Middleware:
    expected = b"Bearer " + token.encode()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
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

    return guard


def _actor(request: web.Request) -> Actor:
    """Who acts with this request; the token was right. There is one token so far, the administrator's."""
    way = "cli" if request.headers.get("User-Agent", "").startswith("keyserver-cli/") else "api"
    place = request.remote or ""
    found = request.transport.get_extra_info("peer_socket") if request.transport is not None else None
    if found is not None and found.family == socket.AF_UNIX:
        with socket.socket(fileno=os.dup(found.fileno())) as connection:
            place = f"user {peer_of(connection)}"
    return Actor("admin", way, place)


def _json(value: object) -> web.Response:
    body = json.dumps(plain(value), ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _id(request: web.Request) -> str:
    return request.match_info["id"]


def _query(request: web.Request, *accepted: str) -> dict[str, str]:
    """The query string's parameters; empty ones count as not given. Raises Unusable for others."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in accepted:
            raise Unusable(f"unknown parameter {name!r}; accepted are {', '.join(accepted)}")
        if name in given:
            raise Unusable(f"{name} is given twice")
        if value:
            given[name] = value
    return given


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Unusable(f"{name} is {text!r}; a whole number is accepted")
    return int(text)


async def _body(request: web.Request, accepted: dict[str, type]) -> dict[str, object]:
    """A JSON object of known names and types. Raises Unusable; aiohttp refuses what is too large."""
    try:
        async with asyncio.timeout(SILENCE):
            octets = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    try:
        body = json.loads(octets or b"{}")
    except (ValueError, RecursionError):
        raise Unusable("the body is not JSON") from None
    if not isinstance(body, dict):
        raise Unusable("the body must be a JSON object")
    for name, value in body.items():
        if name not in accepted:
            raise Unusable(f"unknown member {name!r}; accepted are {', '.join(accepted)}")
        if type(value) is not accepted[name]:
            wanted = "true or false" if accepted[name] is bool else "a string"
            raise Unusable(f"{name} is {json.dumps(value)[:80]}; accepted is {wanted}")
    return body


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """A body as it comes. Raises HTTPRequestTimeout when nothing comes for a minute: the HTTP server waits for us."""
    chunks = request.content.iter_chunked(CHUNK)
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                chunk = await anext(chunks, b"")
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        if not chunk:
            return
        yield chunk
