"""What changed is told to others, on either store: the webhook against a real receiver that behaves badly, the feed."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from keyserver.events import webhook as webhooks
from keyserver.events.feed import Feed
from keyserver.events.form import EVENT_ID, SIGNATURE, TIMESTAMP, told
from keyserver.events.posting import READ, Poster, Target
from keyserver.events.webhook import RECEIVER, Webhook
from keyserver.store.base import Store
from keyserver.store.history import Event, History, What
from tests.conformance.conftest import Backend, Heard, Made

NOW = 1_800_000_000
SECRET = b"a secret of many octets"
DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"

Check = Callable[[Mapping[str, str], bytes, bytes, int, float], int | None]
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def check_of_the_document() -> Check:
    """Its Python example, as it stands there."""
    [code] = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.S | re.M)
    names: dict[str, Any] = {}
    exec(code, names)
    check: Check = names["check"]
    return check


@dataclass
class Receiver:
    """Goes by the document's check; `behaves`: what it does with the next POSTs, before it behaves well."""

    url: str = ""
    taken: list[dict[str, Any]] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes, float]] = field(default_factory=list)  # each, with when it came
    repeated: list[int] = field(default_factory=list)
    behaves: list[Behaviour] = field(default_factory=list)
    last: int = 0

    @property
    def numbers(self) -> list[int]:
        return [event["id"] for event in self.taken]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.posts.append((dict(request.headers), body, time.monotonic()))
        if self.behaves:
            return await self.behaves.pop(0)(request)
        number = check_of_the_document()(request.headers, body, SECRET, self.last, NOW)
        if number is None:
            self.repeated.append(json.loads(body)["id"])
        else:
            self.last = number
            self.taken.append(json.loads(body))
        return web.Response(status=204)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?of=ours"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Sending:
    """A webhook that runs."""

    webhook: Webhook
    registry: CollectorRegistry
    leading: bool = True

    def count(self, outcome: str) -> float:
        return self.registry.get_sample_value("keyserver_webhook_deliveries_total", {"outcome": outcome}) or 0


@asynccontextmanager
async def sending(history: History, url: str, *, leading: bool = True, time: float = 1.0) -> AsyncIterator[Sending]:
    registry = CollectorRegistry()
    poster = Poster(lambda: NOW, time=time)
    webhook = Webhook(
        history,
        poster,
        leads=lambda: one.leading,
        told=told,
        clock=lambda: NOW,
        monotonic=asyncio.get_running_loop().time,
        random=lambda: 0.0,
        registry=registry,
    )
    one = Sending(webhook, registry, leading)
    webhook.change(Target(url, SECRET))
    task = asyncio.create_task(webhook.run())
    try:
        yield one
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await poster.close()


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


async def change(store: Store, n: int) -> None:
    """One more certificate: one more event."""
    await store.put([Made(n).find()], [], await store.begin(), NOW)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits half a second or a second waits less; no bound is another."""
    monkeypatch.setattr(webhooks, "EVERY", 0.05)
    monkeypatch.setattr(webhooks, "FIRST", 0.1)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


async def numbers_of(store: Store, after: int = 0) -> list[int]:
    return [event.number for event in await store.history.since(after, 1000)]


async def test_how_many_are_between(store: Store) -> None:
    for n in range(5):
        await change(store, n)
    numbers = await numbers_of(store)
    count = store.history.count
    assert [await count(after, numbers[-1]) for after in (-5, 0, numbers[0], numbers[3], numbers[4])] == [5, 5, 4, 1, 0]
    assert [await count(0, upto) for upto in (0, numbers[0], numbers[2] - 1, 1 << 61)] == [0, 1, 2, 5]


async def test_it_begins_with_what_comes_and_keeps_the_order(store: Store, receiver: Receiver) -> None:
    await change(store, 1)
    before = await store.history.newest()
    async with sending(store.history, receiver.url) as one:
        await until_begun(store)
        for n in range(2, 8):
            await change(store, n)
        await store.delete(Made(2).fingerprint, NOW)
        expected = await numbers_of(store, before)
        await marked(store, expected[-1])
        await asyncio.sleep(0.2)
        assert receiver.numbers == expected
        assert one.count("delivered") == len(expected) == 7
        assert one.webhook.status == webhooks.WebhookStatus()
    assert await store.history.cursor(RECEIVER) == expected[-1]
    first, last = receiver.taken[0], receiver.taken[-1]
    assert (first["what"], first["fingerprint"]) == ("first seen", Made(2).fingerprint)
    assert (first["kind"], first["source"], first["origin"]) == ("openpgp", "keyserver", "one")
    assert (last["what"], last["fingerprint"]) == ("deleted", Made(2).fingerprint)
    assert not receiver.repeated


async def until_begun(store: Store) -> None:
    while await store.history.cursor(RECEIVER) is None:
        await asyncio.sleep(0.02)


async def marked(store: Store, number: int) -> None:
    """The receiver has it, and the database knows that it has."""
    async with asyncio.timeout(20):
        while await store.history.cursor(RECEIVER) != number:
            await asyncio.sleep(0.02)


def answering(status: int, headers: Mapping[str, str] | None = None) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return behave


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def closes(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def no_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"220 mail.example ESMTP\r\n")  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    request.transport.abort()
    return web.Response()


BAD: Mapping[str, tuple[Behaviour, str]] = {
    "an error": (answering(500), "refused"),
    "not found": (answering(404), "refused"),
    "a redirect": (answering(307, {"Location": "/elsewhere"}), "refused"),
    "a redirect to another host": (answering(302, {"Location": "http://169.254.169.254/"}), "refused"),
    "it hangs": (hangs, "failed"),
    "it closes": (closes, "failed"),
    "no HTTP": (no_http, "failed"),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_is_not_taken_is_sent_again_in_order(store: Store, receiver: Receiver, what: str) -> None:
    behaviour, outcome = BAD[what]
    async with sending(store.history, receiver.url) as one:
        await until_begun(store)
        receiver.behaves = [behaviour, behaviour]
        for n in range(3):
            await change(store, n)
        await until(lambda: bool(one.webhook.status.error))
        assert await store.history.cursor(RECEIVER) == 0
        await until(lambda: len(receiver.taken) == 3)
        assert receiver.numbers == await numbers_of(store)
        assert [one.count(word) for word in (outcome, "delivered")] == [2, 3]
        await until(lambda: one.webhook.status == webhooks.WebhookStatus())
    assert not receiver.repeated
    times = [at for _, _, at in receiver.posts]
    assert times[1] - times[0] >= 0.1, "the first wait"
    assert times[2] - times[1] >= 0.2, "the second is longer"


async def test_retry_after_is_obeyed(store: Store, receiver: Receiver) -> None:
    async with sending(store.history, receiver.url):
        await until_begun(store)
        receiver.behaves = [answering(429, {"Retry-After": "1"})]
        await change(store, 1)
        await until(lambda: len(receiver.taken) == 1)
    assert receiver.posts[1][2] - receiver.posts[0][2] >= 1.0


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=200)
    await response.prepare(request)
    for _ in range(10_000):
        await response.write(b"x" * 65536)
    raise AssertionError("all of it was read")


async def drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=202)
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x")
        await asyncio.sleep(0.1)
    return response


@pytest.mark.parametrize("behaviour", [endless, drips], ids=["endless", "drips"])
async def test_a_2xx_is_enough_whatever_follows_it(store: Store, receiver: Receiver, behaviour: Behaviour) -> None:
    """Nothing comes twice after it."""
    async with sending(store.history, receiver.url, time=10) as one:
        await until_begun(store)
        receiver.behaves = [behaviour]
        await change(store, 1)
        await change(store, 2)
        await until(lambda: len(receiver.taken) == 1, 5)
        assert receiver.numbers == (await numbers_of(store))[1:]
        assert (one.count("delivered"), one.count("failed")) == (2, 0)
    assert READ < 65536 * 10_000


async def test_a_2xx_that_comes_too_late_makes_a_repetition_that_the_check_sees(
    store: Store, receiver: Receiver
) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        receiver.last = int(request.headers[EVENT_ID])
        receiver.taken.append(json.loads(await request.read()))
        await asyncio.sleep(30)
        return web.Response()

    async with sending(store.history, receiver.url):
        await until_begun(store)
        receiver.behaves = [late]
        await change(store, 1)
        await change(store, 2)
        await until(lambda: len(receiver.taken) == 2)
    assert receiver.numbers == await numbers_of(store)
    assert receiver.repeated == receiver.numbers[:1]


async def test_nobody_listens_for_a_while_and_nothing_is_lost_by_a_restart(
    opened: tuple[Store, Heard], backend: Backend, receiver: Receiver
) -> None:
    store, _ = opened
    async with sending(store.history, receiver.url):
        await until_begun(store)
        await change(store, 1)
        await marked(store, await store.history.newest())
    for n in range(2, 5):
        await change(store, n)
    async with sending(store.history, "http://127.0.0.1:1/") as one:
        await until(lambda: "no connection" in one.webhook.status.error)
        await until(lambda: one.webhook.status.waiting == 3)
    await store.close()
    async with backend.opened() as (again, _), sending(again.history, receiver.url) as one:
        await change(again, 5)
        await until(lambda: len(receiver.taken) == 5)
        assert receiver.numbers == await numbers_of(again)
    assert not receiver.repeated


async def test_of_two_nodes_the_one_that_leads_sends(store: Store, receiver: Receiver) -> None:
    async with (
        sending(store.history, receiver.url) as one,
        sending(store.history, receiver.url, leading=False) as other,
    ):
        await until_begun(store)
        for n in range(9):
            await change(store, n)
            if n % 3 == 2:
                await marked(store, await store.history.newest())
                one.leading, other.leading = other.leading, one.leading
        assert receiver.numbers == await numbers_of(store)
        assert (one.count("delivered"), other.count("delivered")) == (6, 3)
    assert not receiver.repeated


async def test_what_leaves_the_history_first_is_counted(
    store: Store, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with sending(store.history, "http://127.0.0.1:1/") as one:
        await until_begun(store)
        for n in range(4):
            await change(store, n)
        await until(lambda: one.webhook.status.waiting == 4)
        await store.history.forget_all()
        await change(store, 9)
        await until(lambda: one.webhook.status.lost > 0)
        assert one.webhook.status.lost == 4
        one.webhook.change(Target(receiver.url, SECRET))
        await until(lambda: len(receiver.taken) == 1)
        assert receiver.taken[0]["fingerprint"] == Made(9).fingerprint
        assert one.registry.get_sample_value("keyserver_webhook_lost_total") == 4
    assert "4 events left the history before the webhook took them" in caplog.text


async def test_a_long_queue_is_counted_and_goes_out_whole(store: Store, receiver: Receiver) -> None:
    many = webhooks.BATCH * 2 + 30
    await store.history.move(RECEIVER, 0)
    for n in range(many):
        await change(store, n)
    receiver.behaves = [answering(503)]
    async with sending(store.history, receiver.url) as one:
        await until(lambda: one.webhook.status.waiting == many)
        await until(lambda: len(receiver.taken) == many, 60)
        await until(lambda: one.webhook.status == webhooks.WebhookStatus())
        assert receiver.numbers == await numbers_of(store)
        assert one.registry.get_sample_value("keyserver_webhook_waiting") == 0


async def test_what_nobody_thought_of_ends_nothing(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def since(number: int, limit: int) -> list[Event]:
        raise ValueError("'enchanted' is not a valid What")

    async with sending(store.history, receiver.url) as one:
        await until_begun(store)
        with monkeypatch.context() as patched:
            patched.setattr(store.history, "since", since)
            await change(store, 1)
            await until(lambda: "mistake of our own" in one.webhook.status.error)
        await until(lambda: len(receiver.taken) == 1)
    assert "enchanted" in caplog.text


async def test_another_url_is_tried_at_once(store: Store, receiver: Receiver) -> None:
    async with sending(store.history, "http://127.0.0.1:1/") as one:
        await until_begun(store)
        await change(store, 1)
        await until(lambda: bool(one.webhook.status.error))
        one.webhook.change(None)
        await until(lambda: not one.webhook.status.error)
        one.webhook.change(Target(receiver.url, SECRET))
        await until(lambda: len(receiver.taken) == 1)


async def test_a_replay_is_refused_by_the_check_of_the_document(store: Store, receiver: Receiver) -> None:
    async with sending(store.history, receiver.url):
        await until_begun(store)
        await change(store, 1)
        await change(store, 2)
        await until(lambda: len(receiver.taken) == 2)
    check = check_of_the_document()
    (first, body, _), (second, other, _) = receiver.posts
    number = receiver.numbers[0]
    assert check(first, body, SECRET, 0, NOW + 299) == number
    assert check(first, body, SECRET, number, NOW) is None, "the same again"
    assert check(first, body, SECRET, receiver.numbers[1], NOW) is None, "an older one again"
    with pytest.raises(ValueError, match="too long ago"):
        check(first, body, SECRET, 0, NOW + 301)
    for headers, octets, secret in (
        (first, body, SECRET + b"x"),
        (first, body + b" ", SECRET),
        (first, other, SECRET),
        ({**first, EVENT_ID: second[EVENT_ID]}, body, SECRET),
        ({**first, TIMESTAMP: str(NOW + 400)}, body, SECRET),
        ({**first, SIGNATURE: "sha256=é"}, body, SECRET),
    ):
        with pytest.raises(ValueError, match="not signed"):
            check(headers, octets, secret, 0, NOW + 400)


# --- the feed


async def test_the_feed_resumes_filters_and_looks_once_for_all(store: Store) -> None:
    looks = 0
    newest = store.history.newest

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.history, name)

        async def newest(self) -> int:
            nonlocal looks
            looks += 1
            return await newest()

    feed = Feed(Counted(), every=0.1)  # type: ignore[arg-type]
    for n in range(150):
        await change(store, n)
    numbers = await numbers_of(store)
    assert await feed.begin(None) == numbers[-1] == await feed.begin(1 << 60)
    assert await feed.begin(numbers[0]) == numbers[0]
    async with aclosing(feed.follow(numbers[9])) as events:
        assert [(await anext(events)).number for _ in range(140)] == numbers[10:]
    heard: list[list[What]] = [[] for _ in range(12)]

    async def listen(n: int) -> None:
        wanted = (What.DELETED, What.BLOCKED) if n % 2 else ()
        async for event in feed.follow(numbers[-1], wanted):
            heard[n].append(event.what)

    looks = 0
    listeners = [asyncio.create_task(listen(n)) for n in range(len(heard))]
    await asyncio.sleep(1.05)
    assert 5 <= looks <= 11, "one look for all of them"
    await change(store, 999)
    await store.delete(Made(999).fingerprint, NOW)
    await until(lambda: [len(one) for one in heard] == [2, 1] * 6, 5)
    assert heard[0] == [What.FIRST_SEEN, What.DELETED]
    assert heard[1] == [What.DELETED]
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)
    await asyncio.sleep(0.3)
    looks = 0
    await asyncio.sleep(0.5)
    assert looks == 0, "nobody listens"
