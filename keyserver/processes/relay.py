"""A front's end: the core behind its connections, for as long as there is one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from keyserver.faces.http.exchange import Exchange
from keyserver.processes.frames import Frame, FrameKind, pack
from keyserver.processes.line import Line
from keyserver.processes.news import Replica
from keyserver.processes.streams import StreamOpening, read_facts

GRACE = 1.0
"""Seconds that what is hot and true is given without a core."""

DESERTED = 30.0
"""Seconds after which a front without a core gives up: the supervisor starts another, with another line."""

RETRY = 2
"""Seconds after which a client may ask again: the core is back by then, or not soon."""

_LOG = logging.getLogger("keyserver.processes")

_TEXT = b"The service is starting again. Please try again in a moment.\n"
_HEAD = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
    b"Retry-After: %d\r\nCache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\n"
    b"X-Content-Type-Options: nosniff\r\nServer: keyserver\r\nConnection: close\r\n\r\n"
)


class End(Protocol):
    """What a stream of the core ends in, here."""

    def take(self, frame: Frame) -> None:
        """A frame of the stream."""

    def choke(self, choked: bool) -> None:
        """The core is behind, or no longer."""

    def orphaned(self) -> None:
        """The core is gone; so is the stream."""


class Relay:
    """Streams to the core, while there is one that serves."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._line: Line | None = None
        self._serves = False
        self._ends: dict[int, End] = {}
        self._last = 0
        self._grace: asyncio.TimerHandle | None = None
        self._came = asyncio.Event()
        self._lost_at: float | None = None

    async def connect(self, line: socket.socket, news: socket.socket) -> None:
        """A core is there, in place of the one before."""
        self._leave()
        loop = asyncio.get_running_loop()
        self.replica.attach(news)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        loop.add_reader(news, self._news, news)
        mine: list[Line] = []
        self._line = await Line.over(line, self._take, lambda: self._lost(mine), self._choked)
        mine.append(self._line)

    @property
    def deserted(self) -> bool:
        """Has there been no core for so long that there will not be one?"""
        lost = self._lost_at
        return lost is not None and asyncio.get_running_loop().time() - lost > DESERTED

    def close(self) -> None:
        """No core is needed any more."""
        self._leave()
        self.replica.detach()

    async def ready(self) -> None:
        """Return when a core serves."""
        await self._came.wait()

    def open(self, end: End, opening: StreamOpening) -> int:
        """A stream's number; 0 where there is no core."""
        if self._line is None or not self._serves:
            return 0
        self._last = self._last % 0xFFFF_FFFF + 1
        while self._last in self._ends:
            self._last = self._last % 0xFFFF_FFFF + 1
        self._ends[self._last] = end
        self._line.send(FrameKind.OPEN, self._last, opening.write())
        return self._last

    def send(self, kind: FrameKind, stream: int, payload: bytes = b"") -> None:
        """One frame of a stream."""
        if self._line is not None and stream in self._ends:
            self._line.send(kind, stream, payload)

    def data(self, stream: int, octets: bytes) -> None:
        """A stream's octets."""
        if self._line is not None and stream in self._ends:
            self._line.data(stream, octets)

    def end(self, stream: int) -> None:
        """A stream is not needed any more."""
        if self._ends.pop(stream, None) is not None and self._line is not None:
            self._line.send(FrameKind.LOST, stream)

    def ended(self, stream: int) -> None:
        """The core ended it."""
        self._ends.pop(stream, None)

    def count(self, facts: Mapping[str, Any]) -> bool:
        """Tell the core what was answered from memory; False where there is none."""
        if self._line is None or not self._serves:
            return False
        self._line.send(FrameKind.COUNTS, 0, pack(dict(facts)))
        return True

    def http(self, place: str) -> Callable[[], Remote]:
        """What stands behind an `Exchange` of a listener, in aiohttp's place."""
        return partial(Remote, self, place)

    # inside

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.HELLO:
            self._serves = True
            self._lost_at = None
            self._came.set()
        elif (end := self._ends.get(frame.stream)) is not None:
            try:
                end.take(frame)
            except Exception:  # a bug, which is one client's and not everybody's
                _LOG.exception("a connection ends for an error of ours")
                self.end(frame.stream)
                end.orphaned()

    def _choked(self, choked: bool) -> None:
        for end in tuple(self._ends.values()):
            end.choke(choked)

    def _news(self, sock: socket.socket) -> None:
        self.replica.catch_up()
        if self.replica.over:
            asyncio.get_running_loop().remove_reader(sock)

    def _lost(self, line: list[Line]) -> None:
        if line and self._line is line[0]:
            self._leave()
            self._grace = asyncio.get_running_loop().call_later(GRACE, self.replica.detach)

    def _leave(self) -> None:
        """The core that was here is gone."""
        line, self._line = self._line, None
        if self._serves:
            self._lost_at = asyncio.get_running_loop().time()
        self._serves = False
        self._came.clear()
        if self.replica.sock is not None:
            asyncio.get_running_loop().remove_reader(self.replica.sock)
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end.orphaned()
        if line is not None:
            line.close()


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
