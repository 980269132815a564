"""The LDAP face end to end: one cache behind both protocols, real gpg, gpgsm and ldapsearch."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from support.directory import Slapd, base_entry, person
from support.openpgp import make
from support.running import Gpg, Service
from support.scripted import Scripted, key
from support.x509 import authority
from support.x509 import person as certificate_of

pytestmark = pytest.mark.usefixtures("both_shapes")


BASE = "ou=people,dc=example,dc=org"
CA = authority("Company CA")


def ldapsearch(port: int, *words: str) -> str:
    done = subprocess.run(
        ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", f"ldap://127.0.0.1:{port}", *words],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_gpg_over_ldap_gets_a_key_that_only_an_hkp_upstream_has(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    routes = {alice.fingerprint: key(alice.octets), "alice@example.org": key(alice.octets)}
    async with Scripted(dict(routes)) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service, Gpg(tmp_path / "g") as gpg:
            server = f"ldap://127.0.0.1:{service.port('ldap')}"
            await asyncio.to_thread(gpg.run, "--keyserver", server, "--recv-keys", alice.fingerprint)
            assert gpg.fingerprints() == {alice.fingerprint}
            assert upstream.asked(alice.fingerprint) == 1
            await upstream.stop()
            assert (await service.lookup(alice.fingerprint))[1]["x-cache"] == "HIT"
            await asyncio.to_thread(gpg.run, "--keyserver", server, "--refresh-keys")


async def test_a_colleagues_certificate_by_ldap_then_with_the_directory_off_and_gpgsm_encrypts(tmp_path: Path) -> None:
    alice = certificate_of("alice@example.org", CA)
    entries = [
        base_entry("dc=example,dc=org"),
        base_entry(BASE),
        person(BASE, "alice@example.org", **{"userCertificate;binary": alice.der}),
    ]
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(CA.pem)
    with Slapd(tmp_path / "slapd", entries=entries) as directory:
        settings = {"smime.trust_anchors": f'"{anchors}"'}
        with Service(tmp_path, upstreams=[f"{directory.url}/{BASE}"], settings=settings) as service:
            ask = ("-b", "dc=keyserver,dc=local", "(mail=alice@example.org)", "mail", "userCertificate;binary")
            first = await asyncio.to_thread(ldapsearch, service.port("ldap"), *ask)
            assert "mail: alice@example.org" in first
            assert "userCertificate;binary::" in first
            await asyncio.to_thread(directory.stop)
            assert await asyncio.to_thread(ldapsearch, service.port("ldap"), *ask) == first
            status, _, der = await service.get("/certificates/search.cgi?uri=alice@example.org")
            assert (status, der) == (200, alice.der)
            with Gpg(tmp_path / "s") as home:
                await asyncio.to_thread(encrypt, home, service.port("ldap"), tmp_path)


async def test_who_must_bind_does_with_the_configured_name(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    password.chmod(0o644)
    settings = {"ldap.bind_dn": '"cn=gateway,dc=example,dc=org"', "ldap.bind_password_file": f'"{password}"'}
    async with Scripted({"alice@example.org": key(alice.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            ask = ("-b", "dc=keyserver,dc=local", "(gpgMailbox=alice@example.org)", "gpgFingerprint")
            for who in (("-D", "CN=Gateway,DC=Example,DC=Org", "-w", "s3cret"), ()):
                said = await asyncio.to_thread(ldapsearch, service.port("ldap"), *who, *ask)
                assert f"gpgFingerprint: {alice.fingerprint}" in said
            remarks = [line for line in service.log if "ldap.bind_password_file" in line]
            assert len(remarks) == 1
            assert "0644" in remarks[0]
            assert not [line for line in service.log if "s3cret" in line]
            guessed = ["ldapwhoami", "-x", "-H", f"ldap://127.0.0.1:{service.port('ldap')}"]
            guessed += ["-D", "cn=gateway,dc=example,dc=org", "-w", "guess"]
            assert (await asyncio.to_thread(subprocess.run, guessed, capture_output=True)).returncode == 49


def encrypt(home: Gpg, port: int, tmp_path: Path) -> None:
    """gpgsm finds the certificate through us (it asks LDAP for unknown recipients) and encrypts to it."""
    (home.home / "gpgsm.conf").write_text("disable-crl-checks\nauto-issuer-key-retrieve\n")
    (home.home / "dirmngr_ldapservers.conf").write_text(f"127.0.0.1:{port}:::dc=keyserver,dc=local:\n")
    run = ["gpgsm", "--homedir", str(home.home), "--batch", "--no-tty"]
    (tmp_path / "ca.der").write_bytes(CA.der)
    subprocess.run([*run, "--import", str(tmp_path / "ca.der")], check=True, capture_output=True)
    fingerprint = CA.certificate.fingerprint(hashes.SHA1()).hex(":").upper()
    (home.home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
    subprocess.run(["gpgconf", "--homedir", str(home.home), "--kill", "all"], capture_output=True)
    listed = subprocess.run(
        [*run, "--list-external-keys", "<alice@example.org>"], capture_output=True, text=True, timeout=60
    )
    assert "alice@example.org" in listed.stdout, listed
    environment = os.environ | {"GNUPGHOME": str(home.home)}
    looked_up = subprocess.run(
        ["dirmngr-client", "--pem", "--lookup", "<alice@example.org>"], capture_output=True, timeout=60, env=environment
    )
    subprocess.run([*run, "--import"], input=base64.b64decode(looked_up.stdout), check=True, capture_output=True)
    message = tmp_path / "message.txt"
    message.write_text("hello")
    done = subprocess.run(
        [*run, "--recipient", "<alice@example.org>", "--armor", "--encrypt", str(message)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "-----BEGIN ENCRYPTED MESSAGE-----" in done.stdout
