"""LDAP in a front: messages are cut apart, known ones answered, all others passed to the core as they are.

Nothing is decoded here but the outermost frame of a message. What a client may do, and what is wrong with what it
sent, is said by `faces.ldap.connection` behind the stream.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial

from keyserver.config.listener import Listener
from keyserver.faces.asked import AskedNames
from keyserver.faces.cache import MemoryLimit, Values
from keyserver.faces.ldap.face import LDAP
from keyserver.faces.ldap.search import Rendered, keep_rendered
from keyserver.faces.ldap.session import LdapLimits, Session
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer, peer_of
from keyserver.listen.trust import UNIX
from keyserver.model import Malformed, Name
from keyserver.processes.frames import Frame, FrameKind
from keyserver.processes.front import FrontFace, FrontOpening, FrontPart
from keyserver.processes.relay import Relay
from keyserver.processes.streams import StreamOpening, read_rendered
from keyserver.wire import ldap as wire
from keyserver.wire.ldap import Code

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
        self.loop = asyncio.get_running_loop()
        self.monotonic = self.loop.time
        self.relay = relay
        self.place = place
        self.kept: Values[bytes, Rendered] = Values(budget)
        self.hits = 0
        self._asked = AskedNames()

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener."""
        return partial(LdapFrontConnection, self, listener.tls)

    def admit(self) -> bool:
        """What is known is answered at once."""
        return True

    def wait(self, connection: LdapFrontConnection) -> None:
        """Its messages go on when other connections have had their turn."""
        self.loop.call_soon(connection.go_on)

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


class LdapFrontConnection(Session[LdapFront]):
    """One connection."""

    at_once = 64

    def __init__(self, server: LdapFront, tls: bool, client: str | None = None) -> None:
        super().__init__(server, tls, client)
        self._stream = 0
        self._raw = False  # what has come is for the core to judge
        self._choked = False  # the core does not read
        self._asked_tls = b""  # the message ID of a StartTLS request that is not answered
        self._told = server.tick

    # what the loop calls

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, whoever closed."""
        stream, self._stream = self._stream, 0
        self._server.relay.end(stream)
        super().connection_lost(error)

    def pause_writing(self) -> None:
        """The client does not read what was written."""
        self._server.relay.send(FrameKind.PAUSE, self._stream)
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._server.relay.send(FrameKind.RESUME, self._stream)
        super().resume_writing()

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
                self._upgrade = self._server.loop.create_task(self._handshake())
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
            self.go_on()

    def orphaned(self) -> None:
        """The core is gone, and what it knew of this connection."""
        self._stream = 0
        if self._upgrade is not None:
            self.abort()
        else:
            self.dismiss(Code.UNAVAILABLE, _GONE)

    # what the server calls

    def _silent(self, tick: int) -> None:
        """What waits for the core has the core's limits."""
        if not self._stream:
            super()._silent(tick)
            return
        if self._moved >= self._told:  # since the last look
            self._server.relay.send(FrameKind.ALIVE, self._stream)
        self._told = tick

    async def drain(self, seconds: float) -> None:
        """End as soon as nothing is under way."""
        if self._stream:
            self._server.relay.send(FrameKind.FINISH, self._stream)
        else:
            self.dismiss(Code.UNAVAILABLE, "the server shuts down")

    # messages

    @property
    def _blocked(self) -> bool:
        return self._full or self._choked or self._raw or self._upgrade is not None or bool(self._asked_tls)

    @property
    def _deaf(self) -> bool:
        return self._waiting or self._blocked

    @property
    def _busy(self) -> bool:
        return self._choked or bool(self._asked_tls) or super()._busy

    def _known(self, request: bytes) -> Rendered | None:
        return self._server.known(request)

    def _malformed(self, octets: bytes, problem: Malformed) -> None:
        self._raw = True
        if self._pass_on(octets):
            self._gate()

    def _handle(self, octets: bytes, id_element: bytes, request: bytes, more: bool) -> None:
        if not self._secures(request, id_element, more):
            self._pass_on(octets)

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
            self.go_on()

    async def _secured(self, transport: asyncio.Transport) -> asyncio.Transport | None:
        if self._rest:
            return None
        upgraded = await super()._secured(transport)
        self._asked_tls, self._choked = b"", False
        self._server.relay.send(FrameKind.START_TLS, self._stream)
        return upgraded

    # the end

    def _over(self) -> None:
        """The core has ended the stream."""
        self._server.relay.ended(self._stream)
        self._stream = 0


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
