"""LDAP in a front: messages are cut apart, known ones answered, all others passed to the core as they are.

Nothing is decoded here but the outermost frame of a message. What a client may do, and what is wrong with what it
sent, is said by `faces.ldap.connection` behind the stream.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import cast

from keyserver.config.listener import Listener
from keyserver.faces.asked import AskedNames
from keyserver.faces.cache import MemoryLimit, Values
from keyserver.faces.ldap.connection import LdapLimits
from keyserver.faces.ldap.face import LDAP
from keyserver.faces.ldap.search import Rendered, keep_rendered
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer, peer_of
from keyserver.listen.trust import UNIX
from keyserver.model import Malformed, Name
from keyserver.processes.frames import Frame, FrameKind
from keyserver.processes.front import FrontFace, FrontOpening, FrontPart
from keyserver.processes.relay import Relay
from keyserver.processes.streams import StreamOpening, read_rendered
from keyserver.wire import ldap as wire
from keyserver.wire.ber import measure
from keyserver.wire.ldap import Code

AT_ONCE = 64  # messages handled before other connections have their turn

_EXTENDED = b"\x77"
_SUCCESS = b"\x0a\x01\x00"
_START_TLS = wire.START_TLS.encode()
_GONE = "the service is starting again; please try again in a moment"


class LdapFront(ListeningServer["LdapFrontConnection"]):
    """What the connections of one view share in one front."""

    def __init__(
        self,
        relay: Relay,
        place: str,
        budget: MemoryLimit,
        limits: LdapLimits,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(
            "ldap",
            total=limits.connections,
            per_client=limits.connections_per_client,
            trust=limits.trust,
            first=limits.first,
            tls=tls,
        )
        self.limits = limits
        self.relay = relay
        self.place = place
        self.kept: Values[bytes, Rendered] = Values(budget)
        self.hits = 0
        self._asked = AskedNames()

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener."""
        return partial(LdapFrontConnection, self, listener.tls)

    def known(self, request: bytes) -> Rendered | None:
        """The reply to a request, if it is true now."""
        row = self.kept.get(request)
        if row is None:
            return None
        rendered = row.value
        if rendered.asked:
            self.hits += 1
            for name in rendered.asked:
                self._asked.note(name)
        return rendered

    def learn(self, payload: bytes) -> None:
        """Keep what the core offers."""
        keep_rendered(self.kept, *read_rendered(payload))

    def asked(self) -> dict[Name, int]:
        """What was asked for and answered here since the last call."""
        return self._asked.take()


class LdapFrontConnection(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: LdapFront, tls: bool, client: str | None = None) -> None:
        self._server = server
        self._tls = tls
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._stream = 0
        self._rest = b""
        self._entered = False
        self._ended = False
        self._raw = False  # everything from here on is the core's to judge
        self._full = False  # the client does not read
        self._choked = False  # the core does not
        self._waiting = False  # whole messages wait in `_rest`
        self._asked_tls = b""  # the message ID of a StartTLS request that is not answered
        self._upgrade: asyncio.Task[None] | None = None
        self._greeted = False
        self._moved = self._half = self._told = server.tick

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast(asyncio.Transport, transport)
        if self._client is None:
            self._client = peer_of(transport)
        refused = self._server.enter(self, self._client, transport)
        self._entered = not refused
        if refused:
            self.dismiss(Code.UNAVAILABLE, refused)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, whoever closed."""
        self._ended = True
        stream, self._stream = self._stream, 0
        self._server.relay.end(stream)
        if self._entered:
            self._entered = False
            self._server.leave(self, self._client or UNIX)

    def pause_writing(self) -> None:
        """The client does not read what was written."""
        self._full = True
        self._moved = self._server.tick
        self._server.relay.send(FrameKind.PAUSE, self._stream)
        self._gate()

    def resume_writing(self) -> None:
        """It reads again."""
        self._full = False
        self._moved = self._server.tick
        self._server.relay.send(FrameKind.RESUME, self._stream)
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Octets of the client."""
        if self._ended:
            return
        if self._raw:
            self._server.relay.data(self._stream, data)
            return
        if not self._rest:
            self._half = self._server.tick
        data = self._rest + data if self._rest else data
        if self._waiting or self._blocked:
            self._rest, self._waiting = data, True
            self._gate()
        else:
            self._consume(data)

    # what the relay calls

    def take(self, frame: Frame) -> None:
        """Of the core."""
        match frame.kind:
            case FrameKind.DATA:
                self._write(frame.payload)
                self._moved = self._server.tick
                if self._asked_tls:
                    self._answered_tls(frame.payload)
            case FrameKind.RENDERED:
                self._server.learn(frame.payload)
            case FrameKind.PAUSE:
                self.choke(True)
            case FrameKind.RESUME:
                self.choke(False)
            case FrameKind.START_TLS:
                self._upgrade = asyncio.get_running_loop().create_task(self._handshake())
            case FrameKind.CLOSE:
                self._over()
                self._close()
            case FrameKind.ABORT:
                self._over()
                self.abort()

    def choke(self, choked: bool) -> None:
        """The core takes no more for now, or takes it again."""
        self._choked = choked
        if choked:
            self._gate()
        else:
            self._go_on()

    def orphaned(self) -> None:
        """The core is gone, and what it knew of this connection."""
        self._stream = 0
        if self._upgrade is not None:
            self.abort()
        else:
            self.dismiss(Code.UNAVAILABLE, _GONE)

    # what the server calls

    def sweep(self, tick: int) -> None:
        """Look for what takes too long; what waits for the core has the core's limits."""
        limits, waited = self._server.limits, tick - self._moved
        if self._ended or self._full:
            if waited > limits.stalled:
                self.abort()
        elif self._upgrade is not None or self._asked_tls or self._waiting:
            return
        elif self._rest and tick - self._half > limits.first:
            self.dismiss(Code.UNAVAILABLE, f"half a message for {limits.first} seconds")
        elif self._stream:
            if self._moved >= self._told:  # since the last look
                self._server.relay.send(FrameKind.ALIVE, self._stream)
            self._told = tick
        elif waited > (limits.idle if self._greeted else limits.first):
            self.dismiss(Code.UNAVAILABLE, "idle for too long")

    async def drain(self, seconds: float) -> None:
        """End as soon as nothing is under way."""
        if self._stream:
            self._server.relay.send(FrameKind.FINISH, self._stream)
        else:
            self.dismiss(Code.UNAVAILABLE, "the server shuts down")

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

    # messages

    @property
    def _blocked(self) -> bool:
        return self._full or self._choked or self._upgrade is not None or bool(self._asked_tls)

    def _consume(self, data: bytes) -> None:
        """Answer or pass on whole messages, as many as are one connection's turn; what is left waits in `_rest`."""
        server, at, turn = self._server, 0, AT_ONCE
        self._waiting = False
        try:
            while (size := measure(data, at, wire.MAX_MESSAGE)) is not None and at + size <= len(data):
                if not turn or self._blocked:
                    self._waiting = True
                    break
                turn -= 1
                end = at + size
                id_at, key_at = wire.split(data, at, end)
                request = data[key_at:end]
                rendered = server.known(request)
                if rendered is not None:
                    self._write(rendered.messages(data[id_at:key_at]))
                elif request == wire.GOODBYE:
                    self._close()
                    return
                elif self._secures(request, data[id_at:key_at], end < len(data)) or not self._pass_on(data[at:end]):
                    return
                at = end
        except Malformed:
            self._raw = True
            self._rest = b""
            self._pass_on(data[at:])
            return
        if at:
            self._moved = self._half = server.tick
            self._greeted = True
        self._rest = data[at:]
        self._gate()
        if self._waiting and not turn:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _pass_on(self, octets: bytes) -> bool:
        """To the core; False where there is none, and the connection ends."""
        server = self._server
        if not self._stream:
            peer = peer_of(self._transport) if self._transport is not None else UNIX
            self._stream = server.relay.open(self, StreamOpening(server.place, self._client or UNIX, self._tls, peer))
            self._told = server.tick
        if not self._stream:
            self.dismiss(Code.UNAVAILABLE, _GONE)
            return False
        server.relay.data(self._stream, octets)
        return True

    def _go_on(self) -> None:
        """Messages that waited have their turn; then the client is read again."""
        if self._ended or self._blocked:
            return
        if self._waiting:
            data, self._rest = self._rest, b""
            self._consume(data)
        else:
            self._gate()

    def _gate(self) -> None:
        """Read on, or stop reading."""
        if self._transport is None or self._transport.is_closing() or self._ended or self._upgrade is not None:
            return
        if self._waiting or self._full or self._choked or self._asked_tls:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # TLS

    def _secures(self, request: bytes, id_element: bytes, more: bool) -> bool:
        """Is this a StartTLS request with something behind it? Nobody honest sends that, so that connection ends:
        those octets would be read as if they had come through TLS (RFC 4511 section 4.14). Messages behind a StartTLS
        request wait until the core has answered it."""
        if self._server.tls is None or request[:1] != _EXTENDED or _START_TLS not in request:
            return False
        if more:
            self.abort()
            return True
        self._asked_tls = id_element
        return False

    def _answered_tls(self, message: bytes) -> None:
        """The core's word on StartTLS, if this is it. Where it agrees, it asks for the handshake next."""
        id_at, key_at = wire.split(message, 0, len(message))
        if message[id_at:key_at] == self._asked_tls and _SUCCESS not in message[key_at : key_at + 8]:
            self._asked_tls = b""
            self._go_on()

    async def _handshake(self) -> None:
        server, transport = self._server, self._transport
        assert server.tls is not None and transport is not None
        if self._rest:
            self.abort()
            return
        try:
            upgraded = await asyncio.get_running_loop().start_tls(
                transport, self, server.tls, server_side=True, ssl_handshake_timeout=float(server.limits.first)
            )
        except (OSError, asyncio.CancelledError):
            upgraded = None
        if upgraded is None or self._ended:
            transport.abort()
            self.connection_lost(None)
            return
        self._transport, self._tls, self._upgrade, self._asked_tls = upgraded, True, None, b""
        self._choked = False
        self._moved = server.tick
        server.relay.send(FrameKind.START_TLS, self._stream)
        self._go_on()  # the first message may have come with the handshake's last octets

    # the end

    def _over(self) -> None:
        """The core has ended the stream."""
        self._server.relay.ended(self._stream)
        self._stream = 0

    def _close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)


def _open(opening: FrontOpening) -> FrontFace:
    config = opening.config
    server = LdapFront(
        opening.relay,
        opening.place,
        opening.budget,
        LdapLimits(connections_per_client=config.limits.connections_per_client, trust=opening.trust),
        tls=opening.tls(config.ldap.tls_certificate, config.ldap.tls_key_file),
    )
    return FrontFace(server, lambda: {"hits": server.hits}, server.asked)


FRONT = FrontPart(LDAP.name, _open)
