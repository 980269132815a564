"""S/MIME over HTTP: a colleague's certificate that only a directory has, by RFC 4387, read by openssl."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import subprocess
from pathlib import Path
from urllib.parse import quote

from support.directory import Slapd, base_entry, person
from support.running import Service
from support.x509 import authority
from support.x509 import person as certificate_of

BASE = "ou=people,dc=example,dc=org"
CA = authority("Company CA")


def hash_of(octets: bytes) -> str:
    return quote(base64.b64encode(hashlib.sha1(octets).digest()).decode().rstrip("="), safe="")


def openssl(*words: str, octets: bytes) -> str:
    return subprocess.run(["openssl", *words], input=octets, capture_output=True, check=True).stdout.decode()


async def test_search_by_address_and_hash_with_the_directory_on_and_off(tmp_path: Path) -> None:
    alice, bob = certificate_of("alice@example.org", CA), certificate_of("bob@example.org", CA)
    younger = certificate_of("bob@example.org", CA, begins=1_700_000_000)
    entries = [
        base_entry("dc=example,dc=org"),
        base_entry(BASE),
        person(BASE, "alice@example.org", **{"userCertificate;binary": alice.der}),
        person(BASE, "bob@example.org", **{"userCertificate;binary": [bob.der, younger.der]}),
    ]
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(CA.pem)
    with Slapd(tmp_path / "slapd", entries=entries) as directory:
        service = Service(
            tmp_path, upstreams=[f"{directory.url}/{BASE}"], settings={"smime.trust_anchors": f'"{anchors}"'}
        ).start()
        try:
            for where in ("search.cgi?uri", "search?email"):
                status, headers, body = await service.get(f"/certificates/{where}=alice@example.org")
                assert (status, headers["content-type"], body) == (200, "application/pkix-cert", alice.der)
            assert "CN = Alice" in openssl("x509", "-inform", "DER", "-noout", "-subject", octets=body)
            status, headers, body = await service.get("/certificates/search.cgi?uri=bob%40example.org")
            assert status == 200
            parts = email.message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
            assert [p.get_payload(decode=True) for p in parts.walk() if not p.is_multipart()] == [younger.der, bob.der]
            await asyncio.to_thread(directory.stop)
            accept = {"Accept": "application/pkcs7-mime"}
            status, headers, bundle = await service.get("/certificates/search.cgi?uri=bob@example.org", headers=accept)
            assert (status, headers["x-cache"]) == (200, "HIT")
            listed = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", octets=bundle)
            assert listed.count("subject=") == 2
            for name, octets in (
                ("certHash", alice.der),
                ("sHash", alice.certificate.subject.public_bytes()),
            ):
                status, _, body = await service.get(f"/certificates/search.cgi?{name}={hash_of(octets)}")
                assert (status, body) == (200, alice.der), name
            assert (
                await service.get(f"/certificates/search.cgi?iHash={hash_of(CA.certificate.subject.public_bytes())}")
            )[0] == 200
            rows = (await service.api("/api/v1/cache"))["entries"]
            assert {row["kind"] for row in rows} == {"x509"}
        finally:
            service.kill()


async def test_bad_requests_say_what_is_accepted(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        for query in (
            "",
            "uri",
            "uri=nobody",
            "name=x",
            "certHash=AAAA",
            "certHash=" + "A" * 27 + "=",
            "uri=a@b.c&x=y",
        ):
            status, headers, body = await service.get(f"/certificates/search.cgi?{query}")
            assert status == 400, query
            assert headers["access-control-allow-origin"] == "*"
            assert b"." in body
        assert (await service.get("/certificates/search.cgi?uri=nobody@example.org"))[0] == 404


async def test_require_chain_keeps_strangers_away_until_approved(tmp_path: Path) -> None:
    good, stranger = certificate_of("alice@example.org", CA), certificate_of("eve@example.org")
    entries = [
        base_entry("dc=example,dc=org"),
        base_entry(BASE),
        person(BASE, "alice@example.org", **{"userCertificate;binary": good.der}),
        person(BASE, "eve@example.org", **{"userCertificate;binary": stranger.der}),
    ]
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(CA.pem)
    settings = {"smime.trust_anchors": f'"{anchors}"', "smime.require_chain": "true"}
    with (
        Slapd(tmp_path / "slapd", entries=entries) as directory,
        Service(tmp_path, upstreams=[f"{directory.url}/{BASE}"], settings=settings) as service,
    ):
        assert (await service.get("/certificates/search.cgi?uri=alice@example.org"))[0] == 200
        for _ in range(2):  # after the search that found it, and from the cache
            story = await asyncio.to_thread(service.cli, "lookup", "eve@example.org", "--trace", code=None)
            assert story.count("passed over") == 1
            assert f"{stranger.fingerprint}: its chain does not verify, and smime.require_chain is on" in story
        assert (await service.get("/certificates/search.cgi?uri=eve@example.org"))[0] == 404
        await asyncio.to_thread(service.cli, "cache", "approve", stranger.fingerprint)
        assert (await service.get("/certificates/search.cgi?uri=eve@example.org"))[0] == 200
