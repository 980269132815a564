"""A tiny application that offers facts, behind our HTTP server and behind plain aiohttp alike."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import pytest
from aiohttp import web

from keyserver.changes import Changes
from keyserver.config.listener import Listener
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.connection import HttpConnection
from keyserver.faces.http.facts import Facts, offer
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpLimits, HttpServer
from keyserver.model import Change
from keyserver.processes.http import Remote
from keyserver.processes.news import Counter, Replica, Teller
from keyserver.processes.relay import Relay
from keyserver.processes.streams import Streams

START = 1_800_000_000


@dataclass
class World:
    """What the application knows: a number for each name, or nothing (a negative answer)."""

    changes: Changes = field(default_factory=Changes)
    known: dict[str, int] = field(default_factory=lambda: {"alice": 1, "bob": 1})
    now: int = START
    since: int = START - 10
    ttl: int = 3600
    lookups: int = 0
    padding: int = 0
    gate: asyncio.Event | None = None  # lookups wait here between looking and answering

    def change(self, name: str, value: int | None) -> None:
        if value is None:
            self.known.pop(name, None)
        else:
            self.known[name] = value
        self.changes.publish(Change(self.changes.published + 1, frozenset({name})))

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        self.lookups += 1
        number = self.changes.published
        name = request.query.get("search", "")
        value = self.known.get(name)
        if self.gate is not None:
            await self.gate.wait()
        body = f"{name} {value}\n".encode() + b"#" * self.padding if value is not None else b"nothing\n"
        headers = {"Age": str(max(0, self.now - self.since)), "Server": "test", "X-Cache": "HIT"}
        headers["Cache-Control"] = f"max-age={min(300, self.since + self.ttl - self.now)}"
        response = web.Response(status=404 if value is None else 200, body=body, headers=headers)
        response.content_type = "text/plain" if value is None else "application/pgp-keys"
        if value is not None:
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            response.headers["ETag"] = etag
            given = {t.strip().removeprefix("W/") for t in request.headers.get("If-None-Match", "").split(",")}
            if etag in given or "*" in given:
                kept = {k: v for k, v in response.headers.items() if not k.lower().startswith("content-")}
                response = web.Response(status=304, headers=kept)
        if request.method == "GET" and "no-offer" not in request.query:
            query = Facts(frozenset({name}), self.since + self.ttl, number, self.since, value is not None, name)
            offer(request, query)
        return response

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/pks/lookup", self.lookup)
        app.router.add_route("*", "/echo", echo)
        app.router.add_get("/stream", stream)
        app.router.add_get("/bye", bye)
        app.router.add_get("/fail", fail)
        app.router.add_get("/empty", empty)
        return app


async def echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    return web.Response(body=b"%b %b %b\n" % (request.method.encode(), request.raw_path.encode(), body))


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for part in (b"one\n", b"two\n"):
        await response.write(part)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def bye(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=b"bye\n")
    response.force_close()
    return response


async def fail(request: web.Request) -> web.StreamResponse:
    raise web.HTTPInternalServerError(text="no\n")


async def empty(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


class Wire(asyncio.Transport):
    """A transport without a socket: keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol, high: int = 1 << 30, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711), **extra})
        self.protocol = protocol
        self.written = bytearray()
        self.high = high
        self.unread = 0
        self.full = False
        self.reading = True
        self.closed = False
        self.aborted = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        self.written += data
        self.unread += len(data)
        if self.unread > self.high and not self.full:
            self.full = True
            self.protocol.pause_writing()

    def read(self) -> bytes:
        """The client takes everything."""
        data = bytes(self.written)
        self.written.clear()
        self.unread = 0
        if self.full:
            self.full = False
            self.protocol.resume_writing()
        return data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unread if self.high < 1 << 30 else 0


class Stage:
    """One application twice: `door` and `plain` give (host, port)."""

    def __init__(self, world: World, runner: web.AppRunner, hot: HotAnswers, server: HttpServer) -> None:
        self.world = world
        self.runner = runner
        self.hot = hot
        self.server = server
        self.door_at: tuple[str, int] = ("", 0)
        self.plain_at: tuple[str, int] = ("", 0)

    def wire(self, **options: Any) -> tuple[HttpConnection, Wire]:
        front = HttpConnection(self.server)
        return front, Wire(front, **options)

    async def talk(self, data: bytes, plain: bool = False, quiet: float = 0.6) -> tuple[bytes, bool]:
        """Everything a server says to `data` until it closes or says no more, and whether it closed."""
        reader, writer = await asyncio.open_connection(*(self.plain_at if plain else self.door_at))
        said, closed = b"", False
        try:
            writer.write(data)
            while not closed:
                try:
                    chunk = await asyncio.wait_for(reader.read(1 << 16), quiet)
                except TimeoutError:
                    break
                except ConnectionError:
                    chunk = b""
                said, closed = said + chunk, not chunk
        finally:
            writer.transport.abort()
        return said, closed

    async def feed(self, *parts: bytes, plain: bool = False) -> tuple[bytes, bool]:
        """What is said to these segments without a socket, in the same form as `talk`."""
        protocol = self.runner.server() if plain else HttpConnection(self.server)  # type: ignore[misc]
        wire = Wire(protocol)
        for part in parts:
            if wire.closed:
                break
            protocol.data_received(part)
            await settle(3)
        await settle()
        result = bytes(wire.written), wire.closed
        wire.abort()
        await settle(3)
        return result


async def settle(turns: int = 30) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


_HEAD = re.compile(rb"HTTP/[0-9]\.[0-9] [0-9]{3} [^\r]*\r\n(?:[^\r\n]+\r\n)*\r\n")


def canonical(said: bytes) -> bytes:
    """Replies with their headers in order and without Date."""

    def ordered(match: re.Match[bytes]) -> bytes:
        status, *headers = match[0][:-4].split(b"\r\n")
        return b"\r\n".join([status, *sorted(h for h in headers if not h.startswith(b"Date:")), b"", b""])

    return _HEAD.sub(ordered, said)


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def staged(
    world: World, limits: HttpLimits | None = None, memory: int = 1 << 20, apart: bool = False, **options: Any
) -> AsyncIterator[Stage]:
    """`apart`: the server and the application speak as two processes do."""
    silent = logging.Logger("silent", logging.CRITICAL + 1)  # aiohttp logs every malformed request
    runner = web.AppRunner(world.application(), access_log=None, handle_signals=False, logger=silent)
    await runner.setup()
    assert runner.server is not None
    make: Callable[[], Any] = runner.server
    changes, teller = world.changes, None
    if apart:
        make, changes, teller = await parted(world, runner)
    hot = HotAnswers(MemoryLimit(memory, changes, lambda: world.now))
    stage = Stage(world, runner, hot, HttpServer(make, hot, limits or HttpLimits(1000), own="me.example", **options))
    try:
        (at,) = await stage.server.open(Listener("127.0.0.1", 0))
        stage.door_at = str(at[0]), int(str(at[1]))
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        stage.plain_at = tuple(runner.addresses[0][:2])
        yield stage
    finally:
        await stage.server.close(1)
        await runner.cleanup()
        if teller is not None:
            teller()
            await settle()


async def parted(world: World, runner: web.AppRunner) -> tuple[Callable[[], Any], Changes, Callable[[], None]]:
    """What stands behind a front's exchanges, its changes, and how both end."""
    counter = Counter()
    replica, teller = Replica(counter), Teller(world.changes, counter, lambda _: None)
    relay = Relay(replica)
    streams = Streams({"hkp": lambda client, tls: cast(Any, runner.server)()}, lambda _: None, lambda: None)
    line, their_line = socket.socketpair()
    news, their_news = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    teller.admit(0, news)
    await relay.connect(their_line, their_news)
    await streams.begin(line)
    await relay.ready()

    def end() -> None:
        teller.close()
        streams.close()
        relay.close()

    return partial(Remote, relay, "hkp"), replica, end


@pytest.fixture(params=[False, True], ids=["one process", "front and core"])
async def stage(world: World, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with staged(world, apart=request.param) as ready:
        yield ready


@pytest.fixture
def staging() -> Callable[..., Any]:
    """`staged`, for tests that want their own limits."""
    return staged


@pytest.fixture
def tools() -> Any:
    """`settle` and `canonical`."""

    class Tools:
        pass

    Tools.settle = staticmethod(settle)  # type: ignore[attr-defined]
    Tools.canonical = staticmethod(canonical)  # type: ignore[attr-defined]
    return Tools
