"""Certificates that are not quite as the standards have them come in by every way, and go out by every face."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver import smime
from support import x509odd
from support.directory import Slapd, base_entry
from support.directory import person as entry_of
from support.mails import signed, text
from support.running import Service
from support.x509 import Issued, name, person

BASE = "ou=people,dc=example,dc=org"
WHERE = "/certificates/search.cgi?uri=alice@example.org"
VECTORS = Path(__file__).parents[1] / "vectors" / "x509"
FILES = {f.name: f.read_bytes() for f in sorted(VECTORS.glob("*.der")) if f.stem != "address-emoji"}
CORPUS = x509odd.corpus()
BY_MAIL = ("critical-false-encoded", "ca-false-encoded", "printable-at-sign", "teletex-latin1", "no-expiry-9999",
           "serial-zero", "serial-negative", "subject-zwnj", "true-as-one", "version-1", "version-7",
           "key-without-parameters", "names-dns-and-subject", "bad-address-beside")  # fmt: skip


def fingerprint(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest().upper()


async def answered(service: Service) -> list[bytes]:
    """What a client gets for alice@example.org, and that LDAP and PKCS#7 say the same."""
    status, headers, body = await service.get(WHERE)
    assert status == 200, headers
    mime = email.message_from_bytes(f"Content-Type: {headers['content-type']}\r\n\r\n".encode() + body)
    found = [part.get_payload(decode=True) for part in mime.walk() if not part.is_multipart()]
    accept = {"Accept": "application/pkcs7-mime"}
    _, _, packed = await service.get(WHERE, headers=accept)
    assert carried(packed) == sorted(found)
    assert set(await asyncio.to_thread(by_ldap, service.port("ldap"))) == set(found)
    return sorted(found)  # type: ignore[type-var]


def carried(bundle: bytes) -> list[bytes]:
    """The certificates of a PKCS#7, as openssl takes them out."""
    words = ["openssl", "pkcs7", "-inform", "DER", "-print_certs"]
    blocks = subprocess.run(words, input=bundle, capture_output=True, check=True).stdout.decode().split("-----BEGIN")
    end = "-----END CERTIFICATE-----"
    return sorted(ssl.PEM_cert_to_DER_cert(f"-----BEGIN{block.partition(end)[0]}{end}") for block in blocks[1:])


def by_ldap(port: int) -> list[bytes]:
    words = ["-x", "-LLL", "-o", "ldif-wrap=no", "-H", f"ldap://127.0.0.1:{port}", "-b", "dc=keyserver,dc=local"]
    wanted = ["userCertificate;binary", "userSMIMECertificate;binary"]
    done = subprocess.run(["ldapsearch", *words, "(mail=alice@example.org)", *wanted], capture_output=True, check=True)
    lines = [line.partition(":: ") for line in done.stdout.decode().splitlines() if ":: " in line]
    ders = [base64.b64decode(value) for name, _, value in lines if name.lower().startswith("usercertificate")]
    assert [n for n, _, _ in lines if n.lower().startswith("usersmime")], "made without a strict parser"
    return ders


@pytest.mark.parametrize("form", ["files", "pem"])
async def test_imported(tmp_path: Path, form: str) -> None:
    files = [tmp_path / file for file in FILES]
    for file in files:
        file.write_bytes(FILES[file.name])
    if form == "pem":
        files = [tmp_path / "all.pem"]
        files[0].write_text("".join(map(ssl.DER_cert_to_PEM_cert, FILES.values())))
    with Service(tmp_path) as service:
        told = await asyncio.to_thread(service.cli, "cache", "import", *map(str, files), "--json")
        reports = json.loads(told)["imports"]
        assert sum(r["new"] for r in reports) == len(FILES), reports
        assert await answered(service) == sorted(FILES.values())
        out = tmp_path / "out.pem"
        await asyncio.to_thread(service.cli, "cache", "export", str(out), "--x509")
        assert out.read_text().count("BEGIN CERTIFICATE") == len(FILES)
        odd = fingerprint(FILES["critical-false-encoded.der"])
        assert "not strict DER" in await asyncio.to_thread(service.cli, "cache", "show", odd)


async def test_one_bad_certificate_in_an_imported_bundle(tmp_path: Path) -> None:
    """Costs itself, and is named."""
    good, bad = FILES["control.der"], CORPUS["server-only"]
    (tmp_path / "two.p7b").write_bytes(smime.pack([good, bad]))
    with Service(tmp_path) as service:
        told = await asyncio.to_thread(service.cli, "cache", "import", str(tmp_path / "two.p7b"), "--json")
        (report,) = json.loads(told)["imports"]
        assert (report["new"], report["refused"]) == (1, 1)
        assert report["problems"] == [f"{fingerprint(bad)}: its extended key usage does not allow e-mail protection"]
        assert await answered(service) == [good]


@pytest.mark.parametrize("attribute", ["userCertificate;binary", "userSMIMECertificate"])
async def test_from_a_directory(tmp_path: Path, attribute: str) -> None:
    bundle = (VECTORS / "bundle.p7b").read_bytes()
    whole = attribute.startswith("userCertificate")
    expected = sorted(FILES.values()) if whole else carried(bundle)
    alice = entry_of(BASE, "alice@example.org", **{attribute: list(FILES.values()) if whole else bundle})
    entries = [base_entry("dc=example,dc=org"), base_entry(BASE), alice]
    with (
        Slapd(tmp_path / "slapd", entries=entries) as directory,
        Service(tmp_path, upstreams=[f"{directory.url}/{BASE}"]) as service,
    ):
        assert await answered(service) == expected
        await asyncio.to_thread(directory.stop)
        assert await answered(service) == expected, "from the cache"


@dataclass
class Signer:
    """A certificate of the corpus and its key, as openssl takes them."""

    der: bytes

    @property
    def pem(self) -> bytes:
        return ssl.DER_cert_to_PEM_cert(self.der).encode()

    @property
    def key_pem(self) -> bytes:
        return Issued(x509odd.root().certificate, x509odd.alice()).key_pem


async def test_out_of_mail(tmp_path: Path) -> None:
    """Signed with it; and once as the half that came along with a signing-only certificate."""
    files = []
    for odd in BY_MAIL:
        files.append(tmp_path / f"{odd}.eml")
        files[-1].write_bytes(signed(text(), [Signer(CORPUS[odd])], sender="alice@example.org"))  # type: ignore[list-item]
    half = Signer(FILES["critical-false-encoded.der"])
    signer = person("alice@example.org", subject=name("Alice"), usage="digital_signature")
    files.append(tmp_path / "half.eml")
    files[-1].write_bytes(signed(text(), signer, sender="alice@example.org", extra=[half]))  # type: ignore[list-item]
    with Service(tmp_path) as service:
        said = await asyncio.to_thread(service.cli, "harvest", "--json", *map(str, files))
        reports = [json.loads(line) for line in said.splitlines()]
        for report, octets in zip(reports, [*(CORPUS[odd] for odd in BY_MAIL), half.der], strict=True):
            assert fingerprint(octets) in [c["fingerprint"] for c in report["certificates"]], report
        rows = (await service.api("/api/v1/cache"))["entries"]
        assert {fingerprint(CORPUS[odd]) for odd in BY_MAIL} <= {r["fingerprint"] for r in rows}
