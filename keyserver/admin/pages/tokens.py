"""`/settings/tokens`: who may come in."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.access import FIRST, Role
from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import query_of
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import fields_of, on, one_of
from keyserver.admin.problems import NotKnown, Problem, Refusal
from keyserver.admin.tokens import MadeToken, Tokens

_HERE = "/settings/tokens"


class TokensPage:
    """The handlers."""

    def __init__(self, tokens: Tokens, templates: Templates) -> None:
        self._tokens = tokens
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get(_HERE, self.show),
            web.post(_HERE, self.add),
            web.post(_HERE + "/{name}/revoke", self.revoke),
        ]

    @operator
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /settings/tokens`."""
        query_of(request)
        return await self._page()

    @operator
    async def add(self, request: web.Request) -> web.StreamResponse:
        """`POST /settings/tokens`, a form with `name` and `role`: the page with the new token, this once."""
        form = await fields_of(request)
        name = one_of(form, "name") or ""
        try:
            made = await self._tokens.add(name.strip(), one_of(form, "role") or "")
        except Refusal as refusal:
            return await self._page(409, wrong=str(refusal), typed=name)
        except Problem as problem:
            return await self._page(400, wrong=str(problem), typed=name)
        return await self._page(made=made)

    @operator
    async def revoke(self, request: web.Request) -> web.StreamResponse:
        """`POST /settings/tokens/{name}/revoke`."""
        try:
            await self._tokens.revoke(request.match_info["name"])
        except NotKnown as problem:
            return await self._page(404, wrong=str(problem))
        except Refusal as refusal:
            return await self._page(409, wrong=str(refusal))
        return on(_HERE)

    async def _page(
        self, status: int = 200, *, made: MadeToken | None = None, wrong: str = "", typed: str = ""
    ) -> web.Response:
        return self._templates.page(
            "tokens",
            status,
            tokens=await self._tokens.list(),
            roles=list(Role),
            first=FIRST,
            made=made,
            wrong=wrong,
            typed=typed,
        )
