"""What stands in conf/postfix: every file in a real Postfix, beside a service by the file for it."""

from __future__ import annotations

import asyncio
import os
import re
import smtplib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.mails import crlf, signed, text
from support.openpgp import make
from support.ports import free_port
from support.postfix import INBOUND, OUTBOUND, Postfix
from support.running import ROOT, Service
from support.x509 import authority, person

CONF = ROOT / "conf" / "postfix"
CA = authority()
ALICE, DAVE = person("alice@partner.example", CA), person("dave@partner.example", CA)
BOB = make(["Bob <bob@partner.example>"], seed="bob")
MILTER, LMTP, SOCKETMAP, TRAILER = "127.0.0.1:8891", "127.0.0.1:8892", "127.0.0.1:8373", "127.0.0.1:8893"


def settings_of(name: str, ports: dict[str, int]) -> dict[str, str]:
    """A file for main.cf, at ports of this machine."""
    pairs = (line.split(" = ", 1) for line in body(name).splitlines())
    return {key: here(value, ports) for key, value in pairs}


def here(value: str, ports: dict[str, int]) -> str:
    for place, port in ports.items():
        value = value.replace(place, f"127.0.0.1:{port}")
    return value


def body(name: str) -> str:
    """A file without the remark above it."""
    return re.sub(r"\A(?:#.*\n)+", "", (CONF / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {place: free_port() for place in (MILTER, LMTP, SOCKETMAP, TRAILER)}


@pytest.fixture(scope="module")
def postfix(ports: dict[str, int]) -> Iterator[Postfix]:
    """A listener for each direction, with milters, and one that copies; the map is asked for every recipient."""
    files = [settings_of(name, ports) for name in ("milter.main.cf", "copy.main.cf", "socketmap.main.cf")]
    main = {name: value for file in files for name, value in file.items()}
    del main["always_bcc"]  # of one direction only: copy.master.cf
    main["transport_maps"] = ", ".join(file["transport_maps"] for file in files if "transport_maps" in file)
    main["virtual_mailbox_domains"] = "here.example partner.example"
    main["virtual_mailbox_maps"] = "inline:{me@here.example=me/, alice@partner.example=alice/}"
    made = Postfix(ports[MILTER], settings=main)
    made.ports = {
        name: (address, free_port(address))
        for name, address in (("inbound", INBOUND), ("outbound", OUTBOUND), ("copy", INBOUND))
    }
    at = {name: ":".join(map(str, address)) for name, address in made.ports.items()}
    trailer = settings_of("trailer.main.cf", ports)["smtpd_milters"]
    own = (made.directory / "master.cf").read_text().splitlines()
    services = [line for line in own if not re.match(r"  -o|cleanup-copy|\S+ inet ", line)]
    lines = [
        *services,
        body("milter.master.cf").replace("192.0.2.25:smtp", at["inbound"]).replace("192.0.2.26:smtp", at["outbound"]),
        f"  -o {{ smtpd_milters = {trailer} }}\n",  # of the last, the outbound one
        body("copy.master.cf").replace("192.0.2.25:smtp", at["copy"]),
    ]
    (made.directory / "master.cf").write_text(re.sub(r"\n+", "\n", "\n".join(lines)))
    with made as running:
        yield running


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int], postfix: Postfix) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    config = here((CONF / "keyserver.toml").read_text(encoding="utf-8"), ports)
    config = config.replace("192.0.2.25", INBOUND).replace("192.0.2.0/24", "127.0.0.0/24")
    config = config.replace('["example.com"]', '["here.example"]')
    (folder / "ca.pem").write_bytes(CA.pem)
    with Service(folder, settings={"smime.trust_anchors": f'"{folder / "ca.pem"}"'}, config=config) as running:
        yield running


def from_outside(listener: tuple[str, int], mail: bytes) -> None:
    with smtplib.SMTP(*listener, timeout=30, source_address=("127.0.1.9", 0)) as client:
        client.sendmail("x@partner.example", "me@here.example", mail)


async def seen(service: Service, count: int) -> list[dict[str, Any]]:
    """The reports of the mail flow, as soon as there are so many."""
    until = time.monotonic() + 20
    while len(recent := (await service.api("/api/v1/mailflow"))["recent"]) < count:
        assert time.monotonic() < until, recent
        await asyncio.sleep(0.05)
    return list(recent)


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")
async def test_each_does_what_it_is_for(service: Service, postfix: Postfix, ports: dict[str, int]) -> None:
    """A certificate by the milter, one by the copy, the lines of the trailer, and the map's verdicts."""
    for who, address, way in ((ALICE, "alice@partner.example", "inbound"), (DAVE, "dave@partner.example", "copy")):
        mail = crlf(signed(text(), who, sender=address))
        await asyncio.to_thread(from_outside, postfix.ports[way], mail)
    reports = await seen(service, 2 + 1)  # the milter is asked of the copy's original, too
    found = {(one["way"], one["sender"], one["verdict"]) for one in reports}
    assert found >= {("milter", "alice@partner.example", "cached"), ("lmtp", "dave@partner.example", "cached")}
    plain = crlf(b"From: me@here.example\nSubject: x\nMessage-ID: <2@x>\n\nHello\n")
    await asyncio.to_thread(postfix.send, "outbound", plain, "me@here.example", "alice@partner.example")
    [arrived] = await asyncio.to_thread(postfix.wait, 1, "alice")
    assert arrived.endswith(b"it is yours, so that mail to you can be encrypted with it:\nhttps://optin.example.com/\n")
    (service.directory / "bob.asc").write_text(BOB.armored)
    service.cli("cache", "import", str(service.directory / "bob.asc"))
    table = settings_of("socketmap.main.cf", ports)["transport_maps"]
    for address, value in (("bob@partner.example", "smtp:[gateway.example]:10025\n"), ("x@partner.example", "")):
        words = ["postmap", "-c", str(postfix.directory), "-q", address, table]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=30)
        assert (done.stdout, done.stderr) == (value, "")


QUOTED = {
    "mailflow": ("milter.main.cf", "milter.master.cf", "copy.main.cf", "copy.master.cf"),
    "gateways": ("socketmap.main.cf",),
    "invitations": ("trailer.main.cf",),
}


@pytest.mark.parametrize("page", QUOTED)
def test_the_documentation_quotes_the_files(page: str) -> None:
    written = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(?:#[^\n]*\n)*(.*?)^```", written, re.S | re.M)
    assert all(body(name) in blocks for name in QUOTED[page])


def test_no_file_is_left_out() -> None:
    named = {"keyserver.toml", *(name for names in QUOTED.values() for name in names)}
    assert {file.name for file in CONF.iterdir()} == named
