"""`/mailflow`: the queue, the latest mails with rule and reason, and what waits for an administrator."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.filters import selection
from keyserver.admin.operations import Operations
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import fields_of, may_act, on, one_of
from keyserver.admin.pages.notices import PARAMETERS, after, notices
from keyserver.admin.pages.refusing import refused
from keyserver.admin.problems import Problem, Unusable
from keyserver.admin.resources import EntryResource
from keyserver.store.base import StoreError
from keyserver.store.listing import Filter

HERE = "/mailflow"
HELD = 20  # entries that are shown here; the key cache lists all


class MailflowPage:
    """The handlers."""

    def __init__(self, operations: Operations, templates: Templates) -> None:
        self._service = operations.service
        self._clock = operations.clock
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [web.get("/mailflow", self.page), web.post("/mailflow/approve", self.approve)]

    @viewer
    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /mailflow`."""
        given = query_of(request, *PARAMETERS)
        try:
            held = await self._service.list(Filter(held=True), HELD)
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        return self._templates.page(
            "mailflow",
            flow=self._service.mailflow(),
            held=[_waiting(entry) for entry in held.entries],
            more=held.next is not None,
            may=may_act(),
            notices=notices(given, (), self._clock()) if "done" in given else (),
        )

    @operator
    async def approve(self, request: web.Request) -> web.StreamResponse:
        """`POST /mailflow/approve`: `fingerprint`, `address`, `source`, and for what a keyserver sent `upstream`."""
        query_of(request)
        try:
            fields = await fields_of(request)
            term = one_of(fields, "fingerprint")
            if term is None:
                raise Unusable("fingerprint is missing")
            source = selection(one_of(fields, "source")).source
            await self._service.approve(term, one_of(fields, "address"), source, one_of(fields, "upstream"))
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        return on(after(HERE, "approved", 1))


def _waiting(entry: EntryResource) -> Mapping[str, object]:
    """An entry and the addresses for which it waits."""
    return {
        "fingerprint": entry.fingerprint,
        "identities": entry.identities[:1],
        "source": entry.source,
        "origin": entry.origin,
        "cached_at": entry.cached_at,
        "status": entry.status,
        "addresses": [v.address for v in entry.vouchers if v.held and not v.approved],
    }
