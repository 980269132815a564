"""What HTTP means to us and to aiohttp, from the same octets: the front door, and kept connections to upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpResponseParser

from fuzz.mutators import behind_a_cut, lines
from fuzz.target import Target
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.connection import HttpConnection, HttpLimits
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.upstreams.http import kept
from support.door import World, canonical, said_to

GET = b"GET /pks/lookup?op=get&search=alice HTTP/1.1\r\nHost: k.example\r\n\r\n"
OLD = b"GET /pks/lookup?op=get&search=alice HTTP/1.0\r\n\r\n"
NOBODY = GET.replace(b"alice", b"nobody")
COLD = b"GET /echo?1 HTTP/1.1\r\nHost: k.example\r\nCookie: a=b\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: k.example\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: k.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc"
BAD = b"HTTP/1.0 400 Bad Request\r\n"

Said = tuple[bytes, bool]
"""What was written, and whether the connection was closed behind it."""


class Door:
    """One application, behind our front and behind aiohttp alone, on a loop of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        world = World()
        silent = logging.Logger("silent", logging.CRITICAL + 1)
        self.runner = web.AppRunner(world.application(), access_log=None, handle_signals=False, logger=silent)
        await self.runner.setup()
        assert self.runner.server is not None
        self.plain: Callable[[], asyncio.Protocol] = self.runner.server
        hot = HotAnswers(MemoryLimit(1 << 20, world.changes, lambda: world.now))
        self.server = HttpServer(self.runner.server, hot, HttpLimits(1000), own="me.example")
        for request in (GET, OLD, NOBODY):
            await self._talk(HttpConnection(self.server), [request])

    def both(self, front: Sequence[bytes], plain: Sequence[bytes]) -> tuple[Said, Said]:
        """What the front says to some pieces, and aiohttp to others."""

        async def talk() -> tuple[Said, Said]:
            return await self._talk(HttpConnection(self.server), front), await self._talk(self.plain(), plain)

        return self.loop.run_until_complete(talk())

    async def _talk(self, protocol: asyncio.Protocol, pieces: Iterable[bytes]) -> Said:
        said, closed = await said_to(protocol, pieces, 12)
        return re.sub(BAD + b".*", BAD, canonical(said), flags=re.DOTALL), closed


@cache
def door() -> Door:
    """Made once."""
    return Door()


def enter(octets: bytes) -> None:
    """The front says what aiohttp says, however the octets of a connection are cut.

    aiohttp forgets good requests that came in one piece with a malformed one, and is asked octet by octet; of the front
    the same is only true where a piece went through to aiohttp."""
    cuts, stream = octets[:2], octets[2:]
    single = [stream[at : at + 1] for at in range(len(stream))]
    edges = [0, *sorted(cut * len(stream) // 256 for cut in cuts), len(stream)]
    ours, theirs = door().both([stream[a:b] for a, b in pairwise(edges) if a < b], single)
    if ours != theirs:
        assert ours[1] and ours[0].endswith(BAD), (ours, theirs)
        assert theirs[0].startswith(ours[0].removesuffix(BAD)), (ours, theirs)
    if len(stream) <= 200:
        assert door().both(single, [])[0] == theirs, "octet by octet"


def read_kept(octets: bytes) -> None:
    """A reply that is taken for a plain one means to aiohttp the same, and ends where aiohttp says."""
    head = kept.plain_head(octets)
    if head is None or len(octets) < head.end:
        return
    parser = HttpResponseParser(
        BaseProtocol(door().loop), door().loop, 65536, max_line_size=kept.MAX_LINE, max_field_size=kept.MAX_LINE,
        read_until_eof=True, auto_decompress=False,
    )  # fmt: skip
    messages, upgraded, rest = parser.feed_data(octets[: head.end])
    ((message, body),) = messages
    assert not upgraded and not rest and not message.should_close
    assert message.code == head.status and message.headers == head.headers
    with contextlib.suppress(asyncio.InvalidStateError):
        assert body.is_eof(), "aiohttp waits for more"
    assert bytes(body.read_nowait()) == octets[head.begin : head.end]


def conversations() -> Iterable[bytes]:
    """Requests of each kind, one behind the other."""
    close = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    several = [
        GET,
        OLD,
        NOBODY,
        COLD,
        POST,
        CHUNKED,
        close,
        GET + COLD + GET,
        GET + POST + NOBODY,
        COLD + CHUNKED + GET,
    ]
    return [b"\x40\xc0" + octets for octets in several]


def replies() -> Iterable[bytes]:
    """Plain ones, and those that are not."""
    return [
        REPLY,
        REPLY.replace(b"200 OK", b"404 Not Found").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
        REPLY.replace(b"Content-Length: 3", b"content-length:0")[:-3],
        REPLY.replace(b"Content-Type", b"Transfer-Encoding"),
    ]


WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\t", b"GET ", b"HEAD ", b"POST ", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/1.1 200 OK"),
    *(b"Host: k.example\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Content-Length: 5\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"If-None-Match: *\r\n", b"Upgrade: h2c\r\n"),
    *(b"Via: 1.1 me.example\r\n", b"X-Forwarded-For: 192.0.2.7\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(
        b"/pks/lookup?op=get&search=alice",
        b"/pks/lookup?op=get&search=nobody",
        b"/echo",
        b"/stream",
        b"/bye",
        b"/empty",
    ),
    *(b"/fail", GET, COLD, POST),
)

TARGETS = {
    "http-door": Target(enter, conversations, 1024, behind_a_cut(lines), WORDS),
    "http-kept": Target(read_kept, replies, 1024, lines, WORDS),
}
