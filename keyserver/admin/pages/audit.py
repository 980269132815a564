"""`/audit`: who did what, when and from where."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from keyserver.admin.api.audit import FILTERS, filter_of
from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.auditing import Auditing
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import address

_ACTS = (
    "approve",
    "block",
    "delete",
    "forget",
    "import",
    "invite",
    "keep",
    "pause",
    "purge",
    "refused",
    "reload",
    "resume",
    "sign in",
    "sign out",
    "token add",
    "token revoke",
    "unblock",
    "undo",
)
"""Offered as choices; the address takes any."""


class AuditPage:
    """The handler."""

    def __init__(self, auditing: Auditing, templates: Templates) -> None:
        self._auditing = auditing
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/audit", self.show)]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /audit?who=&act=&certificate=&from=&to=&cursor=`."""
        given = query_of(request, *FILTERS, "cursor")
        chosen = {name: given[name] for name in FILTERS if name in given}
        page = await self._auditing.list(filter_of(given), cursor=given.get("cursor"))
        return self._templates.fragment(
            request,
            "audit",
            "rows",
            acts=[(act, _facts(act.facts)) for act in page.acts],
            chosen={name: chosen.get(name, "") for name in FILTERS},
            offered=_ACTS if chosen.get("act", "") in ("", *_ACTS) else (chosen["act"], *_ACTS),
            later=address("/audit", chosen) if "cursor" in given else "",
            earlier=address("/audit", {**chosen, "cursor": page.next}) if page.next else "",
            exports={
                word: address("/api/v1/audit", {**chosen, "format": format_})
                for word, format_ in (("CSV", "csv"), ("JSON lines", "jsonl"))
            },
        )


def _facts(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())
