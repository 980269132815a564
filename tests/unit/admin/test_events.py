"""The feed of events over the admin API: in time, resumed, chosen, masked, bounded; and the overview's word."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyserver.admin.api.events import MOST
from keyserver.admin.api.guard import STANDING, Standing
from keyserver.admin.api.streams import Streams
from keyserver.admin.concerns import of_webhook
from keyserver.events.webhook import WebhookStatus
from keyserver.model import Kind, Source
from keyserver.query import name_of
from support.administering import TOKEN, Admin, running
from support.openpgp import make

NOW = 1_800_000_000
MADE = [make([f"n{n} <n{n}@example.org>"], seed=f"n{n}") for n in range(6)]
ALICE = name_of(Kind.OPENPGP, "addr", "alice@example.org")


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


class Listening:
    """One feed that is read; `ids` and `events` by now."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self.reply = reply
        self.place = 0

    async def fields(self) -> dict[str, str]:
        """The next block of lines."""
        found: dict[str, str] = {}
        async with asyncio.timeout(10):
            while line := (await self.reply.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(":")
                found[name] = value.strip()
        return found

    async def next(self) -> tuple[int, str, dict[str, Any]]:
        """The next event."""
        while "data" not in (found := await self.fields()):
            pass
        return int(found["id"]), found["event"], json.loads(found["data"])


class Feeds:
    """All feeds of one test; closed with it."""

    def __init__(self, admin: Admin) -> None:
        self.admin = admin
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Feeds:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, query: str = "", token: str = TOKEN, last: int | None = None) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": str(last)} if last is not None else {})
        url = f"{self.admin.url}/api/v1/events{query}"
        return await self._stack.enter_async_context(self.admin.session.get(url, headers=headers))

    async def listen(self, query: str = "", token: str = TOKEN, last: int | None = None) -> Listening:
        reply = await self.ask(query, token, last)
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        one = Listening(reply)
        one.place = int((await one.fields())["id"])
        return one


@pytest.fixture
async def feeds(admin: Admin) -> AsyncIterator[Feeds]:
    async with Feeds(admin) as one:
        yield one


async def test_an_event_comes_within_a_second(admin: Admin, feeds: Feeds) -> None:
    await admin.put(MADE[0].octets)
    feed = await feeds.listen()
    assert feed.place == await admin.store.history.newest()
    for made in MADE[1:4]:
        fingerprint = await admin.put(made.octets, Source.LOCAL, "administrator")
        began = time.monotonic()
        number, name, event = await feed.next()
        assert time.monotonic() - began < 1.0
        assert (name, event["what"], event["fingerprint"], event["id"]) == (name, "first seen", fingerprint, number)
        assert (event["source"], event["kind"], event["who"]) == ("local", "openpgp", "")


async def test_it_resumes_behind_the_last_event(admin: Admin, feeds: Feeds) -> None:
    feed = await feeds.listen()
    for made in MADE:
        await admin.put(made.octets)
    first = [await feed.next() for _ in range(2)]
    feed.reply.close()
    again = await feeds.listen(last=first[-1][0])
    rest = [(await again.next())[2]["fingerprint"] for _ in range(4)]
    assert rest == [made.fingerprint for made in MADE[2:]]
    before = await feeds.listen(last=feed.place)
    assert [await before.next() for _ in range(2)] == first, "cut off before the first event"


async def test_only_what_is_wanted(admin: Admin, feeds: Feeds) -> None:
    feed = await feeds.listen("?what=replaced,deleted,first%20seen")
    await admin.put(MADE[0].octets)
    await admin.store.block(MADE[0].fingerprint, NOW)
    await admin.store.history.answers("default", ALICE, MADE[0].fingerprint, NOW)
    await admin.store.history.answers("default", ALICE, MADE[1].fingerprint, NOW)
    await admin.store.delete(MADE[0].fingerprint, NOW)
    seen = [await feed.next() for _ in range(3)]
    assert [name for _, name, _ in seen] == ["first seen", "replaced", "deleted"]
    replaced = seen[1][2]
    assert (replaced["address"], replaced["view"]) == ("alice@example.org", "default")
    assert (replaced["old"], replaced["fingerprint"]) == (MADE[0].fingerprint, MADE[1].fingerprint)


@pytest.mark.parametrize("query", ["what=nothing", "what=renewed", "what=revoked,", "what=a&what=b", "since=3"])
async def test_what_is_not_there_is_named(admin: Admin, query: str) -> None:
    status, body = await admin.call("GET", f"/api/v1/events?{query}")
    assert status == 400
    assert "accepted" in str(body["detail"]) or "twice" in str(body["detail"])
    status, _ = await admin.call("GET", "/api/v1/events", {"Last-Event-ID": "x1"})
    assert status == 400


async def test_viewers_see_no_addresses_where_they_may_not(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin, Feeds(admin) as feeds:
        feed, whole = await feeds.listen(token=await admin.viewer()), await feeds.listen()
        await admin.store.history.answers("default", ALICE, MADE[0].fingerprint, NOW)
        await admin.store.history.answers("default", ALICE, MADE[1].fingerprint, NOW)
        number, _, event = await feed.next()
        assert event["address"].endswith("@example.org")
        assert "alice" not in json.dumps(event)
        clear = await whole.next()
        assert (clear[0], clear[2]["address"]) == (number, "alice@example.org")


async def test_viewers_may_listen_until_their_token_is_revoked(admin: Admin, feeds: Feeds) -> None:
    token = await admin.viewer()
    feed = await feeds.listen(token=token)
    await admin.put(MADE[0].octets)
    await feed.next()
    await admin.parts.operations.tokens.revoke("reader")
    async with asyncio.timeout(10):
        assert await feed.reply.content.read() in (b"", b":\n\n")


async def test_so_many_feeds_and_no_more(admin: Admin, feeds: Feeds) -> None:
    open_ = [await feeds.listen() for _ in range(MOST)]
    status, body = await admin.call("GET", "/api/v1/events")
    assert (status, body["title"]) == (503, "Too many streams")
    open_[0].reply.close()
    async with asyncio.timeout(10):
        while (await feeds.ask()).status != 200:
            await asyncio.sleep(0.1)


async def test_who_reads_nothing_is_dropped() -> None:
    """And nothing is read ahead for them."""
    made = 0
    ended = asyncio.Event()

    async def always() -> bool:
        return True

    async def events() -> AsyncIterator[bytes]:
        nonlocal made
        try:
            while True:
                made += 1
                yield b"data: " + b"x" * 65536 + b"\n\n"
        finally:
            ended.set()

    async def handle(request: web.Request) -> web.StreamResponse:
        request[STANDING] = Standing(always)
        return await Streams(stuck=0.5).send(request, events())

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with socket.create_connection(runner.addresses[0]) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(15):
                await ended.wait()
            assert made * 65536 < 32 << 20
    finally:
        await runner.cleanup()


def test_what_the_overview_says_of_the_webhook() -> None:
    assert not list(of_webhook(WebhookStatus(waiting=3)))
    [failing] = of_webhook(WebhookStatus("it answered 500", 1))
    assert (failing.kind, "1 event waits: it answered 500" in failing.what) == ("bad", True)
    [lost] = of_webhook(WebhookStatus(lost=2))
    assert (lost.kind, lost.what.startswith("2 events left the history")) == ("warn", True)
