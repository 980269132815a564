"""A certificate store (RFC 4387) behind the service: another instance of it, with an imported certificate."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import subprocess
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from keyserver.smime.ber import INTEGER, SEQUENCE, element
from support.running import Gpg, Service
from support.x509 import authority, person, rsa_key

CA = authority("Company CA")
ALICE = person("alice@example.org", CA)


async def test_gpgsm_finds_by_ldap_what_only_a_store_has_and_again_without_it(tmp_path: Path) -> None:
    card = tmp_path / "alice.pem"
    card.write_bytes(ALICE.pem)
    (tmp_path / "store").mkdir()
    (tmp_path / "ours").mkdir()
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(CA.pem)
    trusting = {"smime.trust_anchors": f'"{anchors}"'}
    with Service(tmp_path / "store", settings=trusting) as store:
        await asyncio.to_thread(store.cli, "cache", "import", str(card))
        where = f"certs+http://127.0.0.1:{store.port()}"
        with Service(tmp_path / "ours", upstreams=[where], settings=trusting) as service:
            for home in ("first", "again"):
                with Gpg(tmp_path / home) as gpg:
                    listed = await asyncio.to_thread(found_by_gpgsm, gpg, service.port("ldap"))
                assert "alice@example.org" in listed
                fingerprint = ALICE.certificate.fingerprint(hashes.SHA1()).hex(":").upper()
                assert fingerprint in listed
                if home == "first":
                    tried = await asyncio.to_thread(service.cli, "upstreams", "--test", "alice@example.org")
                    assert ALICE.fingerprint in tried
                    store.kill()
            status, headers, body = await service.get("/certificates/search.cgi?uri=alice@example.org")
            assert (status, headers["x-cache"], body) == (200, "HIT", ALICE.der)
            shown = await asyncio.to_thread(service.cli, "cache", "show", ALICE.fingerprint)
            assert ", by certs" in shown


async def test_each_hash_of_the_standard_reaches_the_store(tmp_path: Path) -> None:
    people = {name: person(f"{name}@example.org", CA, key=rsa_key(number=n)) for n, name in enumerate("abcd")}
    bundle = tmp_path / "people.pem"
    bundle.write_bytes(b"".join(one.pem for one in people.values()))
    issuer = CA.certificate.subject.public_bytes()
    serial = people["c"].certificate.serial_number
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    ski = people["d"].certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    hashed = {
        "certHash": ("a", people["a"].der),
        "sHash": ("b", people["b"].certificate.subject.public_bytes()),
        "iAndSHash": ("c", element(SEQUENCE, issuer, element(INTEGER, number))),
        "sKIDHash": ("d", ski),
    }
    (tmp_path / "store").mkdir()
    (tmp_path / "ours").mkdir()
    with Service(tmp_path / "store") as store:
        await asyncio.to_thread(store.cli, "cache", "import", str(bundle))
        where = f"certs+http://127.0.0.1:{store.port()}/certificates/search"
        with Service(tmp_path / "ours", upstreams=[where]) as service:
            for attribute, (name, octets) in hashed.items():
                search = f"/certificates/search.cgi?{attribute}={hash_of(octets)}"
                for how in ("MISS", "HIT"):
                    status, headers, body = await service.get(search)
                    assert (status, headers.get("x-cache"), body) == (200, how, people[name].der), attribute
            unknown = f"/certificates/search.cgi?certHash={hash_of(b'')}"
            assert (await service.get(unknown))[0] == 404
        (tmp_path / "other").mkdir()
        with Service(tmp_path / "other", upstreams=[where]) as service:
            search = f"/certificates/search.cgi?iHash={hash_of(issuer)}"
            status, headers, body = await service.get(search)
            assert (status, headers["x-cache"]) == (200, "MISS")
            assert all(one.der in body for one in people.values())
            store.kill()
            assert (await service.get("/certificates/search.cgi?uri=nobody@example.org"))[0] == 500


def hash_of(octets: bytes) -> str:
    return quote(base64.b64encode(hashlib.sha1(octets).digest()).decode().rstrip("="), safe="")


def found_by_gpgsm(gpg: Gpg, port: int) -> str:
    """What gpgsm lists of the directory that we are."""
    (gpg.home / "gpgsm.conf").write_text("disable-crl-checks\n")
    (gpg.home / "dirmngr_ldapservers.conf").write_text(f"127.0.0.1:{port}:::dc=keyserver,dc=local:\n")
    done = subprocess.run(
        ["gpgsm", "--homedir", str(gpg.home), "--batch", "--no-tty", "--list-external-keys", "<alice@example.org>"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"GNUPGHOME": str(gpg.home)},
    )  # fmt: skip
    return done.stdout
