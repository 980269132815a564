"""BER, and so DER, read one element at a time (X.690): as much as certificates and their bundles need.

Tolerant where openssl and gpgsm are (long forms and indefinite lengths, trailing octets are the caller's matter), and
bounded: nothing recurses deeper than MAX_DEPTH, no element has more than MAX_PARTS parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from keyserver.ber import long_length
from keyserver.model import Malformed

MAX_DEPTH = 10  # of indefinite lengths inside each other
MAX_PARTS = 4096
_MAX_OID = 64  # octets
_MAX_LENGTH = 127  # octets of a length: leading zeros are read

BOOLEAN, INTEGER, BITS, OCTETS, OID, SEQUENCE, SET = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30, 0x31


class Element(NamedTuple):
    """One element: its identifier octet, all of its octets as they came, and its content."""

    tag: int
    octets: bytes
    content: bytes


def first(data: bytes) -> Element:
    """The element that `data` begins with, whatever follows it. Raises Malformed."""
    return _element(data, 0)


def parts(content: bytes) -> list[Element]:
    """The elements that a constructed one consists of. Raises Malformed."""
    return list(walk(content))


def walk(content: bytes) -> Iterator[Element]:
    """The same, one after the other, as far as they can be read; then it raises Malformed."""
    at = 0
    for _ in range(MAX_PARTS + 1):
        if at >= len(content):
            return
        part = _element(content, at)
        yield part
        at += len(part.octets)
    raise Malformed(f"a value of more than {MAX_PARTS} parts")


def opened(element: Element, tag: int) -> list[Element]:
    """The parts of an element that must have this tag. Raises Malformed."""
    if element.tag != tag:
        raise Malformed(f"tag {element.tag:02X} where {tag:02X} belongs")
    return parts(element.content)


def inside(data: bytes, tag: int) -> list[Element]:
    """The parts of the one element that `data` begins with. Raises Malformed."""
    return opened(first(data), tag)


def number(element: Element) -> int:
    """The value of an INTEGER, padded or not. Raises Malformed."""
    if element.tag != INTEGER or not element.content:
        raise Malformed("no number where one belongs")
    return int.from_bytes(element.content, "big", signed=True)


def dotted(element: Element) -> str:
    """An OBJECT IDENTIFIER as numbers with dots between them. Raises Malformed."""
    content = element.content
    if element.tag != OID or not 0 < len(content) <= _MAX_OID or content[-1] & 0x80:
        raise Malformed("no object identifier where one belongs")
    arcs: list[int] = []
    arc = 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    root = min(arcs[0] // 40, 2)
    return ".".join(map(str, (root, arcs[0] - 40 * root, *arcs[1:])))


def element(tag: int, *content: bytes) -> bytes:
    """Tag, shortest length, content."""
    inner = b"".join(content)
    size = len(inner)
    if size < 0x80:
        return bytes((tag, size)) + inner
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + inner


def _element(data: bytes, at: int) -> Element:
    start, stop, end = _span(data, at, 0)
    return Element(data[at], data[at:end], data[start:stop])


def _span(data: bytes, at: int, depth: int) -> tuple[int, int, int]:
    """(begin of the content, its end, begin of what follows) of the element at `at`."""
    if at + 2 > len(data):
        raise Malformed("an element is cut off")
    if data[at] & 0x1F == 0x1F:
        raise Malformed("a tag of several octets")
    length = data[at + 1]
    start = at + 2
    if length == 0x80:
        return _indefinite(data, at, start, depth)
    if length > 0x80:
        read = long_length(data, at + 1, _MAX_LENGTH)
        if read is None:
            raise Malformed("an element is cut off")
        length, start = read
    if start + length > len(data):
        raise Malformed("an element is longer than what holds it")
    return start, start + length, start + length


def _indefinite(data: bytes, at: int, start: int, depth: int) -> tuple[int, int, int]:
    """An indefinite length (X.690 section 8.1.3.6): ends where two zero octets stand in an element's place."""
    if depth >= MAX_DEPTH or not data[at] & 0x20:
        raise Malformed("an indefinite length where none can be")
    stop = start
    for _ in range(MAX_PARTS):
        if data[stop : stop + 2] == b"\x00\x00":
            return start, stop, stop + 2
        stop = _span(data, stop, depth + 1)[2]
    raise Malformed(f"a value of more than {MAX_PARTS} parts")
