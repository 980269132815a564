"""The HTTP faces in the test's own process: real connections, hot answers, resolver and store, upstreams as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from keyserver.config.listener import Listener
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.context import FaceContext, FaceRules
from keyserver.faces.http.app import make_app, make_runner
from keyserver.faces.http.face import ROUTES
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.model import View
from support.resolving import Ground


@dataclass(slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Faces:
    """One listener. `notes`: what was said of each lookup."""

    ground: Ground
    context: FaceContext
    hot: HotAnswers
    server: HttpServer
    port: int = 0
    notes: list[tuple[Any, ...]] = field(default_factory=list)

    async def raw(self, request: bytes) -> Reply:
        """What is said to these octets, on a connection of their own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                status = int(line.split()[1])
                headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
                bodiless = request.startswith(b"HEAD") or status == 304
                body = b"" if bodiless else await reader.readexactly(int(headers["content-length"]))
                return Reply(status, headers, body)
        finally:
            writer.transport.abort()

    async def get(self, target: str | bytes, *headers: str, host: str = "keys.example", method: str = "GET") -> Reply:
        """The reply to a request with this target and one Host, unless `host` is empty."""
        lines = [f"Host: {host}"] if host else []
        fields = "".join(f"{line}\r\n" for line in [*lines, *headers])
        target = target.encode() if isinstance(target, str) else target
        return await self.raw(b"%b %b HTTP/1.1\r\n%b\r\n" % (method.encode(), target, fields.encode()))

    async def asked(self, target: str, **options: Any) -> tuple[int, bytes]:
        """The same, asked until memory answers where it may: each time the same is said."""
        first = await self.get(target, **options)
        for _ in range(2):
            again = await self.get(target, **options)
            assert (again.status, again.body) == (first.status, first.body), f"{target} again: {again}"
        return first.status, first.body

    @property
    def hits(self) -> int:
        """Answers from memory so far."""
        counts = self.hot.counts()
        return counts.hits + counts.negative_hits


@asynccontextmanager
async def faces(ground: Ground, *, view: View | None = None, **rules: Any) -> AsyncIterator[Faces]:
    """All HTTP faces over a ground whose store is open. `rules`: as of `FaceRules`."""
    notes: list[tuple[Any, ...]] = []
    budget = MemoryLimit(1 << 22, ground.changes, lambda: ground.now)
    context = FaceContext(
        lookups=ground.resolver(),
        store=ground.store,
        budget=budget,
        view=view or View(),
        clock=lambda: ground.now,
        monotonic=ground.monotonic,
        note=lambda *line: notes.append(line),
        instance="here.example",
        rules=lambda: replace(FaceRules(), **rules),
    )
    runner = make_runner(make_app(context, *ROUTES))
    await runner.setup()
    assert runner.server is not None
    hot = HotAnswers(budget)
    server = HttpServer(runner.server, hot, own=context.instance)
    made = Faces(ground, context, hot, server, notes=notes)
    try:
        (bound,) = await server.open(Listener("127.0.0.1", 0))
        made.port = int(str(bound[1]))
        yield made
    finally:
        await server.close(1)
        await runner.cleanup()
        await context.lookups.close()
