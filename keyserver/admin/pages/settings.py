"""`/settings`: the configuration that holds, beside its file as it is now; and reading it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import query_of
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import fields_of
from keyserver.admin.problems import Problem
from keyserver.admin.reloading import Mistaken, Reloads
from keyserver.admin.settings import Settings
from keyserver.config.settings import KeyChange, Setting
from keyserver.config.sources import Origin


@dataclass(frozen=True, slots=True)
class Row:
    """One key as the page shows it; `set_`: something other than the default says its value."""

    key: str
    value: str
    set_: bool
    origin: str
    default: str
    accepted: str
    meaning: str
    restart: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload changed, would change, or needs a restart for."""

    key: str
    before: str
    after: str
    restart: bool


class SettingsPage:
    """The handlers."""

    def __init__(self, settings: Settings, reloads: Reloads, templates: Templates) -> None:
        self._settings = settings
        self._reloads = reloads
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [web.get("/settings", self.show), web.post("/settings/reload", self.reload)]

    @operator
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /settings?q=&set=1`: keys in which `q` occurs; `set`: without those that have their default."""
        given = query_of(request, "q", "set")
        return await self._page(request, text=given.get("q", ""), only_set="set" in given)

    @operator
    async def reload(self, request: web.Request) -> web.StreamResponse:
        """`POST /settings/reload`: the page, with what came of it."""
        await fields_of(request)
        try:
            done = await self._reloads.reload()
        except Mistaken as mistaken:
            return await self._page(request, 400, outcome=str(mistaken))
        except Problem as problem:
            return await self._page(request, 409, outcome=str(problem))
        return await self._page(request, outcome=f"{done.file} was read: {done.text}", done=True)

    async def _page(
        self,
        request: web.Request,
        status: int = 200,
        *,
        text: str = "",
        only_set: bool = False,
        outcome: str = "",
        done: bool = False,
    ) -> web.Response:
        running = await self._settings.show()
        rows = [_row(setting) for setting in running.settings]
        wanted = [
            row
            for row in rows
            if (row.set_ or not only_set) and text.casefold() in f"{row.key} {row.value} {row.meaning}".casefold()
        ]
        sections = [(name, list(of_it)) for name, of_it in groupby(wanted, lambda row: row.key.rpartition(".")[0])]
        shown = {
            "sections": sections,
            "text": text,
            "only_set": only_set,
            "file": running.file.name,
            "mistakes": running.file.mistakes,
            "differs": _changes(running.file.changes),
            "outcome": outcome,
            "done": done,
        }
        if status == 200 and request.method == "GET":
            return self._templates.fragment(request, "settings", "rows", **shown)
        return self._templates.page("settings", status, **shown)


def _row(setting: Setting) -> Row:
    set_ = setting.origin != Origin.DEFAULT
    where = f" {setting.where}" if setting.where and setting.origin != Origin.FILE else ""
    return Row(
        key=setting.key,
        value=_spelled(setting.value),
        set_=set_,
        origin=f"{setting.origin}{where}",
        default=_spelled(setting.default),
        accepted=setting.accepted,
        meaning=setting.meaning,
        restart=setting.restart,
    )


def _changes(changes: Sequence[KeyChange]) -> list[Change]:
    return [Change(c.key, _spelled(c.before), _spelled(c.after), c.restart) for c in changes]


def _spelled(value: object) -> str:
    """A value as one writes it in the file."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
