"""X.509 certificates over HTTP (RFC 4387): `/certificates/search.cgi`; some servers call it `/certificates/search`.

One attribute and one value: `uri` (its synonym `email`) is an address, the others are SHA-1 hashes in base64 without
padding (section 2.1). One certificate is sent as it is; several as multipart/mixed (section 2.2) or, where the client
accepts only that, as a PKCS#7 certs-only message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.question import Question, unanswered
from keyserver.faces.http.replies import plain
from keyserver.model import Answered, Kind, State
from keyserver.query import BadQuery, ByAddress, ByHash, Query, parse
from keyserver.smime import pack
from keyserver.wire.certs import HASHES, read_hash

FACE = "certs"
ADDRESSES = frozenset({"uri", "email"})
ACCEPTED = ", ".join([*sorted(ADDRESSES), *HASHES.values()])
PKCS7 = "application/pkcs7-mime"


def routes(context: FaceContext, pages: Pages) -> Iterable[web.RouteDef]:
    """The routes of RFC 4387."""
    face = Certs(context)
    return [web.get("/certificates/search.cgi", face.search), web.get("/certificates/search", face.search)]


class Certs:
    """The handlers of one listener."""

    def __init__(self, context: FaceContext) -> None:
        self._context = context

    async def search(self, request: web.Request) -> web.StreamResponse:
        """`GET /certificates/search.cgi?<attribute>=<value>`."""
        question = Question(self._context, FACE, request)
        try:
            query = read(request.rel_url.raw_query_string)
        except BadQuery as problem:
            return plain(400, f"Bad request: {problem}.")
        answer = await question.ask(query)
        if answer.state is not State.FOUND:
            return question.reply(unanswered(answer), query, answer)
        response = render(answer.certificates, request.headers.get("Accept", ""))
        response.headers["Vary"] = "Accept"
        return question.reply(response, query, answer, answer.certificates)


def read(raw_query: str) -> Query:
    """What is asked. Raises BadQuery. `+` is a base64 digit here, raw or escaped, never a space."""
    attribute, equals, value = raw_query.partition("=")
    if not equals or "&" in value:
        raise BadQuery(f"one attribute and its value are expected; attributes are {ACCEPTED}")
    name = unquote(attribute).lower()
    text = unquote(value, errors="replace")
    if name in ADDRESSES:
        query = parse(text.removeprefix("mailto:"), Kind.X509)
        if not isinstance(query, ByAddress):
            raise BadQuery(f"{name} takes an e-mail address")
        return query
    if name not in HASHES:
        raise BadQuery(f"the attributes are {ACCEPTED}")
    try:
        return ByHash(name, read_hash(text))
    except ValueError as problem:
        raise BadQuery(f"{HASHES[name]} takes {problem}") from None


def render(certificates: Sequence[Answered], accept: str) -> web.Response:
    """One certificate, or several in the form that the client accepts."""
    ders = [a.certificate.octets for a in certificates]
    if PKCS7 in accept.lower():
        return web.Response(body=pack(ders), headers={"Content-Type": f"{PKCS7}; smime-type=certs-only"})
    if len(ders) == 1:
        return web.Response(body=ders[0], content_type="application/pkix-cert")
    boundary = hashlib.sha256(b"".join(ders)).hexdigest()[:32]  # the same certificates give the same body and ETag
    head = f"--{boundary}\r\nContent-Type: application/pkix-cert\r\n\r\n".encode()
    body = b"".join(head + der + b"\r\n" for der in ders) + f"--{boundary}--\r\n".encode()
    return web.Response(body=body, headers={"Content-Type": f"multipart/mixed; boundary={boundary}"})
