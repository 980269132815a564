"""A scripted upstream: a raw HTTP server on 127.0.0.1 that answers each search term as told, well or badly.

::

    async with Scripted({"alice@example.org": key(octets), "*": NOT_FOUND}) as upstream:
        ...                                     # upstream.url == "hkp://127.0.0.1:<port>"
        upstream.routes["bob@example.org"] = [reply(500), key(octets)]     # the first time, and from then on
        assert upstream.asked("alice@example.org") == 1

A behaviour is an async function of (request, writer); raising Hangup, or returning True, closes the connection.
Terms are compared without case and without `0x`; `"*"` is for those without a route of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

from support.openpgp import armored


@dataclass(frozen=True)
class Request:
    """One request as it came: the raw head, and what it asks."""

    head: bytes
    method: str
    target: str
    headers: Mapping[str, str]  # lower-case names
    term: str  # the search, or the local part that a Web Key Directory is asked for, decoded
    body: bytes = b""

    @property
    def parameters(self) -> dict[str, str]:
        """The query string, decoded."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}


class Hangup(Exception):
    """Close the connection now."""


Behaviour: TypeAlias = Callable[[Request, asyncio.StreamWriter], Awaitable[bool | None]]
Route: TypeAlias = "Behaviour | Sequence[Behaviour]"


def reply(status: int = 200, body: bytes | str = b"", length: int | None = None, **headers: str) -> Behaviour:
    """A plain answer; `length` is what Content-Length claims; header names are written with `_` for `-`."""
    octets = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(octets) if length is None else length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} Scripted\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items()) + "\r\n"
    return raw(head.encode() + octets, close=length is not None)


def raw(octets: bytes, close: bool = True) -> Behaviour:
    """Exactly these octets."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> bool:
        writer.write(octets)
        await writer.drain()
        return close

    return behave


def key(*certificates: bytes) -> Behaviour:
    """Armored certificates, a block each, as a keyserver sends them."""
    return reply(200, "".join(armored(c) for c in certificates), Content_Type="application/pgp-keys")


def slow(seconds: float, then: Behaviour) -> Behaviour:
    """Wait before answering."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> bool | None:
        await asyncio.sleep(seconds)
        return await then(request, writer)

    return behave


def drip(body: bytes, every: float = 0.05, head: bool = True) -> Behaviour:
    """One octet at a time: of the body, or with head=False of everything."""
    start = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        if head:
            writer.write(start)
        for octet in body if head else start + body:
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(every)

    return behave


def endless(start: bytes = b"", chunk: bytes = b"A" * 65536, head: str = "HTTP/1.1 200 OK\r\n\r\n") -> Behaviour:
    """A body (or, with another `head`, headers) without an end."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + start)
        while not writer.is_closing():  # when TLS has ended, writing raises nothing and drain does not wait
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)

    return behave


def chunked(body: bytes, size: int = 1000, cut: bool = False) -> Behaviour:
    """In chunks; `cut`: the connection ends within the last one."""
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    octets = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
    return raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (octets[:-20] if cut else octets), close=cut)


def gzipped(body: bytes) -> Behaviour:
    """Compressed without having been asked."""
    return reply(200, gzip.compress(body), Content_Encoding="gzip")


def redirect(location: str, status: int = 302) -> Behaviour:
    """To somewhere else."""
    return reply(status, Location=location)


async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
    """End the connection by a reset, without an answer."""
    writer.transport.abort()
    raise Hangup


async def hang_up(request: Request, writer: asyncio.StreamWriter) -> None:
    """End the connection properly, without an answer."""
    raise Hangup


NOT_FOUND = reply(404, "Not Found\n", Content_Type="text/plain")


@dataclass
class Scripted:
    """The server; `routes` may change while it runs. `requests` are those that came, in their order."""

    routes: dict[str, Route] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"  # in `url`; it listens on 127.0.0.1 whatever stands here
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> Scripted:
        self._turns: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End all connections and refuse new ones: the upstream is unplugged."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Its URL as an upstream."""
        return f"{'hkps' if self.tls else 'hkp'}://{self.host}:{self.port}"

    @property
    def http(self) -> str:
        """Its URL without a path, for redirects."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def asked(self, term: str) -> int:
        """How many requests had this search term."""
        return sum(_plain(r.term) == _plain(term) for r in self.requests)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                request = await _read(reader)
                self.requests.append(request)
                if await self._turn(request)(request, writer):
                    break
        except (Hangup, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def _turn(self, request: Request) -> Behaviour:
        routes = {_plain(term): route for term, route in self.routes.items()}
        term = _plain(request.term) if _plain(request.term) in routes else "*"
        route = routes.get(term, NOT_FOUND)
        if callable(route):
            return route
        turn = self._turns.get(term, 0)
        self._turns[term] = turn + 1
        return route[min(turn, len(route) - 1)]


def _plain(term: str) -> str:
    return term.lower().removeprefix("0x")


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(head, method, target, headers, _term(target), body)


def _term(target: str) -> str:
    """What is asked for: `search`, else the value of the first parameter, else the last segment of the path."""
    parts = urlsplit(target)
    if fields := parse_qs(parts.query):
        return fields.get("search", next(iter(fields.values())))[0]
    return unquote(parts.path.rpartition("/")[2])
