"""A clock that somebody sets, under the real service: a shim of a few lines between it and the system."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mails import attached_key, crlf, head, multipart, text
from support.openpgp import make
from support.postgres import shared
from support.running import Service
from support.scripted import Scripted, key
from support.shim import clock_shim

PEOPLE = [make([f"<p{n}@partner.example>"], seed=f"clock{n}", encryption=None) for n in range(10)]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty PostgreSQL database, whose clock is right."""
    name = shared().create()
    yield shared().url(name)
    shared().give_back(name)


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that says by how many seconds the service's clock is off."""
    environment, offset = clock_shim(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return offset


async def test_a_clock_that_jumps_ahead_for_three_seconds_deletes_nothing(shim: Path, tmp_path: Path) -> None:
    """Ten entries stay ten, six of a keyserver and four of mail; before, one was left."""
    settings = {"cache.purge_interval": '"1s"', "mailflow.authserv_id": '"mx"'}
    async with Scripted({p.fingerprint: key(p.octets) for p in PEOPLE}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            for person in PEOPLE[:6]:
                assert (await service.lookup(f"0x{person.fingerprint}"))[0] == 200
            for number, person in enumerate(PEOPLE[6:], 6):
                mail = head(
                    f"p{number}@partner.example", Authentication_Results="mx; dmarc=pass header.from=partner.example"
                )
                file = tmp_path / f"{number}.eml"
                file.write_bytes(crlf(mail + multipart(text(), attached_key(person.octets))))
                await asyncio.to_thread(service.cli, "harvest", str(file))
            assert len((await service.api("/api/v1/cache"))["entries"]) == 10
            shim.write_text(str(200 * 86400))
            await asyncio.sleep(3)
            assert (await service.api("/api/v1/cache?limit=1"))["entries"][0]["cached_at"] < time.time()
            shim.write_text("0")
            await asyncio.sleep(2)
            assert len((await service.api("/api/v1/cache"))["entries"]) == 10
            status, _, body = await service.get("/readyz")
            assert (status, b"jumped" in body) == (200, True), "it answers as well as ever, and says so"
            assert any("jumped 200 days ahead" in line for line in service.log)
            assert (await service.lookup(f"0x{PEOPLE[0].fingerprint}"))[1]["x-cache"] == "HIT"
            assert "purged 0" in await asyncio.to_thread(service.cli, "cache", "purge", "--expired")
            assert (await service.get("/readyz"))[2] == b"ok\n"


async def test_a_node_whose_clock_is_not_the_databases_purges_nothing_and_lets_others_lead(
    database: str, shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an hour ahead from its start: what expires in an hour would be gone, but for the database's clock."""

    def node(name: str) -> Service:
        (tmp_path / name).mkdir()
        settings = {
            "cache.database": f'"{database}"',
            "server.state_dir": f'"{tmp_path / name}"',
            "server.node": f'"{name}"',
            "cache.ttl": '"1h"',
            "cache.purge_interval": '"1s"',
        }
        return Service(tmp_path / name, upstreams=[upstream.url], settings=settings)

    async def leaders(service: Service) -> list[str]:
        return [row["name"] for row in (await service.api("/api/v1/nodes"))["cluster"] if row["leads"]]

    off = tmp_path / "off"
    off.write_text("3605")
    async with Scripted({p.fingerprint: key(p.octets) for p in PEOPLE}) as upstream, asyncio.timeout(60):
        with contextlib.ExitStack() as nodes:
            with monkeypatch.context() as patch:
                patch.setenv("CLOCK_OFFSET_FILE", str(off))
                wrong = nodes.enter_context(node("wrong"))
            right = nodes.enter_context(node("right"))
            while await leaders(right) != ["right"]:
                await asyncio.sleep(0.1)
            for person in PEOPLE:
                assert (await right.lookup(f"0x{person.fingerprint}"))[0] == 200
            await asyncio.sleep(3)
            assert await leaders(wrong) == ["right"]
            assert (await right.api("/api/v1/cache?limit=1"))["count"] == len(PEOPLE)
            status, _, body = await wrong.get("/readyz")
            assert (status, b"60 minutes ahead of the database's" in body) == (200, True)
            assert (await right.get("/readyz"))[2] == b"ok\n"
            off.write_text("0")
            while not any("goes with the database's again" in line for line in wrong.log):
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("ahead", [3605, -3605])
async def test_a_node_with_a_wrong_clock_stores_and_judges_by_the_databases(
    database: str, shim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    """In its core and in its fronts: what it caches, others find as fresh as it is, and the other way round."""

    def node(name: str, workers: int) -> Service:
        (tmp_path / name).mkdir()
        settings = {
            "cache.database": f'"{database}"',
            "server.state_dir": f'"{tmp_path / name}"',
            "server.workers": str(workers),
            "cache.ttl": '"1h"',
        }
        return Service(tmp_path / name, upstreams=[upstream.url], settings=settings)

    async def told(service: Service, number: int) -> tuple[str, int]:
        status, fields, _ = await service.lookup(f"0x{PEOPLE[number].fingerprint}")
        assert status == 200
        return fields["x-cache"], int(fields.get("age", "0"))

    off = tmp_path / "off"
    off.write_text(str(ahead))
    async with Scripted({p.fingerprint: key(p.octets) for p in PEOPLE}) as upstream, asyncio.timeout(60):
        with contextlib.ExitStack() as nodes:
            with monkeypatch.context() as patch:
                patch.setenv("CLOCK_OFFSET_FILE", str(off))
                wrong = nodes.enter_context(node("wrong", 1))
            right = nodes.enter_context(node("right", 0))
            assert (await told(wrong, 0))[0] == (await told(right, 1))[0] == "MISS"
            for service, number in ((right, 0), (wrong, 1), (wrong, 0)):
                for _ in range(2):  # the second time from memory
                    how, age = await told(service, number)
                    assert how == "HIT"
                    assert age < 30
            for entry in (await right.api("/api/v1/cache"))["entries"]:
                assert abs(entry["cached_at"] - time.time()) < 30
            assert (await told(right, 2))[0] == "MISS"
            for table in ("entry", "name", "record"):
                shared().sql(f"UPDATE {table} SET at = at - 3600", database=database.split("/")[3].split("?")[0])
            assert (await told(wrong, 2))[0] == "MISS", "an hour is over, whatever its own clock says"
            off.write_text("0")
            while not any("the clock jumped" in line for line in wrong.log):
                await asyncio.sleep(0.1)
            assert (await told(wrong, 2))[0] == "HIT", "and nobody but who purges minds"
