"""The core's end of fronts' streams: each is a transport under the very protocol that a socket would have there."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyserver.faces.cache import Ground
from keyserver.faces.http.facts import Facts
from keyserver.faces.ldap.search import Rendered
from keyserver.model import Malformed
from keyserver.processes.frames import PIECE, Frame, FrameKind, pack, unpack
from keyserver.processes.line import Line

_LOG = logging.getLogger("keyserver.processes")

Place = Callable[[str, bool], asyncio.Protocol]
"""Makes the protocol of a listener's next connection: (client's address, over TLS?)."""


@dataclass(frozen=True, slots=True)
class StreamOpening:
    """What a front says of a connection. `place`: which listener's; `client`: an address, empty for a Unix socket's."""

    place: str
    client: str
    tls: bool = False
    peer: str | None = None
    """Who is at the socket's other end, where that is a proxy and the protocol wants to know."""

    def write(self) -> bytes:
        """As a payload."""
        return pack({"place": self.place, "client": self.client, "tls": self.tls, "peer": self.peer})

    @classmethod
    def read(cls, payload: bytes) -> StreamOpening:
        """Raises Malformed."""
        facts, _ = unpack(payload)
        try:
            return cls(str(facts["place"]), str(facts["client"]), bool(facts["tls"]), facts["peer"])
        except (KeyError, ValueError, TypeError) as problem:
            raise Malformed(f"an opening without {problem}") from None


def write_facts(facts: Facts) -> bytes:
    """As a payload."""
    return pack(
        {
            "names": list(facts.names),
            "since": facts.since,
            "until": facts.until,
            "number": facts.number,
            "positive": facts.positive,
            "query": facts.query,
        }
    )


def read_facts(payload: bytes) -> Facts:
    """The opposite."""
    said, _ = unpack(payload)
    return Facts(
        names=frozenset(said["names"]),
        since=said["since"],
        until=said["until"],
        number=said["number"],
        positive=said["positive"],
        query=said["query"],
    )


def write_rendered(request: bytes, rendered: Rendered, ground: Ground) -> bytes:
    """A reply to an LDAP request, as a payload."""
    facts = {"asked": rendered.asked, "names": list(ground.names), "until": ground.until, "number": ground.number}
    return pack(facts, (request, *rendered.operations))


def read_rendered(payload: bytes) -> tuple[bytes, Rendered, Ground]:
    """The opposite. Raises Malformed."""
    said, (request, *operations) = unpack(payload)
    ground = Ground(frozenset(said["names"]), said["until"], said["number"])
    return request, Rendered(tuple(operations), tuple(said["asked"]), sum(map(len, operations))), ground


class Stream(asyncio.Transport):
    """One client's connection, as the protocol behind it sees it."""

    def __init__(self, streams: Streams, number: int, opening: StreamOpening, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._streams = streams
        self._line = streams.line
        self._number = number
        self._opening = opening
        self._protocol = protocol
        self._paused = 0
        self._closed = False
        self._upgraded: asyncio.Future[None] | None = None
        protocol.connection_made(self)

    # what the protocol calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The peer is the client, or his proxy where the protocol tells them apart.

        `hot_answers`, `ldap_answers`: take what may be given again. `start_tls`: has the handshake done where the
        socket is."""
        match name:
            case "peername":
                peer = self._opening.client if self._opening.peer is None else self._opening.peer
                return (peer, 0) if peer else ""
            case "sslcontext":
                return True if self._opening.tls else default
            case "hot_answers":
                return self._facts
            case "ldap_answers":
                return self._rendered
            case "start_tls":
                return self._start_tls
        return default

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """To the client."""
        if not self._closed:
            self._line.data(self._number, bytes(data))

    def is_closing(self) -> bool:
        """Is it useless to write more?"""
        return self._closed

    def close(self) -> None:
        """The connection ends when everything written has left."""
        self._end(FrameKind.CLOSE)

    def abort(self) -> None:
        """It ends now."""
        self._end(FrameKind.ABORT)

    def pause_reading(self) -> None:
        self._line.send(FrameKind.PAUSE, self._number)

    def resume_reading(self) -> None:
        self._line.send(FrameKind.RESUME, self._number)

    def is_reading(self) -> bool:
        """The front decides."""
        return not self._closed

    def can_write_eof(self) -> bool:
        """Nothing here half-closes."""
        return False

    def get_write_buffer_size(self) -> int:
        """Of the line, which all streams share."""
        return self._line.waiting

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The line has its own."""

    # what `Streams` calls

    def take(self, frame: Frame) -> None:
        """A frame of this stream."""
        match frame.kind:
            case FrameKind.DATA:
                self._protocol.data_received(frame.payload)
            case FrameKind.PAUSE:
                self.choke(True)
            case FrameKind.RESUME:
                self.choke(False)
            case FrameKind.FINISH:
                self._finish()
            case FrameKind.LOST:
                self._closed = True
                self._gone()
            case FrameKind.START_TLS:
                if self._upgraded is not None and not self._upgraded.done():
                    self._upgraded.set_result(None)
            case FrameKind.ALIVE:
                alive = getattr(self._protocol, "alive", None)
                if alive is not None:
                    alive()

    def choke(self, choked: bool) -> None:
        """Somebody on the way does not read, or reads again: the client, the front."""
        self._paused = max(0, self._paused + (1 if choked else -1))
        if choked and self._paused == 1:
            self._protocol.pause_writing()
        elif not choked and not self._paused:
            self._protocol.resume_writing()

    def lost(self) -> None:
        """The front is gone, and its clients with it."""
        if not self._closed:
            self._closed = True
            self._gone()

    # inside

    def _facts(self, facts: Facts) -> None:
        self._send(FrameKind.FACTS, write_facts(facts))

    def _rendered(self, request: bytes, rendered: Rendered, ground: Ground) -> None:
        if rendered.octets <= PIECE:
            self._send(FrameKind.RENDERED, write_rendered(request, rendered, ground))

    def _send(self, kind: FrameKind, payload: bytes) -> None:
        """An offer; one that no frame holds is not made."""
        try:
            self._line.send(kind, self._number, payload)
        except ValueError:
            return

    async def _start_tls(self) -> asyncio.Transport | None:
        """Nothing where the connection ended meanwhile."""
        self._upgraded = asyncio.get_running_loop().create_future()
        self._line.send(FrameKind.START_TLS, self._number)
        await self._upgraded
        return None if self._closed else self

    def _finish(self) -> None:
        drain: Callable[[float], Awaitable[None]] | None = getattr(self._protocol, "drain", None)
        if drain is not None:
            self._streams.spawn(drain(5.0))
            return
        close = getattr(self._protocol, "close", self.close)
        close()

    def _end(self, kind: FrameKind) -> None:
        if not self._closed:
            self._closed = True
            self._line.send(kind, self._number)
            self._streams.forget(self._number)
            asyncio.get_running_loop().call_soon(self._gone)

    def _gone(self) -> None:
        self._streams.forget(self._number)
        if self._upgraded is not None and not self._upgraded.done():
            self._upgraded.cancel()
        self._protocol.connection_lost(None)


@dataclass(slots=True)
class Streams:
    """All streams of one front. `counts`: hears what it answered from memory."""

    places: Mapping[str, Place]
    counts: Callable[[Mapping[str, Any]], None]
    gone: Callable[[], None]
    _line: Line | None = None
    _streams: dict[int, Stream] = field(default_factory=dict)
    _tasks: set[asyncio.Future[Any]] = field(default_factory=set)

    async def begin(self, sock: socket.socket) -> None:
        """Serve the front at the other end."""
        self._line = await Line.over(sock, self._take, self._lost, self._choked)
        self._line.send(FrameKind.HELLO, 0)

    @property
    def line(self) -> Line:
        """To the front, once it has begun."""
        assert self._line is not None
        return self._line

    def close(self) -> None:
        """End them all."""
        if self._line is not None:
            self._line.close()

    def __len__(self) -> int:
        return len(self._streams)

    def forget(self, number: int) -> None:
        """A stream has ended."""
        self._streams.pop(number, None)

    def spawn(self, work: Awaitable[None]) -> None:
        """Something that ends by itself."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.COUNTS:
            self.counts(unpack(frame.payload)[0])
        elif frame.kind is FrameKind.OPEN:
            opening = StreamOpening.read(frame.payload)
            make = self.places[opening.place]
            self._streams[frame.stream] = Stream(self, frame.stream, opening, make(opening.client, opening.tls))
        elif (stream := self._streams.get(frame.stream)) is not None:
            try:
                stream.take(frame)
            except Exception:  # a bug, which is one client's and not the whole front's
                _LOG.exception("a connection ends for an error of ours")
                stream.abort()

    def _lost(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.lost()
        self.gone()

    def _choked(self, choked: bool) -> None:
        for stream in tuple(self._streams.values()):
            stream.choke(choked)
