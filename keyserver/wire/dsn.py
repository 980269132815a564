"""Delivery status notifications: a mail server says which mail could not be delivered (RFC 3462, RFC 3464).

Whoever likes can send one: what it says is worth as much as the Message-ID that it names is hard to guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyserver.model import Malformed
from keyserver.wire import mime

MAX_STATUS = 64 << 10  # octets of the machine-readable part
MAX_RECIPIENTS = 20  # groups of fields in it that are read
MAX_TEXT = 300  # characters of a diagnostic that are kept
_STATUS_TYPES = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES = ("text/rfc822-headers", "message/rfc822", "message/global-headers", "message/global")
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}>")
_STATUS_CODE = re.compile(r"5\.[0-9]{1,3}\.[0-9]{1,3}")
_MAX_IDS = 20


@dataclass(frozen=True, slots=True)
class Failure:
    """A mail that came back. `ids`: its Message-ID, with brackets; where nothing came back of it, those referred to."""

    ids: tuple[str, ...]
    why: str  # status and diagnostic, printable, bounded; written by strangers


def is_report(fields: mime.Fields) -> bool:
    """Do header fields announce a report on a mail's delivery?"""
    kind, parameters = mime.content_type(fields.first("content-type"))
    return kind == "multipart/report" and parameters.get("report-type", "").lower() == "delivery-status"


def failure(message: mime.Message) -> Failure | None:
    """What a notification says of a mail that was not delivered to one of its recipients, for good; None for all else.

    The sender of such a mail is nobody (RFC 3464 section 2): who calls has seen to that."""
    if not is_report(message.root.fields):
        return None
    parts = message.root.parts
    reports = [part for part in parts if part.type in _STATUS_TYPES]
    if len(reports) != 1:
        return None
    try:
        why = _failed(message.decoded(reports[0], MAX_STATUS))
        returned = [_own_id(message, part) for part in parts if part.type in _RETURNED_TYPES]
    except Malformed:
        return None
    if why is None:
        return None
    named = [value for name in ("references", "in-reply-to") for value in message.root.fields.all(name)]
    answered = [found for value in named for found in _MESSAGE_ID.findall(value[:10_000])]
    ids = list(filter(None, returned)) or answered[:_MAX_IDS]
    return Failure(tuple(dict.fromkeys(one.decode("ascii") for one in ids)), why)


def _own_id(message: mime.Message, part: mime.Part) -> bytes:
    """The Message-ID in the headers that came back."""
    octets = message.octets[part.body : min(part.end, part.body + mime.MAX_HEADERS)]
    if part.fields.first("content-transfer-encoding"):
        octets = mime.decode(
            memoryview(message.octets)[part.body : part.end],
            part.fields.first("content-transfer-encoding"),
            mime.MAX_MESSAGE,
        )[: mime.MAX_HEADERS]
    end = mime.header_end(octets, 0, len(octets))
    found = _MESSAGE_ID.match(mime.read_fields(octets[:end]).first("message-id").strip())
    return found[0] if found else b""


def _failed(octets: bytes) -> str | None:
    """Status and diagnostic of the first recipient whose mail has failed (section 2.3); None where none has."""
    groups = re.split(rb"\r?\n\r?\n", octets.strip(), maxsplit=MAX_RECIPIENTS)[1 : MAX_RECIPIENTS + 1]
    for group in groups:
        fields = mime.read_fields(group)
        if fields.first("action").partition(b"(")[0].strip().lower() != b"failed":
            continue
        status = _STATUS_CODE.search(fields.first("status").decode("latin-1"))
        kind, semicolon, said = fields.first("diagnostic-code").partition(b";")
        text = _clean(said if semicolon else kind)
        return " ".join(filter(None, [status[0] if status else "", text])) or "no reason given"
    return None


def _clean(octets: bytes) -> str:
    text = octets[: 4 * MAX_TEXT].decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:MAX_TEXT]
