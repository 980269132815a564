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

from scenarios.world import World
from support.mails import attached_key, crlf, head, multipart, signed, text
from support.openpgp import make
from support.running import Gpg, Service
from support.scripted import Scripted, key
from support.x509 import authority, name, person

CLAIMED = ("ceo@here.example", "carol@third.example", "bob@partner.example")
MALLORY = make(
    [
        "M <m@attacker.example>",
        *(f"Claimed <{address}>" for address in CLAIMED),
        "Bob <bob@partner.example> x",
        "ceo@here.example <m@attacker.example>",  # gpg takes it for either
        '"Boss <ceo@here.example" <x',
    ],
    revoked_user_ids=["Claimed <carol@third.example>"],
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
    _, by_text = await ask(service, "M <m@", op="index")
    assert by_text.count(b"uid:") == 1 and b"here.example" not in by_text
    await asyncio.to_thread(service.stop)
    service.start()
    for number, term in enumerate(("m@attacker.example", MALLORY.key_id)):
        _, body = await ask(service, term)
        assert await asyncio.to_thread(shown, body, tmp_path / f"again{number}") == {"M <m@attacker.example>"}
    for address in CLAIMED:
        assert (await ask(service, address))[0] in (404, 500), address


async def test_what_an_administrator_imports_speaks_for_itself_beside_it(made: Service, tmp_path: Path) -> None:
    """The same key imported with fewer user IDs: his copy is whole, and lends its word to nothing of the mail's."""
    service = made.start()
    await asyncio.to_thread(harvest, service, mallorys())
    ours = make(["Carol <carol@third.example>"], primary=MALLORY.primary, encryption=None)
    (tmp_path / "ours.gpg").write_bytes(ours.octets)
    await asyncio.to_thread(service.cli, "cache", "import", str(tmp_path / "ours.gpg"))
    for number in (0, 1):
        status, body = await ask(service, "carol@third.example", number=number)
        assert status == 200
        found = await asyncio.to_thread(shown, body, tmp_path / f"carol{number}")
        assert found == {"Carol <carol@third.example>"}, "mail does not speak for her"
        assert (await ask(service, "ceo@here.example", number=number))[0] in (404, 500)
    _, body = await ask(service, f"0x{MALLORY.fingerprint}")
    found = await asyncio.to_thread(shown, body, tmp_path / "both")
    assert found == {"Carol <carol@third.example>", "M <m@attacker.example>"}


async def test_a_new_name_for_an_upstream_lifts_nothing(made: Service, tmp_path: Path) -> None:
    fake = make(["Boss <ceo@here.example>"], seed="fake")
    async with Scripted({fake.fingerprint: key(fake.octets)}) as public:
        for name in ("public", "world", ""):
            entry = f'[[upstream]]\nname = "{name}"\nurl = "{public.url}"\n' if name else ""
            made.config.write_text(entry + CONFIG.format(url="hkp://127.0.0.1:9"))
            service = made.start()
            assert (await ask(service, f"0x{fake.fingerprint}", number=0))[0] == 200
            for number in (0, 1):
                for op in ("get", "index"):
                    assert (await ask(service, "ceo@here.example", op, number))[0] == 404
                assert (await ask(service, "Boss", number=number))[0] == 404
            assert "pgpKey" not in await asyncio.to_thread(ldap, service, "(pgpUserID=*<ceo@here.example>*)")
            await asyncio.to_thread(service.stop)
        assert public.asked(fake.fingerprint) == 1
        assert not public.asked("ceo@here.example")


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


@pytest.mark.parametrize(
    "named",
    [
        {"emails": ["m@attacker.example", "bob@partner.example"]},
        {"subject": name("M", email="bob@partner.example")},  # gpgsm finds it by this one, too
        {"subject": name("bob@partner.example")},
    ],
    ids=["alternative", "subject", "common name"],
)
async def test_an_x509_certificate_that_names_others_is_held(made: Service, named: dict[str, Any]) -> None:
    service = made.start()
    several = person("m@attacker.example", CA, **named)
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


@pytest.mark.parametrize("way", ["mailed", "fetched"])
async def test_many_keys_that_name_somebody_push_his_own_off_no_shelf(tmp_path: Path, way: str) -> None:
    """Mailed by a stranger, or fetched because a stranger signed mail with them: 64 were enough for a 404."""
    world = World(tmp_path)
    world.upstream("partner", priority=1, domains=("partner.example",))
    world.upstream("public")
    await world.start()
    try:
        world.certificate("bob", "Bob <bob@partner.example>")
        world.certificate("carol", "Carol <carol@third.example>")
        await world.play("says partner bob@partner.example bob")
        await world.play("get bob@partner.example -> found MISS bob")
        await world.play("mail carol carol@third.example")
        for n in range(66):
            world.now += 1
            claim = ("Bob <bob@partner.example>", "Carol <carol@third.example>", "M <m@attacker.example>")
            world.certificate(f"k{n}", *claim)
            if way == "mailed":
                await world.mail(f"k{n}", "m@attacker.example")
            else:
                await world.play(f"says public fpr(k{n}) k{n}")
                await world.play(f"get fpr(k{n}) -> found MISS k{n}")
        await world.play("get bob@partner.example -> found HIT bob")
        await world.play("always public absent")
        await world.play("get carol@third.example mailflow -> found carol")
    finally:
        await world.stop()
