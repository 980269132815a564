"""Questions on kept connections: aiohttp makes, checks and pools them; who asks on one again needs no session of it.

A plain reply (RFC 9112: its whole head in the first piece, `Content-Length` once, nothing that changes where it ends)
is read here, more strictly than by aiohttp; any other goes, every octet of it, to aiohttp's parser on that connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from ssl import SSLContext
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import HttpProcessingError, RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

MAX_LINE = 8190  # octets of one line of a head
MAX_HEADERS = 128
MAX_PLAIN = 64 << 10  # octets of the body of a plain reply; a longer one is read piece by piece
MAX_INTERIM = 8  # replies of 1xx before the one that counts
CONNECTIONS = 100  # of one upstream, in use or kept

_BOUNDS = {"max_line_size": MAX_LINE, "max_field_size": MAX_LINE, "max_headers": MAX_HEADERS}
_HEAD = re.compile(
    rb"HTTP/1\.1 (200|404) [\t -~]*\r\n"  # other statuses are rare, and some of them have no body
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*(?<![\t ])\r\n)+)\r\n"
)
_FIELD = re.compile(r"([^:]+):[\t ]*([^\r]*)\r\n")
_ENDS_OTHERWISE = frozenset({"transfer-encoding", "content-encoding", "trailer", "upgrade"})


@dataclass(slots=True)
class Reply:
    """A reply whose head is here."""

    status: int
    headers: Mapping[str, str]  # names compare without case
    content: aiohttp.StreamReader | bytes  # bytes: all of a plain reply
    _connection: aiohttp.connector.Connection

    def close(self) -> None:
        """Read no more of it; nothing, where it was read to its end."""
        self._connection.close()


class Keeping(aiohttp.TCPConnector):
    """A pool in which no connection is kept on which something came that nobody has asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(limit=CONNECTIONS, **options)
        self._factory = partial(_Exchanges, loop=self._loop)  # type: ignore[assignment]  # one in a subclass

    async def ask(self, url: URL, tls: SSLContext | bool, headers: Mapping[str, str]) -> Reply | None:
        """The reply to a GET on a kept connection. None: there is none, or it was closed without an answer.

        Raises what aiohttp does, and HttpProcessingError for what is not proper HTTP."""
        lines = [f"GET {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        sendable = (text := "".join(lines)).isascii() and text.isprintable()
        key = ConnectionKey(url.raw_host or "", url.port, url.scheme == "https", tls, None, None, None)
        if not sendable or (connection := await self._get(key, [])) is None:
            return None
        try:
            return await cast(_Exchanges, connection.protocol).ask("\r\n".join([*lines, "", ""]).encode(), connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError):
                return None
            raise

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        full = sum(map(len, self._conns.values())) >= CONNECTIONS
        resting = not should_close and not full and cast(_Exchanges, protocol).rest()
        super()._release(key, protocol, should_close=not resting)


class _Exchanges(ResponseHandler):
    """aiohttp's protocol of one connection; it reads plain replies itself, and hears nothing between two questions."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._asked = self._parsing = False
        self._interim = 0  # heads of 1xx, one behind the other
        self._answer: asyncio.Future[bytes | None] | None = None  # None: aiohttp's parser has it
        self._octets = bytearray()  # of a plain reply that has begun
        self._plain: PlainHead | None = None

    def set_response_params(self, **options: Any) -> None:
        self._asked = True
        super().set_response_params(**options)

    async def ask(self, request: bytes, connection: aiohttp.connector.Connection) -> Reply:
        """Send a request, and have its reply."""
        assert self.transport is not None
        self._asked = True
        answer = self._answer = self._loop.create_future()
        self.transport.write(request)
        if (body := await answer) is not None and self._plain is not None:
            connection.release()
            return Reply(self._plain.status, self._plain.headers, body, connection)
        while True:
            message, payload = await self.read()
            if not 100 <= message.code <= 199 or message.code == 101:
                payload.on_eof(connection.release)
                return Reply(message.code, message.headers, payload, connection)

    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], size: int = 0) -> None:
        if self._interim <= MAX_INTERIM:
            self._interim = self._interim + 1 if 100 <= data[0].code <= 199 else 0
        if self._interim > MAX_INTERIM:
            self.set_exception(HttpProcessingError(message="Too many interim replies"))
        else:
            super().feed_data(data, size)

    def rest(self) -> bool:
        """Wait for the next question; False: this connection is of no more use."""
        self._asked = False
        return self._parsing or self._quiet()

    def data_received(self, data: bytes) -> None:
        if data and self._answer is not None:
            self._read(data)
        elif data and not self._asked:  # the reply to a question that nobody has asked yet
            self.abort()
        else:
            self._parsing = True
            super().data_received(data)
            self._parsing = False
            if not self._asked and not self._quiet():
                self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._answer is not None:
            self._hand_over()
        super().connection_lost(exc)

    def _read(self, data: bytes) -> None:
        """Read more of a reply, for as long as it is a plain one."""
        if not self._octets:
            self._plain = plain_head(data)
        if self._plain is None or len(self._octets) + len(data) > self._plain.end:
            self._hand_over(data)
            return
        self._octets += data
        if len(self._octets) == self._plain.end:
            self._asked = False
            self._end(bytes(self._octets[self._plain.begin :]))

    def _hand_over(self, data: bytes = b"") -> None:
        """Let aiohttp's parser read this reply, from its first octet on."""
        self.set_response_params(read_until_eof=True, auto_decompress=False, **_BOUNDS)
        octets = bytes(self._octets)
        self._end(None)
        self.data_received(octets)
        self.data_received(data)  # a piece of its own: what is wrong with it does not undo what was complete

    def _end(self, body: bytes | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(body)
        self._octets.clear()

    def _quiet(self) -> bool:
        """Has nothing come behind the last reply, not even a part of another's head?"""
        parser, self._parser = self._parser, None
        try:
            return not self.should_close and (parser is None or parser.feed_eof() is None)
        except Exception:  # of a head that has begun
            return False


@dataclass(slots=True)
class PlainHead:
    """The head of a plain reply."""

    status: int
    headers: CIMultiDict[str]
    begin: int  # of the body, in octets of the reply
    end: int


def plain_head(data: bytes) -> PlainHead | None:
    """The head of the plain reply that begins with these octets, if it is one."""
    if (found := _HEAD.match(data, 0, MAX_LINE)) is None:
        return None
    headers: CIMultiDict[str] = CIMultiDict(fields := _FIELD.findall(found[2].decode("ascii")))
    names = {name.lower() for name, _ in fields}
    if len(names) < len(fields) or len(fields) > MAX_HEADERS or not names.isdisjoint(_ENDS_OTHERWISE):
        return None
    length = headers.get("Content-Length", "")
    kept = headers.get("Connection", "keep-alive").lower() == "keep-alive"
    if not kept or not length.isdigit() or len(length) > 5 or int(length) > MAX_PLAIN:
        return None
    return PlainHead(int(found[1]), headers, found.end(), found.end() + int(length))
