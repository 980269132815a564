"""Kept connections: the same meaning as on a fresh one, and nothing heard that nobody asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from keyserver.model import Absent, Failed, Outcome
from keyserver.upstreams.base import Asking
from keyserver.upstreams.http import kept
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.net import Names
from support.scripted import Behaviour, Scripted, chunked, hang, hang_up, raw, redirect, reply, reset
from support.tls import Authority

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Server: x\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfirst"


class Asked(Client):
    """A client of 127.0.0.1 that tells the replies as they are: status, headers, body; or why there was none."""

    def __init__(self, server: Scripted, **options: Any) -> None:
        super().__init__(names=Names(), host="127.0.0.1", **options)
        self._server = server
        self.said: list[tuple[int, list[tuple[str, str]], bytes]] = []

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def tell(self, term: str = "x", left: float = 5, via: str = "test", target: str = "") -> Any:
        """What came for a term, or the reason why nothing did."""

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
            self.said.append((status, [(name.lower(), value) for name, value in headers.items()], body))
            return Absent("judged")

        url = URL(self._server.http + (target or f"/pks/lookup?search={term}"), encoded=True)
        outcome = await self.ask(url, Asking(left, via), judge)
        return self.said.pop() if isinstance(outcome, Absent) else outcome

    async def body(self, term: str = "x", left: float = 5) -> Any:
        """The body alone, or the reason."""
        said = await self.tell(term, left)
        return said[2] if isinstance(said, tuple) else said


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted({"first": reply(200, "first"), "mine": reply(200, "mine")}) as running:
        yield running


@pytest.fixture(params=["plain", "TLS"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Scripted, dict[str, Any]]]:
    """A server with and without TLS, and what its client needs."""
    authority = Authority(tmp_path)
    tls = authority.server("127.0.0.1") if request.param == "TLS" else None
    async with Scripted({"first": reply(200, "first"), "mine": reply(200, "mine")}, tls) as running:
        yield running, {"tls_ca_file": authority.ca_file} if tls else {}


def pieces(parts: Sequence[bytes], pause: float = 0.003, close: bool = False) -> Behaviour:
    """A reply in these pieces, each a segment of its own."""

    async def behave(request: Any, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        return close

    return behave


# What is sent, and by whom


async def test_the_same_octets_are_sent_and_no_session_of_aiohttp_takes_part(
    either: tuple[Scripted, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, options = either
    async with Asked(server, **options) as client:
        first = await client.tell("first")
        monkeypatch.delattr(aiohttp.ClientSession, "get")
        assert await client.tell("first") == first
        for length in (0, 1, 5_000, kept.MAX_PLAIN, kept.MAX_PLAIN + 1, 3 << 20):  # some are read piece by piece
            server.routes["x"] = reply(200, b"y" * length)
            assert await client.body() == b"y" * length
        server.routes["x"] = chunked(b"y" * 5_000)
        assert await client.body() == b"y" * 5_000
        assert await client.body("nothing") == b"Not Found\n"
    assert server.connections == 1
    assert server.requests[0].head == server.requests[1].head


@pytest.mark.parametrize("via", ["a\r\nX: y", "a\nX: y", "\u20ac\r\n", "a\0b"])
async def test_nothing_is_smuggled_into_a_request(server: Scripted, via: str) -> None:
    async with Asked(server) as client:
        await client.tell("first")
        assert isinstance(await client.tell("first", via=via), Failed)
        await client.tell(target="/x\r\nX:y")
    assert not any("x" in request.headers for request in server.requests)
    assert [request.headers["via"] for request in server.requests] == ["1.1 test"] * 2


# The same meaning


FIELDS = [
    b"Content-Length: 5", b"content-length:5", b"Content-Length: 05", b"Content-Length: 4", b"Content-Length: 6",
    b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 5 ", b"Content-Length: 5, 5", b"Content-Length:",
    b"Content-Length: 99999999999999999999", b"Content-Length : 5", b" Content-Length: 5", b"Content-Length: 0x5",
    b"Transfer-Encoding: chunked", b"transfer-encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Connection: close", b"Connection: keep-alive",
    b"Connection: upgrade", b"Upgrade: h2c", b"Trailer: X", b"X:", b"X: ", b"X: a\tb", b"X: \x01", b"X: \xe9", b"X",
    b"X : y", b": y", b"X: a\rb", b"Retry-After: 5", b"Server: a", b"Server: b", b"Location: /z", b"X: y\r\n folded",
    b"", b"Set-Cookie: a", b"Set-Cookie: b", b"X: " + b"y" * 9_000, b"Cache-Control: no-store",
]  # fmt: skip
STARTS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"",
    b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 500 Oh", b"ICY 200",
    b"http/1.1 200 OK", b"HTTP/1.2 200 OK", b"HTTP/2 200 OK", b" HTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK",
]  # fmt: skip
BODIES = [b"hello", b"hell", b"", b"hello!", b"5\r\nhello\r\n0\r\n\r\n", b"hello" + PLAIN, b"\r\nhello", b"hello\r\n"]


@st.composite
def replies(draw: st.DrawFn) -> list[bytes]:
    """The octets of a reply, proper or not, in up to three pieces."""
    start = draw(st.sampled_from(STARTS) | st.sampled_from(STARTS[:2]))
    fields = draw(st.lists(st.sampled_from(FIELDS) | st.sampled_from(FIELDS[:2]), max_size=4))
    ends = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n"]))
    octets = ends.join([start, *fields, b"", b""]) + draw(st.sampled_from(BODIES))
    cuts = sorted(draw(st.lists(st.integers(1, max(1, len(octets))), max_size=2)))
    return [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]


def test_any_reply_means_on_a_kept_connection_what_it_means_on_a_fresh_one() -> None:
    """What aiohttp makes of it decides: the reader of plain replies is never laxer, and never cuts elsewhere."""

    async def both(parts: list[bytes]) -> list[Any]:
        found = []
        async with Scripted({"first": reply(200, "first"), "x": pieces(parts, close=True)}) as server:
            for before in ([], ["first"], ["first", "first"]):
                async with Asked(server) as client:
                    for term in before:
                        assert await client.body(term) == b"first"
                    found.append(await client.tell(left=3))
        return found

    with asyncio.Runner() as runner:

        @settings(max_examples=200, deadline=None)
        @given(replies())
        @example([OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"])
        @example([OK + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"])
        @example([OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"])
        @example([OK + b"Content-Length: 5\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nhello"])
        @example([OK + b"X: y\r\n" * 127 + b"Content-Length: 5\r\n\r\nhello"])
        def compare(parts: list[bytes]) -> None:
            fresh, *others = runner.run(both(parts))
            assert others == [fresh, fresh]

        compare()


async def test_a_reply_in_two_pieces_cut_anywhere(server: Scripted) -> None:
    octets = PLAIN.replace(b"first", b"mine!")
    async with Asked(server) as client:
        whole = await client.tell("first")
        assert whole[2] == b"first"
        for at in range(1, len(octets)):
            server.routes["x"] = pieces([octets[:at], octets[at:]])
            assert await client.body() == b"mine!", at
    assert server.connections == 1


# Nothing that nobody asked for


EARLY = {
    "a whole reply": PLAIN,
    "a chunked one": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
    "half a head": PLAIN[:30],
    "a word": b"H",
    "an end of line": b"\r\n",
    "another protocol": b"SSH-2.0-x\r\n",
    "an interim reply": b"HTTP/1.1 100 Continue\r\n\r\n",
}
REPLIES = {
    "plain": OK + b"Content-Length: 2\r\n\r\nx.",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nx.\r\n0\r\n\r\n",
    "empty": OK + b"Content-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("early", EARLY)
@pytest.mark.parametrize("how", REPLIES)
@pytest.mark.parametrize("before", [0, 1], ids=["first", "again"])
@pytest.mark.parametrize("together", [True, False])
async def test_a_reply_that_comes_before_its_question_answers_nobody(
    either: tuple[Scripted, dict[str, Any]], early: str, how: str, before: int, together: bool
) -> None:
    """Behind another reply, in the same piece or while the connection rests; after either client's question."""
    server, options = either
    parts = [REPLIES[how] + EARLY[early]] if together else [REPLIES[how], EARLY[early]]
    server.routes["x"] = pieces(parts, pause=0.02)
    async with Asked(server, **options) as client:
        for _ in range(before):
            assert await client.body("first") == b"first"
        said = await client.body()
        assert said == (b"" if how == "empty" else b"x.") or (together and early == "another protocol"), said
        if not together:
            await asyncio.sleep(0.06)
        assert await client.body("mine") == b"mine"
        assert server.connections == (1 if together and early == "an end of line" else 2)  # RFC 9112 section 2.2


@pytest.mark.parametrize("early", EARLY)
async def test_a_server_that_speaks_first_is_not_heard(monkeypatch: pytest.MonkeyPatch, early: str) -> None:
    """Its octets are here before the question is sent."""
    connect = aiohttp.TCPConnector._wrap_create_connection  # type: ignore[attr-defined]

    async def slowly(*arguments: Any, **options: Any) -> Any:
        made = await connect(*arguments, **options)
        await asyncio.sleep(0.05)
        return made

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EARLY[early])
        await reader.read()
        writer.close()

    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", slowly)
    running = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with running, Asked(Scripted(port=running.sockets[0].getsockname()[1])) as client:
        assert await client.body() == Failed("no connection")


# Time-outs, cancellation, and connections that end


@pytest.mark.parametrize(
    "late", [[b"", PLAIN], [PLAIN[:-2], b"st"], [PLAIN[:20], PLAIN[20:]], [OK + b"\r\nfir", b"st"]]
)
async def test_the_late_reply_to_a_question_given_up_answers_nobody(
    either: tuple[Scripted, dict[str, Any]], late: list[bytes]
) -> None:
    server, options = either
    server.routes["slow"] = pieces(late, pause=0.3)
    for cancelled in (True, False):
        async with Asked(server, **options) as client:
            assert await client.body("first") == b"first"
            connections = server.connections
            if cancelled:
                task = asyncio.create_task(client.tell("slow"))
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                assert await client.body("slow", left=0.1) == Failed("no answer in time")
            assert await client.body("mine") == b"mine"
            assert server.connections == connections + 1
            await asyncio.sleep(0.4)
            assert await client.body("first") == b"first"
            assert server.connections == connections + 1


@pytest.mark.parametrize("ending", [hang_up, reset], ids=["closed", "reset"])
async def test_a_kept_connection_that_ends_at_the_question_is_replaced_once(
    either: tuple[Scripted, dict[str, Any]], ending: Behaviour
) -> None:
    server, options = either
    server.routes["x"] = [ending, reply(200, "mine")]
    async with Asked(server, **options) as client:
        assert await client.body("first") == b"first"
        assert await client.body() == b"mine"
        assert (server.asked("x"), server.connections) == (2, 2)
        server.routes["y"] = ending
        assert isinstance(await client.body("y"), Failed)
        assert server.asked("y") <= 3


@pytest.mark.parametrize(
    "reply_", [PLAIN[:-1], OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfir"], ids=["plain", "chunked"]
)
async def test_a_reply_that_broke_off_is_not_asked_for_again(server: Scripted, reply_: bytes) -> None:
    server.routes["x"] = raw(reply_)
    async with Asked(server) as client:
        assert await client.body("first") == b"first"
        assert await client.body() == Failed("its answer broke off")
        assert server.asked("x") == 1


async def test_closing_ends_a_question_that_waits_on_a_kept_connection(server: Scripted) -> None:
    server.routes["x"] = hang
    client = Asked(server)
    assert await client.body("first") == b"first"
    waiting = asyncio.create_task(client.tell())
    await asyncio.sleep(0.05)
    await client.close()
    assert isinstance(await asyncio.wait_for(waiting, 2), Failed)


@pytest.mark.parametrize("before", [0, 1], ids=["fresh", "kept"])
async def test_interim_replies_have_an_end(server: Scripted, before: int) -> None:
    interim = b"HTTP/1.1 102 Wait\r\n\r\n"
    for number in (kept.MAX_INTERIM, kept.MAX_INTERIM + 1, 100_000):
        server.routes["x"] = raw(interim * number + PLAIN, close=False)
        async with Asked(server) as client:
            for _ in range(before):
                assert await client.body("first") == b"first"
            said = await client.body()
            enough = Failed("its answer is not proper HTTP: Too many interim replies")
            assert said == (b"first" if number == kept.MAX_INTERIM else enough)


# Bounds, and whose connection it is


async def test_a_connection_is_kept_for_half_a_minute(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: now[0])
    async with Asked(server) as client:
        for passed, connections in ((0.0, 1), (29.0, 1), (31.0, 2)):
            now[0] += passed
            assert await client.body("first") == b"first"
            assert server.connections == connections


async def test_no_more_connections_are_kept_than_may_be_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "CONNECTIONS", 2)
    servers = [Scripted({"first": reply(200, "first")}) for _ in range(4)]
    for server in servers:
        await server.__aenter__()
    client = Asked(servers[0], allow_private=True)
    for server in servers:
        servers[0].routes["x"] = redirect(f"{server.http}/?search=first")
        assert await client.body() == b"first"
        assert await client.body() == b"first"
    assert [server.connections for server in servers] == [2, 1, 2, 2]  # the first is asked by two rules
    await client.close()
    for server in servers:
        await server.stop()


async def test_many_at_once_have_a_connection_each_and_their_own_reply(either: tuple[Scripted, dict[str, Any]]) -> None:
    server, options = either
    for number in range(16):
        server.routes[f"n{number}"] = pieces(
            [OK + b"Content-Length: 3\r\n\r\n", b"%03d" % number], 0.001 * (number % 7)
        )
    async with Asked(server, **options) as client:

        async def one(number: int) -> None:
            assert await client.body(f"n{number}", left=20) == b"%03d" % number

        for _ in range(3):
            await asyncio.gather(*(one(number) for number in range(16)))
    assert server.connections == 16
