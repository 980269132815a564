"""`/cache/{fingerprint}`: one certificate, whether it is answered and why not, and what can be done about it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import id_of, identities_wanted, query_of
from keyserver.admin.explaining import Explained
from keyserver.admin.filters import selection
from keyserver.admin.operations import Operations
from keyserver.admin.pages import HEADERS, Templates
from keyserver.admin.pages.changes import changes
from keyserver.admin.pages.charts import bar
from keyserver.admin.pages.forms import fields_of, may_act, on, one_of
from keyserver.admin.pages.notices import PARAMETERS, Notice, after, notices
from keyserver.admin.pages.refusing import refused
from keyserver.admin.pages.verdicts import of_certificate
from keyserver.admin.pages.words import instant
from keyserver.admin.problems import NotKnown, Problem
from keyserver.admin.resources import CertificateResource
from keyserver.display import algorithm
from keyserver.model import Kind
from keyserver.query import BadQuery, ByFingerprint, parse
from keyserver.store.administration import ActFilter
from keyserver.store.base import StoreError

HERE = "/cache"
_ACTS = 20  # of one certificate that are shown
_EVENTS = 20


class CertificatePage:
    """The handlers."""

    def __init__(self, operations: Operations, templates: Templates) -> None:
        self._service = operations.service
        self._explaining = operations.explaining
        self._undoing = operations.undoing
        self._auditing = operations.auditing
        self._invitations = operations.invitations
        self._histories = operations.histories
        self._clock = operations.clock
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/cache/{id}", self.page),
            web.get("/cache/{id}/download", self.download),
            web.post("/cache/{id}/approve", self.act),
            web.post("/cache/{id}/refresh", self.act),
            web.post("/cache/{id}/keep", self.act),
            web.post("/cache/{id}/unblock", self.act),
            web.post("/cache/{id}/block", self.act),
            web.post("/cache/{id}/delete", self.act),
        ]

    @viewer
    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /cache/{id}`: by fingerprint, key ID or address."""
        term, given = id_of(request), query_of(request, *PARAMETERS)
        try:
            said = await self._notices(given)
            try:
                explained = await self._explaining.explain(term)
            except NotKnown as unknown:
                return await self._unknown(term, str(unknown), said)
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        acts = await self._auditing.list(ActFilter(certificate=explained.certificate.fingerprint), _ACTS)
        known = changes(explained.certificate, acts.acts)
        return self._templates.page(
            "certificate",
            **self._shown(explained),
            changes=known,
            more_changes=acts.next is not None,
            history=(await self._histories.events(explained.certificate.fingerprint, _EVENTS)).events,
            notices=said,
        )

    @viewer
    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /cache/{id}/download`: armor, or PEM."""
        query_of(request)
        try:
            identities_wanted()
            file = await self._explaining.download(id_of(request))
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        type_, suffix = ("application/x-pem-file", "pem") if file.kind is Kind.X509 else ("application/pgp-keys", "asc")
        name = f'attachment; filename="certificate.{suffix}"'
        return web.Response(body=file.octets, content_type=type_, headers={**HEADERS, "Content-Disposition": name})

    @operator
    async def act(self, request: web.Request) -> web.StreamResponse:
        """`POST /cache/{id}/…`: does it, and goes back to the certificate; `block` asks first (`sure=1`)."""
        query_of(request)
        term, act = id_of(request), request.path.rpartition("/")[2]
        path = f"/cache/{quote(term, safe='')}"
        try:
            fields = await fields_of(request)
            if act == "block" and one_of(fields, "sure") != "1":
                return await self._ask_first(term, path)
            return on(await self._done(act, term, path, fields))
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, path)

    async def _done(self, act: str, term: str, path: str, fields: dict[str, list[str]]) -> str:
        """Where the browser goes next."""
        source, origin = selection(one_of(fields, "source")).source, one_of(fields, "origin")
        if act == "approve":
            await self._service.approve(term, one_of(fields, "address"), source, one_of(fields, "upstream"))
            return after(path, "approved", 1)
        if act == "refresh":
            outcomes = (await self._service.refresh(term)).outcomes.values()
            found = sum(outcome.startswith("found") for outcome in outcomes)
            return after(path, "refreshed", found, len(outcomes) - found)
        if act == "keep":
            return after(path, "kept", (await self._service.keep(term)).count)
        if act == "block":
            return after(path, "blocked", (await self._service.block(term)).count)
        if act == "unblock":
            return after(path, "unblocked", (await self._service.unblock(term)).count)
        done = await self._undoing.delete(term, source, origin, act=self._undoing.act())
        return after(path, "deleted", done.deleted, undo=done.undo)

    async def _ask_first(self, term: str, path: str) -> web.Response:
        identities: tuple[str, ...] = ()
        fingerprint = await self._service.finding.find(term, cached=False)
        with suppress(NotKnown):  # what is not cached can be blocked, too
            identities = tuple(u.text for u in (await self._service.show(term)).user_ids)
        return self._templates.page("block", path=path, fingerprint=fingerprint, identities=identities)

    async def _notices(self, given: Mapping[str, str]) -> tuple[Notice, ...]:
        if "done" not in given:
            return ()
        waiting = await self._undoing.waiting() if may_act() else ()
        return tuple(notices(given, waiting, self._clock()))

    async def _unknown(self, term: str, text: str, said: tuple[Notice, ...]) -> web.Response:
        try:
            whole = isinstance(parse(term), ByFingerprint)
        except BadQuery:
            whole = False
        return self._templates.page(
            "not_cached",
            404,
            term=term,
            text=text,
            whole=whole,
            blocked="is blocked" in text,
            may=may_act(),
            notices=said,
        )

    def _shown(self, explained: Explained) -> dict[str, object]:
        shown, now = explained.certificate, self._clock()
        names = [u.text for u in shown.user_ids] or [i for e in shown.entries for i in e.identities]
        names += [explained.x509.subject if explained.x509 else "No user ID"]
        return {
            "shown": shown,
            "heading": {"identities": names[:1]},  # as one of these it is masked where it must be
            "x509": explained.x509,
            "addresses": explained.addresses,
            "views": len({view for one in explained.addresses for view in one.views}),
            "others": explained.others,
            "verdict": of_certificate(shown, explained.addresses),
            "part": _part(shown, now),
            "title": _lifetime(shown),
            "bar": bar,
            "algorithm": algorithm,
            "may": may_act(),
            "inviting": self._invitations.possible,
            "mine": f"/cache/{shown.fingerprint}",
        }


def _part(shown: CertificateResource, now: int) -> float | None:
    """How much of its life is over; None without an end."""
    if shown.expires is None:
        return None
    return (now - shown.created) / max(1, shown.expires - shown.created)


def _lifetime(shown: CertificateResource) -> str:
    end = "never expires" if shown.expires is None else f"expires {instant(shown.expires)}"
    return f"Created {instant(shown.created)}, {end}"
