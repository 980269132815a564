"""Several nodes on one PostgreSQL database: what only happens between processes, and when the server goes away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import asyncpg
import pytest

from keyserver.changes import Changes
from keyserver.model import Selection, Source
from keyserver.store.base import Store, Stored, StoreError, StoreRefused
from keyserver.store.postgres import PostgresStore
from keyserver.store.postgres.connections import WRITE, Connections
from support.postgres import Cluster, shared
from tests.conformance.conftest import HYGIENE, Backend, Heard, Made, addr, merge, said

ALICE = Made(1, ("Alice <alice@example.org>",))
BOB = Made(2, ("Bob <bob@example.org>",))
K = Source.KEYSERVER
NOW = 1_800_000_000


@pytest.fixture(params=["postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with Backend(request.param, tmp_path) as backend:
        yield backend


@pytest.fixture
async def nodes(backend: Backend) -> AsyncIterator[list[tuple[PostgresStore, Heard]]]:
    """Three of them."""
    pairs = [backend.make() for _ in range(3)]
    for store, _ in pairs:
        await store.open()
    yield [(cast(PostgresStore, store), heard) for store, heard in pairs]
    for store, _ in pairs:
        await store.close()


async def polled(store: Store, seconds: float = 10.0) -> None:
    """Wait for the server to be there again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await store.poll()
            except StoreError:
                await asyncio.sleep(0.05)


async def test_a_delete_beside_puts_is_never_undone_by_them(nodes: list[tuple[PostgresStore, Heard]]) -> None:
    """200 deletes, each beside puts of two other nodes that were begun before it."""
    (one, _), (two, _), (three, _) = nodes
    refused = 0

    async def deleted(fingerprint: str, later: float) -> int:
        await asyncio.sleep(later)  # so that it comes before puts, between them and behind them
        return await one.delete(fingerprint, NOW)

    for n in range(200):
        made = Made(n, ("race@example.org",))
        begun = await two.begin()
        puts = [store.put([made.find(origin=o)], [], begun, NOW) for store in (two, three) for o in ("one", "two")]
        answers = await asyncio.gather(*puts, deleted(made.fingerprint, n % 5 / 1000))
        refused += sum(answer == (Stored.DELETED,) for answer in answers[:-1])
        assert (await one.certificate(made.fingerprint)).entries == (), n
        assert await one.put([made.find()], [], begun, NOW) == (Stored.DELETED,)
    assert 0 < refused < 800, "they did race"


async def test_a_purge_beside_puts_is_never_undone_by_them(nodes: list[tuple[PostgresStore, Heard]]) -> None:
    (one, _), (two, _), (three, _) = nodes
    for n in range(20):
        begun = await two.begin()
        many = [Made(1000 * n + m, (f"u{m}@race.example",)) for m in range(30)]
        puts = [store.put([made.find()], [], begun, NOW) for made in many for store in (two, three)]
        await asyncio.gather(*puts, one.purge(Selection(domain="race.example"), NOW))
        assert (await one.stats()).certificates == 0, n


async def test_what_nodes_put_of_one_certificate_is_merged_without_loss(
    nodes: list[tuple[PostgresStore, Heard]],
) -> None:
    begun = await nodes[0][0].begin()
    copies = [Made(1, (f"Alice <alice{n}@example.org>",), (f"r{n}",)) for n in range(60)]
    answers = await asyncio.gather(
        *(nodes[n % 3][0].put([c.find(replace=False)], [], begun, NOW) for n, c in enumerate(copies))
    )
    assert answers.count((Stored.NEW,)) == 1
    shelf = await nodes[0][0].look(ALICE.fpr)
    assert len(shelf.entries[0].identities) == 60
    assert len(json.loads(shelf.revocations[ALICE.fingerprint])) == 60
    stats = await nodes[1][0].stats()
    assert (stats.certificates, stats.entries[K]) == (1, 1)


async def test_counts_and_size_hold_whoever_writes(nodes: list[tuple[PostgresStore, Heard]]) -> None:
    """As counting the rows says it, after puts, deletes and expiry of three nodes at once, folded or not."""

    async def busy(number: int, store: PostgresStore) -> None:
        for n in range(60):
            made = Made(n, (f"u{n}@example.org", f"n{number}@example.org"))
            records = [said(made.fpr, n % 2 == number % 2, NOW + n, "one")]
            await store.put([made.find(origin=f"o{number}"), made.find()], records, await store.begin(), NOW + n)
            if n % 7 == number:
                await store.delete(made.fingerprint, NOW)
            if n % 11 == number:
                await store.purge_expired({(K, "one"): NOW + n // 2}, NOW + n // 3, 50)

    await asyncio.gather(*(busy(number, store) for number, (store, _) in enumerate(nodes)))
    store = nodes[0][0]
    sql = (
        "SELECT (SELECT count(DISTINCT fingerprint) FROM entry), (SELECT count(*) FROM entry),"
        " (SELECT count(*) FROM record WHERE found), (SELECT count(*) FROM record WHERE NOT found),"
        " (SELECT sum(octet_length(octets) + 1000) FROM entry)"
    )
    counted = await store.read(lambda db: db.fetchrow(sql))
    stats = await store.stats()
    assert counted is not None
    assert counted[1] > 50
    found = (stats.certificates, stats.entries[K], stats.records_found, stats.records_absent, stats.octets)
    assert found == tuple(counted)


async def test_an_entry_that_went_and_came_again_is_not_the_one_that_was_read(
    backend: Backend, nodes: list[tuple[PostgresStore, Heard]]
) -> None:
    """While a put merges, the entry expires, and another node puts it anew: what is there now takes part in the merge,
    though nothing was deleted by anybody."""
    (one, _), (two, _), _ = nodes
    begun = await one.begin()
    await one.put([ALICE.find(replace=False)], [], begun, NOW)
    second, third = Made(1, ("Alice <two@example.org>",)), Made(1, ("Alice <three@example.org>",))
    loop, raced = asyncio.get_running_loop(), []

    async def race() -> None:
        assert await two.purge_expired({(K, None): NOW + 1}, 0, 10) == 1
        assert await two.put([second.find(replace=False)], [], begun, NOW + 1) == (Stored.NEW,)

    def merge_late(copies: Sequence[bytes], revocations: bytes) -> bytes:
        if not raced:
            raced.append(True)
            asyncio.run_coroutine_threadsafe(race(), loop).result(10)
        return merge(copies, revocations)

    late = {kind: replace(hygiene, merge=merge_late) for kind, hygiene in HYGIENE.items()}
    store = PostgresStore(backend.url, late, Changes(), 1 << 30)
    await store.open()
    await store.put([third.find(replace=False)], [], begun, NOW + 2)
    await store.close()
    (entry,) = (await one.look(ALICE.fpr)).entries
    assert set(entry.identities) == {*second.texts, *third.texts}


async def test_every_change_is_heard_once_whatever_transactions_are_open(
    backend: Backend, nodes: list[tuple[PostgresStore, Heard]]
) -> None:
    """Long transactions neither hide the others' changes nor lose their own."""
    (one, _), (two, _), (reader, heard) = nodes
    slow = await asyncpg.connect(backend.url)
    try:
        held = slow.transaction()
        await held.start()
        await slow.execute("INSERT INTO change (everything, names) VALUES (false, '{slow}')")
        begun = await one.begin()
        made = [Made(n) for n in range(200)]

        async def write(store: Store, mine: list[Made]) -> None:
            for one_made in mine:
                await store.put([one_made.find()], [], begun, NOW)

        writing = asyncio.gather(write(one, made[:100]), write(two, made[100:]))
        while not writing.done():
            await reader.poll()
            await asyncio.sleep(0.003)
        await writing
        await reader.poll()
        assert heard.names >= {m.fpr for m in made}, "an open transaction holds nobody up"
        assert "slow" not in heard.names
        await held.commit()
        await reader.poll()
        assert heard[-1].names == {"slow"}
        names = [name for change in heard for name in change.names if ":fpr:" in name and name.startswith("openpgp")]
        assert len(names) == len(set(names)) == 200, "each once"
        assert not any(change.everything for change in heard)
        count = len(heard)
        await reader.poll()
        assert len(heard) == count
    finally:
        await slow.close()


async def test_own_changes_are_heard_once_though_polls_run_all_the_time(
    nodes: list[tuple[PostgresStore, Heard]],
) -> None:
    one, heard = nodes[0]
    begun, stop = await one.begin(), asyncio.Event()

    async def poll() -> None:
        while not stop.is_set():
            await one.poll()

    polling = [asyncio.ensure_future(poll()) for _ in range(2)]
    for n in range(100):
        await one.put([Made(n).find()], [], begun, NOW)
    stop.set()
    await asyncio.gather(*polling)
    await one.poll()
    assert len(heard) == len({change.number for change in heard}) == 100


async def test_what_another_server_numbered_is_forgotten_at_the_start(
    backend: Backend, nodes: list[tuple[PostgresStore, Heard]]
) -> None:
    """As after a dump of a server whose counter was far ahead; what this one numbered stays."""
    one, _ = nodes[0]
    await one.put([ALICE.find()], [], await one.begin(), NOW)
    shared().sql(
        "INSERT INTO change (xid, everything, names) VALUES ('900000000000', true, '{}')",
        "UPDATE tidied SET xid = '900000000000'",
        database=backend.database,
    )
    async with backend.opened() as (late, heard):
        for _ in range(2):
            await late.poll()
        assert heard == []
        await one.put([BOB.find()], [], await one.begin(), NOW)
        await late.poll()
        assert [change.everything for change in heard] == [False]
    left = shared().sql("SELECT count(*) FROM change", "SELECT xid FROM tidied", database=backend.database)
    assert left.split() == ["2", "0"]


async def test_what_was_tidied_away_unseen_is_everything(nodes: list[tuple[PostgresStore, Heard]]) -> None:
    (one, _), (_, _), (late, heard) = nodes
    begun = await one.begin()
    await one.put([ALICE.find()], [], begun, NOW)
    await one.read(lambda db: db.execute("UPDATE change SET at = at - interval '1 day'"), long=True)
    for n in range(100):  # one in 64 tidies
        await one.put([Made(n).find()], [], begun, NOW)
    async with asyncio.timeout(5):
        while await one.read(lambda db: db.fetchval("SELECT xid::text FROM tidied")) == "0":
            await asyncio.sleep(0.01)
    await late.poll()
    assert [change.everything for change in heard] == [True]
    await one.put([BOB.find()], [], begun, NOW)
    await late.poll()
    assert [change.everything for change in heard] == [True, False]


async def test_every_time_out_is_said_to_the_server(backend: Backend) -> None:
    """Over TCP: at a Unix socket there are no others than the server's own."""
    connections = Connections(shared().url(backend.database, loopback=True))
    db = await connections.connect(WRITE)
    wanted = {
        "client_connection_check_interval": "2000",
        "idle_in_transaction_session_timeout": "2000",
        "lock_timeout": "2000",
        "statement_timeout": "5000",
        "tcp_keepalives_count": "3",
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_user_timeout": "5000",
    }
    rows = await db.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", list(wanted))
    await db.close()
    assert dict(rows) == wanted


# --- a server that goes away


async def test_killed_connections_heal_by_themselves(backend: Backend, store: Store) -> None:
    begun = await store.begin()
    await store.put([ALICE.find()], [], begun, NOW)
    for _ in range(3):
        killer = await asyncpg.connect(backend.url)
        killed = await killer.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await killer.close()
        assert killed
        await polled(store)
        for _ in range(10):  # at most one error for each connection
            try:
                assert (await store.look(ALICE.fpr)).entries
                assert await store.put([ALICE.find()], [], begun, NOW) == (Stored.SAME,)
                break
            except StoreError:
                await asyncio.sleep(0)
        assert (await store.look(ALICE.fpr)).entries


async def test_a_stopped_server_is_said_and_a_started_one_found() -> None:
    with Cluster() as cluster:
        heard, changes = Heard(), Changes()
        changes.subscribe(heard.append)
        store = PostgresStore(cluster.url(cluster.create()), HYGIENE, changes, 1 << 30)
        await store.open()
        begun = await store.begin()
        await store.put([ALICE.find()], [said(addr("alice@example.org"), True, NOW)], begun, NOW)
        cluster.stop()
        for call in (lambda: store.look(ALICE.fpr), store.poll, store.stats, store.begin):
            with pytest.raises(StoreError, match="the cache database"):
                await call()
        with pytest.raises(StoreError, match="the cache database"):
            await store.put([BOB.find()], [], begun, NOW)
        with pytest.raises(StoreError, match="the cache database"):
            await store.delete(ALICE.fingerprint, NOW)
        late = PostgresStore(cluster.url("k0"), HYGIENE, Changes(), 1 << 30)
        with pytest.raises(StoreRefused, match="cannot open the cache database"):
            await late.open()
        cluster.start()
        await polled(store)
        assert (await store.look(ALICE.fpr)).entries
        assert await store.put([BOB.find()], [], begun, NOW) == (Stored.NEW,)
        await store.close()


def _told(pid: int, number: int) -> None:
    """A worker of the server may end by itself at any time."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def test_a_server_that_hangs_is_given_up_and_nobody_waits_for_it() -> None:
    with Cluster() as cluster:
        store = PostgresStore(cluster.url(cluster.create()), HYGIENE, Changes(), 1 << 30)
        await store.open()
        begun = await store.begin()
        await store.put([ALICE.find()], [], begun, NOW)
        pids = [
            int(pid) for pid in cluster.sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").split()
        ]
        frozen, loop = [cluster.pid, *pids], asyncio.get_running_loop()
        for pid in frozen:
            _told(pid, signal.SIGSTOP)
        try:
            start = loop.time()
            with pytest.raises(StoreError):
                await store.look(ALICE.fpr)
            assert loop.time() - start < 4
        finally:
            for pid in frozen:
                _told(pid, signal.SIGCONT)
        await polled(store)
        assert (await store.look(ALICE.fpr)).entries
        await store.close()


async def test_nodes_may_make_the_tables_at_once() -> None:
    cluster = shared()
    name = cluster.create()
    stores = [PostgresStore(cluster.url(name), HYGIENE, Changes(), 1 << 30) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].put([ALICE.find()], [], await stores[0].begin(), NOW)
    for store in stores:
        assert (await store.look(ALICE.fpr)).entries
        await store.close()
    cluster.give_back(name)


async def test_a_newer_release_s_database_is_refused(backend: Backend, store: Store) -> None:
    await cast(PostgresStore, store).read(
        lambda db: db.execute("UPDATE keyserver_schema SET version = 99, oldest = 98"), long=True
    )
    with pytest.raises(StoreRefused, match=r"newer release \(schema version 99"):
        await backend.make()[0].open()


async def test_a_newer_database_that_this_release_can_use_is_used(backend: Backend, store: Store) -> None:
    await cast(PostgresStore, store).read(lambda db: db.execute("UPDATE keyserver_schema SET version = 99"), long=True)
    async with backend.opened() as (again, _):
        assert (await again.look(ALICE.fpr)).entries == ()


async def test_puts_look_for_nothing_by_an_index_that_all_entries_of_an_upstream_share(backend: Backend) -> None:
    """Plans are made while the tables are empty and nobody has counted them: a put must not get slower with each."""
    async with backend.opened() as (store, _):
        for start in range(0, 1200, 200):
            finds = [Made(n, (f"u{n}@example.org",)).find() for n in range(start, start + 200)]
            await store.put(finds, [], await store.begin(), NOW)
    written = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'entry'"
    async with asyncio.timeout(20):
        while shared().sql(written, database=backend.database) != "1200":
            await asyncio.sleep(0.1)
    read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'entry_age'"
    assert int(shared().sql(read, database=backend.database)) == 0
