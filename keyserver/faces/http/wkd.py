"""Web Key Directory (draft-koch-openpgp-webkey-service-21 §3.1, §4.5), for our own domains.

Advanced form `/.well-known/openpgpkey/<domain>/hu/<hash>?l=<local part>`; the direct form has no domain, and its Host
counts. A view that relays is the directory of every other domain, too. The answer is the word of the domain's owner
alone (`View.directory`): its policy decides which certificates that are, and cuts other user IDs off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.hashes import HashIndex
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.question import Question, unanswered
from keyserver.faces.http.replies import MAX_AGE, REFUSALS, plain
from keyserver.model import Answered, Kind, State
from keyserver.policy import in_domains
from keyserver.query import ByAddress, parse_address, parse_domain
from keyserver.store.base import StoreError
from keyserver.wire.wkd import ROOT, Target, domain_of, hash_of, read_target

FACE = "wkd"
MAX_REPLY = 256 * 1024  # octets; widely used clients refuse a larger one as a whole

NO_DIRECTORY = "Not found: this is no Web Key Directory of that domain."
NO_ADDRESS = "Not found: no address is known for this hash."
OTHER_HASH = "Not found: the parameter l is no local part with this hash."
HASH_ALONE = "Not found: for a domain that is not ours the local part is needed, as the parameter l."
NO_SUBMISSION = "Not found: this directory takes no submissions."


def routes(context: FaceContext, pages: Pages) -> Iterable[web.RouteDef]:
    """The routes of WKD, in both forms."""
    return [web.get(f"{ROOT}/{{rest:.*}}", Wkd(context).answer)]


class Wkd:
    """The handler of one listener."""

    def __init__(self, context: FaceContext) -> None:
        self._context = context
        self._hashes = HashIndex(context.store, context.budget.changes)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any file below `/.well-known/openpgpkey`."""
        question = Question(self._context, FACE, request)
        target = read_target(request.raw_path)
        domain = _domain(request, target) if target is not None else None
        if target is None or domain is None or not self._serves(domain):
            return plain(404, NO_DIRECTORY)
        if target.file == "policy":  # §4.5: it has to be there, and may be empty
            return web.Response(content_type="text/plain", headers={"Cache-Control": f"max-age={MAX_AGE}"})
        if target.file == "submission-address":
            return plain(404, NO_SUBMISSION)
        query = await self._query(domain, target)
        if isinstance(query, web.Response):
            return query
        answer = await question.ask(query, replace(self._context.view, directory=True))
        shown = published(answer.certificates) if answer.state is State.FOUND else ()
        if answer.state is not State.FOUND:
            response = unanswered(answer)
        elif not shown:
            response = plain(404, REFUSALS[State.ABSENT])
        else:
            octets = b"".join(a.certificate.octets for a in shown)
            response = web.Response(body=octets, content_type="application/octet-stream")
        return question.reply(response, query, answer, shown)

    def _ours(self, domain: str) -> bool:
        return in_domains(domain, self._context.rules().own_domains)

    def _serves(self, domain: str) -> bool:
        return self._ours(domain) or self._context.view.name in self._context.rules().relaying

    async def _query(self, domain: str, target: Target) -> ByAddress | web.Response:
        """The address that is meant, or why there is none."""
        if target.local is not None:
            address = parse_address(f"{target.local}@{domain}") if hash_of(target.local) == target.file else None
            if address is None:
                return plain(404, OTHER_HASH)
            return ByAddress(address.rpartition("@")[0], domain)
        if not self._ours(domain):
            return plain(404, HASH_ALONE)
        try:
            local = await self._hashes.find(domain, target.file)
        except StoreError:
            return plain(500, "The cache cannot be read at the moment. Please try again later.")
        return plain(404, NO_ADDRESS) if local is None else ByAddress(local, domain)


def _domain(request: web.Request, target: Target) -> str | None:
    """The domain whose directory is asked: of the path, in the direct form of the one Host."""
    if target.domain is not None:
        return parse_domain(target.domain)
    hosts = request.headers.getall("Host", ())
    return domain_of(hosts[0]) if len(hosts) == 1 else None


def published(certificates: Sequence[Answered]) -> tuple[Answered, ...]:
    """Which certificates of an answer stand in a reply: as many as fit, v6 only where nothing else is known.

    A v6 certificate beside others makes GnuPG 2.2 and 2.4 fail the whole import."""
    mine = [a for a in certificates if a.certificate.proof.kind is Kind.OPENPGP and a.certificate.proof.user_ids]
    older = [a for a in mine if a.certificate.proof.version == 4]
    shown: list[Answered] = []
    size = 0
    for answered in older or mine:
        size += len(answered.certificate.octets)
        if shown and size > MAX_REPLY:
            break
        shown.append(answered)
    return tuple(shown)
