"""A hostile sender of mail: whatever its certificates claim, they answer for its own address and show no other."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from mails import attached_key, crlf, head, multipart, signed, text
from running import Gpg, Service
from scripted import Scripted, key
from vectors.build import make
from vectors.x509build import authority, person

CLAIMED = ("ceo@here.example", "carol@third.example", "bob@partner.example")
MALLORY = make(
    ["M <m@attacker.example>", *(f"Claimed <{address}>" for address in CLAIMED), "Bob <bob@partner.example> x"],
    seed="mallory",
)
BOB = make(["Bob <bob@partner.example>"], seed="bob")
CA = authority()
PASSED = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=attacker.example"}
CONFIG = """
[[upstream]]
name = "partner"
url = "{url}"
domains = ["partner.example"]

[[view]]
name = "mail"
hkp_listen = ["127.0.0.1:0"]
ldap_listen = ["127.0.0.1:0"]
answer_mailflow = true
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Service]:
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    settings = {
        "mailflow.authserv_id": '"mx.here.example"',
        "policy.internal_domains": '["here.example"]',
        "smime.trust_anchors": f'"{tmp_path / "ca.pem"}"',
        "policy.text_search": '"cache"',
    }
    service = Service(tmp_path, settings=settings, config=CONFIG.format(url="hkp://127.0.0.1:9"))
    yield service
    service.kill()


def harvest(service: Service, mail: bytes) -> dict[str, Any]:
    request = Request(
        f"http://127.0.0.1:{service.port('admin')}/api/v1/harvest",
        data=crlf(mail),
        headers={"Authorization": f"Bearer {service.token}", "Content-Type": "message/rfc822"},
    )
    with urlopen(request, timeout=20) as reply:
        report: dict[str, Any] = json.load(reply)
    return report


def mallorys() -> bytes:
    return head("m@attacker.example", **PASSED) + multipart(text(), attached_key(MALLORY.octets))


def shown(octets: bytes, home: Path) -> set[str]:
    """The user IDs that a real gpg imports."""
    with Gpg(home) as gpg:
        (home / "answer.asc").write_bytes(octets)
        gpg.run("--import", str(home / "answer.asc"), check=False)
        lines = gpg.run("--list-keys", "--with-colons").stdout.splitlines()
    return {line.split(":")[9] for line in lines if line.startswith("uid:")}


def ldap(service: Service, filter_: str) -> str:
    words = ["ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", f"ldap://127.0.0.1:{service.port('ldap', 1)}"]
    done = subprocess.run([*words, "-b", "dc=keyserver,dc=local", filter_], capture_output=True, text=True, timeout=30)
    return done.stdout


async def ask(service: Service, term: str, op: str = "get", number: int = 1) -> tuple[int, bytes]:
    """One lookup at the first (0) or the second view (1)."""
    from urllib.parse import quote

    reader, writer = await asyncio.open_connection("127.0.0.1", service.port("hkp", number))
    writer.write(f"GET /pks/lookup?op={op}&options=mr&search={quote(term)} HTTP/1.0\r\n\r\n".encode())
    octets = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    top, _, body = octets.partition(b"\r\n\r\n")
    return int(top.split()[1]), body


async def test_a_key_that_names_others_answers_its_sender_alone(made: Service, tmp_path: Path) -> None:
    service = made.start()
    report = await asyncio.to_thread(harvest, service, mallorys())
    assert (report["verdict"], report["authenticated"]) == ("cached", True)
    status, body = await ask(service, "m@attacker.example")
    assert status == 200
    assert await asyncio.to_thread(shown, body, tmp_path / "one") == {"M <m@attacker.example>"}
    for address in CLAIMED:
        assert (await ask(service, address))[0] in (404, 500), address
        assert (await ask(service, address, number=0))[0] in (404, 500), address
        assert "pgpKey" not in await asyncio.to_thread(ldap, service, f"(pgpUserID=*<{address}>*)")
    status, body = await ask(service, f"0x{MALLORY.fingerprint}")
    assert await asyncio.to_thread(shown, body, tmp_path / "two") == {"M <m@attacker.example>"}
    _, index = await ask(service, f"0x{MALLORY.fingerprint}", op="index")
    found = await asyncio.to_thread(ldap, service, f"(pgpCertID={MALLORY.key_id})")
    for said in (index.decode(), found, (await ask(service, "Claimed"))[1].decode()):
        assert "here.example" not in said and "third.example" not in said and "partner.example" not in said
    assert "pgpUserID: M <m@attacker.example>" in found
    assert (await ask(service, "Claimed"))[0] == 404, "text that was cut is not found"


async def test_an_approval_is_for_the_address_alone(made: Service, tmp_path: Path) -> None:
    async with Scripted({"bob@partner.example": key(BOB.octets)}) as partner:
        made.config.write_text(CONFIG.format(url=partner.url))
        service = made.start()
        await asyncio.to_thread(harvest, service, mallorys())
        said = await asyncio.to_thread(service.cli, "cache", "approve", "m@attacker.example")
        assert said == f"approved {MALLORY.fingerprint} (mailflow, attacker.example) for m@attacker.example\n"
        assert (await ask(service, "m@attacker.example", number=0))[0] == 200
        for number in (0, 1):
            status, body = await ask(service, "bob@partner.example", number=number)
            home = tmp_path / f"bob{number}"
            assert status == 200
            assert await asyncio.to_thread(shown, body, home) == {"Bob <bob@partner.example>"}
            with Gpg(home) as gpg:
                assert gpg.fingerprints() == {BOB.fingerprint}
        trouble = await asyncio.to_thread(
            service.cli, "cache", "approve", MALLORY.fingerprint, "--address", "ceo@here.example", code=1
        )
        assert "here.example is internal" in trouble
        several = await asyncio.to_thread(service.cli, "cache", "approve", MALLORY.fingerprint, code=1)
        assert "--address carol@third.example --source mailflow" in several


async def test_an_x509_certificate_that_names_others_is_held(made: Service) -> None:
    service = made.start()
    several = person("m@attacker.example", CA, emails=["m@attacker.example", "bob@partner.example"])
    mail = signed(text(), several, sender="m@attacker.example", **PASSED)
    report = await asyncio.to_thread(harvest, service, mail)
    assert (report["verdict"], report["certificates"][0]["chained"]) == ("held", True)
    assert "other addresses" in report["text"]
    for address in ("m@attacker.example", "bob@partner.example"):
        assert "userCertificate" not in await asyncio.to_thread(ldap, service, f"(mail={address})")
    said = await asyncio.to_thread(service.cli, "lookup", "m@attacker.example", "--trace", code=None)
    assert "passed over" in said and "x509: cache" in said, "the trace says what is held"
    await asyncio.to_thread(service.cli, "cache", "approve", "m@attacker.example")
    assert "userCertificate" in await asyncio.to_thread(ldap, service, "(mail=m@attacker.example)")
    assert "userCertificate" not in await asyncio.to_thread(ldap, service, "(mail=bob@partner.example)")
