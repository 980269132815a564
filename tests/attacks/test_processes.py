"""Processes of the service that die, stop and hang while clients ask: what these see, and what is never seen."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.processes import alive, family
from support.running import Service, read_reply
from support.scripted import Scripted, key

ALICE = make(["Alice <alice@example.org>"])
BOB = make(["Bob <bob@example.org>"])
ROUTES = {"alice@example.org": key(ALICE.octets), "bob@example.org": key(BOB.octets)}

Seen = collections.Counter[str]


@contextlib.contextmanager
def several(directory: Path, upstream: str, fronts: int) -> Iterator[Service]:
    with Service(directory, upstreams=[upstream], settings={"server.workers": str(fronts)}) as service:
        yield service


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, fields, body = await read_reply(reader)
    assert status != 500 or "retry-after" in fields
    return status, body


async def client(service: Service, target: str, seen: Seen, over: asyncio.Event) -> None:
    """Asks the same on one connection for as long as that lasts, then on another."""
    request = f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
    while not over.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
        except OSError:
            seen["no connection"] += 1
            await asyncio.sleep(0.01)
            continue
        try:
            while not over.is_set():
                writer.write(request)
                status, _ = await asyncio.wait_for(reply(reader), 15)
                seen[str(status)] += 1
                await asyncio.sleep(0.002)
                if status == 500:
                    await asyncio.sleep(0.05)
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            seen["reset"] += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def load(service: Service) -> AsyncIterator[Seen]:
    """Hits of one name, and requests that memory never answers."""
    seen: Seen = collections.Counter()
    over = asyncio.Event()
    hot = "/pks/lookup?op=get&options=mr&search=alice@example.org"
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client(service, hot, seen, over))
        for _ in range(2):
            group.create_task(client(service, "/pks/lookup?op=stats&options=json", seen, over))
        try:
            await asyncio.sleep(0.3)
            yield seen
        finally:
            over.set()


async def settled(service: Service, seen: Seen, seconds: float = 10) -> None:
    """Return when only good answers come."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = sum(count for what, count in seen.items() if what != "200")
        good = seen["200"]
        await asyncio.sleep(0.5)
        if seen["200"] - good > 20 and sum(count for what, count in seen.items() if what != "200") == before:
            return
    raise AssertionError(f"no rest: {seen}\n" + "\n".join(service.log[-20:]))


@pytest.mark.parametrize("kind", ["front", "core"])
async def test_a_process_that_is_killed_under_load_is_started_again(tmp_path: Path, kind: str) -> None:
    async with Scripted(ROUTES) as upstream:
        with several(tmp_path, upstream.url, 2) as service:
            for _ in range(2):
                assert (await service.lookup("alice@example.org"))[0] == 200
            async with load(service) as seen:
                for number in range(3):
                    victim = (await service.pids())[kind][0]
                    os.kill(victim, signal.SIGKILL)
                    await settled(service, seen)
                    assert (await service.lookup(f"nobody{number}@example.org"))[0] == 404
                    assert victim not in (await service.pids())[kind], "another process"
            assert set(seen) <= {"200", "500", "reset"}, seen
            restarts = [node["restarts"] for node in service.nodes() if node["kind"] == kind]
            assert sum(restarts) == 3
            assert any("a process died and is started again" in line for line in service.log)
            assert (await service.lookup("alice@example.org"))[1]["x-cache"] == "HIT", "nothing is lost"
            assert service.stop() == 0


async def test_without_a_core_there_are_errors_and_nothing_stale(tmp_path: Path) -> None:
    """What was deleted before the core died is not given by fronts that heard of it before, nor after it is back."""
    async with Scripted(dict(ROUTES)) as upstream:
        with several(tmp_path, upstream.url, 1) as service:
            for name in ("alice@example.org", "bob@example.org"):
                for _ in range(2):
                    assert (await service.lookup(name))[0] == 200
            service.cli("cache", "block", ALICE.fingerprint)
            core = (await service.pids())["core"][0]
            os.kill(core, signal.SIGKILL)
            began = time.monotonic()
            for _ in range(40):
                status, headers, _ = await service.lookup("alice@example.org")
                assert status in (404, 500), "blocked, or nobody knows"
                assert status != 500 or "retry-after" in headers
            while (await service.lookup("alice@example.org"))[0] != 404:
                assert time.monotonic() - began < 5
                await asyncio.sleep(0.01)
            assert (await service.lookup("bob@example.org"))[0] == 200


async def test_without_a_supervisor_nobody_goes_on(tmp_path: Path) -> None:
    async with Scripted(ROUTES) as upstream:
        with several(tmp_path, upstream.url, 2) as service:
            assert (await service.lookup("alice@example.org"))[0] == 200
            assert service.process is not None
            pids = list(family(service.process.pid))
            assert len(pids) == 4
            service.kill()
            began = time.monotonic()
            while any(map(alive, pids)):
                assert time.monotonic() - began < 1
                await asyncio.sleep(0.01)
            assert "bob@example.org" not in service.cli("cache", "list"), "the store is free for a command"
            service.start()
            assert (await service.lookup("alice@example.org"))[1]["x-cache"] == "HIT"


async def test_a_front_that_is_stopped_holds_nobody_up_and_says_nothing_stale(tmp_path: Path) -> None:
    async with Scripted(dict(ROUTES)) as upstream:
        with several(tmp_path, upstream.url, 1) as service:
            for _ in range(2):
                assert (await service.lookup("alice@example.org"))[0] == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
            request = b"GET /pks/lookup?op=get&options=mr&search=alice@example.org HTTP/1.1\r\nHost: test\r\n\r\n"
            writer.write(request)
            assert (await reply(reader))[0] == 200
            front = (await service.pids())["front"][0]
            os.kill(front, signal.SIGSTOP)
            began = time.monotonic()
            await service.api(f"/api/v1/cache/{ALICE.fingerprint}/block", "POST")
            assert time.monotonic() - began < 2
            writer.write(request)
            os.kill(front, signal.SIGCONT)
            assert (await reply(reader))[0] == 404, "blocked"
            writer.close()
            await writer.wait_closed()


async def test_a_front_that_never_reads_is_ended(tmp_path: Path) -> None:
    async with Scripted(dict(ROUTES)) as upstream:
        with several(tmp_path, upstream.url, 1) as service:
            assert (await service.lookup("alice@example.org"))[0] == 200
            front = (await service.pids())["front"][0]
            os.kill(front, signal.SIGSTOP)
            slowest = 0.0
            for _ in range(400):
                for verb in ("block", "unblock"):
                    began = time.monotonic()
                    await service.api(f"/api/v1/cache/{ALICE.fingerprint}/{verb}", "POST")
                    slowest = max(slowest, time.monotonic() - began)
                if not alive(front):
                    break
            else:
                raise AssertionError("it lives")
            assert slowest < 2
            assert (await service.lookup("bob@example.org"))[0] == 200
            assert (await service.pids())["front"] != [front]


async def test_a_client_has_its_limit_in_all_fronts_together(tmp_path: Path) -> None:
    settings = {"server.workers": "3", "limits.connections_per_client": "6", "limits.trusted": "[]"}
    with Service(tmp_path, settings=settings) as service:
        ends = [await asyncio.open_connection("127.0.0.1", service.port()) for _ in range(24)]
        await asyncio.sleep(0.5)
        served = 0
        for reader, writer in ends:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
                served += (await reply(reader))[0] == 200
        assert served == 6
        await asyncio.sleep(1.1)
        assert sum(node["connections"] for node in service.nodes()) == 6
        for _, writer in ends:
            writer.close()
