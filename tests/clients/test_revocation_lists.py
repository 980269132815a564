"""A real certificate authority of openssl's, its revocation list over HTTP and LDAP, and what clients are told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from support.directory import Slapd, base_entry
from support.running import Service
from support.scripted import NOT_FOUND, Scripted, reply, slow

DN = "cn=ca,dc=example,dc=org"
CONFIG = """
[ca]
default_ca = mine
[mine]
database = index
new_certs_dir = .
serial = serial
crlnumber = crlnumber
default_md = sha256
default_days = 365
policy = any
x509_extensions = mail
copy_extensions = none
crl_extensions = list
[any]
commonName = supplied
[mail]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = emailProtection
subjectAltName = email:alice@example.org
[list]
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
"""


class Ca:
    """`openssl ca` in a directory of its own."""

    def __init__(self, folder: Path, name: str = "Company CA") -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "conf").write_text(CONFIG)
        (folder / "index").touch()
        for file in ("serial", "crlnumber"):
            (folder / file).write_text("1000\n")
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self.run(*_NEW, "ca.key", "-x509", "-out", "ca.pem", "-subj", f"/CN={name}", "-days", "3650", *usage)

    def run(self, *words: str) -> bytes:
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def issue(self) -> Path:
        """Alice's certificate."""
        self.run(*_NEW, "alice.key", "-out", "alice.csr", "-subj", "/CN=Alice", "-config", "conf")
        words = ["-cert", "ca.pem", "-keyfile", "ca.key", "-in", "alice.csr", "-out", "alice.pem", "-notext"]
        self.run("ca", "-batch", "-config", "conf", *words)
        return self.folder / "alice.pem"

    def revoke(self, reason: str) -> None:
        words = ["-cert", "ca.pem", "-keyfile", "ca.key", "-revoke", "alice.pem", "-crl_reason", reason]
        self.run("ca", "-config", "conf", *words)

    def reinstate(self) -> None:
        """What `openssl ca` has no word for: nothing is revoked any more."""
        (self.folder / "index").write_text((self.folder / "index").read_text().replace("R\t", "V\t", 1))
        fields = (self.folder / "index").read_text().split("\t")
        fields[2] = ""
        (self.folder / "index").write_text("\t".join(fields))

    def list(self, *options: str) -> bytes:
        """A list of now, in DER."""
        options = options or ("-crldays", "7")
        self.run(
            "ca", "-gencrl", "-config", "conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "crl.pem", *options
        )
        return self.run("crl", "-in", "crl.pem", "-outform", "DER")


_NEW = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"]


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path / "ca")


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as scripted:
        yield scripted


def service(tmp_path: Path, ca: Ca, *urls: str, workers: int = 0, stale: str = "ignore") -> Service:
    """Asks nobody about certificates; policies ask for S/MIME."""
    rows = "".join(
        f'[[smime.crl]]\nissuer_file = "{ca.folder / "ca.pem"}"\nurl = "{url}"\nstale = "{stale}"\n' for url in urls
    )
    policy = '[[verdict.policy]]\nname = "encrypt"\nkind = "smime"\n'
    settings = {
        "server.workers": str(workers),
        "verdict.listen": '"127.0.0.1:0"',
        "smime.trust_anchors": f'"{ca.folder / "ca.pem"}"',
    }
    return Service(tmp_path, config=rows + policy, settings=settings)


async def certificate(running: Service) -> int:
    """The status with which a gateway gets Alice's certificate."""
    return (await running.get("/certificates/search.cgi?uri=alice@example.org"))[0]


async def verdict(running: Service) -> dict[str, Any]:
    headers = {"Accept": "application/json"}
    target = "/verdict?address=alice@example.org&policy=encrypt"
    _, _, body = await running.get(target, headers=headers, face="verdict")
    return dict(json.loads(body))


async def until(good: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not await good():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def reloaded(running: Service) -> None:
    await asyncio.to_thread(running.cli, "reload")


@pytest.mark.parametrize("workers", [0, 1])
async def test_revoked_everywhere_at_the_next_question_and_good_again(
    tmp_path: Path, ca: Ca, server: Scripted, workers: int
) -> None:
    server.routes["ca.crl"] = reply(200, ca.list())
    alice = ca.issue()
    with service(tmp_path, ca, f"{server.http}/ca.crl", workers=workers) as running:
        await asyncio.to_thread(running.cli, "cache", "import", str(alice))
        for _ in range(3):  # from the store, then from memory
            assert await certificate(running) == 200
            assert (await verdict(running))["verdict"] == "yes"
        ca.revoke("keyCompromise")
        server.routes["ca.crl"] = slow(2.0, reply(200, ca.list()))
        await reloaded(running)
        for _ in range(3):
            assert await certificate(running) == 200, "it is in memory again when the list comes"
            assert (await verdict(running))["verdict"] == "yes"

        async def gone() -> bool:
            return await certificate(running) == 404

        await until(gone)
        said = await verdict(running)
        assert said["verdict"] == "no" and "revoked by CN=Company CA on 20" in said["reason"]
        assert "(key compromise)" in said["reason"]
        shown = await asyncio.to_thread(running.cli, "cache", "show", "alice@example.org")
        assert "revoked" in shown and "revoked by CN=Company CA" in shown
        traced = await asyncio.to_thread(running.cli, "lookup", "alice@example.org", "--trace", code=None)
        assert "revoked by CN=Company CA" in traced
        _, _, metrics = await running.get(
            "/metrics", headers={"Authorization": f"Bearer {running.token}"}, face="admin"
        )
        assert f'keyserver_crl_entries{{url="{server.http}/ca.crl"}} 1.0' in metrics.decode()
        assert f'keyserver_crl_stale{{url="{server.http}/ca.crl"}} 0.0' in metrics.decode()
        running.kill()
        server.routes["ca.crl"] = NOT_FOUND
        running.start()
        assert await certificate(running) == 404, "what was kept is in force before anything is answered"
        ca.reinstate()
        server.routes["ca.crl"] = reply(200, ca.list())
        await reloaded(running)

        async def back() -> bool:
            return await certificate(running) == 200

        await until(back)
        assert (await verdict(running))["verdict"] == "yes"


async def test_over_ldap(tmp_path: Path, ca: Ca) -> None:
    alice = ca.issue()
    ca.revoke("certificateHold")
    entry = {
        "objectClass": ["applicationProcess", "pkiCA"],
        "cn": "ca",
        "certificateRevocationList;binary": ca.list(),
    }

    async def gone() -> bool:
        return await certificate(running) == 404

    entries = [base_entry("dc=example,dc=org"), (DN, entry)]
    with (
        Slapd(tmp_path / "slapd", entries=entries) as directory,
        service(tmp_path, ca, f"{directory.url}/{DN}") as running,
    ):
        await asyncio.to_thread(running.cli, "cache", "import", str(alice))
        await until(gone)
        assert "(on hold)" in (await verdict(running))["reason"]


async def test_a_list_whose_end_is_over_is_said_and_by_setting_fatal(tmp_path: Path, ca: Ca, server: Scripted) -> None:
    server.routes["ca.crl"] = reply(200, ca.list("-crlsec", "1"))
    alice = ca.issue()
    url = f"{server.http}/ca.crl"
    with service(tmp_path, ca, url) as running:
        await asyncio.to_thread(running.cli, "cache", "import", str(alice))

        async def said() -> bool:
            return b"the revocation list of CN=Company CA ended on" in (await running.get("/readyz"))[2]

        await until(said)
        assert await certificate(running) == 200
        headers = {"Authorization": f"Bearer {running.token}"}
        _, _, metrics = await running.get("/metrics", headers=headers, face="admin")
        assert f'keyserver_crl_stale{{url="{url}"}} 1.0' in metrics.decode()
        config = running.config.read_text()
        running.config.write_text(config.replace('stale = "ignore"', 'stale = "fatal"'))
        await reloaded(running)
        assert await certificate(running) == 404
        said_ = await verdict(running)
        assert said_["verdict"] == "no" and "smime.crl says stale = fatal" in said_["reason"]
        server.routes["ca.crl"] = reply(200, ca.list())
        await reloaded(running)

        async def back() -> bool:
            return await certificate(running) == 200

        await until(back)
        assert (await running.get("/readyz"))[2] == b"ok\n"


def test_check_names_what_is_wrong_with_a_list(tmp_path: Path, ca: Ca) -> None:
    (tmp_path / "empty").touch()
    running = service(tmp_path, ca, "http://crl.example/ca.crl")
    assert "fetches revocation lists\n  http://crl.example/ca.crl" in running.cli("check")
    good = running.config.read_text()
    for wrong, said in (
        (good.replace("http://crl.example/ca.crl", "ftp://crl.example/ca.crl"), "the scheme 'ftp' does not fit"),
        (good.replace("http://crl.example/ca.crl", "ldap://crl.example"), "with the DN of the entry"),
        (good.replace("ca.pem", "alice.csr"), "issuer_file"),
        (good.replace(str(ca.folder / "ca.pem"), str(tmp_path / "empty")), "accepted is the certificate of one"),
        (good.replace('stale = "ignore"', 'stale = "hold"'), "stale"),
        (good + good.partition("[[verdict")[0], "occurs twice"),
        (good.replace('url = "', 'uri = "'), "url"),
    ):
        running.config.write_text(wrong)
        assert said in running.cli("check", code=None), said
