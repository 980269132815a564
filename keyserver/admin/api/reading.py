"""What a request of the admin API says, read strictly, and how an answer is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from aiohttp import web

from keyserver.admin.acts import ACTOR
from keyserver.admin.masking import masked
from keyserver.admin.plain import plain
from keyserver.admin.problems import Problem, Unusable
from keyserver.query import BadQuery, ByText, parse

MAX_JSON = 65536  # octets of a JSON body
CHUNK = 65536
SILENCE = 60  # seconds without an octet of a body; for the whole of a JSON body


class Unsupported(Problem):
    """A body of a type that is not read."""


class Forbidden(Problem):
    """Nothing for this role."""


def visible(value: object) -> object:
    """What JSON can say of a result, and what whoever acts may see of that. Every answer goes through here."""
    hash_ = ACTOR.get().hash_
    return plain(value) if hash_ is None else masked(plain(value), hash_)


def identities_wanted() -> None:
    """What follows is made of addresses and names. Raises Forbidden for whoever may not see those."""
    if ACTOR.get().hash_ is not None:
        raise Forbidden("viewers see no addresses here (admin.viewer_identities); an operator does")


def search_of(text: str | None) -> str | None:
    """A text to search for. Parts of addresses would tell whoever may see none what is in the cache, letter by letter:
    raises Forbidden for those."""
    if text and ACTOR.get().hash_ is not None:
        try:
            whole = not isinstance(parse(text), ByText)
        except BadQuery:
            whole = False
        if not whole:
            raise Forbidden("viewers search whole addresses, fingerprints and key IDs here (admin.viewer_identities)")
    return text


def json_of(value: object) -> web.Response:
    """An answer of what `visible` leaves; never cached."""
    body = json.dumps(visible(value), ensure_ascii=False).encode("utf-8", "replace")
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def id_of(request: web.Request) -> str:
    """The `{id}` of the path: a fingerprint, a key ID or an address."""
    return request.match_info["id"]


def query_of(request: web.Request, *accepted: str) -> dict[str, str]:
    """The query string's parameters; empty ones count as not given. Raises Unusable for others."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in accepted:
            raise Unusable(f"unknown parameter {name[:80]!r}; accepted are {', '.join(accepted) or 'none'}")
        if name in given:
            raise Unusable(f"{name} is given twice")
        if value:
            given[name] = value
    return given


def whole(text: str, name: str) -> int:
    """A parameter's whole number. Raises Unusable."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Unusable(f"{name} is {text!r}; a whole number is accepted")
    return int(text)


async def body_of(request: web.Request, accepted: dict[str, type]) -> dict[str, object]:
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


async def chunks_of(request: web.Request) -> AsyncIterator[bytes]:
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
