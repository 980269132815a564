"""A real Postfix in front of the real service: keys out of inbound mail, and every mail arrives as it was sent."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes

from support.mails import attached_key, crlf, head, multipart, openssl, signed, text
from support.openpgp import make
from support.ports import free_port
from support.postfix import INBOUND, Postfix
from support.running import Gpg, Service
from support.x509 import authority, person, rsa_key

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")

CA = authority()
ALICE = person("alice@partner.example", CA)
WHERE = "/certificates/search.cgi?uri=alice@partner.example"
BOB = person("bob@other.example", CA, key=rsa_key(2048, 1))


@pytest.fixture(scope="module")
def postfix_() -> Iterator[Postfix]:
    with Postfix(free_port(), free_port()) as running:
        yield running


@pytest.fixture
def postfix(postfix_: Postfix) -> Postfix:
    postfix_.empty()
    return postfix_


@pytest.fixture
def made(tmp_path: Path, postfix: Postfix) -> Iterator[Service]:
    """A service behind the Postfix, with both listeners of the mail flow."""
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    view = '[[view]]\nname = "with-mailflow"\nhkp_listen = ["127.0.0.1:0"]\nanswer_mailflow = true\n'
    settings = {
        "mailflow.milter_listen": f'"127.0.0.1:{postfix.milter}"',
        "mailflow.lmtp_listen": f'"127.0.0.1:{postfix.lmtp}"',
        "mailflow.inbound_addresses": f'["{INBOUND}"]',
        "policy.internal_domains": '["here.example"]',
        "smime.trust_anchors": f'"{tmp_path / "ca.pem"}"',
        "log.identities": "true",
    }
    with Service(tmp_path, settings=settings, config=view) as running:
        yield running


async def cached(made: Service) -> dict[str, dict[str, Any]]:
    return {row["fingerprint"]: row for row in (await made.api("/api/v1/cache"))["entries"]}


async def mails(made: Service, count: int) -> list[dict[str, Any]]:
    """The reports of the mail flow, as soon as there are so many; newest first."""
    until = time.monotonic() + 20
    while len(recent := (await made.api("/api/v1/mailflow"))["recent"]) < count:
        assert time.monotonic() < until, recent
        await asyncio.sleep(0.05)
    return list(recent)


async def report_of(made: Service, message_id: str) -> dict[str, Any]:
    """The report of one mail, as soon as there is one."""
    until = time.monotonic() + 20
    while True:
        recent = (await made.api("/api/v1/mailflow"))["recent"]
        if found := [row for row in recent if row["message_id"] == message_id]:
            return dict(found[0])
        assert time.monotonic() < until, recent
        await asyncio.sleep(0.05)


def from_alice(**more: str) -> bytes:
    return crlf(signed(text(), ALICE, sender="Alice <alice@partner.example>", **more))


async def test_a_key_out_of_inbound_mail_is_answered_once_approved(made: Service, postfix: Postfix) -> None:
    await asyncio.to_thread(postfix.send, "inbound", from_alice(), "alice@partner.example")
    (report,) = await mails(made, 1)
    assert (report["verdict"], report["direction"], report["rule"]) == ("cached", "inbound", "inbound_addresses")
    row = (await cached(made))[ALICE.fingerprint]
    assert (row["source"], row["origin"], row["message_id"]) == ("mailflow", "partner.example", "<1@mail.example>")
    assert row["expires_at"] - row["cached_at"] == 180 * 86400
    assert (await made.get(WHERE))[0] == 404
    assert "approved" in made.cli("cache", "approve", "alice@partner.example")
    status, headers, body = await made.get(WHERE)
    assert (status, body) == (200, ALICE.der), headers
    assert len(postfix.wait(1)) == 1


async def test_gpgsm_encrypts_to_it_after_approval(made: Service, postfix: Postfix, tmp_path: Path) -> None:
    await asyncio.to_thread(postfix.send, "inbound", from_alice(), "alice@partner.example")
    await mails(made, 1)
    with Gpg(tmp_path / "g") as home:
        run = ["gpgsm", "--homedir", str(home.home), "--batch", "--no-tty"]
        (home.home / "gpgsm.conf").write_text("disable-crl-checks\n")
        (home.home / "dirmngr.conf").write_text(f"ldapserver 127.0.0.1:{made.port('ldap')}:::dc=keyserver,dc=local:\n")
        anchor = CA.certificate.fingerprint(hashes.SHA1()).hex(":").upper()
        (home.home / "trustlist.txt").write_text(f"{anchor} S relax\n")
        subprocess.run([*run, "--import"], input=CA.der, check=True, capture_output=True)

        def look_up() -> bytes:
            words = ["dirmngr-client", "--pem", "--lookup", "<alice@partner.example>"]
            environment = os.environ | {"GNUPGHOME": str(home.home)}
            return subprocess.run(words, capture_output=True, timeout=60, env=environment).stdout

        assert b"MII" not in await asyncio.to_thread(look_up), "seen in mail only"
        made.cli("cache", "approve", "alice@partner.example")
        found = base64.b64decode(await asyncio.to_thread(look_up))
        assert found == ALICE.der
        subprocess.run([*run, "--import"], input=found, check=True, capture_output=True)
        encrypt = [*run, "--recipient", "<alice@partner.example>", "--encrypt"]
        done = subprocess.run(encrypt, input=b"hello", capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
    for name, octets in (("alice.pem", ALICE.pem), ("alice.key", ALICE.key_pem), ("mail.p7m", done.stdout)):
        (tmp_path / name).write_bytes(octets)
    words = ["-inkey", str(tmp_path / "alice.key"), "-recip", str(tmp_path / "alice.pem")]
    assert openssl("cms", "-decrypt", "-inform", "DER", "-in", str(tmp_path / "mail.p7m"), *words) == b"hello"


async def test_a_view_may_hand_out_what_the_public_face_may_not(made: Service, postfix: Postfix) -> None:
    key = make(["Alice <alice@partner.example>"])
    mail = crlf(head("alice@partner.example") + multipart(text(), attached_key(key.octets)))
    await asyncio.to_thread(postfix.send, "inbound", mail, "alice@partner.example")
    assert (await mails(made, 1))[0]["verdict"] == "held"
    assert (await made.get(WHERE, face="hkp"))[0] == 404
    await asyncio.to_thread(postfix.send, "inbound", from_alice(), "alice@partner.example")
    await mails(made, 2)
    ports = [made.port("hkp", 0), made.port("hkp", 1)]
    found = []
    for port in ports:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {WHERE} HTTP/1.0\r\n\r\n".encode())
        found.append((await reader.read()).split()[1])
        writer.close()
    assert found == [b"404", b"200"]


async def test_the_same_mail_outbound_gives_nothing_and_says_why(
    made: Service, postfix: Postfix, tmp_path: Path
) -> None:
    await asyncio.to_thread(postfix.send, "outbound", from_alice(), "alice@partner.example")
    (report,) = await mails(made, 1)
    assert (report["verdict"], report["rule"]) == ("outbound", "inbound_addresses")
    assert report["text"] == "outbound: taken at 127.0.0.3, which is not in mailflow.inbound_addresses"
    assert not await cached(made)
    assert any("verdict=outbound" in line or '"verdict": "outbound"' in line for line in made.log)
    (tmp_path / "mail.eml").write_bytes(from_alice().replace(b"alice@partner.example", b"alice@here.example"))
    said = made.cli("harvest", "--explain", str(tmp_path / "mail.eml"))
    assert "internal sender: outbound or forged: its From header is of a domain in policy.internal_domains" in said


async def test_a_forged_mail_is_held_and_visible(made: Service, postfix: Postfix) -> None:
    forged = person("alice@partner.example", authority("Nobody's CA"), key=rsa_key(2048, 2))
    mail = crlf(signed(text(), forged, sender="alice@partner.example"))
    await asyncio.to_thread(postfix.send, "inbound", mail, "eve@evil.example")
    (report,) = await mails(made, 1)
    assert report["verdict"] == "held"
    row = (await cached(made))[forged.fingerprint]
    assert row["status"] == "held"
    assert "held until an administrator approves it" in row["reason"]
    assert "held" in made.cli("cache", "list")


def odd() -> list[tuple[str, bytes]]:
    """Mails (sender, octets) that must come through as they are."""
    rng = random.Random(7)
    key = make(["Carol <carol@third.example>"]).octets
    signed_ = from_alice()
    return [
        ("alice@partner.example", signed_),
        ("bob@other.example", crlf(signed(text(), BOB, sender="bob@other.example"))),
        ("carol@third.example", crlf(head("carol@third.example") + multipart(text(), attached_key(key)))),
        ("x@y.example", crlf(head("x@y.example") + b"\n" + bytes(rng.choice(range(1, 256)) for _ in range(20_000))
                             .replace(b"\r", b"").replace(b"\n", b"") + b"\n")),
        ("x@y.example", crlf(head("x@y.example") + b"\n.\n..\n.x\nFrom here\n\n\n")),
        ("x@y.example", crlf(head("x@y.example", Subject="=?x-no-such?Q?=FF?=", X_Long="a " * 4000) + b"\nx\n")),
        ("x@y.example", crlf(head("x@y.example") + b"\n" + b"0123456789" * 8 + b"\n" * 2 + b"y" * 900_000 + b"\n")),
        ("x@y.example", b"no headers at all\r\n\r\nbody\r\n"),
        ("", crlf(head("mailer-daemon@y.example") + b"Content-Type: multipart/mixed; boundary=\n\n--\n")),
    ]  # fmt: skip


def same(delivered: bytes, sent: bytes) -> bool:
    """Is a mail as it was sent? Postfix puts its own fields on top, and breaks lines over 2,048 octets itself."""
    return re.sub(rb"\n", b"", delivered).endswith(re.sub(rb"\r\n", b"", sent))


async def test_every_mail_arrives_unchanged_while_we_are_killed_and_restarted(made: Service, postfix: Postfix) -> None:
    sent: list[bytes] = []
    problems: list[BaseException] = []
    over = threading.Event()

    def send() -> None:
        try:
            while not over.is_set() or len(sent) < 36:
                sender, mail = ODD[len(sent) % len(ODD)]
                mail = mail.replace(b"Subject: hello", b"Subject: number %d" % len(sent))
                postfix.send("outbound" if sender == "bob@other.example" else "inbound", mail, sender)
                postfix.send("plain", mail, sender, "beside@here.example")
                sent.append(mail)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(3):
        await asyncio.sleep(0.4)
        made.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(made.start)
    over.set()
    await asyncio.to_thread(thread.join, 60)
    assert not problems, problems
    delivered, beside = postfix.wait(len(sent)), postfix.wait(len(sent), "beside")
    assert len(delivered) == len(beside) == len(sent) >= 36
    assert sorted(map(content, delivered)) == sorted(map(content, beside)), "as without the milter"
    assert all(any(same(found, mail) for found in delivered) for mail in sent[:18])
    verdicts = {}
    for number in range(3):  # one after the other: what was sent before the last restart may still be on its way
        sender, mail = ODD[number]
        message_id = f"last-{number}@mail.example"
        mail = re.sub(rb"(?mi)^message-id:[^\r]*", b"Message-ID: <" + message_id.encode() + b">", mail, count=1)
        await asyncio.to_thread(postfix.send, "outbound" if sender == "bob@other.example" else "inbound", mail, sender)
        verdicts[number] = (await report_of(made, f"<{message_id}>"))["verdict"]
    assert verdicts == {0: "cached", 1: "outbound", 2: "held"}
    assert {row["origin"] for row in (await cached(made)).values()} == {"partner.example", "third.example"}


ODD = odd()


def content(delivered: bytes) -> bytes:
    """A delivered mail below the fields that Postfix put on top."""
    top = re.match(
        rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received|Message-Id|Date|From):[^\n]*\n(?:[ \t][^\n]*\n)*)*",
        delivered,
    )
    assert top is not None
    return delivered[top.end() :]


async def test_the_milter_keeps_no_mail_waiting(made: Service, postfix: Postfix) -> None:
    """1 ms on an idle machine; the bound is for busy ones, and below the 40 ms of a delayed acknowledgement."""
    mail = crlf(signed(text() + (b"y" * 76 + b"\n") * 600, ALICE, sender="alice@partner.example"))

    def measure() -> float:
        taken: dict[str, list[float]] = {"inbound": [], "plain": []}
        for _ in range(25):
            for name, times in taken.items():
                times.append(postfix.send(name, mail, "alice@partner.example"))
        return statistics.median(taken["inbound"]) - statistics.median(taken["plain"])

    assert await asyncio.to_thread(measure) < 0.025
    assert (await mails(made, 25))[0]["verdict"] == "cached"


async def test_a_copy_by_lmtp(made: Service, postfix: Postfix) -> None:
    await asyncio.to_thread(postfix.send, "copy", from_alice(), "alice@partner.example")
    (report,) = await mails(made, 1)
    assert (report["way"], report["verdict"]) == ("lmtp", "cached")
    assert report["queue_id"], "by XFORWARD"
    assert len(postfix.wait(1)) == 1
    until = time.monotonic() + 10
    while queued := await asyncio.to_thread(postfix.queue):
        assert time.monotonic() < until, queued
        await asyncio.sleep(0.1)
    made.kill()
    await asyncio.to_thread(postfix.send, "copy", from_alice(message_id="2@x"), "alice@partner.example")
    assert len(postfix.wait(2)) == 2, "our being down delays the copy only"
    await asyncio.to_thread(made.start)
    assert (await mails(made, 1))[0]["verdict"] == "cached"


async def test_everything_in_bounded_memory_and_nothing_lost_of_a_large_mail(made: Service, postfix: Postfix) -> None:
    before = made.memory()
    body = text("x" * 70 + "\n") + (b"y" * 76 + b"\n") * (10_000_000 // 77)
    mail = crlf(signed(body, ALICE, sender="alice@partner.example"))
    peak = [before]
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            peak.append(made.memory())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    await asyncio.to_thread(postfix.send, "inbound", mail, "alice@partner.example")
    (report,) = await mails(made, 1)
    over.set()
    watcher.join()
    assert report["verdict"] == "cached"
    assert max(peak) - before < 60 << 20, (max(peak) - before) >> 20
    huge = crlf(head("alice@partner.example") + b"\n" + (b"y" * 76 + b"\n") * (20_000_000 // 77))
    await asyncio.to_thread(postfix.send, "inbound", huge, "alice@partner.example")
    assert (await mails(made, 2))[0]["verdict"] == "too large"
    assert max(map(len, postfix.wait(2))) > 20_000_000 - 80


MBOX_LINE = b"From alice@partner.example Mon Nov 23 10:00:00 2026\n"


def test_files_by_the_command_line(made: Service, tmp_path: Path) -> None:
    """Single mails, mailbox files and Maildirs; --explain changes nothing."""
    carol = make(["Carol <carol@third.example>"])
    attached = head("carol@third.example", message_id="c@x") + multipart(text(), attached_key(carol.octets))
    single, mbox, maildir = tmp_path / "alice.eml", tmp_path / "mbox", tmp_path / "Maildir"
    single.write_bytes(from_alice())
    mbox.write_bytes(b"".join(MBOX_LINE + m + b"\n" for m in (head("x@y.example") + text(), attached)))
    for folder in ("new", "cur", "tmp", ".Sent/cur"):
        (maildir / folder).mkdir(parents=True)
        (maildir / folder / "1").write_bytes(from_alice() if folder != "cur" else b"junk")
    said = made.cli("harvest", "--explain", str(single), str(mbox), str(maildir))
    assert f"{ALICE.fingerprint}  x509, S/MIME signature: cached" in said
    assert "mbox #1  from x@y.example  <1@mail.example>  no certificate: the mail carries no certificate" in said
    assert "6 mails: 3 cached, 1 no certificate, 1 held, 1 no usable From" in said
    assert "0 entries" in made.cli("cache", "list")
    said = made.cli("harvest", "--json", str(single), str(mbox))
    assert [json.loads(line)["verdict"] for line in said.splitlines()] == ["cached", "no certificate", "held"]
    assert "2 entries" in made.cli("cache", "list")
    made.stop()
    assert "1 cached" in made.cli("harvest", str(single)), "also without a running service"
    assert "No such file" in made.cli("harvest", str(tmp_path / "none"), code=1)


async def test_harvest_by_the_api(made: Service) -> None:
    url = f"http://127.0.0.1:{made.port('admin')}/api/v1/harvest"
    headers = {"Authorization": f"Bearer {made.token}", "Content-Type": "message/rfc822"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def post(octets: bytes, query: str = "") -> tuple[int, dict[str, Any]]:
            async with session.post(url + query, data=io.BytesIO(octets)) as response:
                return response.status, await response.json(content_type=None)

        status, report = await post(from_alice(), "?explain=1")
        assert (status, report["verdict"], report["explained"]) == (200, "cached", True)
        assert not await cached(made)
        status, report = await post(from_alice())
        assert (status, report["certificates"][0]["fingerprint"]) == (200, ALICE.fingerprint)
        assert ALICE.fingerprint in await cached(made)
        assert (await post(b"x" * (17 << 20)))[1]["verdict"] == "too large"
        assert (await post(b""))[1]["verdict"] == "no usable From"
        assert (await post(b"", "?explain=x"))[0] == 400
        async with session.post(url, data=b"x", headers={"Content-Type": "text/plain"}) as response:
            assert response.status == 415
        async with aiohttp.ClientSession() as stranger, stranger.post(url, data=b"x") as response:
            assert response.status == 401
        async with session.get(url.replace("harvest", "mailflow")) as response:
            assert (await response.json())["verdicts"] == {"cached": 1, "too large": 1, "no usable From": 1}
