"""One listener's front door: what its connections share, their limits, and opening and closing it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network

from aiohttp import web

from keyserver.config.listener import Listener
from keyserver.faces.clients import Clients
from keyserver.faces.front import Front
from keyserver.faces.hot import HotAnswers
from keyserver.wire.http_hot import Answering, Block, judge

BLOCKS = 1024  # header blocks with a remembered verdict
MAX_BLOCK = 1024  # octets of such a block
SWEEP = 2  # seconds between looks at all connections
MAX_CONNECTIONS = 65536  # of one listener; the file limit comes first
MAX_LOG = 100_000  # hits waiting for the log; more in one second are counted, not listed
BACKLOG = 2048  # connections that the system accepts ahead of us

Hit = tuple[str, bytes, int, int]
"""Client address, request line, status, octets."""


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What one connection, and one client, may take."""

    connections_per_client: int = 64
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()  # clients without that limit
    idle: int = 60  # seconds without a request, or without progress
    head: int = 10  # seconds for a request's head


@dataclass(frozen=True, slots=True)
class DoorCounts:
    """What happened at the door since it was made; hits are counted by the hot answers."""

    open: int  # connections now
    opened: int
    refused: int  # by the limit for each client
    dropped: int  # too many unread requests
    timeouts: int
    cold: int  # requests that aiohttp answered for us
    foreign: int  # connections that became aiohttp's


class Door:
    """What the connections of one listener share.

    `server` makes aiohttp's protocols (`AppRunner.server` after `setup`). `own`: our name in `Via`. Once a second
    `tell` gets the number of hot hits since the last time, and `log`, where given, each of them.
    """

    def __init__(
        self,
        server: web.Server,
        hot: HotAnswers,
        limits: DoorLimits | None = None,
        *,
        own: str = "",
        tell: Callable[[int], None] | None = None,
        log: Callable[[Sequence[Hit]], None] | None = None,
    ) -> None:
        self.server = server
        self.hot = hot
        self.lines = hot.lines
        self.clock = hot.clock
        self.limits = limits or DoorLimits()
        self.plain: set[bytes] = set()
        """Header blocks of HTTP/1.1 after which memory may answer and the connection stays: the quickest way."""
        self.known: dict[bytes, Block] = {}
        """Header blocks with their verdicts, exact octets."""
        self.tick = 0
        """Seconds since the door opened, for time-outs: one timer for all connections."""
        self.draining = False
        self.log = log
        self.opened = self.dropped = self.timeouts = self.cold = self.foreign = 0
        self._own = own.lower().encode()
        self._tell = tell
        self._told = 0
        self._hits: list[Hit] = []
        self._fronts: set[Front] = set()
        self._clients = Clients(self.limits.connections_per_client, MAX_CONNECTIONS, self.limits.trusted)
        self._servers: list[asyncio.AbstractServer] = []
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def open(self, listener: Listener, tls: ssl.SSLContext | None = None) -> list[str | tuple[object, ...]]:
        """Listen, and return the addresses bound (port 0 lets the system choose). May be called more than once.

        Raises OSError when an address cannot be bound, ValueError for a TLS listener without a context."""
        if listener.tls and tls is None:
            raise ValueError(f"{listener}: a TLS listener needs a certificate")
        loop = asyncio.get_running_loop()
        context = tls if listener.tls else None
        handshake = float(self.limits.head) if context is not None else None
        make = partial(Front, self)
        server: asyncio.AbstractServer
        if listener.unix is not None:
            server = await loop.create_unix_server(make, str(listener.unix), backlog=BACKLOG)
        else:
            server = await loop.create_server(
                make, listener.host, listener.port, ssl=context, backlog=BACKLOG, ssl_handshake_timeout=handshake
            )
        self._servers.append(server)
        if self._timer is None:
            self._timer = loop.call_later(1.0, self._beat)
        return [socket.getsockname() for socket in getattr(server, "sockets", ())]

    async def close(self, seconds: float = 5.0) -> None:
        """Accept nothing more, end idle connections at once, and the others when they have their answer or then."""
        self.draining = True
        for server in self._servers:
            server.close()
        self._empty.clear()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(front.drain(seconds) for front in list(self._fronts)))
                while self._fronts:
                    await self._empty.wait()
                    self._empty.clear()
        except TimeoutError:
            for front in list(self._fronts):
                front.abort()
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._report()

    def counts(self) -> DoorCounts:
        """For metrics."""
        return DoorCounts(
            len(self._fronts), self.opened, self._clients.refused, self.dropped, self.timeouts, self.cold, self.foreign
        )

    # what the connections call

    def enter(self, front: Front, client: str) -> bool:
        """A connection of this client begins; False: it has too many."""
        if not self._clients.enter(client):
            return False
        self.opened += 1
        self._fronts.add(front)
        return True

    def leave(self, front: Front, client: str) -> None:
        """A connection is gone; nothing happens for one that was refused."""
        if front not in self._fronts:
            return
        self._fronts.remove(front)
        self._clients.leave(client)
        if self.draining and not self._fronts:
            self._empty.set()

    def judge(self, block: bytes) -> Block:
        """The verdict on a header block, remembered where it may come again."""
        verdict = self.known.get(block)
        if verdict is None:
            verdict = judge(block, self._own)
            if len(block) <= MAX_BLOCK and not verdict.tags:
                if len(self.known) >= BLOCKS:
                    oldest = next(iter(self.known))
                    del self.known[oldest]
                    self.plain.discard(oldest)
                self.known[block] = verdict
                if verdict.answering is Answering.MEMORY and verdict.host and not verdict.close:
                    self.plain.add(block)
        return verdict

    def note(self, client: str, line: bytes, status: int, octets: int) -> None:
        """A hit for the log."""
        if len(self._hits) < MAX_LOG:
            self._hits.append((client, line, status, octets))

    def _beat(self) -> None:
        """Once a second."""
        self.tick += 1
        self._timer = asyncio.get_running_loop().call_later(1.0, self._beat)
        if self.tick % SWEEP == 0:
            for front in list(self._fronts):
                front.sweep()
        self._report()

    def _report(self) -> None:
        counts = self.hot.counts()
        hits = counts.hits + counts.negative_hits
        if self._tell is not None and hits > self._told:
            self._tell(hits - self._told)
        self._told = hits
        if self.log is not None and self._hits:
            waiting, self._hits = self._hits, []
            self.log(waiting)
