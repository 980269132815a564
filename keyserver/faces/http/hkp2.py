"""HKP v2 under /pks/v2 (draft-ietf-openpgp-hkp-01; sections as in draft-gallagher-openpgp-hkp-10).

Replies are certificates in octets, of any version; submissions are refused. What we have verified ourselves, nothing,
is not said of user IDs; `canonical` answers with the word of the address's own domain alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.hkp import NOT_UTF8, READ_ONLY
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.question import Question, decoded, path_of, refused, rendered, unanswered
from keyserver.faces.http.replies import REFUSALS, plain
from keyserver.model import Answered, Kind, State
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, Query, parse
from keyserver.wire.hkp2 import read_fingerprint, read_key_id, write_index

FACE = "hkp2"
ROOT = "/pks/v2/"
CERTIFICATES = "application/pgp-keys;armor=no"  # §7.1

CATEGORIES = ("certs/by-vfingerprint", "certs/by-keyid", "certs/by-identity", "canonical", "index", "certs")
METHODS = ("GET", "HEAD")
SUBMISSIONS = frozenset({("POST", "certs"), ("PUT", "canonical"), ("POST", "sendtoken")})

NO_CATEGORY = "Not implemented: the categories are certs/by-vfingerprint, certs/by-keyid, certs/by-identity, canonical"
NO_IDENTIFIER = "Forbidden: an identifier has to follow, for example /pks/v2/certs/by-identity/alice@example.org."
NO_MATCH = (
    "Not found: by-vfingerprint takes 04 and 40 hex digits or 06 and 64, by-keyid 16, without 0x; by-identity,"
    " canonical and index take one e-mail address."
)


def routes(context: FaceContext, pages: Pages) -> Iterable[web.RouteDef]:
    """The route of HKP v2."""
    return [web.route("*", f"{ROOT}{{rest:.*}}", Hkp2(context).answer)]


@dataclass(frozen=True, slots=True)
class Request:
    """A path, as the client wrote it. `category`: empty for one that is not known."""

    category: str
    identifier: str


def read(path: str) -> Request:
    """What a path asks for."""
    rest = path.removeprefix(ROOT)
    for category in CATEGORIES if path.startswith(ROOT) else ():
        if rest == category or rest.startswith(f"{category}/"):
            identifier = rest[len(category) + 1 :]
            if category == "certs" and identifier:
                break  # of a way that we do not have
            return Request(category, identifier)
    return Request("", "")


class Hkp2:
    """The handler of one listener."""

    def __init__(self, context: FaceContext) -> None:
        self._context = context

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Anything below `/pks/v2/`."""
        path = path_of(request)
        asked = read(path)
        if (request.method, asked.category or path.removeprefix(ROOT)) in SUBMISSIONS:
            refusal = web.json_response({"error": READ_ONLY}, status=403, headers={"Cache-Control": "no-store"})
            return await refused(request, refusal)
        if not asked.category:
            return plain(501, f"{NO_CATEGORY} and index.")  # §4.2
        if request.method not in METHODS:
            raise web.HTTPMethodNotAllowed(request.method, METHODS)  # OPTIONS becomes what §5.1.7 wants of it
        if not asked.identifier:
            return plain(403, NO_IDENTIFIER)  # §5.1.7
        return await self._lookup(request, asked)

    async def _lookup(self, request: web.Request, asked: Request) -> web.Response:
        question = Question(self._context, FACE, request)
        identifier = decoded(asked.identifier)
        if "\N{REPLACEMENT CHARACTER}" in identifier:
            return plain(404, NOT_UTF8)
        query = meant(asked.category, identifier)
        if query is None:
            return plain(404, NO_MATCH)
        view = replace(self._context.view, directory=True) if asked.category == "canonical" else None
        answer = await question.ask(query, view)
        shown = presentable(query, answer.certificates) if answer.state is State.FOUND else ()
        if answer.state is not State.FOUND:
            response = unanswered(answer)
        elif not shown:
            response = plain(404, REFUSALS[State.ABSENT])
        elif asked.category == "index":
            proofs = [a.certificate.proof for a in shown]
            index = await rendered(sum(len(a.certificate.octets) for a in shown), partial(write_index, proofs))
            response = web.Response(body=index, content_type="application/json")
        else:
            octets = b"".join(a.certificate.octets for a in shown)
            response = web.Response(body=octets, headers={"Content-Type": CERTIFICATES})
        return question.reply(response, query, answer, shown)


def meant(category: str, identifier: str) -> Query | None:
    """What is asked for; None for what matches nothing, such as a fingerprint without its version."""
    if category == "certs/by-vfingerprint":
        return read_fingerprint(identifier)
    if category == "certs/by-keyid":
        return read_key_id(identifier)
    if not identifier.isprintable():
        return None
    try:
        query = parse(identifier)
    except BadQuery:
        return None
    return query if isinstance(query, ByAddress) else None


def presentable(query: Query, certificates: Sequence[Answered]) -> tuple[Answered, ...]:
    """Which certificates of an answer may stand in a reply: to a key ID none above version 4 (§5.1.3), to an address
    none without user IDs."""
    mine = [a for a in certificates if a.certificate.proof.kind is Kind.OPENPGP]
    if isinstance(query, ByKeyId):
        return tuple(a for a in mine if a.certificate.proof.version <= 4)
    return tuple(a for a in mine if isinstance(query, ByFingerprint) or a.certificate.proof.user_ids)
