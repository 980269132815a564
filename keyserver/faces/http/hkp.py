"""HKP v1 under /pks (draft-shaw-openpgp-hkp-00; "legacy" in draft-ietf-openpgp-hkp): query, lookup, render."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from aiohttp import web

from keyserver import __version__
from keyserver.faces.context import FaceContext
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.question import Question, refused, rendered
from keyserver.faces.http.replies import REFUSALS, STATUS, document, plain
from keyserver.model import Answer, Answered, How, Kind, Malformed, State
from keyserver.openpgp.armor import armor
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, ByText, Query, ShortKeyId, parse
from keyserver.store.base import StoreError
from keyserver.wire import hkp as wire

FACE = "hkp"

NOT_LISTED = "Not listed: what is known for this search has no user ID, which an index needs; op=get answers it."
NOT_HERE = (
    "Not found: what is known for this search has no user ID, or is of version 6, and is answered by its whole"
    " fingerprint only."
)
OPERATIONS = frozenset({"get", "index", "vindex", "stats"})
STATES = {"closed": "answering", "open": "failing", "half-open": "being tried again"}  # circuits in plain words
READ_ONLY = "This keyserver takes no submissions: it caches what its upstreams have. Send the key to one of them."
NO_TEXT = (
    "Text searches are not answered here. Search for one whole e-mail address (alice@example.org, with or without a"
    " name before it), a fingerprint of 40 or 64 hex digits, or a 16-digit key ID."
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NOT_UTF8 = "Not found: the search term is not UTF-8 text."


class _Refused(Exception):
    """A request that is not looked up."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def routes(context: FaceContext, pages: Pages) -> Iterable[web.RouteDef]:
    """The routes of HKP v1."""
    face = Hkp(context, pages)
    return [web.get("/pks/lookup", face.lookup), web.post("/pks/add", face.add)]


class Hkp:
    """The handlers of one listener."""

    def __init__(self, context: FaceContext, pages: Pages) -> None:
        self._context = context
        self._pages = pages

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        """`GET /pks/lookup`."""
        question = Question(self._context, FACE, request)
        query: Query | None = None
        answer: Answer | None = None
        given = wire.Parameters()
        try:
            given = _parameters(request)
            if given.op == "stats":
                return await self._stats(given)
            query = _query(given, self._context.rules().text_search)
            other = in_x509(query) if given.for_people else None
            if other is None:
                answer = await question.ask(query)
            else:
                answer = both(*await asyncio.gather(question.ask(query), question.ask(other)))
            response, shown = await self._render(given, query, answer)
        except _Refused as refusal:
            response, shown = self._refusal(given, refusal.status, refusal.text), ()
        return question.reply(response, query, answer, shown)

    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST /pks/add`: read (clients write the whole form before they listen), then refused."""
        return await refused(request, plain(403, READ_ONLY))

    async def _render(
        self, given: wire.Parameters, query: Query, answer: Answer
    ) -> tuple[web.Response, Sequence[Answered]]:
        """The reply, and the certificates in it."""
        if answer.state is not State.FOUND:
            return self._refusal(given, STATUS[answer.state], REFUSALS[answer.state]), ()
        shown = may = presentable(query, answer.certificates)
        if given.op != "get":
            shown = tuple(a for a in may if any(u.text for u in a.certificate.proof.user_ids))
        if given.for_people:
            shown += tuple(a for a in answer.certificates if a.certificate.proof.kind is Kind.X509)
        if not shown:
            return self._refusal(given, 404, NOT_LISTED if may else NOT_HERE), ()
        return await self._found(given, shown), shown

    async def _found(self, given: wire.Parameters, shown: Sequence[Answered]) -> web.Response:
        proofs = [a.certificate.proof for a in shown]
        if given.op == "get":
            return await armored(shown)
        now, size = self._context.clock(), sum(len(a.certificate.octets) for a in shown)
        if given.machine:
            index = await rendered(size, partial(wire.write_index, proofs, now))
            return web.Response(body=index.encode("ascii"), content_type="text/plain")
        detailed = given.op == "vindex"
        return document(
            await rendered(size, partial(self._pages.results, given.search or "", proofs, now, detailed=detailed))
        )

    def _refusal(self, given: wire.Parameters, status: int, text: str) -> web.Response:
        """Text for programs, a page with the search form for people."""
        if given.for_people:
            return document(self._pages.refusal(given.search or "", text), status)
        return plain(status, text)

    async def _stats(self, given: wire.Parameters) -> web.Response:
        try:
            stats = await self._context.store.stats()
        except StoreError:
            return plain(500, "The statistics are unavailable at the moment.")
        facts: dict[str, object] = {
            "software": "keyserver",
            "version": __version__,
            "hostname": self._context.instance,
            "certificates": stats.certificates,
        }
        if self._context.rules().explain:
            facts["entries"] = {str(source): count for source, count in stats.entries.items()}
            facts["upstreams"] = {h.name: STATES.get(h.state, h.state) for h in self._context.lookups.statuses()}
        if "json" in given.options:
            response = web.Response(text=json.dumps(facts, indent=2) + "\n", content_type="application/json")
            response.headers["Cache-Control"] = "no-store"
            return response
        return document(self._pages.stats(facts))


async def armored(shown: Sequence[Answered]) -> web.Response:
    """Certificates as one block of text."""
    octets = b"".join(a.certificate.octets for a in shown)
    checked = all(a.certificate.proof.version < 6 for a in shown)  # RFC 9580 §6.1: no CRC-24 behind v6
    text = await rendered(len(octets), partial(armor, octets, crc=checked))
    return web.Response(body=text, content_type="application/pgp-keys")


def presentable(query: Query, certificates: Sequence[Answered]) -> tuple[Answered, ...]:
    """Which certificates of an answer may stand in a v1 reply.

    A v6 certificate makes GnuPG 2.2 and 2.4 fail the whole import, so one goes out only when 64 hex digits were asked,
    and alone; one without user IDs only when an ID was asked: who asks for an address takes whatever comes.
    """
    mine = [a for a in certificates if a.certificate.proof.kind is Kind.OPENPGP]
    if isinstance(query, ByFingerprint) and len(query.fingerprint) == 64:
        return tuple(a for a in mine if a.certificate.proof.version == 6)[:1]
    by_id = isinstance(query, ByFingerprint | ByKeyId)
    return tuple(a for a in mine if a.certificate.proof.version == 4 and (by_id or a.certificate.proof.user_ids))


def in_x509(query: Query) -> Query | None:
    """The same question for X.509 certificates; None where only OpenPGP has such names."""
    if isinstance(query, ByAddress):
        return ByAddress(query.local, query.domain, Kind.X509)
    if isinstance(query, ByFingerprint):
        return ByFingerprint(query.fingerprint, Kind.X509)
    return None


def both(one: Answer, other: Answer) -> Answer:
    """The answers for two kinds of certificates as one, which holds no longer than either."""
    states = (State.FOUND, State.FAILED, State.BUSY, State.ABSENT)
    best = min(one, other, key=lambda a: states.index(a.state))
    return replace(
        best,
        how=max(one.how, other.how, key=(How.HIT, How.STALE, How.MISS).index),
        certificates=one.certificates + other.certificates,
        names=one.names | other.names,
        since=min(one.since, other.since),
        until=min(one.until, other.until),
        keep=one.keep and other.keep,
        query=one.query,
    )


def _parameters(request: web.Request) -> wire.Parameters:
    try:
        return wire.parameters(request.rel_url.raw_query_string)
    except Malformed as problem:
        raise _Refused(400, f"Bad request: {problem}.") from None


def _query(given: wire.Parameters, text_search: bool) -> Query:
    """What is asked, or why it is not: 400, 404 or 501."""
    if given.op is None:
        raise _Refused(400, "Bad request: the parameter op is missing; get, index, vindex and stats are accepted.")
    if given.op not in OPERATIONS:
        raise _Refused(501, "Not implemented: the operations are get, index, vindex and stats.")
    if given.search is None:
        raise _Refused(400, "Bad request: the parameter search is missing.")
    if not given.readable:
        raise _Refused(404, NOT_UTF8)
    if _CONTROL.search(given.search.strip()):
        raise _Refused(400, "Bad request: control characters in the search term.")
    try:
        query = parse(given.search)
    except ShortKeyId as problem:
        raise _Refused(404, f"Not found: {problem}.") from None
    except BadQuery as problem:
        raise _Refused(400, f"Bad request: {problem}.") from None
    if isinstance(query, ByText) and not text_search:
        raise _Refused(501, NO_TEXT)
    return query
