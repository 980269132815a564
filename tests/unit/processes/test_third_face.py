"""A face that has no part in fronts is served by the core: nobody but the register has to know of it."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from support import third_face
from support.openpgp import make
from support.running import Service
from support.scripted import Scripted, key

ALICE = make(["Alice <alice@example.org>"])


class Third(Service):
    """The service with a face more."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, third_face.__file__, *words]


async def open_connections(service: Service, face: str) -> int:
    _, _, text = await service.get("/metrics", face="admin", headers={"Authorization": f"Bearer {service.token}"})
    found = re.search(rf'^keyserver_connections{{face="{face}"}} (\d+)', text.decode(), re.MULTILINE)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_a_face_without_a_part_in_fronts_is_served_by_the_core(tmp_path: Path, workers: str) -> None:
    settings = {"server.workers": workers, "finger.listen": '["127.0.0.1:0"]'}
    async with Scripted({"alice@example.org": key(ALICE.octets)}) as upstream:
        with Third(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port("finger"))
            writer.write(b"alice@example.org\r\n")
            assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
            writer.close()
            assert (await service.lookup("alice@example.org"))[0] == 200
            assert await open_connections(service, "finger") == 0
            _, waiting = await asyncio.open_connection("127.0.0.1", service.port("finger"))
            waiting.write(b"nobody@example.org\r\n")
            async with asyncio.timeout(10):
                while await open_connections(service, "finger") != 1:
                    await asyncio.sleep(0.05)
            waiting.close()
            assert service.stop() == 0
