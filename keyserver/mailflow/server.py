"""The mail flow's listeners: who may speak to them, and how long one may be silent."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

from keyserver.config.kinds import Network
from keyserver.config.listener import Listener
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.clients import MANY_OF_ONE
from keyserver.listen.server import ListeningServer, peer_of
from keyserver.listen.trust import UNIX, Trust

PIECE = 4096  # octets taken of a connection before others have their turn: they may be hundreds of commands
PRESSED = 60  # seconds of silence after which a connection makes room for another where all are taken


class MailConnection(asyncio.Protocol, ABC):
    """A mail server's connection, as far as its time goes."""

    def __init__(self, server: MailServer) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.client = UNIX
        self.heard = server.tick
        """The second at which something came last."""
        self._waiting = bytearray()

    @property
    @abstractmethod
    def patience(self) -> int:
        """Seconds that it may be silent now."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client = peer_of(transport)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such
        if reason := self.server.admit(self, transport):
            self.turn_away(reason)
            return
        self.begin()

    def turn_away(self, reason: str) -> None:
        self.abort()

    def begin(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        """Octets of the mail server; a piece of them is taken in each turn of the loop."""
        taking = bool(self._waiting)
        self._waiting += data
        if not taking:
            self._go_on()

    def _go_on(self) -> None:
        piece = bytes(self._waiting[:PIECE])
        del self._waiting[:PIECE]
        if self.transport is not None:
            self.take(piece)
        if self.transport is None or self.transport.is_closing():
            self._waiting.clear()
        elif self._waiting:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self.transport.resume_reading()

    @abstractmethod
    def take(self, data: bytes) -> None:
        """Some octets of the mail server, while there is a transport."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.server.leave(self, self.client)

    def sweep(self, tick: int) -> None:
        """End a connection that has been silent for too long."""
        if tick - self.heard > self.patience:
            self.abort()

    async def drain(self, seconds: float) -> None:
        """End it: what was not complete will come again."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class MailServer(ListeningServer[MailConnection]):
    """The connections of one listener. Loopback and Unix sockets take everybody, other listeners only `allowed`.

    Mail servers may be silent for hours in the middle of a mail, so that who holds many silent connections could lock
    all others out: where all are taken, the one that has been silent for longest makes room."""

    def __init__(
        self,
        face: str,
        listener: Listener,
        allowed: Sequence[Network],
        most: int,
        connection: Callable[[MailServer], MailConnection],
    ) -> None:
        super().__init__(face, total=most, per_client=most, trust=Trust(allowed))
        self._open_to_all = listener.loopback
        self._connection = connection

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener; no proxy names their clients."""
        return lambda client=None: self._connection(self)

    def admit(self, connection: MailConnection, transport: asyncio.BaseTransport) -> str:
        """Count a new connection in; else the reason why it has to be closed."""
        if not self._open_to_all and (connection.client == UNIX or not self.trust.trusts(connection.client)):
            self.refuse("not in mailflow.allowed_clients")
            return "not allowed"
        if reason := self._clients.refusal(connection.client):
            self._make_room(connection.client if reason == MANY_OF_ONE else None)
        return self.enter(connection, connection.client, transport)

    def _make_room(self, client: str | None) -> None:
        """End the connection that has been silent for longest, of this client where it has too many itself."""
        silent = (
            connection
            for connection in self._connections
            if (client is None or connection.client == client)
            and self.tick - connection.heard >= min(PRESSED, connection.patience)
        )
        longest = min(silent, key=lambda connection: connection.heard, default=None)
        if longest is not None:
            longest.abort()
            self.leave(longest, longest.client)
