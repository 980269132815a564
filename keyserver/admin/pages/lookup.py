"""`/lookup`: what a client would have, the verdict first, then how it came about; live where there is a script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from keyserver.admin.access import Role
from keyserver.admin.acts import ACTOR
from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.api.streams import Streams, framed
from keyserver.admin.pages import Templates, wants_part
from keyserver.admin.pages.refusing import refused
from keyserver.admin.pages.verdicts import Verdict, of_lookup
from keyserver.admin.problems import Problem, Unusable
from keyserver.admin.resources import LookupResult
from keyserver.admin.service import Service
from keyserver.admin.watching import watched
from keyserver.model import Step
from keyserver.store.base import StoreError

MOST_TERM = 512  # characters


class LookupPage:
    """The handlers."""

    def __init__(self, service: Service, streams: Streams, templates: Templates) -> None:
        self._service = service
        self._streams = streams
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [web.get("/lookup", self.page), web.get("/lookup/stream", self.stream, allow_head=False)]

    @viewer
    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /lookup[?q=]`: the answer, or where htmx asks the place into which `stream` writes it."""
        term = query_of(request, "q").get("q", "")[:MOST_TERM].strip()
        try:
            may = ACTOR.get().role is Role.OPERATOR
            live = bool(term) and may and wants_part(request)
            found = await self._service.lookup(term, trace=True) if term and may and not live else None
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, "/lookup", "/lookup")
        return self._templates.fragment(
            request, "lookup", "result", term=term, may=may, live=live, found=found, verdict=found and of_lookup(found)
        )

    @operator
    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /lookup/stream?q=`: parts of the page as server-sent events, then an event `done`."""
        term = query_of(request, "q").get("q", "")
        if not term:
            raise Unusable("q is missing: a fingerprint, a key ID or an address")
        return await self._streams.send(request, self._events(term))

    async def _events(self, term: str) -> AsyncIterator[bytes]:
        try:
            async with aclosing(watched(self._service.lookup, term)) as steps:
                async for step in steps:
                    if isinstance(step, Step):
                        yield framed(self._templates.part("lookup", "step", step=step))
                    else:
                        yield framed(self._part(term, step, of_lookup(step)))
        except (Problem, StoreError) as trouble:
            yield framed(self._part(term, None, Verdict("bad", "Not done", str(trouble))))
        yield framed("", "done")

    def _part(self, term: str, found: LookupResult | None, verdict: Verdict) -> str:
        return self._templates.part(
            "lookup", "answer", term=term, may=True, live=True, found=found, verdict=verdict, swapped=True
        )
