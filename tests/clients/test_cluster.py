"""Several nodes on one PostgreSQL: who joins flushes nothing, what differs is said, and one does what only one may."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyserver.resolver.membership import BEAT_EVERY
from keyserver.store.cluster import TERM
from support.openpgp import make
from support.postgres import Cluster, shared
from support.running import Service
from support.scripted import Scripted, key

MANY = 40
MADE = [make([f"n{n} <n{n}@example.org>"], seed=f"n{n}") for n in range(MANY)]
UPSTREAM = "keys"


@pytest.fixture
def url() -> Iterator[str]:
    """Of an empty database."""
    name = shared().create()
    yield shared().url(name)
    shared().give_back(name)


class Nodes:
    """Services on one database, each with a name and a state directory of its own."""

    def __init__(self, folder: Path, url: str, upstream: str) -> None:
        self._folder = folder
        self._url = url
        self._upstream = upstream
        self.all: list[Service] = []

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self.all:
            service.kill()

    def join(self, name: str, **settings: str) -> Service:
        """One more, which is started."""
        directory = self._folder / name
        directory.mkdir()
        given = {
            "cache.database": f'"{self._url}"',
            "server.state_dir": f'"{directory}"',
            "server.node": f'"{name}"',
            **settings,
        }
        config = f'[[upstream]]\nname = "{UPSTREAM}"\nurl = "{self._upstream}"\n'
        service = Service(directory, settings=given, config=config)
        self.all.append(service)
        return service.start()


def cluster_of(service: Service) -> dict[str, dict[str, Any]]:
    """What `keyserver nodes` says of each."""
    return {row["name"]: row for row in json.loads(service.cli("nodes", "--json"))["cluster"]}


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 15) -> float:
    """Seconds until something holds."""
    begun = time.monotonic()
    while not await holds():
        assert time.monotonic() - begun < seconds, "it never came to hold"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def cluster(service: Service) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in (await service.api("/api/v1/nodes"))["cluster"]}


async def leads(service: Service, name: str) -> bool:
    """Does it know that this one leads?"""
    return (await cluster(service)).get(name, {}).get("leads") is True


def bearer(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token}"}


async def metric(service: Service, name: str) -> str:
    _, _, body = await service.get("/metrics", headers=bearer(service), face="admin")
    return "\n".join(line for line in body.decode().splitlines() if line.startswith(name))


@pytest.mark.usefixtures("both_shapes")
async def test_faq_6_a_node_that_joins_flushes_nothing_whatever_its_ttl(tmp_path: Path, url: str) -> None:
    """A second and a third node join, one with another ttl: every entry still answers on each, and the difference is
    reported in the log, by `keyserver nodes`, on the page and as a metric."""
    answers = {made.fingerprint: key(made.octets) for made in MADE}
    async with Scripted(answers) as upstream, asyncio.timeout(120):
        with Nodes(tmp_path, url, upstream.url) as nodes:
            one = nodes.join("one")
            for made in MADE:
                assert (await one.lookup(made.fingerprint))[0] == 200
            asked = len(upstream.requests)
            two = nodes.join("two")
            three = nodes.join("three", **{"cache.ttl": '"2 days"'})
            for service in (one, two, three):
                for made in MADE:
                    status, headers, _ = await service.lookup(made.fingerprint)
                    assert (status, headers["x-cache"]) == (200, "HIT")
            assert len(upstream.requests) == asked, "nothing had to be searched again"

            async def known() -> bool:
                return len((await cluster(one)).get("three", {}).get("differences", ())) == 1

            await until(known)
            seen = cluster_of(one)
            assert sorted(seen) == ["one", "three", "two"]
            assert seen["three"]["differences"] == [{"key": "cache.ttl", "here": "1 day", "there": "2 days"}]
            assert seen["two"]["differences"] == []
            assert sum(row["leads"] for row in seen.values()) == 1
            assert all(row["living"] and row["lag"] < 5 for row in seen.values())
            assert [name for name, row in seen.items() if row["here"]] == ["one"]
            shown = one.cli("nodes")
            assert "cache.ttl: 2 days there, 1 day here" in shown
            page = (await one.get("/nodes", headers=bearer(one), face="admin"))[2].decode()
            assert "<code>cache.ttl</code>: 2 days there, 1 day here" in page
            assert 'keyserver_cluster_differing_settings{node="three"} 1.0' in await metric(one, "keyserver_cluster")

            async def counted() -> bool:  # with its next beat
                return "keyserver_cluster_nodes 3.0" in await metric(two, "keyserver_cluster")

            await until(counted)
            said = [line for line in one.log if "another cache.ttl" in line]
            assert len(said) == 1, "once"

            three.settings["cache.ttl"] = '"1 day"'
            assert three.stop() == 0
            three.start()

            async def agreed() -> bool:
                rows = await cluster(one)
                return not [row for row in rows.values() if row["differences"]] and len(rows) == 3

            await until(agreed)
            for made in MADE:
                assert (await three.lookup(made.fingerprint))[1]["x-cache"] == "HIT"


async def test_a_pause_on_one_node_holds_on_all(tmp_path: Path, url: str) -> None:
    async with Scripted({}) as upstream, asyncio.timeout(60):
        with Nodes(tmp_path, url, upstream.url) as nodes:
            one, two = nodes.join("one"), nodes.join("two")

            async def paused() -> bool:
                return b"paused" in (await two.get("/readyz"))[2]

            one.cli("upstreams", "--pause", UPSTREAM)
            assert await until(paused) < 5 * BEAT_EVERY
            one.cli("upstreams", "--resume", UPSTREAM)

            async def resumed() -> bool:
                return not await paused()

            assert await until(resumed) < 5 * BEAT_EVERY


async def test_where_the_leader_dies_another_leads(tmp_path: Path, url: str) -> None:
    async with Scripted({}) as upstream, asyncio.timeout(90):
        with Nodes(tmp_path, url, upstream.url) as nodes:
            one = nodes.join("one")
            await until(lambda: leads(one, "one"))
            two = nodes.join("two")
            await until(lambda: leads(two, "one"))
            one.kill()
            assert await until(lambda: leads(two, "two"), TERM + 10) > TERM / 2
            one.start()

            async def back() -> bool:
                return (await cluster(two))["one"]["living"] is True

            await until(back)
            assert two.stop() == 0  # it leaves, and says so
            assert await until(lambda: leads(one, "one")) < TERM / 2
            assert list(await cluster(one)) == ["one"]


@pytest.mark.usefixtures("both_shapes")
async def test_cut_off_from_the_database_what_is_held_answers_for_so_long(tmp_path: Path) -> None:
    made = MADE[0]
    async with Scripted({made.fingerprint: key(made.octets)}) as upstream, asyncio.timeout(120):
        with Cluster() as server, Nodes(tmp_path, server.url(server.create()), upstream.url) as nodes:
            patient = nodes.join("patient", **{"server.max_detached": '"1h"'})
            strict = nodes.join("strict", **{"server.max_detached": '"0"'})
            for service in (patient, strict):
                for _ in range(2):
                    assert (await service.lookup(made.fingerprint))[0] == 200
            upstream.routes.clear()
            server.stop()

            async def detached() -> bool:
                status, _, body = await strict.get("/readyz")
                return status == 503 and b"nothing is answered from memory" in body

            assert await until(detached) < 5

            async def ready() -> bool:
                return (await patient.get("/readyz"))[2].startswith(b"ok, but detached from the cache database")

            assert await until(ready) < 5

            async def marked() -> bool:
                status, headers, _ = await patient.lookup(made.fingerprint)
                assert status == 200
                return headers["x-cache"] == "DETACHED"

            assert await until(marked) < 2
            assert (await strict.lookup(made.fingerprint))[0] != 200

            async def counted() -> bool:
                return float((await metric(patient, "keyserver_cluster_detached_seconds ")).split()[1]) > 1

            assert await until(counted) < 2
            refused = patient.cli("cache", "delete", made.fingerprint, code=None)
            assert "database" in refused

            server.start()

            async def attached() -> bool:
                return (await strict.get("/readyz"))[2] == b"ok\n"

            await until(attached)

            async def unmarked() -> bool:
                return (await patient.lookup(made.fingerprint))[1]["x-cache"] == "HIT"

            await until(unmarked)
            assert (await strict.lookup(made.fingerprint))[0] == 200
