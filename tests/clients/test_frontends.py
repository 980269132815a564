"""Frontends of ours as each other's upstreams: circles end at once, and finds go through."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from support.openpgp import make
from support.ports import free_port
from support.running import Service
from support.scripted import Scripted, key

pytestmark = pytest.mark.usefixtures("both_shapes")


def frontend(directory: Path, port: int, *upstreams: str) -> Service:
    directory.mkdir()
    return Service(directory, upstreams=upstreams, settings={"hkp.listen": f'["127.0.0.1:{port}"]'})


async def test_a_circle_of_three_ends_at_once_and_remembers_nothing_wrong(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    services = [
        frontend(tmp_path / f"f{n}", ports[n], f"hkp://127.0.0.1:{ports[(n + 1) % 3]}").start() for n in range(3)
    ]
    try:
        began = time.monotonic()
        status, headers, _ = await services[0].lookup("nobody@example.org")
        assert status == 404
        assert headers["cache-control"] == "no-store"
        at_once = await asyncio.gather(*(s.lookup("other@example.org") for s in services for _ in range(5)))
        assert {status for status, _, _ in at_once} == {404}
        assert time.monotonic() - began < 2, "nobody waited for himself"
        for service in services:
            assert (await service.get("/pks/lookup?op=stats&options=json"))[0] == 200
    finally:
        for service in services:
            service.kill()


async def test_a_find_goes_through_two_frontends_and_stays_in_both(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: key(alice.octets)}) as upstream:
        ports = [free_port() for _ in range(2)]
        inner = frontend(tmp_path / "inner", ports[0], upstream.url, f"hkp://127.0.0.1:{ports[1]}").start()
        outer = frontend(tmp_path / "outer", ports[1], f"hkp://127.0.0.1:{ports[0]}").start()
        try:
            assert (await outer.lookup(alice.fingerprint))[0] == 200
            via = upstream.requests[0].headers["via"]
            assert via.count("1.1 keyserver-") == 2, "the whole way is told"
            await upstream.stop()
            for service in (inner, outer):
                assert (await service.lookup(alice.fingerprint))[1]["x-cache"] == "HIT"
        finally:
            inner.kill()
            outer.kill()
