"""HTTP in a front: the face's own server, with the core in aiohttp's place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from keyserver.faces.http.connection import HttpLimits
from keyserver.faces.http.exchange import Exchange
from keyserver.faces.http.face import HTTP
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.processes.frames import Frame, FrameKind
from keyserver.processes.front import FrontFace, FrontOpening, FrontPart
from keyserver.processes.relay import Relay
from keyserver.processes.streams import StreamOpening, read_facts

RETRY = 2
"""Seconds after which a client may ask again: the core is back by then, or not soon."""

_TEXT = b"The service is starting again. Please try again in a moment.\n"
_HEAD = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Retry-After: %d\r\nCache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\n"
    b"X-Content-Type-Options: nosniff\r\nServer: keyserver\r\nConnection: close\r\n\r\n"
)


class Remote:
    """The core in aiohttp's place, behind one exchange."""

    def __init__(self, relay: Relay, place: str) -> None:
        self._relay = relay
        self._place = place
        self._stream = 0
        self._silent = True
        """No octet of a reply has come since the last question."""
        self._asked = b""
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The exchange is there."""
        assert isinstance(transport, Exchange)
        self._exchange = transport
        peer = transport.get_extra_info("peername")
        client = str(peer[0]) if isinstance(peer, tuple) else ""
        tls = transport.get_extra_info("sslcontext") is not None
        self._stream = self._relay.open(self, StreamOpening(self._place, client, tls))

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, or needs nothing more."""
        self._gone.set()
        stream, self._stream = self._stream, 0
        self._relay.end(stream)

    def data_received(self, data: bytes) -> None:
        """A request, or octets of one."""
        if not self._asked:
            self._asked = data[:5]
        if not self._stream:
            self._refuse()
            return
        self._silent = True
        self._relay.data(self._stream, data)

    def pause_writing(self) -> None:
        """The client does not read."""
        self._relay.send(FrameKind.PAUSE, self._stream)

    def resume_writing(self) -> None:
        """It reads again."""
        self._relay.send(FrameKind.RESUME, self._stream)

    def close(self) -> None:
        """End when what is under way is answered."""
        self._relay.send(FrameKind.FINISH, self._stream)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Return when it has ended; after so many seconds it has."""
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            self._exchange.abort()

    # what the relay calls

    def take(self, frame: Frame) -> None:
        """Of the core."""
        match frame.kind:
            case FrameKind.DATA:
                self._silent = False
                self._asked = b""
                self._exchange.write(frame.payload)
            case FrameKind.FACTS:
                offer = self._exchange.get_extra_info("hot_answers")
                if offer is not None:
                    offer(read_facts(frame.payload))
            case FrameKind.PAUSE:
                self.choke(True)
            case FrameKind.RESUME:
                self.choke(False)
            case FrameKind.CLOSE:
                self._leave()
                self._exchange.close()
            case FrameKind.ABORT:
                self._leave()
                self._exchange.abort()

    def choke(self, choked: bool) -> None:
        """The core takes no more for now, or takes it again."""
        if choked:
            self._exchange.pause_reading()
        else:
            self._exchange.resume_reading()

    def orphaned(self) -> None:
        """The core is gone: who waits for the first octet of an answer is told, others are cut off."""
        self._stream = 0
        if not (self._exchange.busy or self._exchange.sticky):
            self._exchange.close()
        elif self._silent:
            self._refuse()
        else:
            self._exchange.abort()

    def _leave(self) -> None:
        self._relay.ended(self._stream)
        self._stream = 0

    def _refuse(self) -> None:
        text = b"" if self._asked.startswith(b"HEAD") else _TEXT
        self._exchange.write(_HEAD % (len(text), RETRY) + text)
        if not self._exchange.is_closing():
            self._exchange.close()


def _open(opening: FrontOpening) -> FrontFace:
    config = opening.config
    hot = HotAnswers(opening.budget)
    server = HttpServer(
        partial(Remote, opening.relay, opening.place),
        hot,
        HttpLimits(config.limits.connections_per_client, opening.trust),
        own=opening.instance,
        tls=opening.tls(config.hkp.tls_certificate, config.hkp.tls_key_file),
    )

    def counts() -> Mapping[str, int]:
        given = hot.counts()
        return {"hits": given.hits + given.negative_hits, "negative_hits": given.negative_hits}

    return FrontFace(server, counts, hot.asked)


FRONT = FrontPart(HTTP.name, _open, logged=True)
