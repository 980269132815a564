"""One HTTP connection: hot requests are answered before any aiohttp object exists, all others behind it.

The front keeps the socket for the life of the connection. A request that memory cannot answer goes to aiohttp through
an `Exchange`, and requests pipelined behind it wait, so that replies leave in order. What is not provably one simple
request makes the exchange sticky: from there on every octet of the connection is aiohttp's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from keyserver.changes import Changes
from keyserver.faces.http.exchange import Behind, Exchange
from keyserver.faces.http.hot import HotAnswer, HotAnswers
from keyserver.listen.server import peer_of
from keyserver.listen.trust import UNIX, Trust
from keyserver.wire.http_hot import Answering, Block, Unread, head_end
from keyserver.wire.wkd import hot_line

MAX_CONNECTIONS = 65536  # of one listener; the file limit comes first

MAX_HELD = 64 * 1024
"""Octets of unread pipelined requests above which a peer is dropped."""

PAUSE_AT = 16 * 1024
"""Octets of unread pipelined requests above which no more are read."""

SPARE = 5
"""Seconds that an idle exchange is kept for the next miss on its connection."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one connection, and one client, may take."""

    connections_per_client: int = 64
    trust: Trust = field(default_factory=Trust)
    idle: int = 60  # seconds without a request, or without progress
    head: int = 10  # seconds for a request's head, for the first one of a connection from its beginning
    connections: int = MAX_CONNECTIONS


class Shared(Protocol):
    """What the connections of one view share, as one of them sees it."""

    server: Callable[[], Behind]
    hot: HotAnswers
    limits: HttpLimits
    lines: dict[bytes, HotAnswer]
    clock: Callable[[], int]
    changes: Changes
    plain: set[bytes]
    known: dict[bytes, Block]
    tick: int
    """Seconds since it opened."""
    grace: int
    draining: bool
    dropped: int
    timeouts: int
    cold: int
    foreign: int

    def enter(self, connection: HttpConnection, client: str, transport: asyncio.BaseTransport) -> str:
        """A connection begins; else why it may not."""

    def leave(self, connection: HttpConnection, client: str) -> None:
        """A connection is gone."""

    def classify(self, block: bytes) -> Block:
        """The verdict on a header block."""


class HttpConnection(asyncio.Protocol):
    """One connection. The loop makes it for every one, so it holds no timer and no object that it can do without."""

    __slots__ = (
        "_answered",
        "_backlog",
        "_choked",
        "_client",
        "_ending",
        "_eof",
        "_exchange",
        "_full",
        "_held",
        "_ready",
        "_server",
        "_stopped",
        "_tick",
        "_transport",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, server: Shared, client: str | None = None) -> None:
        self._server = server
        self._client = client
        """Its address; before the connection is made only where a proxy named it."""
        self._exchange: Exchange | None = None
        self._held = b""
        """Octets of requests not yet served."""
        self._tick = server.tick + server.grace
        """When the present state (idle, waiting for the rest of a head, waiting for aiohttp) began."""
        self._backlog = 0
        self._ready = True
        """The next octets begin a request, and it may be answered at once."""
        self._full = False
        """The transport's write buffer is above its high-water mark."""
        self._choked = False
        self._stopped = False
        self._answered = True
        self._eof = False
        self._ending = False

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it."""
        self._transport = cast(asyncio.Transport, transport)
        if self._client is None:
            self._client = peer_of(transport)
        if self._server.enter(self, self._client, transport):
            self._ready, self._ending = False, True
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell aiohttp, if it knows of this connection."""
        self._ready, self._ending = False, True
        self._held = b""
        self._server.leave(self, self._client or UNIX)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.lost(error)

    def data_received(self, data: bytes) -> None:
        """Answer a hot request at once: the whole way of a hot hit. Everything else is slower."""
        if self._ready:
            server = self._server
            if server.changes.told[0] > server.changes.published:
                server.changes.catch_up()
            cut = data.find(b"\r\n") + 2
            answer = server.lines.get(data[:cut])
            block = data[cut:]
            if answer is None and block in server.plain:
                answer = server.lines.get(hot_line(data[:cut], server.known[block].domain))
            if answer is not None:
                if block in server.plain and data[cut - 3] == 0x31:  # HTTP/1.1
                    now = server.clock()
                    if answer.at == now or server.hot.fresh(answer, now):
                        self._transport.write(answer.head + answer.body)
                        self._tick = server.tick
                        server.hot.hit(answer)
                        return
                elif block in server.known and self._hot(data[:cut], server.known[block]):
                    return
        self._take(data)

    def eof_received(self) -> bool:
        """The client sends no more. What it asked for before is still answered (not over TLS, which cannot)."""
        exchange = self._exchange
        waiting = exchange is not None and exchange.busy and not exchange.sticky
        self._eof = True
        return (waiting or (self._full and bool(self._held))) and self._transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """The client does not read: answer nothing more, read nothing more."""
        self._full, self._ready = True, False
        if self._exchange is not None:
            self._exchange.handler.pause_writing()
        self._gate()

    def resume_writing(self) -> None:
        """The client read."""
        self._full = False
        self._tick = self._server.tick
        if self._exchange is not None:
            self._exchange.handler.resume_writing()
        self._serve()

    # what the exchange calls

    def exchange_wrote(self) -> None:
        """Octets of aiohttp went to the client."""
        self._tick = self._server.tick
        self._answered = True

    def exchange_done(self) -> None:
        """Go on with what came meanwhile, but not from within aiohttp's write."""
        if self._held or self._eof or self._server.draining:
            asyncio.get_running_loop().call_soon(self._serve)
        else:
            self._ready = not (self._full or self._ending)

    def exchange_stuck(self) -> None:
        """Everything from here on is aiohttp's."""
        held, self._held = self._held, b""
        self._hand_over(held)

    def exchange_closed(self, over: bool) -> None:
        """aiohttp hung up."""
        if over:
            self._end()
        else:
            self._exchange = None

    def exchange_choked(self, choked: bool) -> None:
        """aiohttp wants no more octets for now, or wants them again."""
        self._choked = choked
        self._gate()

    # what the server calls

    def sweep(self, tick: int) -> None:
        """Once in a while: end what has lasted too long."""
        server = self._server
        lasted = tick - self._tick
        exchange = self._exchange
        waiting = exchange is not None and exchange.busy and not exchange.sticky
        if exchange is not None and lasted >= SPARE and not exchange.busy and not exchange.sticky:
            self._exchange = None
            exchange.lost(None)
        limit = server.limits.head if self._held and not waiting and not self._full else server.limits.idle
        if lasted < limit or (waiting and not self._full):
            return
        if exchange is not None and exchange.working and not self._full:
            return  # a handler that says so bounds its time itself
        unsent = self._transport.get_write_buffer_size()
        if unsent and unsent != self._backlog:
            self._backlog, self._tick = unsent, server.tick  # slow, but it reads
            return
        server.timeouts += 1
        self._transport.abort() if unsent else self._end()

    async def drain(self, seconds: float) -> None:
        """End the connection, at once where nothing is under way. `server.draining` is set by now."""
        exchange = self._exchange
        if exchange is not None and exchange.sticky:
            exchange.handler.close()
            await asyncio.sleep(0)
            await exchange.handler.shutdown(seconds)
        elif exchange is None or not exchange.busy:
            self._end()

    def abort(self) -> None:
        """End the connection now, whatever is under way."""
        self._ending, self._ready = True, False
        self._transport.abort()

    # serving

    def _take(self, data: bytes) -> None:
        if self._ending:
            return
        exchange = self._exchange
        if exchange is not None and exchange.sticky:
            if self._answered:  # time runs from the first octet that waits for a word of aiohttp
                self._answered, self._tick = False, self._server.tick
            exchange.pass_on(data)
            return
        if not self._held and not (exchange is not None and exchange.busy):
            self._tick = self._server.tick
        self._held += data
        self._serve()
        if len(self._held) > MAX_HELD and not self._ending:
            self._server.dropped += 1
            self.abort()

    def _serve(self) -> None:
        """Serve the held requests in order, until one has to wait."""
        data, start = self._held, 0
        while start < len(data) and not self._waits():
            end = head_end(data, start)
            if end is Unread.NEED_MORE:
                break
            if end is Unread.FOREIGN or not self._request(data[start:end]):
                self._held = b""
                self._hand_over(data[start:])
                return
            start = end
        self._held = data[start:]
        waits = self._waits()
        if not waits and (self._eof or self._server.draining):
            self._end()
        self._ready = not (waits or self._held or self._ending)
        self._gate()

    def _waits(self) -> bool:
        exchange = self._exchange
        return self._full or self._ending or (exchange is not None and (exchange.busy or exchange.sticky))

    def _request(self, request: bytes) -> bool:
        """Answer one request whose head is `request`, or have it answered. False: it is foreign."""
        cut = request.index(b"\r\n") + 2
        line = request[:cut]
        block = self._server.classify(request[cut:])
        if self._hot(line, block):
            return True
        old = line.endswith(b" HTTP/1.0\r\n")
        if block.answering is Answering.FOREIGN or (old and (block.close or block.stays)):
            return False
        self._server.cold += 1
        self._tick = self._server.tick
        keep = block.answering is Answering.MEMORY and (old or block.host)
        self._behind().ask(request, hot_line(line, block.domain) if keep else b"")
        return True

    def _hot(self, line: bytes, block: Block) -> bool:
        """Answer a plain request from memory, if it is one and memory knows it."""
        old = line.endswith(b" HTTP/1.0\r\n")
        if block.answering is not Answering.MEMORY or (block.close or block.stays if old else not block.host):
            return False
        server = self._server
        answer = server.hot.find(hot_line(line, block.domain))
        if answer is None:
            return False
        self._tick = server.tick
        self._transport.write(answer.rendered(line, block))
        server.hot.hit(answer)
        if old or block.close:
            self._end()
        return True

    def _hand_over(self, data: bytes) -> None:
        self._server.foreign += 1
        self._ready = False
        self._answered, self._tick = False, self._server.tick
        self._behind().pass_on(data)

    def _behind(self) -> Exchange:
        """aiohttp's end of this connection, made when it is first needed."""
        if self._exchange is None:
            self._exchange = Exchange(
                self, self._server.server, self._transport, self._server.hot, self._client or UNIX
            )
        return self._exchange

    def _gate(self) -> None:
        """Read on, or stop reading."""
        stop = self._full or self._choked or (len(self._held) > PAUSE_AT and self._waits())
        if stop != self._stopped and not self._transport.is_closing():
            self._stopped = stop
            if stop:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _end(self) -> None:
        """Close when everything written has left."""
        self._ending, self._ready = True, False
        self._transport.close()
