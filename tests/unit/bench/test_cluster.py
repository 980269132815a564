"""The measurements of a cluster, as small as they come: what they write is there, and what they lose is seen."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time

import pytest

from bench import cluster, rows
from bench.setting import MODULE_PATH
from keyserver.changes import Changes
from keyserver.store.postgres import PostgresStore
from support.postgres import shared


@pytest.fixture
def url() -> str:
    return shared().url(shared().create(), loopback=True)


async def test_writers_in_two_processes_lose_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WRITERS", 4)
    load, lost = await cluster.write_all(url, 2, 1)
    assert lost == 0
    store = PostgresStore(url, rows.stand_ins(), Changes(), 1 << 40)
    await store.open()
    assert (await store.stats()).certificates == load.requests > 0
    await store.close()


async def test_a_purge_beside_looks(url: str) -> None:
    await cluster.load_many(url, 4000, lambda: None)
    idle, busy, batches = await cluster.beside_purge(url, 4000, 0.5)
    assert len(idle) > 50 and busy and len(batches) == 3
    store = PostgresStore(url, rows.stand_ins(), Changes(), 1 << 40)
    await store.open()
    assert (await store.stats()).certificates == 3600
    await store.close()


def test_a_writer_says_what_it_did(url: str) -> None:
    async def make() -> None:
        await cluster.load_many(url, 200, lambda: None)

    asyncio.run(make())
    wanted = json.dumps({"url": url, "purge": True, "before": int(time.time()) + 60})
    done = subprocess.run(
        [sys.executable, "-m", "bench.writer"],
        input=wanted,
        capture_output=True,
        text=True,
        env=MODULE_PATH,
        timeout=60,
    )
    begins, said = done.stdout.splitlines()
    assert begins == "begins"
    assert json.loads(said)["puts"] == 2  # one batch, and one that finds nothing more
