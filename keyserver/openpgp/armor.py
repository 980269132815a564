"""ASCII armor both ways, in linear time (RFC 9580 section 6)."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from keyserver.model import Malformed

_PUBLIC = b"PUBLIC KEY BLOCK"
_PRIVATE = (b"PRIVATE KEY BLOCK", b"SECRET KEY BLOCK")
_BEGIN, _END = b"-----BEGIN PGP " + _PUBLIC + b"-----", b"-----END PGP " + _PUBLIC + b"-----"
_BOM = b"\xef\xbb\xbf"

_MARKER = re.compile(
    rb"-----(BEGIN|END) PGP"
    rb" ((?:PUBLIC|PRIVATE|SECRET) KEY BLOCK|MESSAGE[A-Z0-9 ,/]{0,24}|SIGNED MESSAGE|SIGNATURE|ARMORED FILE)-----"
)
_KEPT = 64  # octets at the end of what came so far that may be the beginning of a marker
_LINE = 1 << 16  # octets of an unfinished line that are held back
_STEP = 1 << 20  # octets of a text that are worked on at once
_MAX_BLOCKS = 10_000  # of one text, of any kind, whole or not
_MAX_DAMAGED = 8  # remarks on one text
_EMPTY_LINE = re.compile(rb"^[ \t]*\n", re.MULTILINE)
_CHECKSUM = re.compile(rb"^[ \t]*=(?=[^=\s])", re.MULTILINE)  # `=` alone is padding that odd wrapping put on a line
_WHITE = b" \t\n\v\f"
_QUADS = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==|[A-Za-z0-9+/]=))?")

_POLYNOMIAL = 0x1864CFB  # section 6.1.1
_INITIAL = 0xB704CE


def _times(a: int, b: int) -> int:
    """The product of two polynomials over GF(2); linear in the longer one, as `b` has at most 24 bits."""
    product = 0
    while b:
        low = b & -b
        product ^= a << (low.bit_length() - 1)
        b ^= low
    return product


def _remainder(value: int) -> int:
    """`value` modulo the CRC's polynomial, bit by bit: only for short values."""
    while (excess := value.bit_length() - 25) >= 0:
        value ^= _POLYNOMIAL << excess
    return value


def _folds() -> tuple[tuple[int, ...], ...]:
    """The exponents in x^(2^j + 24) modulo the polynomial, for j from 0."""
    folds = []
    power = 2  # x^(2^j), modulo the polynomial
    for _ in range(40):
        rest = _remainder(power << 24)
        folds.append(tuple(n for n in range(24) if rest >> n & 1))
        power = _remainder(_times(power, power))
    return tuple(folds)


_FOLDS = _folds()


def crc24(octets: bytes) -> int:
    """The CRC-24 of section 6.1.1.

    The octets are one polynomial in a big integer, which is halved again and again: its upper half H·x^k is replaced
    by H·(x^k mod P), at most 24 shifts of H. With 24 bits to spare in the lower half that never is longer than it.
    """
    value = int.from_bytes(octets, "big") << 24 ^ _INITIAL << 8 * len(octets)
    while (size := value.bit_length()) > 64:
        j = (size - 25).bit_length() - 1
        half = (1 << j) + 24
        upper = value >> half
        value ^= upper << half
        for shift in _FOLDS[j]:
            value ^= upper << shift
    return _remainder(value)


def armor(octets: bytes, crc: bool = True) -> bytes:
    """A public key block: lines of 64 columns, LF. `crc`: with its checksum line, which v4 certificates need for some
    readers and v6 certificates must not have (section 6.1)."""
    text = binascii.b2a_base64(octets, newline=False)
    lines = [_BEGIN, b"", *(text[at : at + 64] for at in range(0, len(text), 64))]
    if crc:
        lines.append(b"=" + binascii.b2a_base64(crc24(octets).to_bytes(3, "big"), newline=False))
    return b"\n".join([*lines, _END, b""])


@dataclass(frozen=True, slots=True)
class Over:
    """A block is over. `problem`: why what was handed out of it is not whole; `label`: what kind of block it was."""

    problem: str = ""
    label: bytes = _PUBLIC


Event: TypeAlias = bytes | Over


class _At(Enum):
    OUTSIDE = 0
    START = 1  # behind a BEGIN line
    HEADERS = 2
    DATA = 3
    TAIL = 4  # behind the checksum
    LOST = 5  # in the rest of a block that cannot be read


class Reader:
    """Feed text as it comes, take the octets of public key blocks out, and Over after each; `end` after the last.

    Whatever surrounds the blocks is ignored, as are headers, checksums (section 6.1: a reader must not reject a
    missing or wrong one), line lengths, white space and the dash escapes of clearsigned text (section 7.2). A damaged
    block, or one without END line, costs itself alone: reading goes on at the next BEGIN. Of blocks of other kinds
    only Over with their label is told. Never raises, and holds back 64 KiB at most.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # no marker begins before
        self._at = _At.OUTSIDE
        self._quads = b""  # base64 that is not yet decoded
        self._begun = False  # octets have been handed out
        self._padded = False

    def feed(self, text: bytes) -> Iterator[Event]:
        """What is complete now. Exhaust the iterator before feeding more."""
        self._buffer += text
        while marker := _MARKER.search(self._buffer, self._searched):
            start, end, word, label = marker.start(), marker.end(), marker[1], marker[2]
            yield from self._lines(bytes(self._buffer[:start]))
            yield from self._turn(word == b"BEGIN", label)
            del self._buffer[:end]
            self._searched = 0
        self._searched = max(0, len(self._buffer) - _KEPT)
        done = self._searched if self._at in (_At.OUTSIDE, _At.LOST) else self._line_end(self._searched)
        yield from self._lines(bytes(self._buffer[:done]))
        del self._buffer[:done]
        self._searched -= done

    def end(self) -> Iterator[Event]:
        """The text is over."""
        yield from self._lines(bytes(self._buffer))
        self._buffer.clear()
        if self._at not in (_At.OUTSIDE, _At.LOST):
            self._at = _At.LOST
            yield Over("an armored block without its END line")

    def _line_end(self, before: int) -> int:
        """Where the last whole line ends, or an unfinished one that is too long to be held back."""
        newline = max(self._buffer.rfind(b"\n", 0, before), self._buffer.rfind(b"\r", 0, before))
        if newline < 0:
            return before if before >= _LINE else 0
        return newline + (2 if self._buffer[newline : newline + 2] == b"\r\n" else 1)

    def _turn(self, begins: bool, label: bytes) -> Iterator[Over]:
        """A BEGIN or END line."""
        if self._at not in (_At.OUTSIDE, _At.LOST):
            if begins or label != _PUBLIC:
                yield Over("an armored block without its END line")
            elif self._at is _At.HEADERS:
                yield Over("an armored block without an empty line after its headers")
            elif self._quads:
                yield Over("an armored block whose base64 is cut short")
            else:
                yield Over("" if self._begun else "an armored block is empty")
        self._quads, self._begun, self._padded = b"", False, False
        self._at = _At.START if begins and label == _PUBLIC else _At.OUTSIDE
        if begins and label != _PUBLIC:
            yield Over(f"an armored block that is no public key: {label.decode('ascii')}", label)

    def _lines(self, text: bytes) -> Iterator[Event]:
        """What stands between BEGIN and END: headers up to an empty line, base64, perhaps a checksum."""
        if self._at in (_At.OUTSIDE, _At.LOST) or not text:
            return
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n- ", b"\n").removeprefix(b"- ")
        if self._at is _At.START:
            text = text.lstrip()
            if not text:
                return
            header = b":" in text.partition(b"\n")[0]  # base64 has no colon
            self._at = _At.HEADERS if header else _At.DATA
        if self._at is _At.HEADERS:
            if (empty := _EMPTY_LINE.search(text)) is None:
                return
            self._at, text = _At.DATA, text[empty.end() :]
        if self._at is _At.DATA:
            checksum = _CHECKSUM.search(text)
            for event in self._decoded(text[: checksum.start()] if checksum else text):
                yield event
                if isinstance(event, Over):
                    return
            if checksum is None:
                return
            self._at, text = _At.TAIL, text[checksum.end() :].partition(b"\n")[2]
        if text.strip():
            self._at = _At.LOST
            yield Over("an armored block goes on after its checksum")

    def _decoded(self, text: bytes) -> Iterator[Event]:
        data = self._quads + text.translate(None, _WHITE)
        ready = len(data) // 4 * 4
        self._quads = data[ready:]
        if not ready:
            return
        try:
            if self._padded:
                raise binascii.Error
            octets = binascii.a2b_base64(data[:ready], strict_mode=True)
        except binascii.Error:  # what stands before the damage is handed out, wherever the text was cut
            good = _QUADS.match(data, 0, 0 if self._padded else ready)
            if good and good[0]:
                yield binascii.a2b_base64(good[0])
            self._at = _At.LOST
            yield Over("an armored block is not base64")
            return
        self._padded = data[ready - 1 : ready] == b"="
        self._begun = True
        yield octets


@dataclass(frozen=True, slots=True)
class Armored:
    """What a text holds: the octets of every whole public key block, and what was wrong with others, for people."""

    blocks: tuple[bytes, ...] = field(default=(), repr=False)
    damaged: tuple[str, ...] = ()  # at most eight


def read_armor(text: bytes, *, binary: bool = True) -> Armored:
    """Every public key block in `text` that can be read, with any text around; damage costs a block itself alone.

    Private key blocks count as damage: nobody should send them. `binary`: octets whose first has bit 7 are packets,
    and taken as they are; False for prose, which may begin with any letter. Never raises.
    """
    if binary and text[:1] >= b"\x80" and not text.startswith(_BOM):
        return Armored((text,))
    reader = Reader()
    blocks: list[bytes] = []
    damaged: dict[str, None] = {}
    block = bytearray()
    seen = 0
    for event in _events(reader, text):
        if isinstance(event, bytes):
            block += event
            continue
        seen += 1
        if seen > _MAX_BLOCKS:
            return Armored(tuple(blocks), (f"more than {_MAX_BLOCKS} blocks", *damaged)[:_MAX_DAMAGED])
        if event.label in _PRIVATE:
            damaged["a private key block, which nobody should send to a keyserver"] = None
        elif event.label == _PUBLIC and event.problem:
            damaged[event.problem] = None
        elif event.label == _PUBLIC:
            blocks.append(bytes(block))
        block.clear()
    return Armored(tuple(blocks), tuple(damaged)[:_MAX_DAMAGED])


def _events(reader: Reader, text: bytes) -> Iterator[Event]:
    for at in range(0, len(text), _STEP):
        yield from reader.feed(text[at : at + _STEP])
    yield from reader.end()


def dearmor(text: bytes) -> tuple[bytes, ...]:
    """As `read_armor`, all or nothing: raises Malformed where no whole block is found, or one is damaged."""
    armored = read_armor(text)
    if armored.damaged or not armored.blocks:
        raise Malformed(armored.damaged[0] if armored.damaged else "no PGP PUBLIC KEY BLOCK in it")
    return armored.blocks
