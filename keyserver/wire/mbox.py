"""Mailbox files of any size into single mails, in bounded memory (RFC 4155, and the "mboxrd" quoting of From lines)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_MAIL = 16 << 20  # octets of one mail that are kept
_LINE = re.compile(rb"From \S+ [^\r\n]{0,200}\d\d:\d\d[^\r\n]{0,100}\r?\n")
_LONGEST = 512  # octets that such a line takes at most
_QUOTED = re.compile(rb"^>(>*From )", re.M)


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail of a mailbox, its quoted From lines mended. `cut`: it was too large and its octets are gone."""

    octets: bytes = field(repr=False)
    cut: bool = False


def is_mbox(start: bytes) -> bool:
    """Does a file that begins like this hold a mailbox? One mail otherwise."""
    return _LINE.match(start) is not None


class Splitter:
    """Mails out of a stream of octets, however it is cut. Give it a mailbox only."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked = 0  # octets of the buffer without a beginning
        self._cut = False  # the mail at the buffer's start lost octets

    def feed(self, octets: bytes) -> Iterator[Letter]:
        """The mails that are complete now."""
        self._buffer += octets
        while (at := self._next()) is not None:
            yield self._letter(at)
        if len(self._buffer) > MAX_MAIL:
            self._cut = True
            del self._buffer[: len(self._buffer) - _LONGEST]
            self._looked = 0

    def end(self) -> Iterator[Letter]:
        """The last mail, when the file is over."""
        if self._buffer.strip() or self._cut:
            yield self._letter(len(self._buffer))

    def _next(self) -> int | None:
        """Where the next mail begins: a From line after an empty one."""
        data = self._buffer
        at = data.find(b"\nFrom ", max(0, self._looked - 6))
        while at >= 0:
            if at + 1 + _LONGEST > len(data) and data.find(b"\n", at + 1) < 0:
                self._looked = at
                return None
            blank = data[at - 1 : at] == b"\n" or data[at - 2 : at] == b"\n\r"
            if blank and _LINE.match(data, at + 1):
                return at + 1
            at = data.find(b"\nFrom ", at + 1)
        self._looked = len(data)
        return None

    def _letter(self, end: int) -> Letter:
        octets, cut = bytes(memoryview(self._buffer)[:end]), self._cut
        del self._buffer[:end]
        self._looked, self._cut = 0, False
        if cut or len(octets) > MAX_MAIL:
            return Letter(b"", cut=True)
        first = octets.find(b"\n") + 1 if _LINE.match(octets) else 0
        body = octets[first:]
        body = body.removesuffix(b"\n").removesuffix(b"\r")  # the empty line before the next From line
        return Letter(_QUOTED.sub(rb"\1", body) if b"\n>" in body else body)
