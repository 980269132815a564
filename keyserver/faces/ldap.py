"""The LDAP face: a read-only directory of what the cache knows (RFC 4511). One listener, one view.

This file opens, watches and closes listeners; `ldap_connection` speaks with one client, `ldap_search` answers
searches, `ldap_tree` and `ldap_entries` say what the directory looks like, `ldap_match` and `ldap_schema` what a
filter means.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network, IPv6Network

from keyserver.config.listener import Listener
from keyserver.faces.clients import Clients
from keyserver.faces.ldap_bind import Account
from keyserver.faces.ldap_connection import Connection
from keyserver.faces.ldap_search import LdapDesk, Searches
from keyserver.faces.ldap_tree import Tree

BACKLOG = 2048  # connections that the system accepts ahead of us
AT_ONCE = 64  # connections served as they come in one millisecond: most of it
IN_TURN = 8  # of those that wait then, served before other listeners have their turn


@dataclass(frozen=True, slots=True)
class LdapLimits:
    """What one connection, and one client, may take. Times are seconds."""

    connections: int = 1024
    connections_per_client: int = 64
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()  # clients without that limit
    outstanding: int = 32  # searches under way on one connection
    idle: int = 60  # without a message
    first: int = 10  # for the first message, the second half of one, a TLS handshake
    stalled: int = 30  # without reading what we wrote


@dataclass(frozen=True, slots=True)
class LdapCounts:
    """What happened since the server was made."""

    open: int  # connections now
    refused: int  # connections over a limit
    malformed: int  # connections ended for what they sent
    hits: int  # searches answered from memory
    octets: int  # memory of what may be answered again


class LdapServer:
    """What the connections of one view share. `account`: who may bind beside anonymous clients. `tell`, once a second:
    hits since the last time."""

    def __init__(
        self,
        desk: LdapDesk,
        tree: Tree,
        limits: LdapLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        account: Account | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.desk = desk
        self.limits = limits or LdapLimits()
        self.tls = tls
        self.account = account
        self.searches = Searches(desk, tree)
        self.loop = asyncio.get_running_loop()
        self.tick = 0
        """Seconds since the server was made: one timer for all connections."""
        self.malformed = 0
        self._clients = Clients(self.limits.connections_per_client, self.limits.connections, self.limits.trusted)
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.AbstractServer] = []
        self._tell = tell
        self._told = 0
        self._timer = self.loop.call_later(1.0, self._beat)
        self._empty = asyncio.Event()
        self._waiting: deque[Connection] = deque()
        self._serving = False
        self._instant, self._left = 0.0, AT_ONCE

    async def open(self, listener: Listener) -> list[str | tuple[object, ...]]:
        """Listen, and return the addresses bound (port 0 lets the system choose). May be called more than once.

        Raises OSError when an address cannot be bound, ValueError for a TLS listener without a certificate."""
        if listener.tls and self.tls is None:
            raise ValueError(f"{listener}: a TLS listener needs ldap.tls_certificate")
        make = partial(Connection, self, listener.tls)
        server: asyncio.AbstractServer
        if listener.unix is not None:
            server = await self.loop.create_unix_server(make, str(listener.unix), backlog=BACKLOG)
        else:
            server = await self.loop.create_server(
                make,
                listener.host,
                listener.port,
                ssl=self.tls if listener.tls else None,
                ssl_handshake_timeout=float(self.limits.first) if listener.tls else None,
                backlog=BACKLOG,
            )
        self._servers.append(server)
        return [socket.getsockname() for socket in getattr(server, "sockets", ())]

    async def close(self, seconds: float = 5.0) -> None:
        """Accept nothing more; connections end when their searches are answered, or after so many seconds."""
        for server in self._servers:
            server.close()
        self._empty.clear()
        for connection in tuple(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(seconds):
                while self._connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
            await asyncio.sleep(0)
        self._timer.cancel()
        self._report()

    def counts(self) -> LdapCounts:
        """For metrics."""
        searches = self.searches
        return LdapCounts(len(self._connections), self._clients.refused, self.malformed, searches.hits, searches.octets)

    def enter(self, connection: Connection, client: str) -> bool:
        """A connection of this client begins; False: there are too many."""
        if not self._clients.enter(client):
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: Connection, client: str) -> None:
        """A connection that had entered is gone."""
        self._connections.discard(connection)
        self._clients.leave(client)
        if not self._connections:
            self._empty.set()

    def admit(self) -> bool:
        """May a connection's messages be handled now, or must it `wait`? The loop belongs to other faces, too."""
        now = self.loop.time()  # uvloop's: in milliseconds, and the same for everything that one poll has brought
        if now != self._instant:
            self._instant, self._left = now, AT_ONCE
        if self._left == 0 or self._waiting:
            return False
        self._left -= 1
        return True

    def wait(self, connection: Connection) -> None:
        """Its messages are handled when those that waited before it have been."""
        self._waiting.append(connection)
        if not self._serving:
            self._serving = True
            self.loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Some that wait; then the loop looks what has come on other connections."""
        for _ in range(min(IN_TURN, len(self._waiting))):
            self._waiting.popleft().go_on()
        self._serving = bool(self._waiting)
        if self._serving:
            self.loop.call_soon(self._serve)

    def _beat(self) -> None:
        """Once a second."""
        self.tick += 1
        self._timer = self.loop.call_later(1.0, self._beat)
        for connection in tuple(self._connections):
            connection.sweep(self.tick)
        self._report()

    def _report(self) -> None:
        hits = self.searches.hits
        if self._tell is not None and hits > self._told:
            self._tell(hits - self._told)
        self._told = hits
