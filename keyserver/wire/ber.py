"""BER as far as LDAP goes (RFC 4511 section 5.1): one-octet tags, definite lengths, primitive strings.

Everything here is bounded by construction: nothing allocates or waits for a length that is only claimed, nothing
recurses, and every complaint is one exception.
"""

from __future__ import annotations

from keyserver.ber import long_length
from keyserver.model import Malformed

BOOLEAN, INTEGER, OCTETS, ENUMERATED, SEQUENCE, SET = 0x01, 0x02, 0x04, 0x0A, 0x30, 0x31


def measure(data: bytes | bytearray, at: int, limit: int) -> int | None:
    """The octets of the SEQUENCE that begins at `at`, header included; None while its header is incomplete.

    Raises Malformed for any other tag, an indefinite length, or more than `limit` octets: before they are here.
    """
    have = len(data) - at
    if have < 1:
        return None
    if data[at] != SEQUENCE:
        raise Malformed("not an LDAP message")
    if have < 2:
        return None
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        read = long_length(data, at + 1)
        if read is None:
            return None
        length, start = read
    size = start - at + length
    if size > limit:
        raise Malformed(f"a message of {size} octets; the limit is {limit}")
    return size


def header(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """(tag, start, stop) of the element at `at`, which must end by `end`. Raises Malformed."""
    if at + 2 > end:
        raise Malformed("an element is cut off")
    tag = data[at]
    length = data[at + 1]
    at += 2
    if length >= 0x80:
        read = long_length(data, at - 1)
        if read is None:
            raise Malformed("an element is cut off")
        length, at = read
    if tag & 0x1F == 0x1F:
        raise Malformed("a tag has one octet")
    stop = at + length
    if stop > end:
        raise Malformed("an element is longer than what holds it")
    return tag, at, stop


def expect(data: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """(start, stop) of the element at `at`, which must have this tag. Raises Malformed."""
    seen, start, stop = header(data, at, end)
    if seen != tag:
        raise Malformed(f"tag {seen:02X} where {tag:02X} belongs")
    return start, stop


def whole(data: bytes, at: int, end: int, tag: int = INTEGER) -> tuple[int, int]:
    """(value, stop) of an INTEGER or ENUMERATED from 0 to 2^31-1 (RFC 4511 `maxInt`). Raises Malformed."""
    start, stop = expect(data, at, end, tag)
    if not 1 <= stop - start <= 4 or data[start] >= 0x80:
        raise Malformed("a number must lie between 0 and 2147483647")
    return int.from_bytes(data[start:stop], "big"), stop


def octets(data: bytes, at: int, end: int, tag: int = OCTETS) -> tuple[bytes, int]:
    """(value, stop) of a primitive OCTET STRING. Raises Malformed."""
    start, stop = expect(data, at, end, tag)
    return data[start:stop], stop


def truth(data: bytes, start: int, stop: int) -> bool:
    """The value of a BOOLEAN's content. LDAP sends FF for true, other values than 00 are read as true (X.690 8.2)."""
    if stop - start != 1:
        raise Malformed("a truth value has one octet")
    return data[start] != 0


def size(length: int) -> bytes:
    """The shortest definite length."""
    if length < 0x80:
        return bytes((length,))
    if length < 0x100:
        return bytes((0x81, length))
    if length < 0x10000:
        return bytes((0x82, length >> 8, length & 0xFF))
    return b"\x84" + length.to_bytes(4, "big")


def element(tag: int, *parts: bytes) -> bytes:
    """Tag, length, content."""
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    return bytes((tag,)) + size(len(content)) + content


def number(value: int, tag: int = INTEGER) -> bytes:
    """An INTEGER or ENUMERATED from 0 to 2^31-1, in as few octets as it takes."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((tag, len(content))) + content


def flag(value: bool, tag: int = BOOLEAN) -> bytes:
    """A BOOLEAN; true is FF (RFC 4511 section 5.1)."""
    return bytes((tag, 1, 0xFF if value else 0x00))
