"""A PostgreSQL server that crashes, one whose tables a newer release brings forward, and a replica that takes its
place, under stores that go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter

import asyncpg

from keyserver.changes import Changes
from keyserver.model import Source
from keyserver.store.base import Stored, StoreError
from keyserver.store.postgres import PostgresStore
from keyserver.store.postgres.schema import STEPS, bring_forward
from support.postgres import Cluster, shared
from tests.conformance.conftest import HYGIENE, Heard, Made

ALICE = Made(1, ("Alice <alice@example.org>",))
BOB = Made(2, ("Bob <bob@example.org>",))
NOW = 1_800_000_000

NEXT = (
    "ALTER TABLE entry ADD COLUMN note text COLLATE \"C\" NOT NULL DEFAULT ''",
    "ALTER TABLE change ADD COLUMN node text",
    "CREATE INDEX entry_note ON entry (note)",
    "CREATE TABLE later (id bigint PRIMARY KEY REFERENCES entry (id) ON DELETE CASCADE)",
    "CREATE FUNCTION generation_2() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT generation_1()'",
)
"""A migration that only adds, as that of a release must that runs beside the one before it."""


async def polled(store: PostgresStore) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.poll()
            except StoreError:
                await asyncio.sleep(0.05)


async def test_after_a_crash_everything_may_have_changed() -> None:
    """The numbers of transactions that a crash lost are given again: what has them then is not missed."""
    with Cluster(settings={"wal_writer_delay": "10s"}) as cluster:
        url, heard, changes = cluster.url(cluster.create()), Heard(), Changes()
        changes.subscribe(heard.append)
        writer, reader = (PostgresStore(url, HYGIENE, c, 1 << 30) for c in (Changes(), changes))
        await writer.open()
        await reader.open()
        begun = await writer.begin()
        await writer.put([ALICE.find(Source.LOCAL)], [], begun, NOW)
        await writer.delete(BOB.fingerprint, NOW)
        await writer.block(BOB.fingerprint, NOW)  # on the disk
        for n in range(40):
            await writer.put([Made(n + 10).find()], [], begun, NOW)  # not yet
        await reader.poll()
        backend = cluster.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'").split()[0]
        os.kill(int(backend), signal.SIGKILL)
        heard.clear()
        async with asyncio.timeout(20):
            while True:
                try:
                    await writer.delete(ALICE.fingerprint, NOW)
                    break
                except StoreError:
                    await asyncio.sleep(0.05)
        await polled(reader)
        assert any(change.everything or ALICE.fpr in change.names for change in heard)
        await reader.poll()
        assert len(heard) == 1, "once"
        await writer.close()
        await reader.close()


async def test_a_newer_release_migrates_under_load_and_no_request_fails() -> None:
    """Two nodes of this release look, put and delete while the tables of the next one are made, and afterwards."""
    cluster = shared()
    url = cluster.url(cluster.create())
    stores = [PostgresStore(url, HYGIENE, Changes(), 1 << 30) for _ in range(2)]
    for store in stores:
        await store.open()
    over, done = asyncio.Event(), Counter[str]()

    async def work(store: PostgresStore, first: int) -> None:
        n = first
        while not over.is_set():
            made = Made(n, (f"u{n}@example.org",))
            assert await store.put([made.find()], [], await store.begin(), NOW) == (Stored.NEW,)
            assert (await store.look(made.fpr)).entries
            if n % 3 == 0:
                assert await store.delete(made.fingerprint, NOW) == 1
                assert not (await store.look(made.fpr)).entries
            await store.poll()
            n, done["rounds"] = n + 1, done["rounds"] + 1

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(work(stores[number % 2], 100_000 * (number + 1)))
        await asyncio.sleep(0.5)
        before = done["rounds"]
        newer = await asyncpg.connect(url)
        await bring_forward(newer, (*STEPS, NEXT))
        await asyncio.sleep(0.5)
        over.set()
    assert done["rounds"] > before > 0
    assert await newer.fetchval("SELECT version FROM keyserver_schema") == len(STEPS) + 1
    late = PostgresStore(url, HYGIENE, Changes(), 1 << 30)
    await late.open()  # a node of this release that starts again meanwhile
    assert (await late.stats()).certificates == (await stores[0].stats()).certificates
    await newer.close()
    for store in (*stores, late):
        await store.close()


async def test_a_promoted_replica_goes_on_and_nothing_deleted_comes_back() -> None:
    """Two nodes put and delete while their server dies and its synchronous replica takes its place."""
    with Cluster(settings={"synchronous_commit": "on"}) as primary, primary.replica() as replica:
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        hosts = f"host={primary.folder},{replica.folder}&port={primary.port},{replica.port}"
        url = f"postgresql://keyserver@/{primary.create()}?{hosts}&target_session_attrs=primary"
        heard, changes = Heard(), Changes()
        changes.subscribe(heard.append)
        stores = [PostgresStore(url, HYGIENE, c, 1 << 30) for c in (changes, Changes())]
        for store in stores:
            await store.open()
        begun = await stores[0].begin()
        over, kept, deleted = asyncio.Event(), set[int](), set[int]()

        async def work(store: PostgresStore, n: int) -> None:
            while not over.is_set():
                n += 1
                made = Made(n, (f"u{n}@example.org",))
                try:
                    if await store.put([made.find(Source.LOCAL)], [], await store.begin(), NOW) == (Stored.NEW,):
                        kept.add(n)
                    if n % 3 == 0:
                        kept.discard(n)  # from here on it may be gone
                        await store.delete(made.fingerprint, NOW)
                        deleted.add(n)
                except StoreError:
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(work(stores[number % 2], 100_000 * (number + 1)))
            await asyncio.sleep(0.7)
            await asyncio.to_thread(primary.stop, signal.SIGKILL)
            before = len(deleted)
            assert before
            await asyncio.to_thread(replica.sql, "SELECT pg_promote()", "ALTER SYSTEM RESET synchronous_standby_names")
            await asyncio.to_thread(replica.sql, "SELECT pg_reload_conf()")
            for store in stores:
                await polled(store)
            async with asyncio.timeout(20):
                while len(deleted) < before + 10:
                    await asyncio.sleep(0.05)
            over.set()
        assert any(change.everything for change in heard), "what was held may be wrong"
        for n in deleted:
            assert not (await stores[0].look(Made(n).fpr)).entries, n
        for n in kept:
            assert (await stores[1].look(Made(n).fpr)).entries, n
        assert await stores[0].put([ALICE.find()], [], begun, NOW) == (Stored.DELETED,), "begun on another timeline"
        for store in stores:
            await store.close()
