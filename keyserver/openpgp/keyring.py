"""A stream of OpenPGP keyring octets, binary or armored, cut into single certificates in bounded memory.

Only the framing is read (RFC 9580 §4.2): what a certificate proves, and whether it is any good, is for others to say.
Whatever the stream holds, memory stays below the cap for one certificate plus what was fed.
"""

from __future__ import annotations

from collections.abc import Iterator

from keyserver.model import Cut, Piece, Skipped
from keyserver.openpgp.armor import Event, Reader

_STARTS = frozenset({5, 6})  # secret and public primary key packets begin a certificate
_KEYBOX = b"KBXf"
_BOM = b"\xef\xbb\xbf"


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
        self._reader = Reader()
        self._block = _Packets(cap)
        self._seen = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        yield from self._take(self._reader.feed(data))

    def end(self) -> Iterator[Piece]:
        yield from self._take(self._reader.end())
        if not self._seen:
            yield Skipped("neither OpenPGP packets nor ASCII armor")

    def _take(self, events: Iterator[Event]) -> Iterator[Piece]:
        for event in events:
            self._seen = True
            if isinstance(event, bytes):
                yield from self._block.feed(event)
                continue
            if event.problem:
                yield Skipped(event.problem)
            else:
                yield from self._block.end()
            self._block = _Packets(self._cap)
