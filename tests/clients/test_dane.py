"""Certificates in the DNS, for real: a signed root and zones of our own behind nsd and unbound, clients before us."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dns.rrset
import pytest

from keyserver.model import Absent, Failed, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress
from keyserver.upstreams.base import Asking
from keyserver.upstreams.dane.server import parse_resolver
from keyserver.upstreams.dane.upstream import Dane
from support.openpgp import make
from support.running import Gpg, Service
from support.tls import Authority
from support.x509 import authority as certificate_authority
from support.x509 import person
from support.zones import Served, Zone, at, authority, unbound

ALICE = make(["Alice <alice@secure.dane>"], seed="alice")
LARGE = make(["Large <large@secure.dane>", *(f"{n} <n{n}@secure.dane>" for n in range(40))], seed="large")
FORGED = make(["Alice <alice@altered.dane>"], seed="forged")
CA = certificate_authority("Company CA")
SMIME = person("alice@secure.dane", CA)


def zones() -> list[Zone]:
    def one(address: str) -> dns.rrset.RRset:
        return at(address, "OPENPGPKEY", ALICE.octets)

    alias = dns.rrset.from_text(at("aliased@secure.dane", "OPENPGPKEY").name, 300, "IN", "CNAME", "a.other.dane.")
    there = one("alice@other.dane")
    there.name = alias[0].target
    return [
        Zone(
            "secure.dane",
            [
                one("alice@secure.dane"),
                alias,
                at("large@secure.dane", "OPENPGPKEY", LARGE.octets),
                at("alice@secure.dane", "SMIMEA", b"\3\0\0" + SMIME.der, b"\3\0\1" + bytes(32), b"\2\0\0" + CA.der),
            ],
        ),
        Zone("other.dane", [there]),
        Zone("former.dane", [dns.rrset.from_text("former.dane.", 300, "IN", "DNAME", "secure.dane.")]),
        Zone("insecure.dane", [one("alice@insecure.dane")], trust="none"),
        Zone("bogus.dane", [one("alice@bogus.dane")], trust="wrong"),
        Zone("expired.dane", [one("alice@expired.dane")], age=60),
        Zone(
            "altered.dane",
            [one("alice@altered.dane")],
            altered=[at("alice@altered.dane", "OPENPGPKEY", FORGED.octets)],
        ),
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with authority(tmp_path_factory.mktemp("nsd"), zones()) as found:
        yield found


async def ask(resolver: str, *addresses: str, ca_file: Path | None = None, kind: Kind = Kind.OPENPGP) -> list[Outcome]:
    """One upstream asked for all of these."""
    upstream = Dane(UpstreamSpec("dns"), parse_resolver(resolver), monotonic=time.monotonic, tls_ca_file=ca_file)
    try:
        queries = [ByAddress(*address.split("@"), kind) for address in addresses]
        return [await upstream.fetch(query, Asking(left=5, via="test")) for query in queries]
    finally:
        await upstream.close()


def found(made: bytes, kind: Kind = Kind.OPENPGP) -> Found:
    return Found((Raw(kind, made),), method="dane AD from 127.0.0.1")


async def test_what_a_validating_resolver_says(served: Served, tmp_path: Path) -> None:
    with unbound(tmp_path, served) as port:
        resolver = f"127.0.0.1:{port}"
        for address in ("alice@secure.dane", "aliased@secure.dane", "alice@former.dane"):
            assert await ask(resolver, address) == [found(ALICE.octets)], address
        assert await ask(resolver, "large@secure.dane") == [found(LARGE.octets)]
        assert len(LARGE.octets) > 1232, "this one came by TCP"
        assert await ask(resolver, "alice@secure.dane", kind=Kind.X509) == [found(SMIME.der, Kind.X509)]
        denied = await ask(resolver, "nobody@secure.dane", "nobody@nowhere.dane")
        nodata = await ask(resolver, "large@secure.dane", kind=Kind.X509)
        for outcome in (*denied, *nodata):
            assert isinstance(outcome, Absent)
            assert (outcome.remember, outcome.method) == (True, "dane AD from 127.0.0.1")
        for outcome in await ask(resolver, "alice@insecure.dane", "nobody@insecure.dane"):
            assert outcome == Absent("the domain is not signed: nothing in it counts", method="dane from 127.0.0.1")
        for domain in ("bogus", "expired", "altered"):
            (outcome,) = await ask(resolver, f"alice@{domain}.dane")
            assert isinstance(outcome, Failed), outcome
            assert "the domain's signatures are bogus (" in outcome.reason, "by its extended error"
    (outcome,) = await ask(resolver, "alice@secure.dane")
    assert isinstance(outcome, Failed)
    assert "Connection refused" in outcome.reason


async def test_a_resolver_that_does_not_validate_proves_nothing(served: Served, tmp_path: Path) -> None:
    with unbound(tmp_path, served, validates=False) as port:
        outcomes = await ask(f"127.0.0.1:{port}", "alice@secure.dane", "nobody@secure.dane", "alice@insecure.dane")
    for outcome in outcomes:
        assert isinstance(outcome, Failed)
        assert "does not validate DNSSEC" in outcome.reason


async def test_dns_over_tls(served: Served, tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    with unbound(tmp_path, served, tls=ca.issue(["dns.test"])) as port:
        there = f"tls:127.0.0.1:{port}"
        assert await ask(f"{there}#dns.test", "alice@secure.dane", "large@secure.dane", ca_file=ca.ca_file) == [
            found(ALICE.octets),
            found(LARGE.octets),
        ]
        for resolver, ca_file in ((f"{there}#other.test", ca.ca_file), (f"{there}#dns.test", None)):
            (outcome,) = await ask(resolver, "alice@secure.dane", ca_file=ca_file)
            assert isinstance(outcome, Failed)
            assert "TLS certificate is not good" in outcome.reason


async def test_gpg_and_ldapsearch_get_what_only_the_dns_has(served: Served, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    service = Service(tmp_path, settings={"smime.trust_anchors": f'"{tmp_path}/ca.pem"'})

    async def get(home: str) -> None:
        with Gpg(tmp_path / home) as gpg:
            where = ("--keyserver", f"hkp://127.0.0.1:{service.port()}", "--auto-key-locate", "clear,keyserver")
            located = await asyncio.to_thread(gpg.run, *where, "--locate-external-keys", "Alice@Secure.DANE")
            assert ALICE.fingerprint in located.stdout
        command = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", f"ldap://127.0.0.1:{service.port('ldap')}"]
        command += ["-b", "", "(mail=alice@secure.dane)", "userCertificate;binary"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
        assert f"userCertificate;binary:: {base64.b64encode(SMIME.der).decode()}" in done.stdout, done

    try:
        with unbound(tmp_path, served) as port:
            service.config.write_text(f'[[upstream]]\nname = "dns"\nurl = "dane:"\nresolver = "127.0.0.1:{port}"\n')
            service.start()
            await get("g1")
            shown = await asyncio.to_thread(service.cli, "lookup", "large@secure.dane", "--trace")
            assert "dane AD from 127.0.0.1" in shown
            shown = await asyncio.to_thread(service.cli, "cache", "show", ALICE.fingerprint)
            assert "dane AD from 127.0.0.1" in shown
            for name, status in (("nobody@secure", 404), ("alice@insecure", 404), ("alice@bogus", 500)):
                assert (await service.lookup(f"{name}.dane"))[0] == status, name
        await get("g2")  # the resolver is gone
        entries = (await service.api("/api/v1/cache"))["entries"]
        assert {(entry["kind"], entry["source"], entry["origin"]) for entry in entries} == {
            ("openpgp", "keyserver", "dns"),
            ("x509", "keyserver", "dns"),
        }
    finally:
        service.kill()
