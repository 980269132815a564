"""VKS, the interface of verifying keyservers (keys.openpgp.org/about/api): one certificate, armored as in HKP.

We verify nobody: what we answer is what HKP answers, of an address's certificates the first that can be encrypted to,
and uploads are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.hkp import NOT_HERE, READ_ONLY, armored, presentable
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.question import Question, decoded, path_of, refused, unanswered
from keyserver.faces.http.replies import plain
from keyserver.model import Answered, State
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query, parse_address
from keyserver.usable import unusable

FACE = "vks"
ROOT = "/vks/v1"

_FORMS = (
    (f"{ROOT}/by-fingerprint/", re.compile(r"[0-9A-Fa-f]{40}(?:[0-9A-Fa-f]{24})?\Z"), ByFingerprint),
    (f"{ROOT}/by-keyid/", re.compile(r"[0-9A-Fa-f]{16}\Z"), ByKeyId),
)
BY_EMAIL = f"{ROOT}/by-email/"
BAD = "Bad request: a fingerprint has 40 or 64 hex digits, a key ID 16, without 0x; by-email takes one e-mail address."


def routes(context: FaceContext, pages: Pages) -> Iterable[web.RouteDef]:
    """The routes of VKS."""
    face = Vks(context)
    lookups = (*(prefix for prefix, _, _ in _FORMS), BY_EMAIL)
    return [
        *(web.get(f"{prefix}{{rest:.*}}", face.lookup) for prefix in lookups),
        web.post(f"{ROOT}/upload", face.upload),
        web.post(f"{ROOT}/request-verify", face.upload),
    ]


class Vks:
    """The handlers of one listener."""

    def __init__(self, context: FaceContext) -> None:
        self._context = context

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """`GET /vks/v1/by-…/…`."""
        question = Question(self._context, FACE, request)
        query = read(path_of(request))
        if query is None:
            return plain(400, BAD)
        answer = await question.ask(query)
        shown = presented(query, answer.certificates) if answer.state is State.FOUND else ()
        if answer.state is not State.FOUND:
            response = unanswered(answer)
        else:
            response = await armored(shown) if shown else plain(404, NOT_HERE)
        return question.reply(response, query, answer, shown)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """`POST /vks/v1/upload`, `POST /vks/v1/request-verify`."""
        response = web.json_response({"error": READ_ONLY}, status=403, headers={"Cache-Control": "no-store"})
        return await refused(request, response)


def presented(query: Query, certificates: Sequence[Answered]) -> Sequence[Answered]:
    """Which certificates of an answer stand in a reply: of those for an address one, as the interface has it, and the
    first that can be encrypted to where there is any. Thunderbird takes none of two."""
    may = presentable(query, certificates)
    if isinstance(query, ByAddress):
        return sorted(may, key=lambda a: unusable(a.certificate.proof) != "")[:1]
    return may


def read(path: str) -> Query | None:
    """What a path asks for, as the client wrote it; None where nothing can be meant."""
    for prefix, digits, by in _FORMS:
        if path.startswith(prefix):
            given = path.removeprefix(prefix)
            return by(given.upper()) if digits.match(given) else None
    address = parse_address(decoded(path.removeprefix(BY_EMAIL))) if path.startswith(BY_EMAIL) else None
    if address is None:
        return None
    local, domain = address.rsplit("@", 1)
    return ByAddress(local, domain)
