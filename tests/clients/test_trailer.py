"""The trailer with a real Postfix: who gets it, and that all other mail arrives octet by octet as it was sent."""

from __future__ import annotations

import binascii
import os
import quopri
import subprocess
from collections.abc import Iterator

import pytest

from support.mails import crlf, signed, text
from support.ports import free_port
from support.postfix import Postfix
from support.running import Service
from support.x509 import authority, person

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")

CA = authority()
ALICE = "alice@partner.example"
URL = "https://optin.here.example/"
LINES = (
    b"An encryption certificate for your address is known here. How to confirm that\n"
    b"it is yours, so that mail to you can be encrypted with it:\n"
    b"https://optin.here.example/\n"
)


@pytest.fixture(scope="module")
def postfix_() -> Iterator[Postfix]:
    milter = free_port()
    settings = {
        "virtual_mailbox_domains": "here.example partner.example",
        "virtual_mailbox_maps": "inline:{me@here.example=me/, alice@partner.example=alice/,"
        " dave@partner.example=dave/}",
        "non_smtpd_milters": f"inet:127.0.0.1:{milter}",
    }
    with Postfix(milter, settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, postfix_: Postfix) -> Iterator[Service]:
    """A service that has seen a signed mail of Alice's, and nothing of Dave."""
    folder = tmp_path_factory.mktemp("trailer")
    (folder / "ca.pem").write_bytes(CA.pem)
    settings = {
        "invite.trailer_listen": f'"127.0.0.1:{postfix_.milter}"',
        "invite.public_url": f'"{URL}"',
        "mailflow.outbound_networks": '["127.0.0.0/8"]',
        "policy.internal_domains": '["here.example"]',
        "smime.trust_anchors": f'"{folder / "ca.pem"}"',
    }
    with Service(folder, settings=settings) as running:
        for address in (ALICE, "me@here.example"):
            (folder / "mail.eml").write_bytes(signed(text(), person(address, CA), sender=address))
            running.cli("harvest", str(folder / "mail.eml"))
        yield running


@pytest.fixture
def postfix(postfix_: Postfix, made: Service) -> Postfix:
    assert any(line.startswith("ready trailer inet:127.0.0.1:") for line in made.ready)
    postfix_.empty()
    return postfix_


def mail(body: bytes, *lines: str) -> bytes:
    head = "".join(f"{line}\n" for line in ("From: Bob <bob@here.example>", "Subject: x", "Message-ID: <1@x>", *lines))
    return crlf(head.encode() + b"\n" + body)


def arrived(postfix: Postfix, octets: bytes, recipient: str = ALICE) -> bytes:
    """The body that the recipient gets, line ends as in files."""
    name = recipient.partition("@")[0]
    postfix.empty()
    postfix.send("outbound", octets, "bob@here.example", recipient)
    return postfix.wait(1, name)[0].partition(b"\n\n")[2]


TYPED = ("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8")
EIGHT = (*TYPED, "Content-Transfer-Encoding: 8bit")
QUOTED = (*TYPED, "Content-Transfer-Encoding: quoted-printable")


def test_plain_text_gets_the_lines(postfix: Postfix) -> None:
    body = "Grüße\n.\n..\nFrom here\n\nBob\n".encode()
    assert arrived(postfix, mail(b"Hello\n")) == b"Hello\n-- \n" + LINES
    assert arrived(postfix, mail(body, *EIGHT)) == body + b"-- \n" + LINES
    assert arrived(postfix, mail(body + b"-- \nBob\n", *EIGHT)) == body + b"-- \nBob\n\n" + LINES
    long = b"0123456789abcdef" * 4 + b"\n"
    assert arrived(postfix, mail(long * 3000)) == long * 3000 + b"-- \n" + LINES


def test_quoted_printable_stays_well_formed(postfix: Postfix) -> None:
    plain = ("Grüße = " * 30 + "\n").encode()
    body = quopri.encodestring(plain)
    got = arrived(postfix, mail(body, *QUOTED))
    assert got.startswith(body)
    assert binascii.a2b_qp(got) == plain + b"-- \n" + LINES
    assert all(len(line) <= 76 for line in got.split(b"\n"))


OTHERS = {
    "multipart": mail(b"--b\n\nHi\n--b--\n", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b"),
    "signed": mail(
        b"--b\n\nHi\n--b\nContent-Type: application/pgp-signature\n\nx\n--b--\n",
        "MIME-Version: 1.0",
        'Content-Type: multipart/signed; boundary=b; protocol="application/pgp-signature"; micalg=pgp-sha256',
    ),
    "encrypted": mail(
        b"--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b--\n",
        "MIME-Version: 1.0",
        'Content-Type: multipart/encrypted; boundary=b; protocol="application/pgp-encrypted"',
    ),
    "inline encrypted": mail(b"-----BEGIN PGP MESSAGE-----\n\nx\n-----END PGP MESSAGE-----\n"),
    "inline signed": mail(b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n-----BEGIN PGP SIGNATURE-----\n"),
    "base64": mail(b"SGVsbG8K\n", *TYPED, "Content-Transfer-Encoding: base64"),
    "s/mime": mail(
        b"MIIB\n", "MIME-Version: 1.0", "Content-Type: application/pkcs7-mime", "Content-Transfer-Encoding: base64"
    ),
    "html": mail(b"<p>Hi</p>\n", "MIME-Version: 1.0", "Content-Type: text/html"),
    "dkim": mail(b"Hi\n", "DKIM-Signature: v=1; a=rsa-sha256; d=here.example; s=x; bh=x; b=x"),
}


@pytest.mark.parametrize("octets", OTHERS.values(), ids=OTHERS.keys())
def test_all_else_arrives_as_it_was_sent(postfix: Postfix, octets: bytes) -> None:
    assert arrived(postfix, octets) == octets.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    assert arrived(postfix, mail(b"Hello\n")) != b"Hello\n", "it works meanwhile"


def test_internal_and_unknown_recipients_get_none(postfix: Postfix) -> None:
    assert arrived(postfix, mail(b"Hello\n"), "me@here.example") == b"Hello\n"
    assert arrived(postfix, mail(b"Hello\n"), "dave@partner.example") == b"Hello\n"


def test_mail_by_the_sendmail_command_has_no_smtp_client_and_gets_them_as_well(postfix: Postfix) -> None:
    command = ["sendmail", "-C", str(postfix.directory), "-f", "bob@here.example", ALICE]
    subprocess.run(command, input=mail(b"Hello\n").replace(b"\r\n", b"\n"), check=True, timeout=30)
    assert postfix.wait(1, "alice")[0].partition(b"\n\n")[2] == b"Hello\n-- \n" + LINES


def test_it_keeps_no_mail_waiting_that_is_not_for_it(postfix: Postfix, made: Service) -> None:
    """An approved certificate needs no trailer; and a service that is gone keeps no mail."""
    made.cli("cache", "approve", ALICE)
    assert arrived(postfix, mail(b"Hello\n")) == b"Hello\n"
    made.kill()
    assert arrived(postfix, mail(b"Hello\n")) == b"Hello\n"
