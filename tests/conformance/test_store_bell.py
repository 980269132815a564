"""What nodes on one PostgreSQL database hear of each other, how soon, and when the way between is cut or silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import asyncpg
import pytest

from keyserver.changes import Changes
from keyserver.model import Selection, Source
from keyserver.store.cluster import Node
from keyserver.store.postgres import PostgresStore
from keyserver.store.postgres.bell import CHANNEL, EVERY, PAUSES, POOLED
from support.postgres import shared
from tests.conformance.conftest import HYGIENE, Backend, Heard, Made, said

ALICE = Made(1, ("Alice <alice@example.org>",))
BOB = Made(2, ("Bob <bob@example.org>",))
K = Source.KEYSERVER
NOW = 1_800_000_000
SOON = 1.0  # seconds: within that a change holds on all nodes


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with Backend("postgres", tmp_path) as backend:
        yield backend


@pytest.fixture
async def a(backend: Backend) -> AsyncIterator[PostgresStore]:
    """The node that changes something."""
    async with backend.opened() as (store, _):
        yield cast(PostgresStore, store)


class Listener:
    """Another node, that only listens: nothing else polls."""

    def __init__(self, store: PostgresStore, heard: Heard) -> None:
        self.store = store
        self.heard = heard
        self.polls = 0

    def caught_up(self, ago: float) -> None:
        assert 0 < ago <= SOON + 0.1
        self.polls += 1


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[Listener]:
    heard, changes = Heard(), Changes()
    changes.subscribe(heard.append)
    store = PostgresStore(url, HYGIENE, changes, 1 << 30)
    await store.open()
    listener = Listener(store, heard)
    task = asyncio.create_task(store.cluster.listen(listener.caught_up))
    await until(lambda: listener.polls)
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def until(condition: Callable[[], object], seconds: float = SOON) -> float:
    """Seconds until something holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)
    return loop.time() - began


@asynccontextmanager
async def bells(url: str) -> AsyncIterator[list[str]]:
    """The payloads of all that ring."""
    rung: list[str] = []
    db = await asyncpg.connect(url)
    await db.add_listener(CHANNEL, lambda *what: rung.append(str(what[-1])))
    try:
        yield rung
    finally:
        await db.close()


class Proxy:
    """TCP in between, that can fall silent: nothing goes through any more, and nothing is closed either."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._through = asyncio.Event()
        self._through.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fall_silent(self) -> None:
        self._through.clear()

    def speak(self) -> None:
        self._through.set()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._tasks |= {asyncio.create_task(self._pump(*way)) for way in ((reader, back), (there, writer))}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(65536):
                await self._through.wait()
                writer.write(octets)
                await writer.drain()
        writer.close()


Act = Callable[[PostgresStore], Awaitable[object]]
ACTS: dict[str, Act] = {
    "delete": lambda a: a.delete(ALICE.fingerprint, NOW),
    "purge": lambda a: a.purge(Selection(domain="example.org"), NOW),
    "purge all": lambda a: a.purge_all(NOW),
    "block": lambda a: a.block(ALICE.fingerprint, NOW),
}


@pytest.mark.parametrize("act", ACTS)
async def test_a_delete_or_a_block_rings_with_its_commit(backend: Backend, a: PostgresStore, act: str) -> None:
    await a.put([ALICE.find()], [], await a.begin(), NOW)
    async with listening(backend.url) as b, bells(backend.url) as rung:
        await asyncio.sleep(0.02)
        b.heard.clear()
        rung.clear()
        await ACTS[act](a)
        took = await until(lambda: ALICE.fpr in b.heard.names or any(change.everything for change in b.heard))
        assert took < EVERY / 2, "it was heard, not found by a poll"
        await until(lambda: rung)  # on a connection of its own, perhaps a moment later
        assert rung
        assert set(rung) == {""}, "a bell tells no name"


async def test_a_put_rings_behind_its_transaction(backend: Backend, a: PostgresStore) -> None:
    async with listening(backend.url) as b:
        took = []
        for n in range(20):
            made = Made(n)
            await a.put([made.find()], [], await a.begin(), NOW)
            took.append(await until(lambda made=made: made.fpr in b.heard.names))  # type: ignore[misc]
        assert sorted(took)[10] < EVERY / 5, took


async def test_bells_that_come_close_together_are_one(backend: Backend, a: PostgresStore) -> None:
    async with listening(backend.url) as b, bells(backend.url) as rung:
        loop = asyncio.get_running_loop()
        began, begun = loop.time(), await a.begin()
        for n in range(200):
            await a.put([], [said(Made(n).fpr, False, NOW)], begun, NOW)
        took = loop.time() - began
        await until(lambda: len(b.heard.names) == 200)
        assert 0 < len(rung) <= 2 + took / 0.005
        assert len(b.heard) == 200, "each change once"


async def test_a_node_that_hears_no_bell_catches_up_by_its_poll(backend: Backend, a: PostgresStore) -> None:
    async with listening(backend.url) as b:
        await a.put([ALICE.find()], [], await a.begin(), NOW)
        await until(lambda: ALICE.fpr in b.heard.names)
        b.heard.clear()
        # as of a node that was killed between its commit and its bell
        db = await asyncpg.connect(backend.url)
        await db.execute("INSERT INTO change (everything, names) VALUES (false, $1)", [BOB.fpr])
        await db.close()
        await until(lambda: b.heard.names == {BOB.fpr})


async def test_a_node_alone_rings_for_nobody(backend: Backend, a: PostgresStore) -> None:
    async with bells(backend.url) as rung:
        await a.cluster.beat(Node("1", "one", "0.1"), willing=True)
        await a.put([ALICE.find()], [], await a.begin(), NOW)
        await asyncio.sleep(0.1)
        assert rung == []
        async with backend.opened() as (other, _):
            await other.cluster.beat(Node("2", "two", "0.1"), willing=True)
        await a.cluster.beat(Node("1", "one", "0.1"), willing=True)
        await a.put([BOB.find()], [], await a.begin(), NOW)
        await until(lambda: rung)


async def test_a_node_does_not_poll_for_its_own_puts(backend: Backend) -> None:
    async with listening(backend.url) as one:
        await one.store.put([ALICE.find()], [], await one.store.begin(), NOW)
        await asyncio.sleep(0.05)
        polls = one.polls
        for n in range(20):
            await one.store.put([Made(n).find()], [], await one.store.begin(), NOW)
            await asyncio.sleep(0.01)
        assert one.polls - polls <= 5


async def test_a_listener_that_is_cut_comes_back_and_has_missed_nothing(backend: Backend, a: PostgresStore) -> None:
    kill = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE datname = '{backend.database}' AND application_name IN ('keyserver listener', 'keyserver bell')"
    )
    async with listening(backend.url) as b:
        for n in range(5):
            made = Made(n)
            assert int(shared().sql(kill)) >= 1
            await a.put([made.find()], [], await a.begin(), NOW)
            await until(lambda made=made: made.fpr in b.heard.names)  # type: ignore[misc]
        await asyncio.sleep(2 * PAUSES[0])
        b.heard.clear()
        await a.delete(ALICE.fingerprint, NOW)
        assert await until(lambda: ALICE.fpr in b.heard.names) < EVERY / 2, "it listens again"


async def test_a_listener_whose_server_falls_silent_comes_back(backend: Backend, a: PostgresStore) -> None:
    direct = shared().url(backend.database, loopback=True)
    async with Proxy(shared().port) as proxy, listening(direct.replace(str(shared().port), str(proxy.port))) as b:
        proxy.fall_silent()
        await a.put([ALICE.find()], [], await a.begin(), NOW)
        await asyncio.sleep(2.5)
        assert proxy.connections > 2, "it does not wait for a connection that says nothing"
        polls = b.polls
        proxy.speak()
        await until(lambda: ALICE.fpr in b.heard.names, 4)
        assert b.polls > polls
        await a.delete(BOB.fingerprint, NOW)
        await until(lambda: BOB.fpr in b.heard.names)


async def test_behind_a_pooler_changes_are_looked_for(
    backend: Backend, a: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "keyserver.nodes"):
        async with listening(f"{backend.url}&pooler=transaction") as b:
            await a.delete(ALICE.fingerprint, NOW)
            assert await until(lambda: ALICE.fpr in b.heard.names) < EVERY - POOLED
            polls = b.polls
            await asyncio.sleep(10 * POOLED)
            assert 3 < b.polls - polls <= 11
    assert [record.getMessage() for record in caplog.records if record.name == "keyserver.nodes"] == [
        "behind a pooler nothing can be listened for: changes of other nodes are looked for every 100 ms"
    ]
