"""A real Postfix asks the real service by socketmap where each mail goes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.ports import free_port
from support.postfix import Postfix
from support.running import Service
from support.scripted import Scripted, key, reply

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")

ALICE = make(["Alice <alice@partner.example>"], seed="alice")
MAIL = b"From: me@here.example\r\nSubject: where to\r\n\r\nHello\r\n"

POLICIES = """
[[verdict.policy]]
name = "encrypt"
yes = "encrypting:[127.0.0.1]:{gateway}"

[[verdict.policy]]
name = "open"
unknown = "notfound"
yes = "to-{{kind}}:{{domain}}"

[[domain]]
name = "must.example"
must_encrypt = true
reject_text = "must.example takes encrypted mail only"
"""
"""With {gateway}, the port of a gateway."""


class Sink:
    """An SMTP server that takes every mail (smtp-sink(1), of Postfix itself): who it was for."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sink-"))  # tmp_path is root's alone
        self.port = free_port()
        self.directory.chmod(0o777)
        command = ["smtp-sink", "-u", "postfix", "-d", f"{self.directory}/%s.", f"127.0.0.1:{self.port}", "100"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def recipients(self) -> list[str]:
        files = [file.read_text() for file in sorted(self.directory.iterdir())]
        lines = [line for file in files for line in file.splitlines() if line.startswith("X-Rcpt-Args: ")]
        return [line.partition("<")[2].partition(">")[0] for line in lines]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self.directory)


def until(condition: Callable[[], object], postfix: Postfix) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, postfix.log.read_text()[-4000:]
        time.sleep(0.05)


def waiting(postfix: Postfix) -> dict[str, str]:
    """Recipients of deferred mails, and why they wait."""
    mails = [json.loads(line) for line in postfix.queue().splitlines()]
    each = [recipient for mail in mails for recipient in mail["recipients"]]
    return {one["address"]: one.get("delay_reason", "") for one in each if "delay_reason" in one}


@pytest.fixture
def sinks() -> Iterator[tuple[Sink, Sink]]:
    gateway, clear = Sink(), Sink()
    yield gateway, clear
    gateway.close()
    clear.close()


async def test_each_mail_goes_where_its_verdict_says(tmp_path: Path, sinks: tuple[Sink, Sink]) -> None:
    """Three recipients, three places; the upstream stopped; the service stopped."""
    gateway, clear = sinks
    port = free_port()
    settings = {"verdict.socketmap_listen": f'"127.0.0.1:{port}"', "cache.negative_ttl": '"1s"'}
    maps = f"socketmap:inet:127.0.0.1:{port}"
    main = {
        "transport_maps": f"{maps}:encrypt",
        "default_transport": f"smtp:[127.0.0.1]:{clear.port}",
        "smtpd_milters": "",
        "transport_retry_time": "1s",
    }
    answers = {"alice@partner.example": key(ALICE.octets), "unknown@partner.example": reply(500)}
    config = POLICIES.format(gateway=gateway.port)
    async with Scripted(answers) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings, config=config) as service:
            postfix = Postfix(1, settings=main)
            with (postfix.directory / "master.cf").open("a") as master:
                master.write("encrypting unix - - n - - smtp\n")
            with postfix:
                await asyncio.to_thread(_routed, postfix, gateway, clear, maps)
                assert any('"face": "socketmap", "policy": "encrypt"' in line for line in service.log), service.log
                await upstream.stop()
                assert (await asyncio.to_thread(query, postfix, f"{maps}:encrypt", "new@partner.example"))[0] == 1
                found = await asyncio.to_thread(query, postfix, f"{maps}:open", "new@partner.example")
                assert found[:2] == (1, "")
                assert "TEMP" not in found[2]
                known = await asyncio.to_thread(query, postfix, f"{maps}:open", "alice@partner.example")
                assert known[:2] == (0, "to-openpgp:partner.example")
                assert service.stop() == 0
                await asyncio.to_thread(_deferred, postfix, gateway, clear, maps)


def test_over_a_unix_socket(tmp_path: Path, sinks: tuple[Sink, Sink]) -> None:
    """As `postmap` and a running Postfix, under its own user, reach it."""
    gateway, clear = sinks
    folder = Path(tempfile.mkdtemp(prefix="map-"))  # tmp_path is root's alone
    folder.chmod(0o755)
    table = f"socketmap:unix:{folder}/map.sock:encrypt"
    settings = {
        "verdict.socketmap_listen": f'"unix:{folder}/map.sock"',
        "policy.internal_domains": '["partner.example"]',
    }
    (tmp_path / "alice.asc").write_text(ALICE.armored)
    main = {
        "transport_maps": table,
        "default_transport": f"smtp:[127.0.0.1]:{clear.port}",
        "smtpd_milters": "",
    }
    try:
        config = POLICIES.format(gateway=gateway.port).replace("encrypting:", "smtp:")
        with Service(tmp_path, settings=settings, config=config) as service:
            service.cli("cache", "import", str(tmp_path / "alice.asc"))
            with Postfix(1, settings=main) as postfix:
                found = query(postfix, table, "alice@partner.example")
                assert found[:2] == (0, f"smtp:[127.0.0.1]:{gateway.port}")
                for who in ("alice", "nobody"):
                    postfix.send("plain", MAIL, "me@here.example", f"{who}@partner.example")
                until(lambda: gateway.recipients() and clear.recipients(), postfix)
                assert gateway.recipients() == ["alice@partner.example"]
                assert clear.recipients() == ["nobody@partner.example"]
    finally:
        shutil.rmtree(folder)


def query(postfix: Postfix, table: str, key: str) -> tuple[int, str, str]:
    """`postmap -q`: exit code, value, complaints."""
    command = ["postmap", "-c", str(postfix.directory), "-q", key, table]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout.strip(), done.stderr


def refusal(postfix: Postfix, recipient: str) -> tuple[int, str]:
    """What a client that speaks SMTP is told of a recipient."""
    with smtplib.SMTP(*postfix.ports["plain"], timeout=30) as client:
        client.ehlo("client.example")
        client.mail("me@here.example")
        code, said = client.rcpt(recipient)
        return code, said.decode()


def submit(postfix: Postfix, recipient: str) -> None:
    """A mail that this machine itself sends: sendmail(1)."""
    command = ["/usr/sbin/sendmail", "-C", str(postfix.directory), "-f", "me@here.example", recipient]
    subprocess.run(command, input=MAIL.replace(b"\r\n", b"\n"), check=True, timeout=30, capture_output=True)


def _routed(postfix: Postfix, gateway: Sink, clear: Sink, maps: str) -> None:
    table = f"{maps}:encrypt"
    assert query(postfix, table, "alice@partner.example")[:2] == (0, f"encrypting:[127.0.0.1]:{gateway.port}")
    assert query(postfix, table, "nobody@partner.example") == (1, "", "")
    assert query(postfix, table, "partner.example") == (1, "", "")
    code, value, complaint = query(postfix, table, "unknown@partner.example")
    assert (code, value) == (1, "")
    assert re.search(r"temporary error: \S+: it answered 500", complaint), complaint
    assert query(postfix, f"{maps}:elsewhere", "alice@partner.example")[0] == 1
    for who in ("alice", "nobody"):
        postfix.send("plain", MAIL, "me@here.example", f"{who}@partner.example")
    assert refusal(postfix, "unknown@partner.example")[0] == 451, "whoever sends it keeps it"
    assert query(postfix, table, "a@must.example")[:2] == (0, "error:5.7.1 must.example takes encrypted mail only")
    code, said = refusal(postfix, "a@must.example")
    assert (code, "must.example takes encrypted mail only" in said) == (550, True), said
    submit(postfix, "unknown@partner.example")
    until(lambda: gateway.recipients() and clear.recipients() and waiting(postfix), postfix)
    assert gateway.recipients() == ["alice@partner.example"]
    assert clear.recipients() == ["nobody@partner.example"]
    assert list(waiting(postfix)) == ["unknown@partner.example"]


def _deferred(postfix: Postfix, gateway: Sink, clear: Sink, maps: str) -> None:
    """Without the service nobody's mail leaves, whatever the setting."""
    for table in ("encrypt", "open"):
        code, value, complaint = query(postfix, f"{maps}:{table}", "alice@partner.example")
        assert (code, value) == (1, "")
        assert "Connection refused" in complaint
    assert refusal(postfix, "new@partner.example")[0] == 451
    submit(postfix, "alice@partner.example")
    until(lambda: "alice@partner.example" in waiting(postfix), postfix)
    assert gateway.recipients() == ["alice@partner.example"], "the first one only"
    assert clear.recipients() == ["nobody@partner.example"]
