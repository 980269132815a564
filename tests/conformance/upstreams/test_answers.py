"""What every protocol promises, whatever the other side does: `upstreams.base.Upstream`, tried with bad servers.

A new protocol is one entry of PROTOCOLS. One that is not HTTP brings its own `serve`; all promises but those about
statuses and redirects hold for it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from keyserver.app import hygiene_of
from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Refused, UpstreamSpec
from keyserver.query import ByAddress, Query
from keyserver.upstreams.base import Asking, Upstream
from keyserver.upstreams.certs.upstream import Certs
from keyserver.upstreams.hkp.upstream import Hkp
from keyserver.upstreams.ldap.upstream import Ldap
from keyserver.upstreams.net import Names
from keyserver.upstreams.vks.upstream import Vks
from keyserver.upstreams.wkd.upstream import Wkd
from support.internet import PUBLIC, Internet, names
from support.openpgp import armored, make_certificate
from support.scripted import (
    Behaviour,
    Hangup,
    Request,
    Scripted,
    chunked,
    drip,
    endless,
    hang,
    hang_up,
    raw,
    redirect,
    reply,
    reset,
    slow,
)
from support.tls import Authority

ALICE = ByAddress("alice", "partner.de")
OCTETS = make_certificate(["Alice <alice@partner.de>"], seed="alice")
LEFT = 0.6  # seconds that a question has
LATER = 1.0  # seconds beyond, on a machine that is busy with other things
BUFFERED = 16 << 20  # octets that sockets may hold beyond what is read

Serve: TypeAlias = Callable[[Behaviour, ssl.SSLContext | None], AbstractAsyncContextManager[int]]
"""A server that answers every question with this behaviour, and its port."""


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
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
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


def hkp(url: str) -> Callable[[Place], Upstream]:
    spec = UpstreamSpec("u", template="{domain}" in url)
    return lambda at: Hkp(spec, f"{url}:{at.port}", clock=time.time, names=at.names, tls_ca_file=at.ca_file)


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


HOME = "127.0.0.1"
PROTOCOLS: dict[str, Spoken] = {
    "hkp": Spoken(hkp("hkp://keys.partner.de")),
    "hkps": Spoken(hkp("hkps://keys.partner.de"), tls=True),
    "hkps of each domain": Spoken(hkp("hkps://keys.{domain}"), tls=True, template=True),
    "ldap": Spoken(ldap("ldap://keys.partner.de"), serve=octets, at=HOME),
    "ldaps": Spoken(ldap("ldaps://keys.partner.de"), serve=octets, at=HOME, tls=True),
    "wkd": Spoken(wkd, "openpgpkey.partner.de", tls=True, template=True, most=256 << 10),
    "vks": Spoken(vks, tls=True),
    "certs": Spoken(certs, tls=True, query=replace(ALICE, kind=Kind.X509)),
}
EVERY = pytest.mark.parametrize("protocol", PROTOCOLS)
BY_HTTP = pytest.mark.parametrize("protocol", [name for name, spoken in PROTOCOLS.items() if spoken.serve is http])
BY_TLS = pytest.mark.parametrize("protocol", [name for name, spoken in PROTOCOLS.items() if spoken.tls])

HEAD = "HTTP/1.1 200 OK\r\n"
WHATEVER_IT_SPEAKS: dict[str, Behaviour] = {
    "silence": hang,
    "the end": hang_up,
    "a reset": reset,
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "noise": raw(bytes(range(256)) * 100),
    "nothing but zeros": raw(bytes(10_000)),
    "one octet at a time": drip(b"\x30\x84\x7f\xff\xff\xff" * 100, head=False),
    "no end": endless(head="", chunk=b"\x30\x84\x7f\xff\xff\xff" * 10_000),
}
BY_WEB_SERVERS: dict[str, Behaviour] = {
    "slow": slow(60, reply(200, OCTETS)),
    "body without an end": endless(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"),
    "packets without an end": endless(OCTETS),
    "head without an end": endless(chunk=b"X: x\r\n" * 1000, head=HEAD),
    "one octet of the body at a time": drip(armored(OCTETS).encode()),
    "larger than anybody needs": reply(200, b"", length=1 << 30),
    "cut head": raw(HEAD.encode()[:-2]),
    "cut in the middle": reply(200, OCTETS, length=len(OCTETS) + 100),
    "cut chunk": chunked(OCTETS, cut=True),
    "bad chunk": raw(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "empty": reply(200),
    "text": reply(200, "Welcome"),
    "page": reply(200, "<!DOCTYPE html><html><title>Welcome</title></html>", Content_Type="text/html"),
    "json": reply(200, json.dumps({"welcome": True}), Content_Type="application/json"),
    "damaged armor": reply(200, armored(OCTETS)[:-60]),
    "bomb": reply(200, gzip.compress(b"-----BEGIN PGP " + bytes(50 << 20)), Content_Encoding="gzip"),
    "unknown coding": reply(200, OCTETS, Content_Encoding="br"),
    "no content": reply(204),
    "redirect to itself": redirect("/.well-known/x"),
    "redirect nowhere": redirect(""),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect to loopback": redirect("https://127.0.0.1/x"),
    "redirect to a private address": redirect("https://10.0.0.1/x"),
    "redirect to a private name": redirect("https://inside.partner.de/x", 307),
    "redirect to plain HTTP": redirect("http://keys.partner.de:9/x", 308),
    "redirect with a password": redirect("https://me:secret@keys.partner.de/x"),
}


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


Stage: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Upstream, int]]]


@pytest.fixture
def stage(authority: Authority, threads: ThreadPoolExecutor) -> Stage:
    """`stage(spoken, behaviour)`: an upstream beside its server, and the server's port."""

    @contextlib.asynccontextmanager
    async def opened(
        spoken: Spoken, behaviour: Behaviour = hang, tls: ssl.SSLContext | None = None, table: object = None
    ) -> AsyncIterator[tuple[Upstream, int]]:
        context = tls or (authority.server(spoken.host) if spoken.tls else None)
        hosts = {host: [spoken.at] for host in ("partner.de", "keys.partner.de", "openpgpkey.partner.de")}
        named = names({**hosts, "inside.partner.de": ["10.0.0.1"]} if table is None else table)  # type: ignore[arg-type]
        async with spoken.serve(behaviour, context) as port:
            upstream = spoken.make(Place(port, named, authority.ca_file, threads))
            try:
                yield upstream, port
            finally:
                await upstream.close()

    return opened


async def kept() -> bool:
    """Something that the domain's host said is in the cache: it exists."""
    return True


async def ask(upstream: Upstream, query: Query = ALICE, *, known: bool = True) -> Outcome:
    """One question, within its time; a failure says why in words that name nobody: they are logged."""
    began = time.monotonic()
    outcome = await upstream.fetch(query, Asking(LEFT, "test", *([kept] if known else [])))
    assert time.monotonic() - began < LEFT + LATER
    if isinstance(outcome, Failed):
        assert 0 < len(outcome.reason) < 200
        assert "partner" not in outcome.reason and "alice" not in outcome.reason
    return outcome


def failed_in_the_end(outcome: Outcome) -> bool:
    """Did it fail, or will what it sent, which is the resolver's to prove, be refused as nothing that can be read?"""
    if not isinstance(outcome, Found):
        return isinstance(outcome, Failed)
    cleaned = [item for raw in outcome.raw for item in hygiene_of()[raw.kind].clean(raw.octets, int(time.time()))]
    return bool(cleaned) and all(isinstance(item, Refused) and item.fatal for item in cleaned)


def connections(port: int) -> int:
    """How many connections this process has to a port, from the client's side."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
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


@EVERY
@pytest.mark.parametrize("case", WHATEVER_IT_SPEAKS)
async def test_a_server_that_does_not_speak_the_protocol_has_failed(stage: Stage, protocol: str, case: str) -> None:
    spoken, sent = PROTOCOLS[protocol], []  # type: ignore[var-annotated]
    async with stage(spoken, counted(WHATEVER_IT_SPEAKS[case], sent)) as (upstream, port):
        assert isinstance(await ask(upstream, spoken.query), Failed)
        assert sum(sent) < spoken.most + BUFFERED
        await upstream.close()
        assert await closed(port)


@BY_HTTP
@pytest.mark.parametrize("case", BY_WEB_SERVERS)
async def test_a_bad_answer_is_no_absence(stage: Stage, internet: Internet, protocol: str, case: str) -> None:
    spoken, sent = PROTOCOLS[protocol], []  # type: ignore[var-annotated]
    async with stage(spoken, counted(BY_WEB_SERVERS[case], sent)) as (upstream, port):
        assert failed_in_the_end(await ask(upstream, spoken.query))
        assert sum(sent) < spoken.most + BUFFERED
        assert set(internet.connected) == {PUBLIC}
        await upstream.close()
        assert await closed(port)


@BY_HTTP
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (reply(404), Absent("")),
        (reply(410), Absent("")),
        (reply(429, Retry_After="30"), Failed("", Fault.BUSY, 30.0)),
        (reply(429), Failed("", Fault.BUSY)),
        (reply(503, Retry_After="7"), Failed("", Fault.BUSY, 7.0)),
        (reply(503), Failed("")),
        (reply(500), Failed("")),
        (reply(502, "<html>Bad Gateway</html>"), Failed("")),
        (reply(504), Failed("")),
        (reply(401), Failed("", Fault.CONFIGURATION)),
        (reply(403), Failed("", Fault.CONFIGURATION)),
    ],
)
async def test_statuses(stage: Stage, protocol: str, behaviour: Behaviour, expected: Absent | Failed) -> None:
    spoken = PROTOCOLS[protocol]
    async with stage(spoken, behaviour) as (upstream, _):
        outcome = await ask(upstream, spoken.query)
    assert type(outcome) is type(expected)
    for field in ("fault", "retry_after", "remember"):
        assert getattr(outcome, field, None) == getattr(expected, field, None)


@BY_TLS
@pytest.mark.parametrize("case", ["another name", "expired", "nobody's authority"])
async def test_tls_that_is_no_good(
    stage: Stage, authority: Authority, tmp_path: Path, protocol: str, case: str
) -> None:
    spoken = PROTOCOLS[protocol]
    tls = {
        "another name": authority.server("other.partner.de"),
        "expired": authority.server(spoken.host, expired=True),
        "nobody's authority": Authority(tmp_path / "other").server(spoken.host),
    }[case]
    asked: list[int] = []
    async with stage(spoken, counted(reply(200, OCTETS), asked), tls) as (upstream, port):
        assert isinstance(await ask(upstream, spoken.query), Failed)
        assert not asked, "nothing is told to whoever cannot say who he is"
        await upstream.close()
        assert await closed(port)


@BY_TLS
@pytest.mark.parametrize(
    "behaviour", [raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hang, reset], ids=["no", "mute", "reset"]
)
async def test_a_server_without_tls(stage: Stage, protocol: str, behaviour: Behaviour) -> None:
    plain = replace(PROTOCOLS[protocol], serve=lambda behaviour, _: octets(behaviour, None))
    async with stage(plain, behaviour) as (upstream, port):
        assert isinstance(await ask(upstream, plain.query), Failed)
        await upstream.close()
        assert await closed(port)


@EVERY
@pytest.mark.parametrize("known", [True, False])
async def test_nobody_there(stage: Stage, protocol: str, known: bool) -> None:
    """A host that was written down, or has answered before, has failed; one made of an address never was there."""
    spoken = PROTOCOLS[protocol]
    absent = spoken.template and not known
    async with stage(spoken) as (_, port):
        pass
    gone = replace(spoken, serve=lambda behaviour, tls: contextlib.nullcontext(port))
    async with stage(gone) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known), Absent if absent else Failed)
    async with stage(gone, table={}) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known), Absent if absent else Failed)
    trouble = dict.fromkeys(("partner.de", "keys.partner.de", "openpgpkey.partner.de"), OSError("SERVFAIL"))
    async with stage(gone, table=trouble) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known), Failed), "nobody could say"


@EVERY
async def test_closing_in_the_middle_of_a_question(stage: Stage, protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    reached = asyncio.Event()

    async def stuck(request: Request, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await hang(request, writer)

    async with stage(spoken, stuck) as (upstream, port):
        waiting = asyncio.ensure_future(ask(upstream, spoken.query))
        await asyncio.wait_for(reached.wait(), LEFT)
        await asyncio.wait_for(upstream.close(), LATER)
        assert isinstance(await waiting, Failed)
        assert await closed(port)
        assert not isinstance(await ask(upstream, spoken.query), Found), "nothing is asked any more"
        assert not connections(port)


@EVERY
async def test_giving_up_in_the_middle_of_a_question(stage: Stage, protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    reached = asyncio.Event()

    async def stuck(request: Request, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await hang(request, writer)

    async with stage(spoken, stuck) as (upstream, port):
        waiting = asyncio.ensure_future(ask(upstream, spoken.query))
        await asyncio.wait_for(reached.wait(), LEFT)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await closed(port), "nobody waits for what is said there"
