"""The service on PostgreSQL: gpg, commands with and without it, two nodes on one database, a server that goes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.postgres import PASSWORD, Cluster, fresh, shared
from support.running import ROOT, Gpg, Service
from support.scripted import Scripted, key

ALICE = make(["Alice <alice@example.org>"])


@pytest.fixture
def database() -> Iterator[str]:
    """The name of an empty database."""
    with fresh() as name:
        yield name


@pytest.fixture
def url(database: str) -> str:
    return shared().url(database)


def on(url: str, directory: Path, upstreams: list[str] | None = None, **settings: str) -> Service:
    """A service whose state lies in a directory of its own."""
    directory.mkdir(exist_ok=True)
    given = {"cache.database": f'"{url}"', "server.state_dir": f'"{directory}"', **settings}
    return Service(directory, upstreams=upstreams or [], settings=given)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> float:
    """Seconds until something holds."""
    begun = time.monotonic()
    while not await holds():
        assert time.monotonic() - begun < seconds, "it never came to hold"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun


@pytest.mark.usefixtures("both_shapes")
async def test_gpg_gets_a_key_and_again_after_a_kill_with_the_upstream_unplugged(tmp_path: Path, url: str) -> None:
    async with Scripted({ALICE.fingerprint: key(ALICE.octets)}) as upstream:
        service = on(url, tmp_path / "a", [upstream.url]).start()
        with Gpg(tmp_path / "g") as gpg:
            server = f"hkp://127.0.0.1:{service.port()}"
            await asyncio.to_thread(gpg.run, "--keyserver", server, "--recv-keys", ALICE.fingerprint)
            assert gpg.fingerprints() == {ALICE.fingerprint}
    try:
        for again in (service.kill, service.stop):
            again()
            service.start()
            status, headers, _ = await service.lookup(ALICE.fingerprint)
            assert (status, headers["x-cache"]) == (200, "HIT")
        assert not [line for line in service.log if "Traceback" in line or "ERROR" in line]
    finally:
        service.kill()


async def test_commands_work_with_and_without_a_service(tmp_path: Path, url: str) -> None:
    file = tmp_path / "alice.pgp"
    file.write_bytes(ALICE.octets)
    service = on(url, tmp_path / "a")
    assert "1 new" in service.cli("cache", "import", str(file))  # no service runs
    with service:
        assert ALICE.fingerprint in service.cli("cache", "list")
        assert (await service.lookup(ALICE.fingerprint))[0] == 200
        service.cli("cache", "delete", ALICE.fingerprint)
        assert (await service.lookup(ALICE.fingerprint))[0] != 200  # seen at once by the service that was asked
        service.cli("cache", "undo")
        assert (await service.lookup(ALICE.fingerprint))[0] == 200
        service.cli("token", "add", "grafana", "--role", "viewer")
        started = subprocess.run(service.command("serve", *sets(service)), cwd=ROOT, capture_output=True, text=True)
        assert (started.returncode, "is in use" in started.stderr) == (3, True)
        assert service.stop() == 0
    assert "grafana" in service.cli("token", "list")
    acts = json.loads(service.cli("audit", "--json"))["acts"]
    assert [act["act"] for act in acts][:3] == ["token add", "undo", "delete"]


def sets(service: Service) -> list[str]:
    return [word for name, value in service.settings.items() for word in ("--set", f"{name}={value}")]


async def test_what_one_node_caches_or_deletes_the_other_knows(tmp_path: Path, url: str) -> None:
    async with Scripted({ALICE.fingerprint: key(ALICE.octets)}) as upstream:
        with on(url, tmp_path / "a", [upstream.url]) as one, on(url, tmp_path / "b") as other:
            assert (await one.lookup(ALICE.fingerprint))[0] == 200
            assert (await other.lookup(ALICE.fingerprint))[0] == 200  # it has no upstream

            async def gone() -> bool:
                return (await other.lookup(ALICE.fingerprint))[0] == 404

            one.cli("cache", "block", ALICE.fingerprint)
            assert await until(gone) < 1


@pytest.mark.parametrize("right", [True, False])
async def test_a_password_comes_from_its_file_and_is_shown_nowhere(tmp_path: Path, database: str, right: bool) -> None:
    file = tmp_path / "password"
    file.write_text((PASSWORD if right else "Falsch-1") + "\n")
    file.chmod(0o600)
    shared().sql("GRANT ALL ON SCHEMA public TO guarded", database=database)
    url = shared().url(database, user="guarded", loopback=True)
    service = on(url, tmp_path / "a", **{"cache.database_password_file": f'"{file}"'})
    if not right:
        done = subprocess.run(service.command("serve", *sets(service)), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) == 1
        assert "password" in done.stderr
        assert "Falsch-1" not in done.stderr
        return
    with service:
        settings = json.dumps(await service.api("/api/v1/settings"))
        headers = {"Authorization": f"Bearer {service.token}"}
        _, _, metrics = await service.get("/metrics", headers=headers, face="admin")
        assert "(not shown)@127.0.0.1" in settings
        assert str(file) in settings
        assert PASSWORD not in settings + metrics.decode() + "\n".join(service.log)


async def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    service = on(f"postgresql://k@/k?host={tmp_path}", tmp_path / "a")
    for command in (["serve", *sets(service)], ["cache", "list", *sets(service)]):
        done = subprocess.run(service.command(*command), cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
        assert "database" in done.stderr


async def test_a_server_that_goes_is_missed_but_not_needed_and_is_found_again(tmp_path: Path) -> None:
    async with Scripted({ALICE.fingerprint: key(ALICE.octets)}) as upstream:
        soon = {"server.max_detached": '"1s"'}
        with Cluster() as cluster, on(cluster.url(cluster.create()), tmp_path / "a", [upstream.url], **soon) as service:

            async def ready() -> bool:
                return (await service.get("/readyz"))[0] == 200

            async def unready() -> bool:
                return not await ready()

            assert await ready()
            cluster.stop()
            assert (await service.lookup(ALICE.fingerprint))[0] == 200  # searched, and not cached
            await until(unready)
            cluster.start()
            await until(ready)
            assert (await service.lookup(ALICE.fingerprint))[0] == 200

            async def hit() -> bool:
                return (await service.lookup(ALICE.fingerprint))[1]["x-cache"] == "HIT"

            await until(hit)
