"""HKP v1 under /pks (draft-shaw-openpgp-hkp-00; "legacy" in draft-ietf-openpgp-hkp): query, lookup, render."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from aiohttp import web

from keyserver import __version__
from keyserver.faces.context import FaceContext
from keyserver.faces.http.pages import Pages
from keyserver.faces.http.replies import REFUSALS, STATUS, client_of, document, finish, hops, looped, plain
from keyserver.model import Answer, Answered, How, Kind, Malformed, State
from keyserver.openpgp.armor import armor
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, ByText, Query, ShortKeyId, parse
from keyserver.store.base import StoreError
from keyserver.wire import hkp as wire

T = TypeVar("T")

FACE = "hkp"
MAX_SUBMISSION = 2 << 20  # octets of a submitted body that are read before it is refused
PIECE = 4096  # octets of it that are read before others have their turn
SUBMISSION_TIME = 30.0  # seconds for that
SMALL = 65536  # octets of certificates up to which a reply is made on the loop

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
        began = self._context.monotonic()
        client = client_of(self._context, request)
        query: Query | None = None
        answer: Answer | None = None
        given = wire.Parameters()
        try:
            given = _parameters(request)
            if given.op == "stats":
                return await self._stats(given)
            query = _query(given, self._context.rules().text_search)
            number = self._context.budget.number
            other = in_x509(query) if given.for_people else None
            if other is None:
                answer = await self._lookup(request, query, client)
            else:
                asked = (self._lookup(request, q, client) for q in (query, other))
                answer = both(*await asyncio.gather(*asked))
            response = finish(self._context, request, await self._render(given, query, answer), answer, number)
        except _Refused as refusal:
            response = self._refusal(given, refusal.status, refusal.text)
        self._context.note(FACE, query, answer, response.status, self._context.monotonic() - began, client)
        return response

    async def _lookup(self, request: web.Request, query: Query, client: str) -> Answer:
        return await self._context.lookups.lookup(
            query,
            self._context.view,
            client=client,
            looped=looped(request, self._context.instance),
            via=",".join(hops(request)),
        )

    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST /pks/add`: read (clients write the whole form before they listen), then refused."""
        size = 0
        whole = False
        try:
            async with asyncio.timeout(SUBMISSION_TIME):
                async for chunk in request.content.iter_chunked(PIECE):
                    await asyncio.sleep(0)  # each of its octets may have been a chunk of its own
                    size += len(chunk)
                    if size > MAX_SUBMISSION:
                        break
                else:
                    whole = True
        except TimeoutError:
            pass
        response = plain(403, READ_ONLY)
        if not whole:
            response.force_close()
        return response

    async def _render(self, given: wire.Parameters, query: Query, answer: Answer) -> web.Response:
        if answer.state is not State.FOUND:
            return self._refusal(given, STATUS[answer.state], REFUSALS[answer.state])
        shown = may = presentable(query, answer.certificates)
        if given.op != "get":
            shown = tuple(a for a in may if any(u.text for u in a.certificate.proof.user_ids))
        if given.for_people:
            shown += tuple(a for a in answer.certificates if a.certificate.proof.kind is Kind.X509)
        if not shown:
            return self._refusal(given, 404, NOT_LISTED if may else NOT_HERE)
        response = await self._found(given, shown)
        if self._context.rules().explain:
            response.headers["X-Key-Source"] = shown[0].source.value
        return response

    async def _found(self, given: wire.Parameters, shown: Sequence[Answered]) -> web.Response:
        proofs = [a.certificate.proof for a in shown]
        if given.op == "get":
            octets = b"".join(a.certificate.octets for a in shown)
            checked = all(p.version < 6 for p in proofs)  # RFC 9580 §6.1: no CRC-24 behind v6
            armored = await _rendered(len(octets), partial(armor, octets, crc=checked))
            return web.Response(body=armored, content_type="application/pgp-keys")
        now, size = self._context.clock(), sum(len(a.certificate.octets) for a in shown)
        if given.machine:
            index = await _rendered(size, partial(wire.write_index, proofs, now))
            return web.Response(body=index.encode("ascii"), content_type="text/plain")
        detailed = given.op == "vindex"
        return document(
            await _rendered(size, partial(self._pages.results, given.search or "", proofs, now, detailed=detailed))
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


async def _rendered(octets: int, render: Callable[[], T]) -> T:
    """What `render` makes of so many octets of certificates."""
    return render() if octets <= SMALL else await asyncio.to_thread(render)


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
