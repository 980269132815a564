"""The common part of every face's listeners: who may come in, how long one may be silent, and how they all leave.

A face gives its connections (`maker`) and says in them what is too long (`sweep`) and how one ends (`drain`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar

from keyserver.config.listener import Listener
from keyserver.listen.acceptor import Acceptance, Acceptor, ConnectionFactory
from keyserver.listen.clients import Clients, Elsewhere
from keyserver.listen.descriptors import Descriptors
from keyserver.listen.sockets import BACKLOG, bind
from keyserver.listen.trust import UNIX, Trust

QUIET = 60  # seconds between log lines that say the same of one listener

Address = str | tuple[object, ...]

_LOG = logging.getLogger("keyserver.listen")


class ServedConnection(Protocol):
    """A connection, as its server sees it."""

    def sweep(self, tick: int) -> None:
        """Once in a while, at second `tick`: end what has lasted too long."""

    async def drain(self, seconds: float) -> None:
        """End, at once where nothing is under way; or begin to, and be gone within so many seconds."""

    def abort(self) -> None:
        """End now, whatever is under way."""


G = TypeVar("G", bound=ServedConnection)


class ListeningServer(ABC, Generic[G]):
    """What the connections of one face share.

    face: its name in the log. total, per_client: connections. first: seconds for what comes before a first message
    (PROXY header, TLS handshake). sweep: seconds between looks at all connections. privileged: may use half of the
    descriptors that are kept back, and is accepted one by one, so that a connection that finds none waits."""

    def __init__(
        self,
        face: str,
        *,
        total: int,
        per_client: int,
        trust: Trust,
        first: int = 10,
        sweep: int = 1,
        tls: ssl.SSLContext | None = None,
        privileged: bool = False,
    ) -> None:
        self.face = face
        self.trust = trust
        self.tls = tls
        self.tick = 0
        """Seconds since it opened: one timer for all connections."""
        self.draining = False
        self.refused = 0
        """Connections that found no room, or may not come in."""
        self._first = first
        self._sweep = sweep
        self._total = total
        self._clients = Clients(per_client, total, trust)
        self._arriving = Clients(per_client, total, trust)
        self._privileged = privileged
        self._connections: set[G] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._acceptors: list[Acceptor] = []
        self._descriptors = Descriptors()
        self._ceiling = self._descriptors.ceiling(privileged)
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._said: dict[str, tuple[int, int]] = {}

    @abstractmethod
    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener."""

    @property
    def connections(self) -> tuple[G, ...]:
        """Those that are open."""
        return tuple(self._connections)

    def share(self, elsewhere: Elsewhere) -> None:
        """Count each client's connections together with other processes."""
        self._clients.share(elsewhere)

    def limit(self, per_client: int) -> None:
        """Another number of connections for each client; those that are open stay."""
        self._clients.limit(per_client)
        self._arriving.limit(per_client)

    def behind(self, client: str, tls: bool) -> asyncio.Protocol:
        """What answers a connection of this client, whose socket another process has."""
        raise NotImplementedError

    def report(self) -> None:
        """Called once a second, and at the end."""

    @property
    def present(self) -> int:
        """Connections now."""
        return len(self._connections)

    async def open(self, listener: Listener) -> list[Address]:
        """Listen, and return the addresses bound (port 0 lets the system choose). May be called more than once.

        Raises OSError when an address cannot be bound, ValueError for a TLS listener without a certificate."""
        if listener.tls and self.tls is None:
            raise ValueError(f"{listener}: a TLS listener needs a certificate")
        bound: list[Address] = []
        for sock in await bind(listener):
            bound.append(sock.getsockname())
            await self.serve(listener, sock)
        return bound

    async def serve(self, listener: Listener, sock: socket.socket) -> None:
        """Serve a socket that is bound already; from here on it is ours."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        room = max(2, min(self._total, self._ceiling - sock.fileno()))
        self._clients.resize(room)
        self._arriving.resize(room)
        make = self.maker(listener)
        if listener.tls or listener.proxied or self._privileged:
            tls = self.tls if listener.tls else None
            manner = Acceptance(make, self.trust, self._first, tls, listener.proxied)
            self._acceptors.append(Acceptor(sock, manner, self._arriving, self.refuse, self._ceiling))
        elif listener.unix is not None:
            self._servers.append(await loop.create_unix_server(make, sock=sock, backlog=BACKLOG))
        else:
            self._servers.append(await loop.create_server(make, sock=sock, backlog=BACKLOG))
        self.begin()

    def begin(self) -> None:
        """Look after connections from now on, wherever they come from."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._beat)

    async def close(self, seconds: float = 5.0) -> None:
        """Accept nothing more; connections end when what is under way is answered, or after so many seconds."""
        self.draining = True
        for server in self._servers:
            server.close()
        await asyncio.gather(*(acceptors.close() for acceptors in self._acceptors))
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(connection.drain(seconds) for connection in tuple(self._connections)))
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.report()

    # what the connections call

    def enter(self, connection: G, client: str, transport: asyncio.BaseTransport) -> str:
        """A connection of this client begins; else why it may not."""
        if self.draining:
            return "shutting down"
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= self._ceiling:
            reason = "out of file descriptors"
        elif not (reason := self._clients.enter(client)):
            self._connections.add(connection)
            return ""
        self.refuse(reason)
        return reason

    def leave(self, connection: G, client: str) -> None:
        """A connection is gone; nothing happens for one that was refused."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._clients.leave(client)
        if not self._connections:
            self._empty.set()

    def refuse(self, reason: str) -> None:
        """A connection is not taken. Said in the log at once, and then once a minute with the number since."""
        self.refused += 1
        now = self.tick
        at, count = self._said.get(reason, (now - QUIET, 0))
        count += 1
        if now - at >= QUIET:
            facts: dict[str, object] = {"on": self.face, "reason": reason, "connections": count}
            if reason == "out of file descriptors":
                facts["limit"] = self._descriptors.limit
            _LOG.warning("connections refused", extra={"facts": facts})
            at, count = now, 0
        if len(self._said) >= 64 and reason not in self._said:
            self._said.clear()
        self._said[reason] = at, count

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(1.0, self._beat)
        self.second()

    def second(self) -> None:
        """A second has passed."""
        self.tick += 1
        if self.tick % self._sweep == 0:
            for connection in tuple(self._connections):
                connection.sweep(self.tick)
        self.report()


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The address at the other end."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) else UNIX
