"""The trailer: which mails get it, and that every other octet stays."""

from __future__ import annotations

import binascii
import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.mailflow.trailer import MAX_BODY, untouchable, with_trailer
from keyserver.wire import mime

URL = "https://optin.here.example/"
PLAIN = b"Subject: x\r\n"
TYPED = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
QUOTED = TYPED + b"Content-Transfer-Encoding: quoted-printable\r\n"


def fields(lines: bytes) -> mime.Fields:
    return mime.read_fields(b"From: Bob <bob@here.example>\r\n" + lines)


def trailed(lines: bytes, body: bytes) -> bytes | None:
    found = fields(lines)
    return None if untouchable(found) else with_trailer(found, body, URL)


def test_plain_text_gets_lines_that_stand_apart_from_what_was_there() -> None:
    made = trailed(PLAIN, b"Hello\r\n\r\nBob\r\n")
    assert made is not None
    assert made.startswith(b"Hello\r\n\r\nBob\r\n-- \r\nAn encryption certificate for your address is known here.")
    assert made.endswith(b"\r\nhttps://optin.here.example/\r\n")
    assert all(len(line) <= 78 and line.isascii() for line in made.decode().split("\r\n"))
    assert made.count(b"\n") == made.count(b"\r\n")


def test_a_signature_that_is_there_is_the_one_that_the_lines_belong_to() -> None:
    made = trailed(PLAIN, b"Hello\r\n-- \r\nBob\r\n")
    assert made is not None
    assert made.startswith(b"Hello\r\n-- \r\nBob\r\n\r\nAn encryption")
    assert made.count(b"-- \r\n") == 1
    quoted = trailed(QUOTED, b"Hello\r\n--=20\r\nBob\r\n")
    assert quoted is not None
    assert quoted.count(b"--=20\r\n") == 1
    assert binascii.a2b_qp(quoted) == made


def test_what_has_no_end_of_line_gets_one() -> None:
    assert (trailed(PLAIN, b"Hello") or b"").startswith(b"Hello\r\n-- \r\nAn")
    assert (trailed(QUOTED, b"Hello=\r\n") or b"").startswith(b"Hello=\r\n\r\n--=20\r\nAn")


def test_flowed_text_flows_as_before_and_its_last_paragraph_ends() -> None:
    """RFC 3676 section 4: a line with a space at its end goes on in the next, but for the signature separator."""
    flowed = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8; format=flowed; delsp=yes\r\n"
    made = trailed(flowed, b"One \r\ntwo \r\n")
    assert made is not None
    last, *rest = made.removeprefix(b"One \r\ntwo \r\n").split(b"\r\n")
    assert last == b"-- "
    assert not any(line.endswith(b" ") or line.startswith((b" ", b">", b"From ")) for line in rest)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "us-ascii", '"iso-8859-15"', "windows-1252", "koi8-r"])
def test_character_sets_in_which_ascii_is_ascii(charset: str) -> None:
    lines = f"MIME-Version: 1.0\r\nContent-Type: text/plain; charset={charset}\r\n".encode()
    assert trailed(lines + b"Content-Transfer-Encoding: 8BIT\r\n", b"h\xe4\r\n") is not None


def typed(value: str, *more: str, version: str = "MIME-Version: 1.0") -> bytes:
    return "".join(f"{line}\r\n" for line in (version, f"Content-Type: {value}", *more) if line).encode()


@pytest.mark.parametrize(
    "lines",
    [
        typed("text/html"),
        typed("text/plain; charset=utf-16"),
        typed("text/plain; charset=iso-2022-jp"),
        typed("text/plain; charset=shift_jis"),
        typed("text/plain; charset=utf-7"),
        typed('multipart/signed; boundary=x; protocol="application/pgp-signature"'),
        typed("multipart/encrypted; boundary=x"),
        typed("multipart/alternative; boundary=x"),
        typed("application/pkcs7-mime"),
        typed("text/plain; name=x.txt"),
        typed("nonsense"),
        typed("text/plain", "Content-Type: text/html"),
        typed("text/plain", version=""),
        typed("text/plain", version="MIME-Version: 2.0"),
        typed("text/plain", "MIME-Version: 1.0"),
        typed("text/plain", "Content-Transfer-Encoding: base64"),
        typed("text/plain", "Content-Transfer-Encoding: binary"),
        typed("text/plain", "Content-Transfer-Encoding: x-uuencode"),
        typed("text/plain", "Content-Transfer-Encoding: 7bit", "Content-Transfer-Encoding: base64"),
        typed("text/plain", "Content-Disposition: attachment; filename=x"),
        typed("text/plain", "Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ=="),
        b"Content-Transfer-Encoding: base64\r\n",
        b"DKIM-Signature: v=1\r\n",
        b"dkim-signature : v=1\r\n",
        b"DomainKey-Signature: a=rsa\r\n",
        b"ARC-Seal: i=1\r\n",
        b"Auto-Submitted: auto-replied\r\n",
        b"List-Id: <x.example>\r\n",
        b"From: Eve <eve@here.example>\r\n",
        b"".join(b"X-%d: y\r\n" % n for n in range(1000)),
    ],
)
def test_mail_that_is_more_than_plain_text_stays_as_it_is(lines: bytes) -> None:
    assert trailed(PLAIN, b"Hello\r\n") is not None
    assert trailed(lines, b"Hello\r\n") is None


@pytest.mark.parametrize(
    ("lines", "body"),
    [
        (PLAIN, b""),
        (PLAIN, b"-----BEGIN PGP MESSAGE-----\r\n"),
        (PLAIN, b"Hi\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n"),
        (QUOTED, b"=2D----BEGIN PGP MESSAGE-----\r\n"),
        (QUOTED, b"-----BEGIN=20PGP=\r\n MESSAGE-----\r\n"),
        (PLAIN, b"Hi\nthere\r\n"),
        (PLAIN, b"Hi\rthere\r\n"),
        (PLAIN, b"Hi\0there\r\n"),
        (PLAIN, b"\x1b$B\r\n"),
        (QUOTED, b"Hi=0Athere\r\n"),
        (PLAIN, b"> https://optin.here.example/\r\n"),
        (QUOTED, b"https://optin.here.=\r\nexample/\r\n"),
        (PLAIN, b"x" * (MAX_BODY + 1)),
    ],
)
def test_bodies_of_which_there_is_doubt_stay_as_they_are(lines: bytes, body: bytes) -> None:
    assert trailed(lines, body) is None


@given(st.binary(max_size=200), st.booleans())
def test_every_octet_of_any_body_stays_and_mailers_read_the_lines(octets: bytes, quoted: bool) -> None:
    body = binascii.b2a_qp(octets, istext=False) if quoted else octets
    body = body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    made = trailed(QUOTED if quoted else TYPED, body)
    if made is None:
        return
    assert made.startswith(body)
    head = b"From: bob@here.example\r\n" + (QUOTED if quoted else TYPED)
    read = email.message_from_bytes(head + b"\r\n" + made, policy=email.policy.SMTP)
    shown = read.get_payload(decode=True)
    assert isinstance(shown, bytes)
    assert shown.endswith(f"so that mail to you can be encrypted with it:\r\n{URL}\r\n".encode())
    assert all(len(line) <= 76 for line in made.removeprefix(body).split(b"\r\n")) or not quoted
