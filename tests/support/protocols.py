"""Protocols of upstreams side by side: an upstream of each, a server for it that behaves as told, and how it is asked.

A new protocol is one entry of PROTOCOLS. One that is not HTTP brings its own `serve`; all promises but those about
statuses and redirects hold for it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import pytest

from keyserver.model import Failed, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, Query
from keyserver.upstreams.base import Asking, Upstream
from keyserver.upstreams.certs.upstream import Certs
from keyserver.upstreams.dane.server import NameServer
from keyserver.upstreams.dane.upstream import Dane
from keyserver.upstreams.hkp.upstream import Hkp
from keyserver.upstreams.ldap.upstream import Ldap
from keyserver.upstreams.net import Names
from keyserver.upstreams.vks.upstream import Vks
from keyserver.upstreams.wkd.upstream import Wkd
from support.internet import PUBLIC
from support.openpgp import make_certificate
from support.scripted import Behaviour, Hangup, Request, Scripted, reply

ALICE = ByAddress("alice", "partner.de")
OCTETS = make_certificate(["Alice <alice@partner.de>"], seed="alice")
HOME = "127.0.0.1"
LEFT = 0.6  # seconds that a question has
AMPLE = 5.0  # the same where an answer comes at once, and a busy machine must not make it late
LATER = 1.0  # seconds beyond, on a machine that is busy with other things
BUFFERED = 16 << 20  # octets that sockets may hold beyond what is read

Serve: TypeAlias = Callable[[Behaviour, ssl.SSLContext | None], AbstractAsyncContextManager[int]]
"""A server that answers every question with this behaviour, and its port."""

Stage: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Upstream, int]]]
"""`stage(spoken, behaviour)`: an upstream beside its server, and the server's port."""


@dataclass(frozen=True)
class Place:
    """Where the server is: on this port of whatever host `names` knows."""

    port: int
    names: Names
    ca_file: Path
    threads: ThreadPoolExecutor


@contextlib.asynccontextmanager
async def http(behaviour: Behaviour, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    async with Scripted({"*": behaviour}, tls) as server:
        yield server.port


@contextlib.asynccontextmanager
async def octets(behaviour: Behaviour, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """For any protocol in which the client speaks first: what it says is not understood."""
    request = Request(b"", "", "", {}, "")
    tasks: set[asyncio.Task[object]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(Hangup, OSError, asyncio.CancelledError):
            await reader.read(65536)
            await behaviour(request, writer)
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def http_v2(behaviour: Behaviour, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """It says that it speaks HKP v2, and behaves so to all other questions."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> bool | None:
        if request.method != "OPTIONS":
            return await behaviour(request, writer)
        there = request.target.endswith("/by-identity")
        return await (reply(200, Allow="GET, OPTIONS") if there else reply(501))(request, writer)

    async with http(behave, tls) as port:
        yield port


class Datagrams(asyncio.DatagramProtocol):
    """Answers each datagram with what `answer` sends through it, a datagram for each call."""

    def __init__(self, answer: Callable[[bytes, Datagram], Awaitable[object]]) -> None:
        self._answer = answer
        self.tasks: set[asyncio.Task[object]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.tasks.add(asyncio.ensure_future(self._respond(data, addr)))

    async def _respond(self, data: bytes, addr: tuple[str, int]) -> None:
        with contextlib.suppress(Hangup, OSError):
            await self._answer(data, Datagram(self._transport, addr))


class Datagram:
    """What a behaviour needs of a StreamWriter; there is no connection that could be ended."""

    def __init__(self, transport: asyncio.DatagramTransport, to: tuple[str, int]) -> None:
        self._socket = transport
        self._to = to
        self.transport = self

    def write(self, octets: bytes) -> None:
        self._socket.sendto(octets[:1232], self._to)

    async def drain(self) -> None:
        await asyncio.sleep(0.01)

    def is_closing(self) -> bool:
        return self._socket.is_closing()

    def abort(self) -> None:
        """A reset is silence."""


@contextlib.asynccontextmanager
async def datagrams(answer: Callable[[bytes, Datagram], Awaitable[object]], port: int = 0) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Datagrams(answer), local_addr=("127.0.0.1", port))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
        for task in protocol.tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def by_udp(behaviour: Behaviour, _: ssl.SSLContext | None) -> AsyncIterator[int]:
    request = Request(b"", "", "", {}, "")
    async with datagrams(lambda _, writer: behaviour(request, cast(asyncio.StreamWriter, writer))) as port:
        yield port


@contextlib.asynccontextmanager
async def by_tcp(behaviour: Behaviour, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A name server whose datagrams say that there is more by TCP, where it behaves so."""

    async def more(question: bytes, writer: Datagram) -> None:
        writer.write(question[:2] + b"\x83\x80\0\1" + bytes(6) + question[12:])

    async with octets(behaviour, tls) as port, datagrams(more, port):
        yield port


@dataclass(frozen=True)
class Spoken:
    """One protocol: an upstream of it that asks for Alice, and what its server needs."""

    make: Callable[[Place], Upstream]
    host: str = "keys.partner.de"  # in its server's TLS certificate
    tls: bool = False
    template: bool = False  # nobody has written its host: one that never answered is not there
    serve: Serve = http
    at: str = PUBLIC  # where its hosts are; the public Internet is this machine, for whoever connects by aiohttp
    query: Query = ALICE
    most: int = 16 << 20  # octets of an answer


def hkp(url: str, version: str = "1") -> Callable[[Place], Upstream]:
    spec = UpstreamSpec("u", template="{domain}" in url)
    return lambda at: Hkp(
        spec, f"{url}:{at.port}", clock=time.time, version=version, names=at.names, tls_ca_file=at.ca_file
    )


def ldap(url: str) -> Callable[[Place], Upstream]:
    return lambda at: Ldap(
        UpstreamSpec("u"),
        f"{url}:{at.port}",
        threads=at.threads,
        monotonic=time.monotonic,
        names=at.names,
        tls_ca_file=at.ca_file if url.startswith("ldaps") else "",
    )


def wkd(at: Place) -> Upstream:
    spec = UpstreamSpec("u", template=True)
    options = {"names": at.names, "tls_ca_file": at.ca_file, "port": at.port}
    return Wkd(spec, clock=time.time, monotonic=time.monotonic, **options)  # type: ignore[arg-type]


def vks(at: Place) -> Upstream:
    spec, url = UpstreamSpec("u"), f"vks://keys.partner.de:{at.port}"
    return Vks(spec, url, clock=time.time, names=at.names, tls_ca_file=at.ca_file)


def certs(at: Place) -> Upstream:
    spec, url = UpstreamSpec("u", kinds=frozenset({Kind.X509})), f"certs://keys.partner.de:{at.port}"
    return Certs(spec, url, clock=time.time, names=at.names, tls_ca_file=at.ca_file)


def dane(name: str = "") -> Callable[[Place], Upstream]:
    """`name`: of the name server's TLS certificate; empty: without TLS."""
    return lambda at: Dane(
        UpstreamSpec("u"), NameServer(HOME, at.port, name), monotonic=time.monotonic, tls_ca_file=at.ca_file
    )


PROTOCOLS: dict[str, Spoken] = {
    "hkp": Spoken(hkp("hkp://keys.partner.de")),
    "hkps": Spoken(hkp("hkps://keys.partner.de"), tls=True),
    "hkps of each domain": Spoken(hkp("hkps://keys.{domain}"), tls=True, template=True),
    "hkp v2": Spoken(hkp("hkp://keys.partner.de", "2")),
    "hkps v2 of each domain": Spoken(hkp("hkps://keys.{domain}", "2"), tls=True, template=True),
    "hkp auto": Spoken(hkp("hkp://keys.partner.de", "auto")),
    "hkp auto, v2 spoken": Spoken(hkp("hkp://keys.partner.de", "auto"), serve=http_v2),
    "hkps auto of each domain": Spoken(hkp("hkps://keys.{domain}", "auto"), tls=True, template=True),
    "ldap": Spoken(ldap("ldap://keys.partner.de"), serve=octets, at=HOME),
    "ldaps": Spoken(ldap("ldaps://keys.partner.de"), serve=octets, at=HOME, tls=True),
    "wkd": Spoken(wkd, "openpgpkey.partner.de", tls=True, template=True, most=256 << 10),
    "vks": Spoken(vks, tls=True),
    "certs": Spoken(certs, tls=True, query=replace(ALICE, kind=Kind.X509)),
    "dane": Spoken(dane(), serve=by_udp, at=HOME),
    "dane by tcp": Spoken(dane(), serve=by_tcp, at=HOME),
    "dane by tls": Spoken(dane("dns.test"), "dns.test", serve=octets, at=HOME, tls=True),
}
EVERY = pytest.mark.parametrize("protocol", PROTOCOLS)
BY_HTTP = pytest.mark.parametrize(
    "protocol", [name for name, spoken in PROTOCOLS.items() if spoken.serve in (http, http_v2)]
)
BY_TLS = pytest.mark.parametrize("protocol", [name for name, spoken in PROTOCOLS.items() if spoken.tls])


async def kept() -> bool:
    """Something that the domain's host said is in the cache: it exists."""
    return True


async def ask(upstream: Upstream, query: Query = ALICE, *, known: bool = True, left: float = LEFT) -> Outcome:
    """One question, within `left` seconds; a failure says why in words that name nobody: they are logged."""
    began = time.monotonic()
    outcome = await upstream.fetch(query, Asking(left, "test", *([kept] if known else [])))
    assert time.monotonic() - began < left + LATER
    if isinstance(outcome, Failed):
        assert 0 < len(outcome.reason) < 200
        assert "partner" not in outcome.reason and "alice" not in outcome.reason
    return outcome


def connections(port: int) -> int:
    """How many connections this process has to a port, from the client's side; connected UDP sockets are some."""
    lines = [line for by in ("tcp", "udp") for line in Path(f"/proc/self/net/{by}").read_text().splitlines()[1:]]
    alive = {"01", "02", "08"}  # established, being made, closed by the other side alone
    return sum(row[2].endswith(f":{port:04X}") and row[3] in alive for row in map(str.split, lines))


async def closed(port: int) -> bool:
    """Is no connection left, a moment later?"""
    for _ in range(100):
        if not connections(port):
            return True
        await asyncio.sleep(0.02)
    return False


def counted(behaviour: Behaviour, sent: list[int]) -> Behaviour:
    """The same, and how many octets the server has got rid of."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> bool | None:
        write = writer.write

        def counting(octets: bytes) -> None:
            sent.append(len(octets))
            write(octets)

        writer.write = counting  # type: ignore[method-assign, assignment]
        return await behaviour(request, writer)

    return behave
