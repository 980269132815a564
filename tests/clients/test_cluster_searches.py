"""Nodes on one PostgreSQL that are asked the same: one searches; where it dies or stops in it, another soon does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.postgres import shared
from support.running import Service
from support.scripted import Scripted, key, slow

ALICE = "alice@example.org"
MADE = make([f"Alice <{ALICE}>"], seed="alice")
DEADLINE = 6  # seconds
SEARCH = 0.5  # seconds that the upstream takes


@pytest.fixture
def url() -> Iterator[str]:
    """Of an empty database."""
    name = shared().create()
    yield shared().url(name)
    shared().give_back(name)


def node(folder: Path, name: str, url: str, upstream: str) -> Service:
    directory = folder / name
    directory.mkdir()
    settings = {
        "cache.database": f'"{url}"',
        "server.state_dir": f'"{directory}"',
        "server.node": f'"{name}"',
        "cache.deadline": f'"{DEADLINE} s"',
    }
    return Service(directory, settings=settings, config=f'[[upstream]]\nname = "keys"\nurl = "{upstream}"\n')


async def know_each_other(*nodes: Service) -> None:
    async with asyncio.timeout(15):
        for service in nodes:
            while len(json.loads(service.cli("nodes", "--json"))["cluster"]) < len(nodes):
                await asyncio.sleep(0.1)


async def test_twenty_lookups_on_two_nodes_are_one_question(tmp_path: Path, url: str) -> None:
    async with Scripted({ALICE: slow(SEARCH, key(MADE.octets))}) as upstream, asyncio.timeout(60):
        with node(tmp_path, "one", url, upstream.url) as one, node(tmp_path, "two", url, upstream.url) as two:
            await know_each_other(one, two)
            found = await asyncio.gather(*((one, two)[n % 2].lookup(ALICE) for n in range(20)))
            assert {status for status, _, _ in found} == {200}
            assert upstream.asked(ALICE) == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_node_that_goes_no_further_delays_by_a_third_of_the_deadline(
    tmp_path: Path, url: str, how: signal.Signals
) -> None:
    async with Scripted({ALICE: [slow(60, key(MADE.octets)), slow(SEARCH, key(MADE.octets))]}) as upstream:
        with node(tmp_path, "one", url, upstream.url) as one, node(tmp_path, "two", url, upstream.url) as two:
            await know_each_other(one, two)
            async with asyncio.timeout(60):
                first = asyncio.create_task(one.lookup(ALICE))
                while upstream.asked(ALICE) < 1:
                    await asyncio.sleep(0.01)
                pids = [pid for some in (await one.pids()).values() for pid in some]
                for pid in pids:
                    os.kill(pid, how)
                began = time.monotonic()
                try:
                    assert (await two.lookup(ALICE))[0] == 200
                    assert time.monotonic() - began < DEADLINE / 3 + SEARCH + 1
                    assert upstream.asked(ALICE) == 2
                finally:
                    if how is signal.SIGSTOP:
                        for pid in pids:
                            os.kill(pid, signal.SIGCONT)
                    first.cancel()
                    await asyncio.gather(first, return_exceptions=True)
