"""Search filters of LDAP, read and written (RFC 4511 section 4.5.1.7).

Values stay octets as they came: what they mean depends on the attribute, which a codec does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from keyserver.model import Malformed
from keyserver.wire.ber import OCTETS, expect, header, truth

MAX_DEPTH = 12
MAX_NODES = 128  # Thunderbird sends about 15 for each word, nobody more than 60
MAX_PIECES = 16  # of one substrings assertion
MAX_ALL_PIECES = 256  # of all of them
MAX_VALUE = 1024  # octets
MAX_FOREIGN = 1024  # octets of different values that are not ASCII: these take long to compare
MAX_ADDRESSES = 64  # different values with an @ in them: those, too


class TooMuch(Malformed):
    """Well-formed as far as it was read, but over a limit of ours: to be refused (53), not disconnected."""


@dataclass(frozen=True, slots=True)
class And:
    """True if all parts are; without parts: always (RFC 4526)."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if any part is; without parts: never (RFC 4526)."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of what is true or false; undefined stays undefined."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Equal:
    """`(attribute=value)`."""

    attribute: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Substrings:
    """`(attribute=initial*any*any*final)`; an end that is not anchored is None."""

    attribute: str
    initial: bytes | None
    any: tuple[bytes, ...]
    final: bytes | None


@dataclass(frozen=True, slots=True)
class AtLeast:
    """`(attribute>=value)`."""

    attribute: str
    value: bytes


@dataclass(frozen=True, slots=True)
class AtMost:
    """`(attribute<=value)`."""

    attribute: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Present:
    """`(attribute=*)`."""

    attribute: str


@dataclass(frozen=True, slots=True)
class Approx:
    """`(attribute~=value)`."""

    attribute: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Extensible:
    """`(attribute:dn:rule:=value)`."""

    rule: str
    attribute: str
    value: bytes
    dn: bool


Filter: TypeAlias = And | Or | Not | Equal | Substrings | AtLeast | AtMost | Present | Approx | Extensible

_SETS: dict[int, type[And] | type[Or]] = {0xA0: And, 0xA1: Or}
_ASSERTIONS: dict[int, type[Equal] | type[AtLeast] | type[AtMost] | type[Approx]] = {
    0xA3: Equal,
    0xA5: AtLeast,
    0xA6: AtMost,
    0xA8: Approx,
}


@dataclass(slots=True)
class _Left:
    """What one filter may still hold."""

    nodes: int = MAX_NODES
    pieces: int = MAX_ALL_PIECES
    foreign: int = MAX_FOREIGN
    addresses: int = MAX_ADDRESSES
    seen: set[bytes] = field(default_factory=set)

    def value(self, data: bytes, start: int, stop: int) -> bytes:
        """One value of an assertion. Raises TooMuch."""
        if stop - start > MAX_VALUE:
            raise TooMuch(f"a value in the filter is longer than {MAX_VALUE} octets")
        value = data[start:stop]
        if not value.isascii() or b"@" in value:
            self._weigh(value)
        return value

    def _weigh(self, value: bytes) -> None:
        if value in self.seen:
            return
        self.seen.add(value)
        self.addresses -= b"@" in value
        self.foreign -= 0 if value.isascii() else len(value)
        if self.addresses < 0:
            raise TooMuch(f"the filter has more than {MAX_ADDRESSES} different addresses")
        if self.foreign < 0:
            raise TooMuch(f"the filter has more than {MAX_FOREIGN} octets of values that are not ASCII")


def read_filter(data: bytes, at: int, end: int) -> tuple[Filter, int]:
    """(filter, stop) of the filter at `at`. Raises Malformed, or TooMuch over a limit."""
    return _read(data, at, end, MAX_DEPTH, _Left())


def _read(data: bytes, at: int, end: int, depth: int, left: _Left) -> tuple[Filter, int]:
    tag, start, stop = header(data, at, end)
    left.nodes -= 1
    if left.nodes < 0:
        raise TooMuch(f"the filter has more than {MAX_NODES} parts")
    if depth == 0:
        raise TooMuch(f"the filter is nested deeper than {MAX_DEPTH}")
    if (assertion := _ASSERTIONS.get(tag)) is not None:
        name_start, name_stop = expect(data, start, stop, OCTETS)
        value_start, value_stop = expect(data, name_stop, stop, OCTETS)
        return assertion(_name(data, name_start, name_stop), left.value(data, value_start, value_stop)), stop
    if tag == 0x87:
        return Present(_name(data, start, stop)), stop
    if (junction := _SETS.get(tag)) is not None:
        parts = []
        while start < stop:
            part, start = _read(data, start, stop, depth - 1, left)
            parts.append(part)
        return junction(tuple(parts)), stop
    if tag == 0xA2:
        return Not(_read(data, start, stop, depth - 1, left)[0]), stop
    if tag == 0xA4:
        return _substrings(data, start, stop, left), stop
    if tag == 0xA9:
        return _extensible(data, start, stop, left), stop
    raise Malformed(f"no filter begins with {tag:02X}")


def _name(data: bytes, start: int, stop: int) -> str:
    if stop - start > MAX_VALUE:
        raise TooMuch(f"an attribute name is longer than {MAX_VALUE} octets")
    return data[start:stop].decode("latin-1")


def _substrings(data: bytes, at: int, end: int, left: _Left) -> Substrings:
    start, at = expect(data, at, end, OCTETS)
    attribute = _name(data, start, at)
    at, stop = expect(data, at, end, 0x30)
    initial = final = None
    middle: list[bytes] = []
    while at < stop:
        tag, start, at = header(data, at, stop)
        value = left.value(data, start, at)
        left.pieces -= 1
        if tag == 0x80 and initial is None and not middle and final is None:
            initial = value
        elif tag == 0x81 and final is None:
            middle.append(value)
        elif tag == 0x82 and final is None:
            final = value
        else:
            raise Malformed("the pieces of a substring are out of order")
        if len(middle) > MAX_PIECES or left.pieces < 0:
            raise TooMuch(f"a substring assertion has more than {MAX_PIECES} pieces, or all have {MAX_ALL_PIECES}")
    if initial is None and final is None and not middle:
        raise Malformed("a substring assertion without pieces")
    return Substrings(attribute, initial, tuple(middle), final)


def _extensible(data: bytes, at: int, end: int, left: _Left) -> Extensible:
    names = {0x81: "", 0x82: ""}
    value, dn = None, False
    while at < end:
        tag, start, at = header(data, at, end)
        if tag in names:
            names[tag] = _name(data, start, at)
        elif tag == 0x83:
            value = left.value(data, start, at)
        elif tag == 0x84:
            dn = truth(data, start, at)
        else:
            raise Malformed(f"tag {tag:02X} in an extensible match")
    if value is None:
        raise Malformed("an extensible match without a value")
    return Extensible(names[0x81], names[0x82], value, dn)
