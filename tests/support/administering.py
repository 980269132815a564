"""The admin API over the real store, resolver and OpenPGP layer, on a port of its own; the one upstream is scripted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from keyserver import openpgp
from keyserver.admin.api.app import make_api
from keyserver.app import opened
from keyserver.app.administration import rules_of
from keyserver.app.parts import Parts
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.faces.http.app import make_runner
from keyserver.model import Certificate, Find, Source, State, UpstreamSpec, View
from keyserver.query import parse
from keyserver.resolver.resolver import Resolver
from keyserver.store.base import Store
from keyserver.upstreams.base import Upstream
from support.upstreams import Told

TOKEN = "s3cret-token-ä-of-the-first-operator"
NAME = "partner directory"


@dataclass
class Clock:
    """The wall clock is the test's; the other one goes by itself, and on by what passes."""

    now: int
    passed: float = 0.0

    def __call__(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return time.monotonic() + self.passed  # by which the loop goes; listings ask in a thread of their own

    def pass_(self, seconds: int) -> None:
        self.now += seconds
        self.passed += seconds


@dataclass
class Admin:
    url: str
    session: aiohttp.ClientSession
    store: Store
    resolver: Resolver
    upstream: Told
    clock: Clock
    parts: Parts
    app: web.Application

    async def call(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **options: object
    ) -> tuple[int, dict[str, object]]:
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        async with self.session.request(method, self.url + path, headers=sent, **options) as reply:  # type: ignore[arg-type]
            body = await reply.json(content_type=None)
            assert reply.headers["X-Content-Type-Options"] == "nosniff"
            if reply.status >= 400:
                assert reply.content_type == "application/problem+json"
                assert body["status"] == reply.status
                assert body["title"]
                assert body["detail"]
            return reply.status, body

    async def open(
        self, path: str, token: str = TOKEN, method: str = "GET", headers: Mapping[str, str] | None = None, **more: Any
    ) -> tuple[int, str, Mapping[str, str]]:
        """A page: its status, text and headers; redirects are not followed."""
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        url = self.url + path
        async with self.session.request(method, url, headers=sent, allow_redirects=False, **more) as reply:
            return reply.status, await reply.text(), reply.headers

    async def viewer(self) -> str:
        """A viewer's token."""
        return (await self.parts.operations.tokens.add("reader", "viewer")).token

    async def put(self, octets: bytes, source: Source = Source.KEYSERVER, origin: str = NAME, **more: Any) -> str:
        (certificate,) = openpgp.clean(octets, self.clock.now)
        assert isinstance(certificate, Certificate)
        begun = await self.store.begin()
        await self.store.put([Find(certificate, source, origin, **more)], [], begun, self.clock.now)
        return certificate.fingerprint

    async def state(self, term: str) -> State:
        return (await self.resolver.lookup(parse(term), View())).state


async def exposition() -> bytes:
    """Of no process."""
    return b"# HELP lookups x\n"


@asynccontextmanager
async def running(
    folder: Path,
    now: int,
    views: Sequence[Mapping[str, object]] = (),
    gateways: Sequence[Mapping[str, object]] = (),
    **admin: object,
) -> AsyncIterator[Admin]:
    """The service's own parts; its one upstream and its clocks are the test's. admin: keys of that section; views:
    further ones; gateways: certificates of domains."""
    clock = Clock(now)
    upstream = Told(UpstreamSpec(NAME))
    token_file = folder / "token"
    token_file.write_text(TOKEN, encoding="utf-8")
    config = Config.model_validate(
        {
            "admin": {"token_file": str(token_file), **admin},
            "cache": {"database": f"sqlite:///{folder / 'cache.db'}"},
            "smime": {"trust_anchors": "none"},
            "upstream": [{"name": NAME, "url": "hkp://keys.example.org"}],
            "view": list(views),
            "domain_certificate": list(gateways),
        }
    )

    def scripted(section: UpstreamSection, spec: UpstreamSpec) -> Upstream:
        upstream.spec = spec
        return upstream

    async with opened(config, Clocks(clock, clock.monotonic, lambda: 0.0), scripted) as parts:
        rules = rules_of(config, parts.trust, parts.observer)
        app = make_api(parts.operations, rules, TOKEN, exposition, config=lambda: config)
        runner = make_runner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        session = aiohttp.ClientSession()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield Admin(url, session, parts.store, parts.resolver, upstream, clock, parts, app)
        finally:
            await session.close()
            await runner.cleanup()
