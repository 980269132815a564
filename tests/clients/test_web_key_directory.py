"""Our Web Key Directory over TLS, asked by gpg, gpg-wks-client, sq and openpgp.js, among host names of the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver.openpgp.armor import dearmor
from support.names import among
from support.openpgp import Made, make
from support.running import Gpg, Service
from support.tls import Authority

WHERE = "127.0.0.44"
HOSTS = ("openpgpkey.keys.example.org", "plain.example.org")
ALICE = make(("Alice <alice@keys.example.org>", "Alice <alice@elsewhere.example>"), seed="alice")
BOB = make(("Bob <bob+x@plain.example.org>",), seed="bob")
BOTH = (("alice@keys.example.org", ALICE), ("bob+x@plain.example.org", BOB))
"""The first domain has the advanced method's host, the second is asked directly."""


@dataclass
class World:
    """A service that is the directory of two domains."""

    folder: Path
    authority: Authority
    before: list[str]
    """What commands begin with."""

    def gpg(self) -> Gpg:
        gpg = Gpg(self.folder / "gpg", self.before)
        (gpg.home / "dirmngr.conf").write_text("disable-ipv6\nstandard-resolver\n")
        return gpg


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    authority = Authority(tmp_path / "tls")
    issued = authority.issue(HOSTS)
    settings = {
        "hkp.listen": f'["127.0.0.1:0", "tls:{WHERE}:443"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
        "policy.internal_domains": '["example.org"]',
    }
    names = among(tmp_path / "names", dict.fromkeys(HOSTS, WHERE), authority.ca_file)
    with Service(tmp_path, settings=settings, config="upstream = []\n") as service, names as before:
        for made in (ALICE, BOB):
            (tmp_path / "one.asc").write_text(made.armored)
            service.cli("cache", "import", str(tmp_path / "one.asc"))
        yield World(tmp_path, authority, before)


@pytest.mark.parametrize(("address", "made"), BOTH)
def test_gpg_locates_by_both_methods(world: World, address: str, made: Made) -> None:
    locate = ("--auto-key-locate", "clear,wkd", "--locate-external-keys")
    with world.gpg() as gpg:
        found = gpg.run(*locate, address)
        assert f"<{address}>" in found.stdout
        assert "elsewhere.example" not in found.stdout + found.stderr
        assert gpg.fingerprints() == {made.fingerprint}
        assert gpg.run(*locate, f"no.{address}", check=False).returncode == 2


def test_gpg_wks_client_is_content(world: World) -> None:
    client = ["/usr/lib/gnupg/gpg-wks-client", "--verbose", "--check"]
    with world.gpg() as gpg:
        environment = {**os.environ, "GNUPGHOME": str(gpg.home)}
        for address, known in (*((address, True) for address, _ in BOTH), ("no@keys.example.org", False)):
            command = [*world.before, *client, address]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
            assert (done.returncode == 0) is known, done.stderr


@pytest.mark.usefixtures("both_shapes")
def test_sq_gets_and_reads(world: World) -> None:
    environment = {**os.environ, "SSL_CERT_FILE": str(world.authority.ca_file)}

    def get(address: str) -> subprocess.CompletedProcess[bytes]:
        command = [*world.before, "sq", "wkd", "get", address]
        return subprocess.run(command, capture_output=True, env=environment, timeout=60)

    for address, made in BOTH * 3:  # from memory, too
        done = get(address)
        assert done.returncode == 0, done.stderr.decode()
        shown = subprocess.run(["sq", "inspect"], input=done.stdout, capture_output=True, check=True, timeout=60)
        assert made.fingerprint in shown.stdout.decode()
        assert "elsewhere" not in shown.stdout.decode()
    assert get("no@keys.example.org").returncode != 0


class NotTried(UserWarning):
    """Something that this machine cannot try; pytest lists it at the end of the run."""


@pytest.mark.filterwarnings("always::tests.clients.test_web_key_directory.NotTried")
@pytest.mark.parametrize(("address", "made"), BOTH)
def test_openpgpjs_clients_by_hkp_and_by_both_methods(world: World, address: str, made: Made) -> None:
    clients = world.folder / "clients"
    shutil.copytree(Path(__file__).with_name("openpgpjs"), clients)
    if shutil.which("node") is None or shutil.which("npm") is None:
        warnings.warn("NOT TRIED: openpgp.js's HKP and WKD clients, for want of node and npm", NotTried, stacklevel=1)
        return
    installed = subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=clients, capture_output=True, text=True, timeout=120
    )
    assert installed.returncode == 0, installed.stderr
    environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(world.authority.ca_file)}
    nobody = f"no.{address}"
    done = subprocess.run(
        [*world.before, "node", "lookup.js", f"https://{HOSTS[1]}", address, nobody, made.key_id],
        cwd=clients, capture_output=True, text=True, env=environment, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    for text in (got["byAddress"], got["byKeyId"]):
        (octets,) = dearmor(text.encode())
        assert made.primary.body in octets
    assert made.primary.body in bytes.fromhex(got["directory"])
    assert b"elsewhere.example" not in bytes.fromhex(got["directory"])
    assert got["nobody"] is None
    assert "WKD lookup failed" in got["directoryOfNobody"] or "fetch failed" in got["directoryOfNobody"]
    assert got["submitted"] == 403
