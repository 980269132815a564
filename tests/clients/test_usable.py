"""A view that hands out only what can be encrypted to, on every face; an LDAP map of Postfix in one that does not."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.test_ldap_service import ldapsearch
from keyserver.faces.http.hashes import hash_of
from support.openpgp import Made, make
from support.running import Service
from support.x509 import BEGINS, YEAR, Issued, authority, person

DOMAIN = "example.org"
BASE = "dc=keyserver,dc=local"
VIEW = """upstream = []
[[view]]
name = "gateway"
hkp_listen = ["127.0.0.1:0"]
ldap_listen = ["127.0.0.1:0"]
usable_only = true
"""
EVERY, GATEWAY = 0, 1  # the number of a listener


def made(name: str, **options: object) -> Made:
    return make([f"{name.title()} <{name}@{DOMAIN}>"], seed=name, **options)  # type: ignore[arg-type]


CA = authority("Company CA")
KEYS = {
    "fine": made("fine"),
    "signer": made("signer", encryption=None),
    "expired": made("expired", expires=86400),
    "revoked": made("revoked", revoked=2),
    "subkey": made("subkey", subkey_expires=86400),
}
PEOPLE = {
    "fine": person(f"fine@{DOMAIN}", CA),
    "signer": person(f"signer@{DOMAIN}", CA, usage="digital_signature"),
    "expired": person(f"expired@{DOMAIN}", CA, ends=BEGINS + YEAR // 2),
}


@pytest.fixture(scope="module", params=[0, 1], ids=["one process", "front and core"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Everything is local, and the domain our own."""
    folder = tmp_path_factory.mktemp("usable")
    files = []
    certificates: list[tuple[str, Made | Issued]] = [*KEYS.items(), *PEOPLE.items()]
    for number, (name, one) in enumerate(certificates):
        files.append(folder / f"{number}-{name}")
        files[-1].write_bytes(one.armored.encode() if isinstance(one, Made) else one.pem)
    settings = {"policy.internal_domains": f'["{DOMAIN}"]', "server.workers": str(request.param)}
    with Service(folder, settings=settings, config=VIEW) as running:
        running.cli("cache", "import", *map(str, files))
        yield running


HTTP = {
    "hkp": "/pks/lookup?op=get&options=mr&search={name}@example.org",
    "index": "/pks/lookup?op=index&options=mr&search={name}@example.org",
    "hkp by fingerprint": "/pks/lookup?op=get&options=mr&search=0x{fingerprint}",
    "hkp2": "/pks/v2/certs/by-identity/{name}@example.org",
    "canonical": "/pks/v2/canonical/{name}@example.org",
    "vks": "/vks/v1/by-email/{name}@example.org",
    "wkd": "/.well-known/openpgpkey/example.org/hu/{hash}?l={name}",
}


async def statuses(service: Service, face: str, listener: int) -> dict[str, int]:
    found = {}
    for name, one in KEYS.items():
        target = HTTP[face].format(name=name, fingerprint=one.fingerprint, hash=hash_of(name))
        port = service.port("hkp", listener)
        for _ in range(3):  # the first answer, and what memory says of it
            status, headers, body = await over(port, target)
            assert found.setdefault(name, status) == status, body
        usable = "yes" if name == "fine" else "no"
        assert headers.get("x-key-usable") == (usable if status == 200 else None)
        assert status != 404 or b"Not found" in body
    return found


async def over(port: int, target: str) -> tuple[int, dict[str, str], bytes]:
    """One request to a listener of a view."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    octets = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    head, _, body = octets.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    return int(first.split()[1]), {n.lower(): v for n, _, v in (f.partition(": ") for f in fields)}, body


@pytest.mark.parametrize("face", HTTP)
async def test_only_what_encrypts_now_over_http(service: Service, face: str) -> None:
    assert await statuses(service, face, EVERY) == dict.fromkeys(KEYS, 200)
    assert await statuses(service, face, GATEWAY) == {name: 200 if name == "fine" else 404 for name in KEYS}


async def test_only_what_encrypts_now_over_rfc_4387(service: Service) -> None:
    async def said(listener: int) -> dict[str, int]:
        ask = "/certificates/search.cgi?uri={}@example.org"
        return {n: (await over(service.port("hkp", listener), ask.format(n)))[0] for n in PEOPLE}

    assert (await said(EVERY))["signer"] == 200
    assert await said(GATEWAY) == {"fine": 200, "signer": 404, "expired": 404}


def found(service: Service, listener: int, filter_: str) -> str:
    return ldapsearch(service.port("ldap", listener), "-b", BASE, filter_, "keyserverCanEncrypt")


@pytest.mark.parametrize("name", KEYS)
def test_ldap_says_whether_it_can_be_encrypted_to(service: Service, name: str) -> None:
    word = "TRUE" if name == "fine" else "FALSE"
    filter_ = f"(gpgMailbox={name}@{DOMAIN})"
    assert f"keyserverCanEncrypt: {word}\n" in found(service, EVERY, filter_)
    assert bool(found(service, EVERY, f"(&{filter_}(keyserverCanEncrypt=true))")) is (name == "fine")
    assert bool(found(service, EVERY, f"(&{filter_}(!(keyserverCanEncrypt=TRUE)))")) is (name != "fine")
    assert bool(found(service, GATEWAY, filter_)) is (name == "fine")
    assert bool(found(service, GATEWAY, f"(gpgFingerprint={KEYS[name].fingerprint})")) is (name == "fine")


@pytest.mark.parametrize("name", PEOPLE)
def test_people_alike(service: Service, name: str) -> None:
    filter_ = f"(uid={PEOPLE[name].fingerprint})"
    word = "TRUE" if name == "fine" else "FALSE"
    assert f"keyserverCanEncrypt: {word}\n" in found(service, EVERY, filter_)
    assert bool(found(service, GATEWAY, filter_)) is (name == "fine")
    assert bool(found(service, GATEWAY, f"(mail={name}@{DOMAIN})")) is (name == "fine")


def test_the_schema_describes_the_attribute(service: Service) -> None:
    ask = ("-b", "cn=Subschema", "-s", "base", "(objectClass=*)", "attributeTypes", "objectClasses")
    said = ldapsearch(service.port("ldap"), *ask)
    assert "NAME 'keyserverCanEncrypt' EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE" in said
    assert "NAME 'keyserverCertificate'" in said


def test_a_map_of_postfix_encrypts_only_for_whom_it_can(service: Service, tmp_path: Path) -> None:
    """In the view that hands out everything, by the attribute; without it the map says `encrypt:` for all."""

    plain, encrypts = "(gpgMailbox=%s)", "(&(gpgMailbox=%s)(keyserverCanEncrypt=TRUE))"

    def asked(question: tuple[str, str]) -> str:
        name, filter_ = question
        table = tmp_path / f"{name}-{filter_ == plain}.cf"
        table.write_text(
            f"server_host = ldap://127.0.0.1:{service.port('ldap')}\nversion = 3\nbind = no\nsearch_base = {BASE}\n"
            f"query_filter = {filter_}\nresult_attribute = gpgFingerprint\nresult_format = encrypt:\n"
        )
        command = ["postmap", "-q", f"{name}@{DOMAIN}", f"ldap:{table}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert not done.stderr
        return done.stdout.strip()

    expected = {(name, plain): "encrypt:" for name in KEYS}
    expected |= {(name, encrypts): "encrypt:" if name == "fine" else "" for name in (*KEYS, "nobody")}
    with ThreadPoolExecutor() as at_once:  # postmap takes its time
        assert dict(zip(expected, at_once.map(asked, expected), strict=True)) == expected
