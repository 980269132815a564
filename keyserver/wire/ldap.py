"""Messages of LDAPv3, as far as a read-only directory needs them (RFC 4511 section 4.2): octets to values and back.

What is well-formed but over a limit of ours becomes `Excess`, so that the operation can be refused by its own result;
what is no message at all raises Malformed, after which the connection cannot go on (section 4.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from keyserver.ber import long_length
from keyserver.model import Malformed
from keyserver.wire.ber import (
    BOOLEAN,
    ENUMERATED,
    INTEGER,
    OCTETS,
    SEQUENCE,
    SET,
    element,
    expect,
    flag,
    header,
    number,
    octets,
    size,
    truth,
    whole,
)
from keyserver.wire.ldap_filter import Filter, TooMuch, read_filter

MAX_MESSAGE = 64 * 1024  # octets of one request
MAX_ATTRIBUTES = 100
MAX_CONTROLS = 16
MAX_NAME = 1024  # octets of a DN, OID or attribute

PAGED = "1.2.840.113556.1.4.319"  # RFC 2696
START_TLS = "1.3.6.1.4.1.1466.20037"  # RFC 4511 section 4.14
WHO_AM_I = "1.3.6.1.4.1.4203.1.11.3"  # RFC 4532
MANAGE_DSA_IT = "2.16.840.1.113730.3.4.2"  # RFC 3296: there are no references here, so it changes nothing
NOTICE_OF_DISCONNECTION = "1.3.6.1.4.1.1466.20036"  # RFC 4511 section 4.4.1

BIND, UNBIND, SEARCH, ABANDON, EXTENDED = 0x60, 0x42, 0x63, 0x50, 0x77
MODIFY, ADD, DELETE, RENAME, COMPARE = 0x66, 0x68, 0x4A, 0x6C, 0x6E
ENTRY, REFERENCE, DONE, BIND_RESPONSE, EXTENDED_RESPONSE = 0x64, 0x73, 0x65, 0x61, 0x78
GOODBYE = bytes((UNBIND, 0))
"""What stands behind the message ID of an unbind, as everybody sends it."""
RESPONSE = {
    BIND: 0x61,
    SEARCH: 0x65,
    MODIFY: 0x67,
    ADD: 0x69,
    DELETE: 0x6B,
    RENAME: 0x6D,
    COMPARE: 0x6F,
    EXTENDED: 0x78,
}
"""Request tag -> tag of its result. Unbind and abandon have none."""


class Code(IntEnum):
    """Result codes that we send (RFC 4511 appendix A)."""

    SUCCESS = 0
    OPERATIONS_ERROR = 1
    PROTOCOL_ERROR = 2
    TIME_LIMIT = 3
    SIZE_LIMIT = 4
    AUTH_METHOD = 7
    ADMIN_LIMIT = 11
    CRITICAL_EXTENSION = 12
    CONFIDENTIALITY_REQUIRED = 13
    NO_SUCH_OBJECT = 32
    INVALID_DN = 34
    INVALID_CREDENTIALS = 49
    BUSY = 51
    UNAVAILABLE = 52
    UNWILLING = 53
    OTHER = 80


class Scope(IntEnum):
    """How far below its base a search looks; CHILDREN is OpenLDAP's (draft-sermersheim-ldap-subordinate-scope-02)."""

    BASE = 0
    ONE = 1
    SUBTREE = 2
    CHILDREN = 3


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Who the client says it is."""

    version: int
    name: str
    simple: bool
    password: bytes = field(default=b"", repr=False)  # of a simple bind


@dataclass(frozen=True, slots=True)
class UnbindRequest:
    """Goodbye."""


@dataclass(frozen=True, slots=True)
class AbandonRequest:
    """Answer that operation no more."""

    message_id: int


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search; limits of 0 mean none asked. Aliases do not exist here: `derefAliases` is read and forgotten."""

    base: str
    scope: int
    size_limit: int
    time_limit: int  # seconds
    types_only: bool
    filter: Filter
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExtendedRequest:
    """An extended operation."""

    oid: str
    value: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Other:
    """An operation that a read-only directory does not do, by its tag: modify, add, delete, rename, compare."""

    tag: int


@dataclass(frozen=True, slots=True)
class Excess:
    """An operation over a limit of ours, and which limit."""

    tag: int
    reason: str


@dataclass(frozen=True, slots=True)
class Control:
    """A control (RFC 4511 section 4.1.11)."""

    oid: str
    critical: bool = False
    value: bytes | None = field(default=None, repr=False)


Operation: TypeAlias = BindRequest | UnbindRequest | AbandonRequest | SearchRequest | ExtendedRequest | Other | Excess


@dataclass(frozen=True, slots=True)
class Message:
    """One request."""

    id: int
    operation: Operation
    controls: tuple[Control, ...] = ()


class Outline(NamedTuple):
    """The octets of a search that decide what it means; aliases and the time limit are not among them."""

    where: bytes  # base and scope
    size_limit: int
    types_only: bool
    filter: bytes
    attributes: bytes


_SEARCH = bytes((SEARCH,))
_WHOLE = rb"\x02(\x01[\0-\x7f]|\x02[\0-\x7f].|\x03[\0-\x7f]..|\x04[\0-\x7f]...)"
_NUMBERS = re.compile(
    rb"(\x0a\x01.)\x0a\x01[\0-\x7f]" + _WHOLE + _WHOLE.replace(b"(", b"(?:") + rb"\x01\x01(.)", re.DOTALL
)
"""Scope, aliases, size limit, time limit, types only."""


def split(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(start of the message ID element, start of what follows it) of the message at `at`. Raises Malformed.

    What follows the ID is the same octets for the same request, whichever number it has: the key of rendered answers.
    """
    start = _content(data, at)
    if end - start > 6 and data[start] == INTEGER and 0 < data[start + 1] <= 4 and 0 < data[start + 2] < 0x80:
        return start, start + 2 + data[start + 1]  # as everybody writes it
    start, stop = expect(data, at, end, SEQUENCE)
    id_start, id_stop = expect(data, start, stop, INTEGER)
    if not 1 <= id_stop - id_start <= 4 or data[id_start] >= 0x80 or not any(data[id_start:id_stop]):
        raise Malformed("a message ID lies between 1 and 2147483647")
    return start, id_stop


def outline(request: bytes) -> Outline | None:
    """The parts of a SearchRequest without controls, found by their lengths alone: nothing in them is looked at, so
    they mean something only where the same octets have been decoded before. None for anything else, also for what is
    cut off or spelt as nobody does: `decode` judges those."""
    end = len(request)
    if request[:1] != _SEARCH or _stop(request, 0) != end:
        return None
    start = _content(request, 0)
    numbers = _NUMBERS.match(request, _stop(request, start))
    if numbers is None:
        return None
    at = numbers.end()
    middle = _stop(request, at)
    last = _stop(request, middle)
    if not at < middle < last <= end:
        return None
    limit, types_only = numbers.group(2, 3)
    where, size_limit = request[start : numbers.end(1)], int.from_bytes(limit[1:], "big")
    return Outline(where, size_limit, types_only != b"\0", request[at:middle], request[middle:last])


def _stop(data: bytes, at: int) -> int:
    """Where the element at `at` ends by what it claims, which may be anywhere; 0 where it has no header."""
    if at + 2 > len(data):
        return 0
    length = data[at + 1]
    if length < 0x80:
        return at + 2 + length
    try:
        read = long_length(data, at + 1)
    except Malformed:
        return 0
    return 0 if read is None else sum(read)


def _content(data: bytes, at: int) -> int:
    """Where the content of an element begins whose length has been read before."""
    read = long_length(data, at + 1) if data[at + 1] >= 0x80 else None
    return at + 2 if read is None else read[1]


def decode(data: bytes, at: int, end: int) -> Message:
    """The message that fills data[at:end]. Raises Malformed; what it holds beyond the known fields is ignored
    (RFC 4511 section 4: receivers ignore trailing components)."""
    start, stop = expect(data, at, end, SEQUENCE)
    message_id, after = whole(data, start, stop)
    if message_id == 0:
        raise Malformed("message ID 0 belongs to the server")
    tag, start, after = header(data, after, stop)
    try:
        operation = _operation(data, tag, start, after)
        controls = read_controls(data, after, stop) if after < stop else ()
    except TooMuch as error:
        return Message(message_id, Excess(tag, str(error)))
    return Message(message_id, operation, controls)


def _operation(data: bytes, tag: int, start: int, stop: int) -> Operation:
    if tag == SEARCH:
        return _search(data, start, stop)
    if tag == BIND:
        return _bind(data, start, stop)
    if tag == UNBIND:
        return UnbindRequest()
    if tag == ABANDON:
        if not 1 <= stop - start <= 4 or data[start] >= 0x80:
            raise Malformed("a message ID lies between 0 and 2147483647")
        return AbandonRequest(int.from_bytes(data[start:stop], "big"))
    if tag == EXTENDED:
        oid, at = octets(data, start, stop, 0x80)
        value = octets(data, at, stop, 0x81)[0] if at < stop else None
        return ExtendedRequest(oid.decode("latin-1"), value)
    if tag in RESPONSE:
        return Other(tag)
    raise Malformed(f"no request begins with {tag:02X}")


def _bind(data: bytes, at: int, end: int) -> BindRequest:
    version, at = whole(data, at, end)
    name, at = octets(data, at, end)
    tag, start, stop = header(data, at, end)
    simple = tag == 0x80
    return BindRequest(version, _text(name), simple, data[start:stop] if simple else b"")


def _search(data: bytes, at: int, end: int) -> SearchRequest:
    base, scope, at = _place(data, at, end)
    _, at = whole(data, at, end, ENUMERATED)
    size_limit, at = whole(data, at, end)
    time_limit, at = whole(data, at, end)
    start, at = expect(data, at, end, BOOLEAN)
    types_only = truth(data, start, at)
    filter_, at = read_filter(data, at, end)
    return SearchRequest(base, scope, size_limit, time_limit, types_only, filter_, read_attributes(data, at, end))


def _place(data: bytes, at: int, end: int) -> tuple[str, int, int]:
    start, at = expect(data, at, end, OCTETS)
    if at - start > MAX_NAME:
        raise TooMuch(f"the base is longer than {MAX_NAME} octets")
    return _text(data[start:at]), *whole(data, at, end, ENUMERATED)


def read_place(where: bytes) -> tuple[str, int]:
    """(base, scope) of an outline. Raises Malformed, or TooMuch over a limit."""
    base, scope, _ = _place(where, 0, len(where))
    return base, scope


def read_attributes(data: bytes, at: int, end: int) -> tuple[str, ...]:
    """The AttributeSelection at `at`. Raises Malformed, or TooMuch over a limit."""
    at, stop = expect(data, at, end, SEQUENCE)
    attributes: list[str] = []
    while at < stop:
        start, at = expect(data, at, stop, OCTETS)
        if len(attributes) == MAX_ATTRIBUTES or at - start > MAX_NAME:
            raise TooMuch(f"more than {MAX_ATTRIBUTES} attributes asked for, or a name over {MAX_NAME} octets")
        attributes.append(data[start:at].decode("latin-1"))
    return tuple(attributes)


def read_controls(data: bytes, at: int, end: int) -> tuple[Control, ...]:
    """The controls of a message, from the element that holds them (RFC 4511 section 4.1.11). Raises Malformed."""
    tag, at, stop = header(data, at, end)
    if tag != 0xA0:
        return ()
    controls: list[Control] = []
    while at < stop:
        inner, after = expect(data, at, stop, SEQUENCE)
        if len(controls) == MAX_CONTROLS:
            raise TooMuch(f"more than {MAX_CONTROLS} controls")
        controls.append(_control(data, inner, after))
        at = after
    return tuple(controls)


def _control(data: bytes, at: int, end: int) -> Control:
    oid, at = octets(data, at, end)
    critical, value = False, None
    if at < end and data[at] == BOOLEAN:
        start, at = expect(data, at, end, BOOLEAN)
        critical = truth(data, start, at)
    if at < end:
        value, at = octets(data, at, end)
    return Control(oid.decode("latin-1"), critical, value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def read_page(control: Control) -> tuple[int, bytes]:
    """(page size, cookie) that a paged-results control asks for (RFC 2696 section 2). Raises Malformed."""
    data = control.value or b""
    at, end = expect(data, 0, len(data), SEQUENCE)
    page, at = whole(data, at, end)
    cookie, _ = octets(data, at, end)
    return page, cookie


def page_control(total: int, cookie: bytes, *, critical: bool = False) -> Control:
    """A paged-results control: in a request its number is the page's size, in a reply an estimate of the total."""
    return Control(PAGED, critical, element(SEQUENCE, number(total), element(OCTETS, cookie)))


def entry(name: bytes, attributes: bytes) -> bytes:
    """A SearchResultEntry from encoded attributes, one `attribute()` after the other."""
    return element(ENTRY, element(OCTETS, name), element(SEQUENCE, attributes))


def attribute(name: bytes, values: tuple[bytes, ...]) -> bytes:
    """One attribute and its values, as it stands in an entry."""
    return element(SEQUENCE, element(OCTETS, name), element(SET, *(element(OCTETS, value) for value in values)))


def result(
    tag: int, code: int, text: str = "", *, matched: str = "", oid: str = "", value: bytes | None = None
) -> bytes:
    """A response with an LDAPResult (RFC 4511 section 4.1.9); `oid` and `value` are an extended response's."""
    body = (
        number(code, ENUMERATED) + element(OCTETS, matched.encode("utf-8", "replace")) + element(OCTETS, text.encode())
    )
    if oid:
        body += element(0x8A, oid.encode())
    if value is not None:
        body += element(0x8B, value)
    return element(tag, body)


def envelope(message_id: int, operation: bytes, controls: tuple[Control, ...] = ()) -> bytes:
    """A whole message around an operation's octets."""
    return element(SEQUENCE, number(message_id), operation, _write_controls(controls) if controls else b"")


def outer(id_octets: int, operation: bytes) -> bytes:
    """What stands before the message ID element of a message, when that element takes `id_octets`."""
    return bytes((SEQUENCE,)) + size(id_octets + len(operation))


def notice(code: int, text: str) -> bytes:
    """The notice of disconnection (RFC 4511 section 4.4.1), a whole message."""
    return envelope(0, result(EXTENDED_RESPONSE, code, text, oid=NOTICE_OF_DISCONNECTION))


def _write_controls(controls: tuple[Control, ...]) -> bytes:
    written = []
    for control in controls:
        parts = [element(OCTETS, control.oid.encode("latin-1"))]
        if control.critical:
            parts.append(flag(True))
        if control.value is not None:
            parts.append(element(OCTETS, control.value))
        written.append(element(SEQUENCE, *parts))
    return element(0xA0, *written)
