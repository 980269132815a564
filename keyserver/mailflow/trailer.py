"""A few lines at the end of a plain text mail that tell its recipient of a certificate. Pure; in doubt, nothing.

The lines are part of the mail's signature in the sense of RFC 3676 section 4.3 (all below "-- "), which mailers leave
out of replies and never reflow: of the one that the mail has, else of one of their own.
"""

from __future__ import annotations

import binascii
import re

from keyserver.mailflow.direction import ip_of
from keyserver.mailflow.values import Envelope, Rules
from keyserver.model import Malformed
from keyserver.wire import mime
from keyserver.wire.mailbox import one_mailbox

MAX_BODY = 1 << 20  # octets; a larger body is left alone
_TEXT = (
    "An encryption certificate for your address is known here. How to confirm that\r\n"
    "it is yours, so that mail to you can be encrypted with it:\r\n"
)
_CHARSETS = re.compile(r"us-ascii|utf-8|iso-8859-(?:[1-9]|1[0-6])|windows-125[0-8]|koi8-[ru]")
"""Those in which every ASCII octet is that character wherever it stands (not so UTF-16, ISO-2022-JP, Shift_JIS)."""
_SIGNED = frozenset(
    {"dkim-signature", "domainkey-signature", "x-google-dkim-signature", "arc-seal", "arc-message-signature"}
)
_OF_MACHINES = frozenset({"auto-submitted", "list-id", "list-post", "list-unsubscribe", "precedence"})
_CHECKED = frozenset({"content-md5", "content-length"})
_SEPARATOR = re.compile(rb"(?:\A|\r\n)-- \r\n")
_ODD = re.compile(rb"\r(?!\n)|(?<!\r)\n|[\0\x1b]")
"""Lines that end otherwise than mail's; no text, or (RFC 1468) text in which ASCII may come to mean other letters."""
_ARMOR = (b"-----BEGIN PGP", b"-----BEGIN PKCS7", b"-----BEGIN SMIME", b"-----BEGIN CMS")


def is_ours(envelope: Envelope, rules: Rules) -> bool:
    """Was this mail handed in by one of us: a client that authenticated itself, or in `outbound_networks`?

    A From header proves nothing here. What a listener for inbound mail took is not ours, whoever sent it."""
    if (local := ip_of(envelope.local)) is not None and local in rules.inbound_addresses:
        return False
    client = ip_of(envelope.client)
    return bool(envelope.user) or (client is not None and any(client in network for network in rules.outbound_networks))


def untouchable(fields: mime.Fields) -> str:
    """Why a mail with these header fields is left as it is; empty for one plain text that nobody has signed."""
    names = {name for name, _ in fields.pairs}
    if len(fields.pairs) >= mime.MAX_FIELDS:
        return "it has too many header fields"
    if names & _SIGNED:
        return "it is signed"
    if names & _OF_MACHINES:
        return "no person has written it, or it goes to a list"
    if names & _CHECKED:
        return "its header describes its body"
    try:
        one_mailbox(fields.all("from"))
    except Malformed as problem:
        return str(problem)
    return _not_plain(fields)


def _not_plain(fields: mime.Fields) -> str:
    described = {name for name, _ in fields.pairs if name.startswith("content-")}
    if not described:
        return ""
    if [value.strip() for value in fields.all("mime-version")] != [b"1.0"]:
        return "it is not MIME 1.0 (RFC 2045 section 4), though its body is described"
    if any(len(fields.all(name)) > 1 for name in described):
        return "its body is described twice"
    if "content-type" in described:
        kind, parameters = mime.content_type(fields.first("content-type"), "")
        if kind != "text/plain":
            return "it is not plain text"
        if not _CHARSETS.fullmatch(parameters.get("charset", "us-ascii").lower()):
            return "its character set may not be like ASCII"
        if not set(parameters) <= {"charset", "format", "delsp"}:
            return "its Content-Type says more than is understood"
    if fields.first("content-disposition").partition(b";")[0].strip().lower() not in (b"", b"inline"):
        return "it is a file"
    if _encoding(fields) not in ("7bit", "8bit", "quoted-printable"):
        return "its transfer encoding is none of plain text"
    return ""


def _encoding(fields: mime.Fields) -> str:
    return fields.first("content-transfer-encoding").decode("latin-1").strip().lower() or "7bit"


def with_trailer(fields: mime.Fields, body: bytes, url: str) -> bytes | None:
    """The body with its trailer, whose link is `url`; None where it is to stay as it is.

    fields: those of a mail that is not `untouchable`. What stood there before stays, octet by octet."""
    if not body or len(body) > MAX_BODY or _ODD.search(body):
        return None
    quoted = _encoding(fields) == "quoted-printable"
    text = binascii.a2b_qp(body) if quoted else body
    if any(mark in text for mark in _ARMOR) or url.encode() in text or _ODD.search(text):
        return None
    end = b"" if body.endswith(b"\r\n") else b"\r\n"
    if quoted and (body + end).endswith(b"=\r\n"):
        end += b"\r\n"  # the mail ends in the middle of a line
    opening = "\r\n" if _SEPARATOR.search(text) else "-- \r\n"
    lines = f"{opening}{_TEXT}{url}\r\n".encode("ascii")
    return body + end + (binascii.b2a_qp(lines) if quoted else lines)
