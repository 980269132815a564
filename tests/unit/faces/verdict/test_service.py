"""Both listeners of a whole service, with and without fronts; other policies without a restart."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import Service
from support.scripted import Scripted, key
from support.tls import Authority
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


@pytest.mark.parametrize("workers", ["0", "1"])
def test_over_tls(tmp_path: Path, workers: str) -> None:
    authority = Authority(tmp_path / "tls")
    issued = authority.issue()
    settings = {
        "server.workers": workers,
        "verdict.listen": '"tls:127.0.0.1:0"',
        "verdict.tls_certificate": f'"{issued.certificate}"',
        "verdict.tls_key_file": f'"{issued.key}"',
        "policy.internal_domains": '["example.org"]',
    }
    (tmp_path / "alice.asc").write_text(ALICE.armored)
    with Service(tmp_path, settings=settings) as service:
        service.cli("cache", "import", str(tmp_path / "alice.asc"))
        trusting = ssl.create_default_context(cafile=str(authority.ca_file))
        url = f"https://127.0.0.1:{service.port('verdict')}/verdict?address="
        for name, word in (("alice", b"yes\n"), ("bob", b"no\n"), ("alice", b"yes\n")):
            with urllib.request.urlopen(f"{url}{name}@example.org", timeout=20, context=trusting) as reply:
                assert reply.read() == word
        with pytest.raises(OSError):  # no TLS, no reply
            urllib.request.urlopen(f"{url}alice@example.org".replace("https", "http"), timeout=20)
