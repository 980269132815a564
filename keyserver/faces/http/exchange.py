"""aiohttp behind an HTTP connection: its protocol on a transport in memory; the socket stays the connection's.

One exchange serves one connection's requests that memory could not answer, one at a time: the front hands in one
simple request, the exchange counts the reply that aiohttp writes, and when its last octet is written the connection is
the front's again. Once an end cannot be counted (a foreign request, or a reply without a length) the exchange is
*sticky*: octets pass through both ways until one side closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from keyserver.faces.http.facts import Facts
from keyserver.faces.http.hot import HotAnswers
from keyserver.wire.http_hot import ResponseHead, read_response_head

MAX_REPLY_HEAD = 64 * 1024
"""Octets of a reply's head; what has not ended by then is not counted any more."""


@web.middleware
async def at_work(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For applications whose handlers take as long as they need, and bound the time of what they read: while one is
    at work its connection is not idle, whatever comes or goes on it."""
    exchange = request.transport.get_extra_info("exchange") if request.transport is not None else None
    if exchange is None:
        return await handler(request)
    exchange.working += 1
    try:
        return await handler(request)
    finally:
        exchange.working -= 1


class Owner(Protocol):
    """What an exchange tells the front that owns it."""

    def exchange_wrote(self) -> None:
        """Octets of aiohttp went to the client."""

    def exchange_done(self) -> None:
        """The reply is complete and the connection may go on."""

    def exchange_stuck(self) -> None:
        """The reply's end cannot be counted: everything from here on is aiohttp's."""

    def exchange_closed(self, over: bool) -> None:
        """aiohttp hung up. `over`: the connection ends with it; else aiohttp was idle, only the exchange is gone."""

    def exchange_choked(self, choked: bool) -> None:
        """aiohttp wants no more octets for now, or wants them again."""


class Behind(Protocol):
    """What answers behind an exchange: aiohttp's protocol, or another process that has one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The exchange is there."""

    def connection_lost(self, error: Exception | None, /) -> None:
        """It is gone."""

    def data_received(self, data: bytes) -> None:
        """Octets of requests."""

    def pause_writing(self) -> None:
        """The client does not read."""

    def resume_writing(self) -> None:
        """It reads again."""

    def close(self) -> None:
        """End when what is under way is answered."""

    async def shutdown(self, timeout: float | None = ..., /) -> None:
        """End within so many seconds."""


class Exchange(asyncio.Transport):
    """The transport that aiohttp's protocol sees."""

    def __init__(
        self, owner: Owner, server: Callable[[], Behind], outer: asyncio.Transport, hot: HotAnswers, client: str
    ) -> None:
        super().__init__()
        self.sticky = False
        self.busy = False
        self.working = 0
        """Handlers at work that have said so, by `at_work`."""
        self._client = client
        self._owner = owner
        self._outer = outer
        self._hot = hot
        self._closed = False
        self._line: bytes | None = None
        self._facts: Facts | None = None
        self._bodiless = False
        self._head = b""
        self._reply: ResponseHead | None = None
        self._body: list[bytes] = []
        self._left = 0
        self.handler = server()
        self.handler.connection_made(self)

    # what the front calls

    def ask(self, request: bytes, line: bytes) -> None:
        """Hand in one simple request. `line`: under which the reply may become a hot answer; empty: under none."""
        self.busy = True
        self._line = line or None
        self._facts = None
        self._bodiless = request.startswith(b"HEAD ")
        self._head = b""
        self._reply = None
        self._body = []
        self.handler.data_received(request)

    def pass_on(self, data: bytes) -> None:
        """Hand in octets whose meaning is aiohttp's business, now and for the rest of the connection."""
        self.sticky = True
        self._line, self._facts, self._head, self._body = None, None, b"", []
        if data:
            self.handler.data_received(data)

    def lost(self, error: Exception | None) -> None:
        """The connection is gone, or the exchange is no longer needed."""
        if not self._closed:
            self._closed = True
            self.handler.connection_lost(error)

    # what aiohttp calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`hot_answers`: takes the facts behind the reply under way. The socket stays the front's; who is at its other
        end may be asked by `peer_socket`. The peer is the client, also where a proxy named it."""
        if name == "hot_answers":
            return self._take if self._line is not None else default
        if name == "exchange":
            return self
        if name == "peername" and self._client:
            return self._client, 0
        if name == "peer_socket":
            return self._outer.get_extra_info("socket", default)
        return default if name == "socket" else self._outer.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Pass the octets on at once, and count them."""
        if self._closed:
            return
        self._outer.write(data)
        self._owner.exchange_wrote()
        if not self.sticky:
            self._count(bytes(data))

    def is_closing(self) -> bool:
        """Is it useless to write more?"""
        return self._closed or self._outer.is_closing()

    def close(self) -> None:
        """aiohttp is finished: always with this exchange, and with the connection unless it was idle."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self.handler.connection_lost, None)
            self._owner.exchange_closed(self.busy or self.sticky)

    def abort(self) -> None:
        """Close without sending what is buffered."""
        self._outer.abort()

    def pause_reading(self) -> None:
        """Matters only while octets pass through: a counted request is complete when it is handed in."""
        self._owner.exchange_choked(True)

    def resume_reading(self) -> None:
        self._owner.exchange_choked(False)

    def is_reading(self) -> bool:
        """Always: the front decides."""
        return not self._closed

    def can_write_eof(self) -> bool:
        """Never half-close: HTTP has no use for it."""
        return False

    def get_write_buffer_size(self) -> int:
        """Octets not yet taken by the system."""
        return self._outer.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
        return self._outer.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._outer.set_write_buffer_limits(high, low)

    # counting

    def _take(self, facts: Facts) -> None:
        self._facts = facts

    def _count(self, data: bytes) -> None:
        if self._reply is None:
            self._head += data
            reply = read_response_head(self._head, self._bodiless)
            if reply is None or reply.length is None:
                if reply is not None or b"\r\n\r\n" in self._head or len(self._head) > MAX_REPLY_HEAD:
                    self._owner.exchange_stuck()
                return
            self._reply = reply
            self._left = reply.length
            data = self._head[reply.size :]
            self._head = b""
        if not self.busy:
            self._outer.abort()  # octets behind the reply: nobody knows what the client would take them for
            return
        self._left -= len(data)
        if self._facts is not None:
            self._body.append(data)
        if self._left < 0:
            self._outer.abort()
        elif not self._left:
            self._complete(self._reply)

    def _complete(self, reply: ResponseHead) -> None:
        line, facts, body = self._line, self._facts, b"".join(self._body)
        self._line, self._facts, self._body = None, None, []
        if line is not None and facts is not None:
            self._hot.fill(line, reply, body, facts)
        if reply.closes:
            self._owner.exchange_closed(True)  # what it says must come true even if the handler forgets
            return
        self.busy = False
        self._owner.exchange_done()
