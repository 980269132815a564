"""Debian's pgbouncer in transaction mode between nodes and PostgreSQL: `pooler=transaction` in the URL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.model import Certificate, Find, Kind, Record, Source
from keyserver.openpgp import clean
from keyserver.query import name_of
from keyserver.store.postgres import PostgresStore
from support.daemons import program, running
from support.openpgp import make
from support.ports import free_port
from support.postgres import Cluster
from support.running import ROOT, Service
from support.scripted import Scripted, key

MADE = [make([f"p{n} <p{n}@example.org>"], seed=f"p{n}") for n in range(16)]
SERVERS = 4  # connections to PostgreSQL, for many more to pgbouncer
UPSTREAM = "keys"

INI = """
[databases]
* = host={folder} port={server} user=keyserver
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 200
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with Cluster() as cluster:
        cluster.sql((ROOT / "conf" / "cluster" / "timeouts.sql").read_text())
        yield cluster


@pytest.fixture
def pooler(tmp_path: Path, server: Cluster) -> Iterator[str]:
    """The URL of an empty database behind pgbouncer, without parameters."""
    port = free_port()
    ini = server.folder / "pgbouncer.ini"  # where its user may read it
    ini.write_text(INI.format(folder=server.folder, server=server.port, port=port, servers=SERVERS))
    log = tmp_path / "pgbouncer.log"
    with running(server.as_owner([program("pgbouncer"), str(ini)]), port, log):
        yield f"postgresql://keyserver@127.0.0.1:{port}/{server.create()}"


def node(folder: Path, name: str, url: str, upstream: str) -> Service:
    place = folder / name
    place.mkdir()
    given = {"cache.database": f'"{url}"', "server.state_dir": f'"{place}"', "server.node": f'"{name}"'}
    return Service(place, settings=given, config=f'[[upstream]]\nname = "{UPSTREAM}"\nurl = "{upstream}"\n')


async def test_two_nodes_behind_it_and_what_one_deletes_the_other_does_not_answer(tmp_path: Path, pooler: str) -> None:
    url = f"{pooler}?pooler=transaction"
    async with Scripted({made.fingerprint: key(made.octets) for made in MADE}) as upstream, asyncio.timeout(120):
        with node(tmp_path, "one", url, upstream.url) as one, node(tmp_path, "two", url, upstream.url) as two:
            found = await asyncio.gather(*(one.lookup(made.fingerprint) for made in MADE))
            assert {status for status, _, _ in found} == {200}
            for _ in range(2):  # the second time from memory
                for made in MADE:
                    assert (await two.lookup(made.fingerprint))[1]["x-cache"] == "HIT"
            gone, blocked = MADE[0].fingerprint, MADE[1].fingerprint
            upstream.routes.clear()
            began = time.monotonic()
            one.cli("cache", "delete", gone, "--yes")
            over = time.monotonic()
            while (await two.lookup(gone))[0] == 200:
                assert time.monotonic() - over < 1.0, f"deleted {time.monotonic() - began:.2f} s ago"
            one.cli("cache", "undo")
            one.cli("cache", "block", blocked)
            assert blocked not in two.cli("cache", "export", "-")
            assert two.cli("cache", "list").count("example.org") >= len(MADE) - 1
            assert {row["name"] for row in (await two.api("/api/v1/nodes"))["cluster"]} == {"one", "two"}
            two.cli("cache", "purge", "--source", "keyserver", "--yes")
            assert "example.org" not in one.cli("cache", "list")
            for service in (one, two):
                assert not [line for line in service.log if "Traceback" in line or "ERROR" in line], service.log


async def test_many_at_once_on_few_connections_lose_nothing(pooler: str) -> None:
    """Puts, looks, records and deletes of three stores: none fails, none is lost."""
    stores = [PostgresStore(f"{pooler}?pooler=transaction", hygiene_of(), Changes(), 1 << 40) for _ in range(3)]
    now = int(time.time())
    cleaned = [one for made in MADE for one in clean(made.octets, now) if isinstance(one, Certificate)]
    fingerprints = [certificate.proof.fingerprint for certificate in cleaned]

    async def work(store: PostgresStore, upstream: str, certificate: Certificate) -> None:
        fingerprint = certificate.proof.fingerprint
        name = name_of(Kind.OPENPGP, "fpr", fingerprint)
        for turn in range(5):
            find = Find(certificate, Source.KEYSERVER, upstream)
            record = Record(name, upstream, True, now + turn)
            await store.put([find], [record], await store.begin(), now + turn)
            assert fingerprint in {entry.fingerprint for entry in (await store.look(name)).entries}
            await store.poll()

    for store in stores:
        await store.open()
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(work(store, f"u{n}", one) for n, store in enumerate(stores) for one in cleaned))
            stats = await stores[0].stats()
            assert (stats.certificates, stats.entries["keyserver"]) == (len(MADE), len(MADE) * len(stores))
            assert stats.records_found == len(MADE) * len(stores)
            await asyncio.gather(*(stores[0].delete(fingerprint, now) for fingerprint in fingerprints[:8]))
            assert (await stores[1].stats()).certificates == len(MADE) - 8
    finally:
        for store in stores:
            await store.close()


async def test_without_the_parameter_it_says_what_is_wrong(tmp_path: Path, server: Cluster, pooler: str) -> None:
    service = node(tmp_path, "one", pooler, "hkp://127.0.0.1:9")
    with pytest.raises(AssertionError, match="unsupported startup parameter"):
        service.start()


async def test_a_role_without_time_outs_is_told_of(
    server: Cluster, pooler: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def said() -> str:
        caplog.clear()
        store = PostgresStore(f"{pooler}?pooler=transaction", hygiene_of(), Changes(), 1 << 40)
        await store.open()
        await store.close()
        return caplog.text

    assert "lacks" not in await said()
    kick = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keyserver'"
    server.sql("ALTER ROLE keyserver RESET lock_timeout", "ALTER ROLE keyserver RESET statement_timeout", kick)
    try:
        assert "the database's role lacks lock_timeout, statement_timeout" in await said()
    finally:
        server.sql((ROOT / "conf" / "cluster" / "timeouts.sql").read_text())
