"""A tiny application that offers facts, behind our HTTP server and behind plain aiohttp alike."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
from aiohttp import web

from keyserver.changes import Changes
from keyserver.config.listener import Listener
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.connection import HttpConnection
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpLimits, HttpServer
from keyserver.processes.http import Remote
from keyserver.processes.news import Counter, Replica, Teller
from keyserver.processes.relay import Relay
from keyserver.processes.streams import Streams
from support.door import Wire, World, canonical, said_to, settle


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
        return await said_to(protocol, parts)


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
