"""A stream of OpenPGP keyring octets, binary or armored, cut into single certificates in bounded memory.

Only the framing is read (RFC 9580 §4.2; armor §6.2): what a certificate proves, and whether it is any good, is for the
OpenPGP layer to say. Whatever the stream holds, memory stays below the cap for one certificate plus what was fed.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

_BEGIN = b"-----BEGIN PGP "
_END = b"-----END PGP "
_PUBLIC = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_LINE = 65536  # octets of one armor line held back at most; longer lines are decoded piece by piece
_HEADERS = 64  # armor header lines of one block
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_STARTS = frozenset({5, 6})  # secret and public primary key packets begin a certificate
_KEYBOX = b"KBXf"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Cut:
    """One certificate's packets, as they stood in the stream."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is no certificate we can hand on, and why."""

    reason: str


Piece: TypeAlias = Cut | Skipped


class Splitter:
    """Feed octets as they come, take certificates out; `end` after the last. Never raises, whatever it is fed.

    cap: octets of one certificate; a larger one is skipped without ever being held."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._format: _Packets | _Armor | None = None
        self._head = bytearray()

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The certificates that are complete now. Exhaust the iterator before feeding more."""
        if self._format is None:
            self._head += data
            if len(self._head) < 12:  # a keybox says what it is in octets 8 to 11
                return
            data = self._choose()
        if self._format is not None:
            yield from self._format.feed(data)

    def end(self) -> Iterator[Piece]:
        """The stream is over: what is left, if it is whole."""
        if self._format is None and self._head:
            data = self._choose()
            if self._format is not None:
                yield from self._format.feed(data)
        if self._format is not None:
            yield from self._format.end()

    def _choose(self) -> bytes:
        data, self._head = bytes(self._head), bytearray()
        if data[8:12] == _KEYBOX:
            self._format = _Packets(self._cap, "a GnuPG keybox file, not a keyring: use `gpg --export`")
        else:
            text = not data[0] & 0x80 or data.startswith(_BOM)
            self._format = _Armor(self._cap) if text else _Packets(self._cap)
        return data


class _Packets:
    """Binary packets. A broken frame ends the reading: behind it nothing can be found again."""

    def __init__(self, cap: int, broken: str = "") -> None:
        self._cap = cap
        self._buffer = bytearray()
        self._certificate = bytearray()
        self._inside = False  # a primary key packet has been seen
        self._dropping = ""  # why the certificate under way is not kept
        self._body = 0  # octets of the current packet's body still to come
        self._partial = False  # ... after which comes another length
        self._broken = broken
        self._told = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        if self._broken:
            if not self._told:
                self._told = True
                yield Skipped(self._broken)
            return
        self._buffer += data
        at = 0
        while at < len(self._buffer):
            if self._body:
                step = min(self._body, len(self._buffer) - at)
                self._keep(self._buffer[at : at + step])
                self._body -= step
                at += step
                continue
            head = self._header(at)
            if head is None:
                break
            tag, size, body = head
            if self._broken:
                at = len(self._buffer)
                yield from self._close()
                self._told = True
                yield Skipped(self._broken)
                break
            if tag in _STARTS:
                yield from self._close()
                self._inside = True
            self._keep(self._buffer[at : at + size])
            self._body = body
            at += size
        del self._buffer[:at]

    def end(self) -> Iterator[Piece]:
        if self._broken:
            yield from self.feed(b"")
            return
        if self._body or self._partial or self._buffer:
            self._dropping = self._dropping or "the input ends within a packet"
            self._inside = True
        yield from self._close()

    def _close(self) -> Iterator[Piece]:
        """Hand out the certificate under way."""
        if self._inside:
            yield Skipped(self._dropping) if self._dropping else Cut(bytes(self._certificate))
        elif self._dropping:
            yield Skipped(self._dropping)
        self._certificate.clear()
        self._inside, self._dropping = False, ""

    def _keep(self, octets: bytes | bytearray) -> None:
        if self._dropping:
            return
        if not self._inside:
            self._dropping = "packets that belong to no certificate"
        elif len(self._certificate) + len(octets) > self._cap:
            self._dropping = f"a certificate larger than {self._cap} octets"
            self._certificate.clear()
        else:
            self._certificate += octets

    def _header(self, at: int) -> tuple[int, int, int] | None:
        """(tag, octets of the header, octets of the body) of the packet at `at`; None: not all of it is here yet.

        Inside a partial body the "header" is the next length alone, and the tag 0."""
        data, partial = self._buffer, self._partial
        first = data[at]
        if not partial and not first & 0x80:
            self._broken = "not OpenPGP packets (expected a keyring, or ASCII armor)"
            return 0, 0, 0
        if not partial and not first & 0x40:
            return self._old_header(at)
        skip = 0 if partial else 1
        if len(data) <= at + skip:
            return None
        length = data[at + skip]
        need = 1 if length < 192 or 224 <= length < 255 else 2 if length < 224 else 5
        if len(data) < at + skip + need:
            return None
        rest = data[at + skip + 1 : at + skip + need]
        self._partial = 224 <= length < 255
        if length < 192:
            size = length
        elif length < 224:
            size = ((length - 192) << 8) + rest[0] + 192
        else:
            size = 1 << (length & 0x1F) if self._partial else int.from_bytes(rest, "big")
        return 0 if partial else first & 0x3F, skip + need, size

    def _old_header(self, at: int) -> tuple[int, int, int] | None:
        first = self._buffer[at]
        if first & 3 == 3:
            self._broken = "a packet of indeterminate length: nothing behind it can be read"
            return 0, 0, 0
        octets = 1 << (first & 3)
        if len(self._buffer) < at + 1 + octets:
            return None
        size = int.from_bytes(self._buffer[at + 1 : at + 1 + octets], "big")
        return (first >> 2) & 0x0F, 1 + octets, size


class _Armor:
    """Armored blocks with any text around them; every block stands by itself."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._line = bytearray()
        self._block: _Packets | None = None
        self._headers = 0  # header lines that may still come; 0: in the base64
        self._quads = bytearray()  # base64 not yet decoded
        self._skipping = False  # the rest of a block that cannot be read
        self._seen = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        self._line += data
        at = 0
        while (end := self._line.find(b"\n", at)) >= 0:
            yield from self._take(bytes(self._line[at:end]), whole=True)
            at = end + 1
        del self._line[:at]
        if len(self._line) > _LINE:
            line = bytes(self._line)
            self._line.clear()
            yield from self._take(line, whole=False)

    def end(self) -> Iterator[Piece]:
        if self._line:
            yield from self._take(bytes(self._line), whole=True)
        if self._block is not None:
            yield from self._finish("the armor ends without its END line")
        elif not self._seen:
            yield Skipped("neither OpenPGP packets nor ASCII armor")

    def _take(self, line: bytes, whole: bool) -> Iterator[Piece]:
        line = line.strip()
        if line.startswith(_BEGIN) or line.endswith(_PUBLIC):
            if self._block is not None:
                yield from self._finish("the armor ends without its END line")
            self._seen = True
            if line.endswith(_PUBLIC):  # text may stand before it, a byte order mark or quoting for instance
                self._block, self._headers, self._skipping = _Packets(self._cap), _HEADERS, False
            else:
                yield Skipped(f"an armored block that is no public key: {line[:60].decode('ascii', 'replace')}")
        elif self._block is None:
            return
        elif line.startswith(_END):
            yield from self._finish("")
        elif self._headers:
            self._headers -= 1
            if not line:
                self._headers = 0
            elif (b": " not in line and not line.endswith(b":")) or not self._headers:
                self._skipping, self._headers = True, 0
                yield Skipped("an armored block without an empty line after its headers")
        elif not self._skipping and not (whole and len(line) == 5 and line.startswith(b"=")):
            yield from self._decode(line)

    def _decode(self, line: bytes) -> Iterator[Piece]:
        assert self._block is not None
        self._quads += line
        ready = len(self._quads) // 4 * 4
        quads, self._quads = bytes(self._quads[:ready]), self._quads[ready:]
        try:
            if quads.translate(None, _BASE64):
                raise binascii.Error
            octets = binascii.a2b_base64(quads)
        except binascii.Error:
            self._skipping = True
            yield Skipped("an armored block with something else than base64 in it")
            return
        yield from self._block.feed(octets)

    def _finish(self, reason: str) -> Iterator[Piece]:
        """The block is over, well if there is no reason to the contrary."""
        block, self._block = self._block, None
        left, self._quads = bool(self._quads), bytearray()
        if self._skipping:
            self._skipping = False
        elif reason or left:
            yield Skipped(reason or "an armored block whose base64 is cut short")
        elif block is not None:
            yield from block.end()
