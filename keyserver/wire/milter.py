"""Milter frames between a mail server and a filter, both ways (Sendmail's libmilter protocol, version 6; no RFC).

Sans-IO. A frame is a length of four octets, a command letter, and data. Frames above a limit are not kept: their
letter comes with `cut`, so that even then every question of the mail server has its answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from keyserver.model import Malformed

MAX_KEPT = 1 << 20  # octets of one frame that are kept; bodies come in pieces of 64 KiB
MAX_WORDS = 1 << 16  # octets of a frame that are kept where it is neither header nor body
MAX_MACROS = 64  # macros of one frame that are read
MAX_FRAME = 64 << 20  # octets: a longer frame is no milter's
VERSION = 6
_LENGTH = struct.Struct(">I")
_FLAGS = struct.Struct(">III")


class Ask(IntEnum):
    """What the mail server says."""

    ABORT = ord("A")
    BODY = ord("B")
    CONNECT = ord("C")
    MACRO = ord("D")
    END = ord("E")  # of the body; may carry its last piece
    HELO = ord("H")
    QUIT_REUSE = ord("K")
    HEADER = ord("L")
    MAIL = ord("M")
    HEADERS_END = ord("N")
    NEGOTIATE = ord("O")
    QUIT = ord("Q")
    RECIPIENT = ord("R")
    DATA = ord("T")
    UNKNOWN = ord("U")


CONTINUE, ACCEPT = b"\0\0\0\1c", b"\0\0\0\1a"
"""The only two answers that a mail is ever given."""

CHANGE_BODY = 0x2  # an action: the filter may replace the body
MAX_PIECE = 65535  # octets of a new body in one frame


class Protocol(IntFlag):
    """What need not be sent, and what is not answered."""

    NO_HELO = 0x2
    NO_RECIPIENT = 0x8
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SILENT_HEADER = 0x80
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RECIPIENT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000  # header values come as they are


SILENCED: Mapping[Ask, Protocol] = {
    Ask.CONNECT: Protocol.SILENT_CONNECT,
    Ask.HELO: Protocol.SILENT_HELO,
    Ask.MAIL: Protocol.SILENT_MAIL,
    Ask.RECIPIENT: Protocol.SILENT_RECIPIENT,
    Ask.DATA: Protocol.SILENT_DATA,
    Ask.UNKNOWN: Protocol.SILENT_UNKNOWN,
    Ask.HEADER: Protocol.SILENT_HEADER,
    Ask.BODY: Protocol.SILENT_BODY,
}
"""The flag under which a command is not answered."""

_LONG = frozenset({Ask.HEADER, Ask.BODY, Ask.END})
ANSWERED = frozenset({*SILENCED, Ask.HEADERS_END, Ask.END})
SET_MACROS = 0x100  # an action: the filter may name the macros that it wants


@dataclass(frozen=True, slots=True)
class Frame:
    """One command. `cut`: its data was too long and is gone."""

    letter: int
    data: bytes = field(repr=False)
    cut: bool = False


class Reader:
    """Frames out of a stream of octets, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0  # octets of a frame that is not kept

    def feed(self, octets: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises Malformed, after what was whole, for what is no frame."""
        if self._skip:
            gone = min(self._skip, len(octets))
            self._skip -= gone
            octets = octets[gone:]
        self._buffer += octets
        at = 0
        try:
            while len(self._buffer) - at >= 5:
                (length,) = _LENGTH.unpack_from(self._buffer, at)
                if not 0 < length <= MAX_FRAME:
                    raise Malformed(f"a milter frame of {length} octets")
                letter = self._buffer[at + 4]
                if length > (MAX_KEPT if letter in _LONG else MAX_WORDS):
                    have = min(len(self._buffer) - at - 5, length - 1)
                    self._skip = length - 1 - have
                    at += 5 + have
                    yield Frame(letter, b"", cut=True)
                    continue
                if len(self._buffer) - at < 4 + length:
                    return
                data = bytes(memoryview(self._buffer)[at + 5 : at + 4 + length])
                at += 4 + length
                yield Frame(letter, data)
        finally:
            del self._buffer[:at]


def negotiated(data: bytes) -> tuple[int, int, int]:
    """Version, actions and protocol flags that the mail server offers. Raises Malformed."""
    if len(data) < _FLAGS.size:
        raise Malformed("a negotiation that is too short")
    version, actions, protocol = _FLAGS.unpack_from(data)
    if version < 2:
        raise Malformed(f"milter protocol version {version}; 2 to 6 are spoken")
    return version, actions, protocol


def negotiation(version: int, actions: int, protocol: int, macros: Mapping[int, str]) -> bytes:
    """Our answer. `macros`: stage (0 connect, 2 mail, 5 end of message, 6 end of headers) -> names."""
    wanted = b"".join(_LENGTH.pack(stage) + names.encode() + b"\0" for stage, names in macros.items())
    body = b"O" + _FLAGS.pack(version, actions, protocol) + wanted
    return _LENGTH.pack(len(body)) + body


def macros(data: bytes) -> tuple[int, dict[str, str]]:
    """Which command a list of macros belongs to, and the first 64 macros, without braces around their names."""
    parts = data[1:].split(b"\0", 2 * MAX_MACROS)[: 2 * MAX_MACROS]
    pairs: Iterable[tuple[bytes, bytes]] = zip(parts[0::2], parts[1::2], strict=False)
    return data[0] if data else 0, {
        name.decode("latin-1").strip("{}"): value.decode("utf-8", "replace") for name, value in pairs
    }


def client(data: bytes) -> str:
    """The client's IP address out of a connect command; empty where it has none."""
    _, _, rest = data.partition(b"\0")
    if rest[:1] not in (b"4", b"6"):
        return ""
    return rest[3:].partition(b"\0")[0].decode("latin-1")


def path(data: bytes) -> str:
    """The envelope sender or recipient of its command as it was given, in its angle brackets."""
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def header(data: bytes) -> bytes:
    """A header field as it stood in the mail, with CRLF at its line ends."""
    name, _, rest = data.partition(b"\0")
    value = rest.removesuffix(b"\0").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    gap = b"" if value[:1] in (b" ", b"\t") or not value else b" "
    return name + b":" + gap + value + b"\r\n"


def new_body(octets: bytes) -> bytes:
    """The frames that put another body in the place of the mail's, for before the answer at its end."""
    pieces = [octets[at : at + MAX_PIECE] for at in range(0, len(octets), MAX_PIECE)]
    return b"".join(_LENGTH.pack(len(piece) + 1) + b"b" + piece for piece in pieces)
