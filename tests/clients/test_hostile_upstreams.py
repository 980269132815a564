"""Every hostile input through the real service: bounded memory, a proper answer, and hits that go on meanwhile."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from support.hostile import HOSTILE, one_address_claimed, poisoned
from support.openpgp import armored, make
from support.running import Service
from support.scripted import Scripted, endless, key, reply

MEMORY = 250 << 20  # octets, all processes
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "soak"  # the short run takes every second one


async def test_hostile_certificates(tmp_path: Path) -> None:
    good = make(["Alice <alice@example.org>"])
    names = sorted(HOSTILE) if LONG else sorted(HOSTILE)[::2]
    routes = {good.fingerprint: key(good.octets)}
    async with Scripted(dict(routes)) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            assert (await service.lookup(good.fingerprint))[0] == 200
            for number, name in enumerate(names):
                octets = HOSTILE[name]()
                body = armored(octets) if len(octets) < 11 << 20 else octets
                term = f"n{number}@example.org"
                upstream.routes[term] = reply(200, body)
                search = asyncio.ensure_future(service.lookup(term))
                while not search.done():
                    status, headers, _ = await service.lookup(good.fingerprint)
                    assert (status, headers["x-cache"]) == (200, "HIT")
                    await asyncio.sleep(0.05)
                status, _, _ = await search
                assert status in (200, 404, 500), name
                del upstream.routes[term], octets, body
                assert service.memory() < MEMORY, f"{name}: {service.memory() >> 20} MiB"
            rows = (await service.api("/api/v1/cache?limit=1000"))["entries"]
            assert good.fingerprint in {row["fingerprint"] for row in rows}
            assert not any("secret" in line.lower() for line in service.log)


async def test_an_endless_body_and_a_flood_of_certificates(tmp_path: Path) -> None:
    crowd = one_address_claimed(100)
    routes = {
        "endless@example.org": endless(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"),
        "ceo@partner.example": key(*crowd),
    }
    async with Scripted(dict(routes)) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            assert (await service.lookup("endless@example.org"))[0] == 500
            assert (await service.lookup("ceo@partner.example"))[0] == 200
            assert len((await service.api("/api/v1/cache?limit=1000"))["entries"]) <= 64
            index = (await service.get("/pks/lookup?op=index&options=mr&search=ceo@partner.example"))[2]
            assert index.startswith(b"info:1:20\n"), "at most 20 certificates an answer"
            assert service.memory() < MEMORY


async def test_a_poisoned_certificate_comes_out_small(tmp_path: Path) -> None:
    octets = poisoned(50_000)
    assert len(octets) > 4 << 20
    async with Scripted({"alice@example.org": reply(200, octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            status, _, body = await service.lookup("alice@example.org")
            assert status == 200
            assert len(body) < 4096
            assert service.memory() < MEMORY
