"""Both listeners for verdicts in the test's own process, over a real resolver and store, upstreams as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from keyserver.config import Config
from keyserver.config.listener import Listener
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.context import FaceContext, FaceRules
from keyserver.faces.face import Opening
from keyserver.faces.verdict.http import VERDICT
from keyserver.faces.verdict.socketmap import SOCKETMAP
from keyserver.listen.server import ListeningServer
from keyserver.model import View
from keyserver.resolver.resolver import Resolver
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Policy
from keyserver.verdict.named import NamedPolicy
from support.resolving import Ground

YES = "smtp:[gateway.example]:10025"


def policies(*named: NamedPolicy) -> Mapping[str, NamedPolicy]:
    return {one.policy.name: one for one in named or (NamedPolicy(Policy(), YES),)}


@dataclass(slots=True)
class VerdictFaces:
    """`rules` may be replaced; `notes`: of each verdict that did not come from memory; `hits`: of each face."""

    ground: Ground
    resolver: Resolver
    budget: MemoryLimit
    rules: FaceRules
    context: FaceContext = field(init=False)
    servers: dict[str, ListeningServer[Any]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)

    def client(self) -> SocketmapClient:
        return SocketmapClient(self.ports["socketmap"])

    async def ask(self, *requests: str) -> list[str]:
        """The replies to requests such as `encrypt alice@example.org`, on a connection of their own."""
        async with self.client() as client:
            return [await client.ask(request) for request in requests]

    async def get(self, target: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request over HTTP: status, headers (lower case), body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports["verdict"])
        lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        first, *fields = head.decode().split("\r\n")
        return int(first.split()[1]), {n.lower(): v for n, _, v in (f.partition(": ") for f in fields)}, body


class SocketmapClient:
    """One kept connection, to a port of this machine or to a Unix socket."""

    def __init__(self, where: int | Path) -> None:
        self._where = where

    async def __aenter__(self) -> SocketmapClient:
        if isinstance(self._where, Path):
            self.reader, self.writer = await asyncio.open_unix_connection(self._where)
        else:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._where)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def send(self, *requests: str | bytes) -> None:
        for request in requests:
            octets = request.encode() if isinstance(request, str) else request
            self.writer.write(b"%d:%b," % (len(octets), octets))

    async def read(self) -> str:
        async with asyncio.timeout(10):
            length = int((await self.reader.readuntil(b":"))[:-1])
            octets = await self.reader.readexactly(length + 1)
        assert octets[-1:] == b","
        return octets[:-1].decode()

    async def ask(self, request: str | bytes) -> str:
        self.send(request)
        return await self.read()

    async def closed(self) -> bool:
        """Does the server end it, and say nothing?"""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def verdict_faces(ground: Ground, *named: NamedPolicy, **rules: Any) -> AsyncIterator[VerdictFaces]:
    """Both listeners over a ground whose store is open. `rules`: as of `FaceRules`."""
    ground.change(views={"default": View(), **ground.rules().views})
    resolver = ground.resolver()
    clock = lambda: ground.now  # noqa: E731
    budget = MemoryLimit(1 << 22, ground.changes, clock)
    made = VerdictFaces(ground, resolver, budget, replace(FaceRules(policies=policies(*named)), **rules))
    context = made.context = FaceContext(
        lookups=resolver,
        store=ground.store,
        budget=budget,
        view=View(),
        clock=clock,
        monotonic=ground.monotonic,
        note=lambda *line: None,
        instance="here.example",
        rules=lambda: made.rules,
    )

    def tell(face: str, hits: int) -> None:
        made.hits[face] = made.hits.get(face, 0) + hits

    async with AsyncExitStack() as closing:
        for face in (SOCKETMAP, VERDICT):
            opening = Opening(
                config=Config(),
                context=context,
                tls=lambda chain, key: None,
                tell=lambda hits, name=face.name: tell(name, hits),  # type: ignore[misc]
                remember=lambda hot: None,
                verdicts=Verdicts(resolver, ground.rules, clock, ground.monotonic),
                note_verdict=lambda name, policy, verdict, seconds: made.notes.append((name, policy, verdict.word)),
                closing=closing,
            )
            server = made.servers[face.name] = await face.open(opening)
            (bound,) = await server.open(Listener("127.0.0.1", 0))
            made.ports[face.name] = int(str(bound[1]))
        try:
            yield made
        finally:
            for server in made.servers.values():
                await server.close(1)
            await resolver.close()
