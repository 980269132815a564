"""`/history`: what changed and when, and what was answered at an earlier time."""

from __future__ import annotations

from datetime import UTC

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.filters import instant
from keyserver.admin.history import Histories, LookupThen
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import address
from keyserver.admin.pages.refusing import refused
from keyserver.admin.pages.verdicts import Verdict
from keyserver.admin.problems import Problem
from keyserver.store.base import StoreError

HERE = "/history"
MOST_TERM = 512  # characters
_HEADS = {
    "found": ("good", "Found"),
    "absent": ("warn", "Absent"),
    "failed": ("bad", "Failed"),
    "not on record": ("warn", "Not on record"),
    "unknown": ("warn", "Not known"),
}


class HistoryPage:
    """The handler."""

    def __init__(self, histories: Histories, templates: Templates) -> None:
        self._histories = histories
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get(HERE, self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /history?q=&at=&cursor=`: a time without a zone is one of UTC, as all times on pages are."""
        given = query_of(request, "q", "at", "cursor")
        try:
            term = given.get("q", "")[:MOST_TERM].strip()
            at = instant(given, "at", UTC)
            page = await self._histories.events(term, cursor=given.get("cursor"))
            then = await self._histories.then(term, at, trace=True) if term and at is not None else None
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        chosen = {"q": term} if term else {}
        return self._templates.page(
            "history",
            term=term,
            at=given.get("at", ""),
            page=page,
            then=then,
            verdict=then and _verdict(then),
            later=address(HERE, chosen) if "cursor" in given else "",
            earlier=address(HERE, {**chosen, "cursor": page.next}) if page.next else "",
        )


def _verdict(then: LookupThen) -> Verdict:
    tone, head = _HEADS[then.state]
    return Verdict(tone, head, then.reason)
