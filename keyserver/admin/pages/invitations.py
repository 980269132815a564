"""`/invitations`: whom we have asked to opt in, what became of it, and a form to ask somebody."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.filters import selection
from keyserver.admin.invitations import Invitations
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import address, fields_of, may_act, on, one_of
from keyserver.admin.pages.refusing import status_of
from keyserver.admin.problems import Ambiguous, Problem, Undecided
from keyserver.store.base import StoreError

HERE = "/invitations"
_FIELDS = ("address", "fingerprint", "source", "upstream")

WORDS: Mapping[str, tuple[str, str]] = {
    "prepared": ("on its way", "soft"),
    "sent": ("waits for the owner", ""),
    "failed": ("not sent", "bad"),
    "bounced": ("came back", "warn"),
    "confirmed": ("consented", "good"),
    "withdrawn": ("consent withdrawn", "warn"),
    "replaced": ("replaced by a later one", "soft"),
    "expired": ("expired without an answer", "soft"),
}
"""Each stage for people, and its tone."""


class InvitationsPage:
    """The handlers."""

    def __init__(self, invitations: Invitations, templates: Templates) -> None:
        self._invitations = invitations
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [web.get(HERE, self.show), web.post(HERE, self.invite)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /invitations?address=&cursor=`."""
        given = query_of(request, "address", "cursor", "sent")
        return await self._page({name: given[name] for name in ("address", "cursor") if given.get(name)}, given)

    @operator
    async def invite(self, request: web.Request) -> web.StreamResponse:
        """`POST /invitations`: `address`, and `fingerprint`, `source`, `upstream` where several entries fit."""
        query_of(request)
        fields = await fields_of(request)
        typed = {name: one_of(fields, name) or "" for name in _FIELDS}
        try:
            what = selection(typed["source"] or None, typed["upstream"] or None)
            await self._invitations.invite(typed["address"], typed["fingerprint"] or None, what.source, what.upstream)
        except (Problem, StoreError) as trouble:
            return await self._page({}, typed, trouble)
        return on(address(HERE, {"sent": "1"}))

    async def _page(
        self, asked: Mapping[str, str], typed: Mapping[str, str], trouble: Problem | StoreError | None = None
    ) -> web.Response:
        page = await self._invitations.list(cursor=asked.get("cursor"), address=asked.get("address"))
        others = {name: value for name, value in asked.items() if name != "cursor"}
        return self._templates.page(
            "invitations",
            200 if trouble is None else status_of(trouble),
            rows=page.invitations,
            words=WORDS,
            may=may_act(),
            on=self._invitations.possible,
            chosen=asked.get("address", ""),
            typed=typed.get("address", ""),
            sent="sent" in typed,
            wrong="" if trouble is None else str(trouble),
            candidates=trouble.candidates if isinstance(trouble, Ambiguous) else (),
            choices=trouble.choices if isinstance(trouble, Undecided) else (),
            latest=address(HERE, others) if "cursor" in asked else "",
            earlier=address(HERE, {**others, "cursor": page.next}) if page.next else "",
        )
