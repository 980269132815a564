"""Delivery status notifications as mail servers write them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.wire import dsn, mime
from keyserver.wire.dsn import Failure
from support.mails import crlf

ID = "<00112233445566778899aabbccddeeff.invitation@here.example>"
OTHER = "<1@mail.example>"
STATUS = """Reporting-MTA: dns; mx.partner.example
Arrival-Date: Sat, 28 Nov 2026 18:00:00 +0000

Final-Recipient: rfc822; alice@partner.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <alice@partner.example>:
    user unknown
"""
RETURNED = f"From: keys@here.example\nMessage-ID: {ID}\nSubject: Encrypted message\n"


def notification(
    status: str = STATUS,
    returned: str = RETURNED,
    kind: str = 'multipart/report; report-type=delivery-status; boundary="b"',
    status_type: str = "message/delivery-status",
    returned_type: str = "text/rfc822-headers",
    fields: str = "",
) -> bytes:
    """As Postfix has it (RFC 3464)."""
    parts = ["Content-Type: text/plain\n\nIt could not be delivered.\n", f"Content-Type: {status_type}\n\n{status}"]
    parts += [f"Content-Type: {returned_type}\n\n{returned}"] if returned else []
    body = "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
    head = f"From: MAILER-DAEMON@mx.partner.example\nMIME-Version: 1.0\n{fields}Content-Type: {kind}\n\n"
    return crlf((head + body).encode())


def failure(octets: bytes) -> Failure | None:
    return dsn.failure(mime.parse(octets))


def test_which_mail_has_come_back_and_why() -> None:
    assert failure(notification()) == Failure((ID,), "5.1.1 550 5.1.1 <alice@partner.example>: user unknown")
    assert failure(notification().replace(b"\r\n", b"\n")) == failure(notification())


def test_the_whole_mail_may_come_back() -> None:
    whole = RETURNED + f"\nHello\n\nMessage-ID: {OTHER}\n"
    for kind in ("message/rfc822", "message/global"):
        found = failure(notification(returned=whole, returned_type=kind, status_type="message/global-delivery-status"))
        assert found is not None
        assert found.ids == (ID,)
    encoded = notification(
        returned="TWVzc2FnZS1JRDogPDFAbWFpbC5leGFtcGxlPgoK",
        returned_type="text/rfc822-headers\nContent-Transfer-Encoding: base64",
    )
    found = failure(encoded)
    assert found is not None
    assert found.ids == (OTHER,)


def test_where_nothing_comes_back_its_references_count() -> None:
    found = failure(notification(returned="", fields=f"References: {OTHER}\n {ID}\nIn-Reply-To: {ID}\n"))
    assert found is not None
    assert found.ids == (OTHER, ID)
    found = failure(notification(returned=f"Message-ID: {OTHER}\n", fields=f"References: {ID}\n"))
    assert found is not None
    assert found.ids == (OTHER,), "a reply to ours has come back, not ours"


def test_one_recipient_of_several() -> None:
    delayed = "Final-Recipient: rfc822; x@y.example\nAction: delayed\nStatus: 4.4.1\n\n"
    head, _, group = STATUS.partition("\n\n")
    found = failure(notification(f"{head}\n\n{delayed}{group}"))
    assert found is not None
    assert found.why.startswith("5.1.1 ")


@pytest.mark.parametrize(
    "octets",
    [
        notification(STATUS.replace("failed", "delayed")),
        notification(STATUS.replace("failed", "delivered")),
        notification(STATUS.replace("failed", "relayed")),
        notification(STATUS.replace("\n\n", "\n")),
        notification(""),
        notification(kind='multipart/mixed; boundary="b"'),
        notification(kind='multipart/report; report-type=disposition-notification; boundary="b"'),
        notification(kind='multipart/report; boundary="b"'),
        notification(kind='multipart/report; report-type=delivery-status; boundary=""'),
        notification(status_type="text/plain"),
        notification(returned_type="message/delivery-status"),
        notification(status="x" * (dsn.MAX_STATUS + 1) + STATUS),
        b"",
    ],
)
def test_what_is_no_failure(octets: bytes) -> None:
    assert failure(octets) is None


def test_the_reason_is_a_line_for_people() -> None:
    hostile = "\x1b[31m\x00\u202e" + "x" * 5000
    found = failure(notification(STATUS.replace("user unknown", hostile)))
    assert found is not None
    assert len(found.why) <= dsn.MAX_TEXT + 20
    assert found.why.isprintable()
    bare = failure(notification("x: y\n\nAction: Failed (by local policy)\n"))
    assert bare is not None
    assert bare.why == "no reason given"


def test_message_ids_are_bounded_words() -> None:
    for text in ("<a b>", "a@b.example", f"<{'x' * 251}@b>", "<>", "<\u00e4@b>"):
        found = failure(notification(returned=f"Message-ID: {text}\n"))
        assert found is not None
        assert found.ids == ()


@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(0, 900))
def test_never_raises(some: bytes, more: bytes, at: int) -> None:
    octets = notification()
    failure(octets[:at] + some + octets[at:] + more)
    failure(octets[:at] + some)
