"""`/sign-in` and `/sign-out`: a browser's session, begun with a token."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.access import LONGEST, Access, TooManyAttempts
from keyserver.admin.acts import ACTOR, SIGN_IN, Acts
from keyserver.admin.api.guard import CURE, Guard, anyone, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import fields_of, on, one_of

WRONG = "This token is nobody's. The first operator's stands in the file admin.token of the state directory."


class Signing:
    """The handlers."""

    def __init__(self, access: Access, acts: Acts, guard: Guard, templates: Templates) -> None:
        self._access = access
        self._acts = acts
        self._guard = guard
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/sign-in", self.form),
            web.post("/sign-in", self.sign_in),
            web.get("/sign-out", self.leaving),
            web.post("/sign-out", self.sign_out),
        ]

    @anyone
    async def form(self, request: web.Request) -> web.StreamResponse:
        """`GET /sign-in[?to=/path]`."""
        to = _ours(query_of(request, "to").get("to", ""))
        if not self._guard.protected(request):
            return self._page(403, to, CURE)
        return self._page(200, to)

    @anyone
    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """`POST /sign-in`, a form with `token` and perhaps `to`: a session, and on to the page that was wanted."""
        form = await fields_of(request)
        to = _ours(one_of(form, "to") or "")
        if not self._guard.protected(request):
            return self._page(403, to, CURE)
        place = self._guard.place(request)
        try:
            holder = await self._access.holder((one_of(form, "token") or "").strip(), self._guard.client(request))
        except TooManyAttempts as many:
            response = self._page(429, to, f"{str(many).capitalize()}.")
            response.headers["Retry-After"] = str(many.wait)
            return response
        if holder is None:
            self._acts.refuse("page", place, "the token is nobody's")
            return self._page(403, to, WRONG)
        cookie = await self._access.begin(holder, place)
        ACTOR.set(self._guard.actor(request, holder, "page"))
        self._acts.note(SIGN_IN)
        response = on(to or "/")
        response.set_cookie(
            self._guard.cookie(request),
            cookie,
            max_age=LONGEST,
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._guard.secure(request),
        )
        return response

    @viewer
    async def leaving(self, request: web.Request) -> web.StreamResponse:
        """`GET /sign-out`: asks from where."""
        return self._templates.page("sign_out", name=ACTOR.get().who)

    @viewer
    async def sign_out(self, request: web.Request) -> web.StreamResponse:
        """`POST /sign-out`: ends this session; with `everywhere=1` in the form all sessions of the same token."""
        form = await fields_of(request)
        name = self._guard.cookie(request)
        cookie = request.cookies.get(name, "")
        holder = await self._access.signed_in(cookie)
        if holder is not None and one_of(form, "everywhere") == "1":
            self._acts.note("sign out", sessions=await self._access.end_all(holder))
        elif await self._access.end(cookie):
            self._acts.note("sign out", sessions=1)
        response = on("/sign-in")
        response.del_cookie(name, path="/", httponly=True, samesite="Strict", secure=self._guard.secure(request))
        return response

    def _page(self, status: int, to: str, remark: str = "") -> web.Response:
        return self._templates.page("sign_in", status, to=to, remark=remark, form=remark != CURE)


def _ours(path: str) -> str:
    """A path of ours to go on to; empty for what leads elsewhere."""
    inside = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if inside and not path.startswith(("/sign-", "/api/")) else ""
