"""Both listeners of a whole service, with and without fronts; other policies without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.openpgp import make
from support.running import Service
from support.scripted import Scripted, key
from support.verdict_faces import SocketmapClient

ALICE = make(["Alice <alice@example.org>"], seed="alice")
POLICY = '[[verdict.policy]]\nname = "{name}"\nyes = "{yes}"\n'


@pytest.mark.parametrize("workers", ["0", "1"])
async def test_both_listeners_and_a_reload(tmp_path: Path, workers: str) -> None:
    settings = {
        "server.workers": workers,
        "verdict.listen": '"127.0.0.1:0"',
        "verdict.socketmap_listen": f'"unix:{tmp_path}/map.sock"' if workers == "1" else '"127.0.0.1:0"',
    }
    config = POLICY.format(name="encrypt", yes="first:")
    async with Scripted({"alice@example.org": key(ALICE.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings, config=config) as service:
            where = tmp_path / "map.sock" if workers == "1" else service.port("socketmap")
            async with SocketmapClient(where) as client:
                for _ in range(3):
                    assert await client.ask("encrypt alice@example.org") == "OK first:"
                    assert (await service.get("/verdict?address=alice@example.org", face="verdict"))[2] == b"yes\n"
                service.config.write_text(config.replace("first", "second") + POLICY.format(name="new", yes="third:"))
                service.cli("reload")
                assert await client.ask("encrypt alice@example.org") == "OK second:"
                assert await client.ask("new alice@example.org") == "OK third:"
                said = await service.get("/verdict?address=alice@example.org&policy=new", face="verdict")
                assert said[2] == b"yes\n"
                service.cli("cache", "block", ALICE.fingerprint)
                assert await client.ask("encrypt alice@example.org") == "NOTFOUND "
                assert (await service.get("/verdict?address=alice@example.org", face="verdict"))[2] == b"no\n"
                assert service.stop() == 0
                assert await client.closed()
