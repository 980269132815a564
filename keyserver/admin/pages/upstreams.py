"""`/upstreams`: how each does, and who was told what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.health import Pulse
from keyserver.admin.pages import Templates
from keyserver.admin.pages.forms import fields_of, on, one_of
from keyserver.admin.pausing import Pausing
from keyserver.admin.problems import NotKnown, Unusable
from keyserver.admin.resources import TestResult
from keyserver.admin.service import Service
from keyserver.config import Config
from keyserver.config.problem import redacted
from keyserver.resolver.disclosures import Disclosed


@dataclass(frozen=True, slots=True)
class Shown:
    """One upstream. told: None where it was told nothing yet; pulse: None where it is not configured any more."""

    name: str
    pulse: Pulse | None
    told: Disclosed | None
    url: str = ""
    domains: tuple[str, ...] = ()


class UpstreamsPage:
    """The handlers. pulses: of each upstream; config: the one that holds now."""

    def __init__(
        self,
        service: Service,
        pausing: Pausing,
        pulses: Callable[[], Sequence[Pulse]],
        config: Callable[[], Config],
        templates: Templates,
    ) -> None:
        self._service = service
        self._pausing = pausing
        self._pulses = pulses
        self._config = config
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/upstreams", self.show),
            web.post("/upstreams/{name}/test", self.test),
            web.post("/upstreams/{name}/pause", self.pause),
            web.post("/upstreams/{name}/resume", self.resume),
        ]

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /upstreams`."""
        query_of(request)
        return self._page()

    @operator
    async def test(self, request: web.Request) -> web.StreamResponse:
        """`POST /upstreams/{name}/test`, a form with `query`: the page, with what that upstream said."""
        query = (one_of(await fields_of(request), "query") or "").strip()
        try:
            result = await self._service.test(request.match_info["name"], query)
        except NotKnown as problem:
            return self._page(404, wrong=str(problem))
        except Unusable as problem:
            return self._page(400, wrong=str(problem), query=query)
        return self._page(result=result, query=query)

    @operator
    async def pause(self, request: web.Request) -> web.StreamResponse:
        """`POST /upstreams/{name}/pause`."""
        await fields_of(request)
        await self._pausing.pause(request.match_info["name"])
        return on("/upstreams")

    @operator
    async def resume(self, request: web.Request) -> web.StreamResponse:
        """`POST /upstreams/{name}/resume`."""
        await fields_of(request)
        await self._pausing.resume(request.match_info["name"])
        return on("/upstreams")

    def _page(
        self, status: int = 200, *, result: TestResult | None = None, query: str = "", wrong: str = ""
    ) -> web.Response:
        told = {disclosed.upstream: disclosed for disclosed in self._pausing.told()}
        sections = {section.name: section for section in self._config().upstream}
        shown = []
        for pulse in self._pulses():
            name = pulse.status.name
            section = sections.get(name)
            url = redacted(section.url) if section is not None else ""
            domains = tuple(map(str, section.domains)) if section is not None else ()
            shown.append(Shown(name, pulse, told.pop(name, None), url, domains))
        shown += [Shown(name, None, disclosed) for name, disclosed in told.items()]
        return self._templates.page("upstreams", status, upstreams=shown, result=result, query=query, wrong=wrong)
