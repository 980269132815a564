"""gpg gets keys through the whole service from every kind of upstream there is: real servers behind, real gpg before.

Each is asked by fingerprint, key ID and address; then it is taken away, and a second gpg gets the same from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import keyserver.upstreams.net
from keyserver.app import serve
from keyserver.config import load
from keyserver.upstreams.net import NoSuchHost
from support.directory import Entry, Slapd, base_entry, commercial_info, key_entry, person, server_info
from support.keyservers import onak, sks
from support.openpgp import make
from support.running import Gpg, Service
from support.scripted import Scripted, key
from support.tls import Authority
from support.x509 import authority as company_ca
from support.x509 import person as certificate_of

ALICE = make(["Alice Adams <alice@example.org>"], seed="alice", algorithm="rsa2048", encryption=None)
BOB = make(["Bob Brown <bob@example.org>"], seed="bob")
ORG = "dc=example,dc=org"
KEYS = f"ou=PGP Keys,{ORG}"
ACTIVE = "OU=ACTIVE,O=PGP KEYSPACE,C=US"


def schema_2() -> list[Entry]:
    rows = [
        key_entry(KEYS, m.fingerprint, m.armored, [a], subkeys=[s.fingerprint for s in m.subkeys])
        for m, a in ((ALICE, "alice@example.org"), (BOB, "bob@example.org"))
    ]
    return [base_entry(ORG), base_entry(KEYS), server_info(ORG, KEYS), *rows]


def schema_1() -> list[Entry]:
    rows = [
        key_entry(KEYS, m.fingerprint, m.armored, [a], subkeys=[s.fingerprint for s in m.subkeys], schema=1)
        for m, a in ((ALICE, "alice@example.org"), (BOB, "bob@example.org"))
    ]
    return [base_entry(ORG), base_entry(KEYS), server_info(ORG, KEYS, version="1"), *rows]


def commercial() -> list[Entry]:
    first = key_entry(ACTIVE, ALICE.fingerprint, ALICE.armored, ["alice@example.org"], schema=1)
    second = key_entry(ACTIVE, BOB.fingerprint, None, ["bob@example.org"], schema=1, pgpKeyV2=BOB.armored)
    return [commercial_info(ACTIVE), base_entry("O=PGP KEYSPACE,C=US"), base_entry(ACTIVE), first, second]


@contextlib.asynccontextmanager
async def slapd(folder: Path, entries: Sequence[Entry], base: str = "") -> AsyncIterator[str]:
    with Slapd(folder / "slapd", entries) as running:
        yield f"{running.url}/{base}"


UPSTREAMS = {
    "sks": lambda folder: sks(folder, ALICE.octets, BOB.octets),
    "onak": lambda folder: onak(folder, ALICE.octets, BOB.octets),
    "GnuPG schema 2": lambda folder: slapd(folder, schema_2()),
    "GnuPG schema 1": lambda folder: slapd(folder, schema_1(), ORG),
    "PGP.com": lambda folder: slapd(folder, commercial()),
}


async def get_all(gpg: Gpg, port: int) -> None:
    """By fingerprint, by key ID, by address, as people type it; and what is nowhere."""
    server = ("--keyserver", f"hkp://127.0.0.1:{port}")
    locate = (*server, "--auto-key-locate", "clear,keyserver", "--locate-external-keys")
    await asyncio.to_thread(gpg.run, *server, "--recv-keys", ALICE.fingerprint)
    assert gpg.fingerprints() == {ALICE.fingerprint}
    await asyncio.to_thread(gpg.run, *server, "--recv-keys", BOB.key_id)
    assert gpg.fingerprints() == {ALICE.fingerprint, BOB.fingerprint}
    for made, address in ((ALICE, "Alice@Example.ORG"), (BOB, "bob@example.org")):
        await asyncio.to_thread(gpg.run, "--yes", "--delete-keys", made.fingerprint)
        located = await asyncio.to_thread(gpg.run, *locate, address)
        assert made.fingerprint in located.stdout
    await asyncio.to_thread(gpg.run, *server, "--refresh-keys")
    refused = await asyncio.to_thread(gpg.run, *locate, "nobody@example.org", check=False)
    assert refused.returncode == 2


@pytest.mark.parametrize("kind", UPSTREAMS)
async def test_gpg_through_the_service(kind: str, tmp_path: Path) -> None:
    service = Service(tmp_path, settings={"cache.deadline": '"15s"'})
    try:
        async with UPSTREAMS[kind](tmp_path) as url:
            service.config.write_text(f'[[upstream]]\nname = "real"\nurl = "{url}"\ntimeout = "10s"\n')
            service.start()
            with Gpg(tmp_path / "g1") as gpg:
                await get_all(gpg, service.port())
            status, headers, _ = await service.lookup("nobody@example.org")
            assert (status, headers["x-cache"]) == (404, "HIT"), "it said absent, once"
        with Gpg(tmp_path / "g2") as gpg:  # the upstream is gone
            await get_all(gpg, service.port())
        entries = (await service.api("/api/v1/cache"))["entries"]
        assert {(e["fingerprint"], e["source"], e["origin"]) for e in entries} == {
            (m.fingerprint, "keyserver", "real") for m in (ALICE, BOB)
        }
    finally:
        service.kill()


@pytest.mark.parametrize("protocol", ["ldap", "hkp", "hkps"])
async def test_gpg_through_a_template_to_each_domains_own_host(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`keys.{domain}`: all parts are real but the name server, which no configuration can replace."""
    partner = make(["Paul <paul@partner-firm.com>"], seed="paul")
    asked: list[str] = []

    def names(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        if host == "keys.partner-firm.com.":  # with its dot: no search list
            return ["127.0.0.1"]
        raise NoSuchHost("no such host")

    monkeypatch.setattr(keyserver.upstreams.net, "blocking_lookup", names)
    authority = Authority(tmp_path)
    base = "dc=partner-firm,dc=com"
    keyspace = f"ou=PGP Keys,{base}"
    rows = [base_entry(base), base_entry(keyspace), server_info(base, keyspace)]
    rows.append(key_entry(keyspace, partner.fingerprint, partner.armored, ["paul@partner-firm.com"]))
    async with contextlib.AsyncExitStack() as stack:
        if protocol == "ldap":
            url = await stack.enter_async_context(slapd(tmp_path, rows))
        else:
            tls = authority.server("keys.partner-firm.com") if protocol == "hkps" else None
            routes = {"paul@partner-firm.com": key(partner.octets)}
            url = (await stack.enter_async_context(Scripted(dict(routes), tls))).url
        port = url.rstrip("/").rpartition(":")[2]
        file = tmp_path / "keyserver.toml"
        file.write_text(
            f'[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[admin]\nlisten = ""\n'
            f'[cache]\ndatabase = "sqlite:///{tmp_path}/keyserver.db"\n'
            f'[[upstream]]\nname = "keys.<domain>"\nurl = "{protocol}://keys.{{domain}}:{port}"\n'
            f'allow_private = true\ntimeout = "10s"\ntls_ca_file = "{authority.ca_file}"\n'
        )
        lines: list[str] = []
        stop = asyncio.Event()
        running = asyncio.create_task(serve(load(file), stop, ready=lines.append))
        try:
            while not lines:
                assert not running.done(), running
                await asyncio.sleep(0.01)
            server = f"hkp://127.0.0.1:{lines[0].rpartition(':')[2]}"
            locate = ("--keyserver", server, "--auto-key-locate", "clear,keyserver", "--locate-external-keys")
            with Gpg(tmp_path / "g") as gpg:
                located = await asyncio.to_thread(gpg.run, *locate, "paul@partner-firm.com")
                assert partner.fingerprint in located.stdout
                for nowhere in ("eve@other-firm.com", "eve@other-firm.com", "eve@localhost.localdomain"):
                    refused = await asyncio.to_thread(gpg.run, *locate, nowhere, check=False)
                    assert "No data" in refused.stderr, "404: a host that is not there is an absence"
        finally:
            stop.set()
            await running
    assert asked.count("keys.partner-firm.com.") == 1
    assert asked.count("keys.other-firm.com.") == 1, "remembered, and special-use names are never resolved"
    assert len(asked) == 2


async def test_the_command_line_shows_both_kinds_of_an_address(tmp_path: Path) -> None:
    people = "ou=people,dc=example,dc=org"
    card = certificate_of("alice@example.org", company_ca("Company CA"))
    rows = [base_entry(ORG), base_entry(people), person(people, "alice@example.org", userCertificate__binary=card.der)]
    routes = {"alice@example.org": key(ALICE.octets)}
    async with Scripted(routes) as public, slapd(tmp_path, rows, people) as directory:
        with Service(tmp_path, upstreams=[public.url, directory]) as service:
            for how in ("MISS", "HIT"):
                told = await asyncio.to_thread(service.cli, "lookup", "alice@example.org", "--json", "--trace")
                answer = json.loads(told)
                assert (answer["state"], answer["how"]) == ("found", how)
                found = {c["kind"]: c["fingerprint"] for c in answer["certificates"]}
                assert found["openpgp"] == ALICE.fingerprint
                assert set(found) == {"openpgp", "x509"}
                assert any(step["who"].startswith("x509: ") for step in answer["steps"])
            by_digest = json.loads(await asyncio.to_thread(service.cli, "lookup", found["x509"], "--json"))
            assert [c["kind"] for c in by_digest["certificates"]] == ["x509"]
            shown = await asyncio.to_thread(service.cli, "lookup", "alice@example.org")
            assert "OpenPGP" in shown
            assert "X.509" in shown


async def test_x509_certificates_are_imported_and_exported(tmp_path: Path) -> None:
    company = company_ca("Company CA")
    cards = [certificate_of(f"{name}@example.org", company) for name in ("alice", "bob")]
    bundle = tmp_path / "cards.pem"
    bundle.write_text("some words\n" + "".join(ssl.DER_cert_to_PEM_cert(c.der) for c in (*cards, company)))
    (tmp_path / "one.der").write_bytes(cards[0].der)
    with Service(tmp_path) as service:
        told = await asyncio.to_thread(service.cli, "cache", "import", str(bundle), str(tmp_path / "one.der"), "--json")
        first, second = json.loads(told)["imports"]
        assert (first["new"], first["refused"], second["same"]) == (2, 1, 1)
        assert first["problems"] == [p for p in first["problems"] if "CA certificate" in p]
        assert (await service.get("/certificates/search.cgi?uri=bob@example.org"))[2] == cards[1].der
        out = tmp_path / "out.pem"
        said = await asyncio.to_thread(service.cli, "cache", "export", str(out), "--x509", "--source", "local")
        assert "exported 2 certificates" in said
        assert {ssl.DER_cert_to_PEM_cert(c.der) for c in cards} == {
            f"-----BEGIN{part}" for part in out.read_text().split("-----BEGIN")[1:]
        }
