"""`keyserver invite` with the real service, a real Postfix as its relay, and gpg as the owner."""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ports import free_port
from support.postfix import Postfix
from support.running import Gpg, Service
from support.tls import Authority

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")

ME = "me@here.example"


@pytest.fixture
def postfix(tmp_path: Path) -> Iterator[Postfix]:
    """It offers STARTTLS."""
    issued = Authority(tmp_path / "tls").issue()
    settings = {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(issued.certificate),
        "smtpd_tls_key_file": str(issued.key),
    }
    with Postfix(free_port(), free_port(), settings) as running:
        yield running


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Gpg]:
    with Gpg(tmp_path / "gpg") as gpg:
        words = ("--pinentry-mode", "loopback", "--passphrase", "")
        gpg.run(*words, "--quick-generate-key", f"Me <{ME}>", "default", "default")
        gpg.run("--armor", "--output", str(tmp_path / "me.asc"), "--export", ME)
        yield gpg


def invite_settings(postfix: Postfix, tls: Path) -> dict[str, str]:
    port = postfix.ports["plain"][1]
    return {
        "invite.public_url": '"https://optin.example.net"',
        "invite.smtp": f'"smtp://localhost:{port}"',
        "invite.smtp_ca_file": f'"{tls}"',
        "invite.sender": '"keys@here.example"',
    }


def test_an_invitation_arrives_and_only_its_owner_reads_it(tmp_path: Path, postfix: Postfix, owner: Gpg) -> None:
    settings = invite_settings(postfix, tmp_path / "tls" / "test-ca.pem")
    with Service(tmp_path, settings=settings) as service:
        service.cli("cache", "import", str(tmp_path / "me.asc"))
        said = service.cli("invite", ME)
        assert f"invited {ME} about" in said
        (octets,) = postfix.wait(1)
        (row,) = json.loads(service.cli("invitations", "--json"))["invitations"]
        assert (row["address"], row["stage"], row["fingerprint"]) == (ME, "sent", owner.fingerprints().pop())
        assert "sent" in service.cli("invitations")
        assert "within the last day" in service.cli("invite", ME, code=None)
    received = email.message_from_bytes(octets, policy=email.policy.default)
    assert f"<{row['id']}.invitation@here.example>" == received["Message-ID"]
    assert "ESMTPS" in received["Received"], "Postfix got it encrypted"
    assert b"optin.example.net" not in octets
    encrypted = tmp_path / "encrypted.asc"
    encrypted.write_text(received.get_payload(1).get_payload())  # type: ignore[union-attr, arg-type]
    owner.run("--output", str(tmp_path / "text"), "--decrypt", str(encrypted))
    text = (tmp_path / "text").read_text()
    (confirm,) = re.findall(r"^https://optin\.example\.net/confirm/([A-Za-z0-9_-]{43})\r?$", text, re.MULTILINE)
    (withdraw,) = re.findall(r"^https://optin\.example\.net/withdraw/([A-Za-z0-9_-]{43})\r?$", text, re.MULTILINE)
    assert confirm != withdraw
    assert not any(secret in line for secret in (confirm, withdraw) for line in service.log)


def test_a_relay_without_tls_gets_nothing(tmp_path: Path, postfix: Postfix, owner: Gpg) -> None:
    settings = invite_settings(postfix, tmp_path / "tls" / "test-ca.pem")
    with (
        Postfix(free_port(), free_port()) as plain,
        Service(
            tmp_path, settings=settings | {"invite.smtp": f'"smtp://localhost:{plain.ports["plain"][1]}"'}
        ) as service,
    ):
        service.cli("cache", "import", str(tmp_path / "me.asc"))
        assert "offers no STARTTLS" in service.cli("invite", ME, code=None)
        assert json.loads(service.cli("invitations", "--json"))["invitations"][0]["stage"] == "failed"
        assert not plain.mailbox()
