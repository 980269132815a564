"""Cold requests, each for something else: what they leave behind is bounded in every process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.processes import descriptors_of, family, memory_of
from support.running import Service, read_reply
from support.scripted import NOT_FOUND, Request, Scripted, key

CLIENTS = 8
PER_CONNECTION = 100
"""Requests after which a client connects again."""
FOUND = 20
"""Every so manieth request finds a certificate."""
GROWTH = 6 << 20
"""Octets by which a process may grow once its caches are full: an allocator's chance, not so many requests' debris."""
DESCRIPTORS = 4
"""Descriptors that may be open at one moment and not at another: kept connections to an upstream, the database's."""
SETTINGS = {"cache.memory": '"1 MiB"', "cache.max_size": '"8 MiB"'}


async def upstream(request: Request, writer: asyncio.StreamWriter) -> bool | None:
    """A certificate for every twentieth address."""
    number = int(request.term.partition("@")[0].removeprefix("p"))
    found = number % FOUND == 0
    answer = key(make([f"<{request.term}>"], encryption=None).octets) if found else NOT_FOUND
    return await answer(request, writer)


async def client(service: Service, numbers: Iterator[int]) -> None:
    """Asks for the next one until there is none."""
    number = next(numbers, None)
    while number is not None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
        for _ in range(PER_CONNECTION):
            target = f"/pks/lookup?op=get&options=mr&search=p{number}@example.org"
            writer.write(f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            status, _, body = await asyncio.wait_for(read_reply(reader), 30)
            assert status == (404 if number % FOUND else 200), (number, status, body)
            if (number := next(numbers, None)) is None:
                break
        writer.close()
        await writer.wait_closed()


async def ask(service: Service, numbers: Iterator[int]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client(service, numbers))
    await asyncio.sleep(1)  # what ends with a connection has ended


def taken(service: Service) -> dict[int, tuple[int, int]]:
    """Descriptors and octets of every process."""
    assert service.process is not None
    return {pid: (descriptors_of(pid), memory_of(pid)) for pid in family(service.process.pid)}


@pytest.mark.usefixtures("both_shapes")
@pytest.mark.soak
async def test_cold_requests_leave_nothing_behind(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = pytestconfig.getoption("--requests")
    async with Scripted({"*": upstream}) as peer:
        with Service(tmp_path, upstreams=[peer.url], settings=SETTINGS) as service:
            await ask(service, iter(range(requests // 2)))
            warm = taken(service)
            await ask(service, iter(range(requests // 2, requests)))
            end = taken(service)
            assert len(peer.requests) >= requests, "all were cold"
            assert service.stop() == 0
    lines = [
        f"{name}: {warm[pid][0]} → {end[pid][0]} descriptors, {warm[pid][1] / 1e6:.1f} → {end[pid][1] / 1e6:.1f} MB"
        for name, pid in zip(itertools.chain(["first process"], itertools.repeat("child")), warm, strict=False)
    ]
    with capsys.disabled():
        print("", f"after {requests // 2:,} and {requests:,} requests", *lines, sep="\n")
    assert end.keys() == warm.keys(), "nobody died"
    for pid, (descriptors, octets) in end.items():
        assert descriptors <= warm[pid][0] + DESCRIPTORS, lines
        assert octets <= warm[pid][1] + GROWTH, lines
