"""What every LDAP connection has, whichever process answers it: messages cut apart, turns, time limits, TLS, its end.

`connection` answers the messages; `processes.ldap` answers those that it knows and passes on the others.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from keyserver.faces.ldap.search import Rendered
from keyserver.listen.server import peer_of
from keyserver.listen.trust import UNIX, Trust
from keyserver.model import Malformed
from keyserver.wire import ldap as wire
from keyserver.wire.ber import measure
from keyserver.wire.ldap import Code

TURN = 0.002  # seconds after which other connections have their turn


@dataclass(frozen=True, slots=True)
class LdapLimits:
    """What one connection, and one client, may take. Times are seconds."""

    connections: int = 1024
    connections_per_client: int = 64
    trust: Trust = field(default_factory=Trust)
    outstanding: int = 32  # searches under way on one connection
    idle: int = 60  # without a message
    first: int = 10  # for the first message, the second half of one, a TLS handshake
    stalled: int = 30  # without reading what we wrote


class Shared(Protocol):
    """What the connections of one view share, as one of them sees it."""

    limits: LdapLimits
    tls: ssl.SSLContext | None
    loop: asyncio.AbstractEventLoop
    monotonic: Callable[[], float]
    tick: int
    """Seconds since it opened."""

    def enter(self, connection: Any, client: str, transport: asyncio.BaseTransport) -> str:
        """A connection begins; else why it may not."""

    def leave(self, connection: Any, client: str) -> None:
        """A connection is gone."""

    def admit(self) -> bool:
        """May messages be handled now?"""

    def wait(self, connection: Any) -> None:
        """Call its `go_on` when its turn has come."""


S = TypeVar("S", bound=Shared)


class Session(asyncio.Protocol, Generic[S]):
    """One client's connection."""

    at_once: ClassVar[int] = 16
    """Messages handled before other connections have their turn."""

    def __init__(self, server: S, tls: bool, client: str | None = None) -> None:
        self._server = server
        self._tls = tls
        self._client = client
        """Its address; before the connection is made only where a proxy named it."""
        self._transport: asyncio.Transport | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._rest = b""  # octets not handled yet: half a message, or whole ones that wait
        self._waiting = False  # whole messages wait in `_rest`
        self._full = False  # the client does not read what we wrote
        self._paused = False  # we do not read what it writes
        self._greeted = False  # has one whole message come?
        self._entered = False
        self._ended = False
        self._moved = server.tick  # when something last went forward
        self._half = server.tick  # since when `_rest` holds half a message

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if self._client is None:
            self._client = peer_of(transport)
        refused = self._server.enter(self, self._client, transport)
        self._entered = not refused
        if refused:
            self.dismiss(Code.UNAVAILABLE, refused)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, whoever closed."""
        self._ended = True
        if self._entered:
            self._entered = False
            self._server.leave(self, self._client or UNIX)

    def pause_writing(self) -> None:
        """The client does not read what we wrote."""
        self._full = True
        self._moved = self._server.tick
        self._gate()

    def resume_writing(self) -> None:
        """It reads again."""
        self._full = False
        self._moved = self._server.tick
        self.go_on()

    def data_received(self, data: bytes) -> None:
        """Octets of the client."""
        if self._ended:
            return
        if self._waiting:  # more before its turn has come
            self._rest += data
            self._gate()
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        else:
            self._half = self._server.tick
        if self._server.admit():
            self._consume(data)
        else:
            self._rest, self._waiting = data, True
            self._server.wait(self)

    # messages

    @abstractmethod
    def _known(self, request: bytes) -> Rendered | None:
        """The reply to a request, its octets behind the message ID, if that is in memory. May raise Malformed."""

    @abstractmethod
    def _handle(self, octets: bytes, id_element: bytes, request: bytes, more: bool) -> None:
        """Any other message. `more`: the client has sent something behind it. May raise Malformed."""

    @abstractmethod
    def _malformed(self, octets: bytes, problem: Malformed) -> None:
        """What has come is no LDAP from these octets on."""

    @property
    def _blocked(self) -> bool:
        """Must messages wait?"""
        return self._full or self._upgrade is not None

    @property
    def _deaf(self) -> bool:
        """Must the client wait before it is read on?"""
        return self._waiting or self._full

    @property
    def _busy(self) -> bool:
        """Is it not for the client to go on?"""
        return self._waiting or self._upgrade is not None

    def _consume(self, data: bytes) -> None:
        """Handle whole messages, as many as are one connection's turn; what is left waits in `_rest`."""
        server, at, turn = self._server, 0, self.at_once
        began = server.monotonic()
        self._waiting = False
        try:
            while (size := measure(data, at, wire.MAX_MESSAGE)) is not None and at + size <= len(data):
                if at and server.monotonic() - began > TURN:
                    turn = 0
                if turn == 0 or self._blocked:
                    self._waiting = True
                    break
                turn -= 1
                end = at + size
                id_at, key_at = wire.split(data, at, end)
                id_element, request = data[id_at:key_at], data[key_at:end]
                if request == wire.GOODBYE:
                    self._close()
                    return
                rendered = self._known(request)
                if rendered is not None:
                    self._write(rendered.messages(id_element))
                else:
                    self._handle(data[at:end], id_element, request, end < len(data))
                if self._ended:
                    return
                at = end
        except Malformed as problem:
            self._malformed(data[at:], problem)
            return
        if at:
            self._moved = self._half = server.tick
            self._greeted = True
        self._rest = data[at:]
        self._gate()
        if self._waiting and turn == 0:
            server.wait(self)

    def go_on(self) -> None:
        """Messages that waited have their turn; then the client is read again."""
        if self._ended or self._blocked:
            return
        if self._waiting:
            data, self._rest = self._rest, b""
            self._consume(data)
        else:
            self._gate()

    def _gate(self) -> None:
        """Read on, or stop reading. During a TLS handshake others read."""
        deaf = self._deaf
        if deaf == self._paused or self._ended or self._upgrade is not None:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._paused = deaf
            if deaf:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # TLS

    async def _handshake(self) -> None:
        """The whole change to TLS. The client has not been read since it asked for it."""
        transport = self._transport
        assert transport is not None
        try:
            upgraded = await self._secured(transport)
        except (OSError, asyncio.CancelledError):
            upgraded = None
        if upgraded is None or self._ended:
            transport.abort()
            self.connection_lost(None)
            return
        self._transport, self._tls, self._upgrade = upgraded, True, None
        self._moved, self._paused = self._server.tick, True
        self.go_on()  # the first message may have come with the handshake's last octets

    async def _secured(self, transport: asyncio.Transport) -> asyncio.Transport | None:
        """The transport over TLS; None where the connection is over. Raises OSError."""
        server = self._server
        assert server.tls is not None
        return await server.loop.start_tls(
            transport, self, server.tls, server_side=True, ssl_handshake_timeout=float(server.limits.first)
        )

    # the end

    def sweep(self, tick: int) -> None:
        """Look for what takes too long; once a second."""
        if self._ended or self._full:
            if tick - self._moved > self._server.limits.stalled:
                self.abort()
        elif self._busy:
            return
        elif self._rest and tick - self._half > self._server.limits.first:
            self.dismiss(Code.UNAVAILABLE, f"half a message for {self._server.limits.first} seconds")
        else:
            self._silent(tick)

    def _silent(self, tick: int) -> None:
        """It is the client's turn."""
        limits = self._server.limits
        if tick - self._moved > (limits.idle if self._greeted else limits.first):
            self.dismiss(Code.UNAVAILABLE, "idle for too long")

    def dismiss(self, code: Code, text: str) -> None:
        """Notice of disconnection, then close (RFC 4511 section 4.4.1)."""
        if not self._ended:
            self._write(wire.notice(code, text))
            self._close()

    def abort(self) -> None:
        """Close without another octet."""
        self._ended = True
        if self._upgrade is not None:
            self._upgrade.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)
