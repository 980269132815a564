"""Both sides of the HTTP front in tests: a tiny application that offers facts, and a wire without a socket."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from keyserver.changes import Changes
from keyserver.faces.http.facts import Facts, offer
from keyserver.model import Change

START = 1_800_000_000


@dataclass
class World:
    """What the application knows: a number for each name, or nothing (a negative answer)."""

    changes: Changes = field(default_factory=Changes)
    known: dict[str, int] = field(default_factory=lambda: {"alice": 1, "bob": 1})
    now: int = START
    since: int = START - 10
    ttl: int = 3600
    lookups: int = 0
    padding: int = 0
    gate: asyncio.Event | None = None  # lookups wait here between looking and answering

    def change(self, name: str, value: int | None) -> None:
        if value is None:
            self.known.pop(name, None)
        else:
            self.known[name] = value
        self.changes.publish(Change(self.changes.published + 1, frozenset({name})))

    async def lookup(self, request: web.Request) -> web.StreamResponse:
        self.lookups += 1
        number = self.changes.published
        name = request.query.get("search", "")
        value = self.known.get(name)
        if self.gate is not None:
            await self.gate.wait()
        body = f"{name} {value}\n".encode() + b"#" * self.padding if value is not None else b"nothing\n"
        headers = {"Age": str(max(0, self.now - self.since)), "Server": "test", "X-Cache": "HIT"}
        headers["Cache-Control"] = f"max-age={min(300, self.since + self.ttl - self.now)}"
        response = web.Response(status=404 if value is None else 200, body=body, headers=headers)
        response.content_type = "text/plain" if value is None else "application/pgp-keys"
        if value is not None:
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            response.headers["ETag"] = etag
            given = {t.strip().removeprefix("W/") for t in request.headers.get("If-None-Match", "").split(",")}
            if etag in given or "*" in given:
                kept = {k: v for k, v in response.headers.items() if not k.lower().startswith("content-")}
                response = web.Response(status=304, headers=kept)
        if request.method == "GET" and "no-offer" not in request.query:
            query = Facts(frozenset({name}), self.since + self.ttl, number, self.since, value is not None, name)
            offer(request, query)
        return response

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/pks/lookup", self.lookup)
        app.router.add_route("*", "/echo", echo)
        app.router.add_get("/stream", stream)
        app.router.add_get("/bye", bye)
        app.router.add_get("/fail", fail)
        app.router.add_get("/empty", empty)
        return app


async def echo(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    return web.Response(body=b"%b %b %b\n" % (request.method.encode(), request.raw_path.encode(), body))


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for part in (b"one\n", b"two\n"):
        await response.write(part)
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def bye(request: web.Request) -> web.StreamResponse:
    response = web.Response(body=b"bye\n")
    response.force_close()
    return response


async def fail(request: web.Request) -> web.StreamResponse:
    raise web.HTTPInternalServerError(text="no\n")


async def empty(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


class Wire(asyncio.Transport):
    """A transport without a socket: keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol, high: int = 1 << 30, **extra: Any) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711), **extra})
        self.protocol = protocol
        self.written = bytearray()
        self.high = high
        self.unread = 0
        self.full = False
        self.reading = True
        self.closed = False
        self.aborted = False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close"
        self.written += data
        self.unread += len(data)
        if self.unread > self.high and not self.full:
            self.full = True
            self.protocol.pause_writing()

    def read(self) -> bytes:
        """The client takes everything."""
        data = bytes(self.written)
        self.written.clear()
        self.unread = 0
        if self.full:
            self.full = False
            self.protocol.resume_writing()
        return data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unread if self.high < 1 << 30 else 0


async def settle(turns: int = 30) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def said_to(protocol: asyncio.Protocol, pieces: Iterable[bytes], turns: int = 30) -> tuple[bytes, bool]:
    """What a connection without a socket says to these pieces, and whether it closed behind it; `turns` to end in."""
    wire = Wire(protocol)
    for piece in pieces:
        if wire.closed:
            break
        protocol.data_received(piece)
        await settle(3)
    await settle(turns)
    said = bytes(wire.written), wire.closed
    wire.abort()
    await settle(3)
    return said


_HEAD = re.compile(rb"HTTP/[0-9]\.[0-9] [0-9]{3} [^\r]*\r\n(?:[^\r\n]+\r\n)*\r\n")


def canonical(said: bytes) -> bytes:
    """Replies with their headers in order and without Date."""

    def ordered(match: re.Match[bytes]) -> bytes:
        status, *headers = match[0][:-4].split(b"\r\n")
        return b"\r\n".join([status, *sorted(h for h in headers if not h.startswith(b"Date:")), b"", b""])

    return _HEAD.sub(ordered, said)
