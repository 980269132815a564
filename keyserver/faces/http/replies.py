"""What every face over HTTP is handed, and how an answer becomes a reply: status, caching headers, ETag, refusals."""

from __future__ import annotations

import hashlib
import re

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.facts import Facts, offer
from keyserver.faces.http.pages import HtmlPage
from keyserver.model import Answer, How, State

MAX_HOPS = 16
"""Instances that a question may have come through."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,64}\Z")

MAX_AGE = 300
"""Seconds that a client may keep a reply at most."""

STATUS = {State.FOUND: 200, State.ABSENT: 404, State.FAILED: 500, State.BUSY: 500}
"""Never 429, 502, 503, 504: clients take them for "no such key", mark the server dead, or hammer it."""

REFUSALS = {
    State.ABSENT: "Not found: no certificate is known for this search.",
    # Other frontends read "not found" in a 500 as an absence, so these two never say it.
    State.FAILED: "The search failed: an upstream could not be asked, and nothing is cached. Please try again later.",
    State.BUSY: "Too much is under way at the moment. Please try again later.",
}


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """A short sentence for people; not to be kept."""
    response = web.Response(status=status, text=f"{text}\n", headers=headers)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def document(page: HtmlPage, status: int = 200) -> web.Response:
    """An HTML page under the strictest policy that it works with; not to be kept unless the caller says so."""
    response = web.Response(status=status, text=page.html, content_type="text/html")
    response.headers["Content-Security-Policy"] = page.policy
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


def client_of(context: FaceContext, request: web.Request) -> str:
    """The address that a request comes from, as far as the proxies that it came through are ours."""
    return context.trust.client(request.remote or "", request.headers.getall(context.trust.header, ()))


def hops(request: web.Request) -> tuple[str, ...]:
    """The names that `Via` bears (RFC 9110 §7.6.3: protocol, received-by), oldest first, at most 16 plain ones."""
    words = [hop.split() for value in request.headers.getall("Via", ()) for hop in value.split(",")[:MAX_HOPS]]
    return tuple(w[1].lower() for w in words[:MAX_HOPS] if len(w) > 1 and _PLAIN_NAME.match(w[1]))


def looped(request: web.Request, instance: str) -> bool:
    """Has this request been here before? `Via` bears our name then, or more names than any honest way has."""
    names = hops(request)
    return instance.lower() in names or len(names) == MAX_HOPS


def finish(
    context: FaceContext, request: web.Request, response: web.Response, answer: Answer, number: int
) -> web.Response:
    """Put the caching headers on a reply, turn it into 304 where the client has it already, and offer it to memory.

    `number`: `Changes.published` noted before the resolver was asked, so that a change in between is not missed.
    """
    again = looped(request, context.instance)
    keep = answer.keep and not again and response.status in (200, 404)
    now = context.clock()
    headers = response.headers
    headers["Cache-Control"] = f"max-age={max(0, min(MAX_AGE, answer.until - now))}" if keep else "no-store"
    if response.status in (200, 404):
        headers["Age"] = str(max(0, now - answer.since)) if answer.since else "0"
    explain = context.rules().explain
    if explain:
        headers["X-Cache"] = answer.how.value
    if response.status == 200:
        assert isinstance(response.body, bytes)
        etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
        headers["ETag"] = etag
        if _has(request, etag):
            response = _not_modified(response)
    # A reply that still says MISS would repeat it from memory; the next one says HIT and may be kept.
    if keep and request.method == "GET" and response.status != 304 and (answer.how is How.HIT or not explain):
        positive = answer.state is State.FOUND and response.status == 200
        offer(request, Facts(answer.names, answer.until, number, answer.since, positive, answer.query))
    return response


def _has(request: web.Request, etag: str) -> bool:
    """Does `If-None-Match` name this body (RFC 9110 §13.1.2: weak comparison)?"""
    given = ",".join(request.headers.getall("If-None-Match", ()))
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return etag in tags or "*" in tags


def _not_modified(response: web.Response) -> web.Response:
    kept = {name: value for name, value in response.headers.items() if not name.lower().startswith("content-")}
    return web.Response(status=304, headers=kept)
