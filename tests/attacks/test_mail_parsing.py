"""Odd mail that must be read, and mail that lies about who it is from: one address, or nobody."""

from __future__ import annotations

import time
from email import message_from_bytes, policy
from email.utils import getaddresses
from pathlib import Path

import pytest

from keyserver.mailflow.harvest import look
from keyserver.mailflow.verdict import Envelope, Mail, Rules, Way
from keyserver.model import Malformed
from keyserver.wire.mailbox import one_mailbox
from mails import attached_key, crlf, head, multipart
from vectors.build import make

MAILS = sorted((Path(__file__).parents[1] / "vectors" / "mail").glob("*.eml"))
KEY = make(["Alice <alice@partner.example>"], seed="parsing").octets
FORGERIES = [
    "boss@partner.example <eve@evil.example>",
    "boss@partner.example, Eve <eve@evil.example>",
    "Eve <eve@evil.example>, boss@partner.example",
    "<boss@partner.example> <eve@evil.example>",
    "boss@partner.example:<eve@evil.example>",
    "boss@partner.example\t<eve@evil.example>",
    "Boss boss@partner.example <eve@evil.example>",
    "(x) boss @ (y) partner.example <eve@evil.example>",
    "=?utf-8?q?x?=, boss@partner.example <eve@evil.example>",
    "@evil.example:boss@partner.example",
    "<@evil.example:boss@partner.example>",
    "boss@partner.example\x00 <eve@evil.example>",
]


@pytest.mark.parametrize("file", MAILS, ids=lambda f: f.stem)
def test_mail_that_other_software_reads(file: Path) -> None:
    seen = look(Mail(Envelope(Way.FILE), file.read_bytes()), Rules(), int(time.time()))
    assert seen.sender == "alice@partner.example"
    assert len(seen.candidates) == 1, seen.remarks


@pytest.mark.parametrize("value", FORGERIES)
def test_a_name_borrows_nobodys_address(value: str) -> None:
    with pytest.raises(Malformed):
        one_mailbox([value.encode()])


@pytest.mark.parametrize(
    "value",
    [
        "Lee, Ann <ann@example.org>",
        "ann@example.org <ann@example.org>",
        "A: B <ann@example.org>",
        "Ann @ Work <ann@example.org>",
    ],
)
def test_what_is_read_is_what_the_last_brackets_say(value: str) -> None:
    """Beside Python's two parsers: none of them finds another address that could be somebody's."""
    address = one_mailbox([value.encode()])
    lenient = [a for _, a in getaddresses([value]) if "." in a.partition("@")[2]]
    modern = message_from_bytes(f"From: {value}\n\n".encode(), policy=policy.default)["from"].addresses
    others = {a.lower() for a in (*lenient, *(m.addr_spec for m in modern if "." in m.domain))}
    assert others <= {address}


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Type: application/octet-stream; name=key.asc",
        'Content-Type: application/octet-stream\nContent-Disposition: attachment; filename="KEY.ASC"',
        "Content-Type: application/octet-stream\nContent-Disposition: attachment; filename*0=ke; filename*1=y.asc",
        "Content-Type: application/octet-stream\nContent-Disposition: attachment; filename*=utf-8''k%65y.asc",
        "Content-Type: application/octet-stream; name=key.gpg",
    ],
)
def test_a_key_by_the_name_of_its_file(fields: str) -> None:
    part = attached_key(KEY).replace(b"Content-Type: application/pgp-keys", fields.encode())
    assert fields.encode() in part
    seen = look(
        Mail(Envelope(Way.FILE), crlf(head("alice@partner.example") + multipart(part))), Rules(), int(time.time())
    )
    assert len(seen.candidates) == 1, seen.remarks


def test_ten_thousand_pieces_of_a_parameter_cost_little() -> None:
    pieces = "; ".join(f"boundary*{n}=x" for n in range(10_000))
    mail = head("alice@partner.example") + f"Content-Type: multipart/mixed; {pieces}\n\n--x\n".encode()
    began = time.process_time()
    look(Mail(Envelope(Way.FILE), crlf(mail)), Rules(), int(time.time()))
    assert time.process_time() - began < 1
