"""What strangers' words become in what we write: trailers in mail, invitations, streams of events, indexes."""

from __future__ import annotations

import binascii
import email
import email.policy
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from urllib.parse import unquote

from fuzz.mail import WORDS
from fuzz.mutators import lines, of_fields
from fuzz.target import NOW, Target, joined, parts
from keyserver import display
from keyserver.admin.api.streams import framed, line
from keyserver.admin.masking import masked
from keyserver.invite.composing import Envelope, compose
from keyserver.invite.problem import NotInvited
from keyserver.invite.tokens import Token
from keyserver.invite.wording import Request
from keyserver.mailflow.trailer import untouchable, with_trailer
from keyserver.model import Certificate, Kind, Proof
from keyserver.openpgp import clean
from keyserver.query import parse_address
from keyserver.wire import hkp, hkp2, mime
from support.openpgp import make
from support.x509 import Issued, authority, person

URL = "https://optin.here.example/"
HEAD = b"From: Bob <bob@here.example>\r\nMIME-Version: 1.0\r\n"
FIELDS = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"}
ADDRESS = re.compile(r"""(?<![^\s<>()\[\],;:"])[A-Za-z0-9._+-]+@[A-Za-z0-9]""")
CONTENT = {"Content-Type", "Content-Transfer-Encoding", "Content-Disposition"}


def add_trailer(octets: bytes) -> None:
    """Every octet of a body stays, what is added says the same in each transfer encoding, and it is added once."""
    (head,), body = parts(octets, 1)
    fields = mime.read_fields(HEAD + head + b"\r\n")
    if untouchable(fields):
        return
    made = with_trailer(fields, body, URL)
    if made is None:
        return
    assert made.startswith(body) and made.isascii() == body.isascii()
    quoted = b"quoted-printable" in fields.first("content-transfer-encoding").lower()
    before, after = (binascii.a2b_qp(text) if quoted else text for text in (body, made))
    assert after.startswith(before.rstrip(b"\r\n")) and after.endswith(f"\r\n{URL}\r\n".encode())
    added = after[len(before) :].lstrip(b"\r\n")
    assert added.removeprefix(b"-- \r\n").startswith(b"An encryption certificate")
    assert b"\r\n-- \r\n" in b"\r\n" + after, "no signature"
    assert with_trailer(fields, made, URL) is None, "twice"


@cache
def invited() -> Issued:
    """Whose certificate mail is encrypted to."""
    return person("alice@example.org", authority())


def write_invitation(octets: bytes) -> None:
    """Whoever is invited, it is one mail to that address, and no field is there that we did not write."""
    address = parse_address(octets.decode("utf-8", "surrogateescape"))
    if address is None:
        return
    token = Token(b"\1" * 32)
    request = Request(address, invited().fingerprint, Kind.X509, URL, token, NOW)
    try:
        mail = compose(Envelope("0" * 32, "keys@here.example", NOW), request, invited().der)
    except NotInvited:
        return
    assert mail.recipient == address
    read = email.message_from_string(mail.octets.decode(), policy=email.policy.SMTPUTF8)
    assert sorted(read.keys()) == sorted(set(read.keys())) and set(read.keys()) <= FIELDS | CONTENT, read.keys()
    assert not read.defects and read["From"].addresses[0].addr_spec == "keys@here.example"
    (to,) = read["To"].addresses
    assert parse_address(to.addr_spec) == address
    assert all(len(row) <= 998 for row in mail.octets.split(b"\r\n"))


def write_events(octets: bytes) -> None:
    """No text ends an event or a line, or is more than data; what is masked has no address in it."""
    text = octets.decode("utf-8", "surrogateescape")
    rows = framed(text, "told", 7).decode("utf-8").split("\n")
    assert rows[:2] == ["id: 7", "event: told"] and rows[-2:] == ["", ""]
    assert all(row.startswith("data: ") and "\r" not in row for row in rows[2:-2])
    assert "\n".join(row.removeprefix("data: ") for row in rows[2:-2]) == (
        text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    )
    written = line({"text": text, text: [text]})
    assert written.count(b"\n") == 1 and written.endswith(b"\n")
    assert json.loads(written)["text"] == text.encode("utf-8", "replace").decode() or text == "text"
    once = masked(text, lambda _: "#0")
    assert not ADDRESS.search(str(once)), once
    address = parse_address(text)
    assert address is None or (hidden := str(once)).startswith("#0@") or "@" not in hidden, hidden


@cache
def proof() -> Proof:
    """An ordinary one, whose user IDs may be replaced."""
    (found,) = clean(make(seed="fuzz").octets, NOW)
    assert isinstance(found, Certificate)
    return found.proof


def write_index(octets: bytes) -> None:
    """Each user ID is one field of one line, and is read again as it was."""
    text = octets.decode("utf-8", "surrogateescape")
    named = replace(proof(), user_ids=(replace(proof().user_ids[0], text=text),))
    shown = text.encode("utf-8", "replace").decode()
    rows = hkp.write_index([named], NOW).split("\n")
    if not text:
        assert rows == ["info:1:0", ""]
        return
    assert rows[0] == "info:1:1" and rows[-1] == "" and len(rows) == 4
    word, field, *rest = rows[2].split(":")
    assert word == "uid" and len(rest) == 3 and field.isascii() and field.isprintable()
    assert unquote(field) == shown
    ((only,),) = [one["userIDs"] for one in json.loads(hkp2.write_index([named]))]
    assert only["uidString"] == shown
    readable = display.readable(text)
    assert len(readable) <= display.MAX_SHOWN + 1
    assert all(character.isprintable() or unicodedata.category(character) == "Zs" for character in readable)


def trailed() -> Iterator[bytes]:
    """Plain and quoted-printable, with a signature and without."""
    typed = b"Content-Type: text/plain; charset=utf-8\r\n"
    quoted = typed + b"Content-Transfer-Encoding: quoted-printable\r\n"
    for body in (b"Hello\r\n", b"Hello\r\n-- \r\nBob\r\n", b"Hello=\r\n", b"a=20=\r\nb\r\n--=20\r\nBob", b"\xc3\xa4"):
        yield from (joined(head, rest=body) for head in (b"", typed, quoted))


def addresses() -> Iterable[bytes]:
    """Ordinary ones, quoted ones, and what looks like something else."""
    some = ("alice@example.org", '"a b"@example.org', "=?utf-8?q?x?=@example.org", "ä.b@bücher.example", '"a\\"b"@x.y')
    return [address.encode() for address in (*some, '"."@example.org', "a,b@example.org", "a..b.@example.org")]


def texts() -> Iterable[bytes]:
    """User IDs, and what could end a line."""
    some = (
        "Alice (x: y) <alice@example.org>",
        "a\r\ndata: b\r\rid: 1\n\nevent: c",
        "100% <ä@ü.example>",
        '"a b"@c.d, e@f',
    )
    return [text.encode() for text in some]


TARGETS = {
    "mail-trailer": Target(
        add_trailer, trailed, 2048, of_fields(lines, lines), (*WORDS, b"--=20\r\n", b"-- \r\n", b"=\r\n")
    ),
    "invitation": Target(write_invitation, addresses, 400, words=(b"=?utf-8?q?", b"?=", b"@example.org", b'"')),
    "event-stream": Target(write_events, texts, 1024, words=(b"\r\n", b"data: ", b"id: ", b"@", b"\xe2\x80\xa8")),
    "hkp-index": Target(write_index, texts, 512, words=(b"%25", b"%3a", b":", b"\n", b"uid:", b"\xc2\x85")),
}
