"""LMTP as a sink speaks it (RFC 2033, with RFC 1870, RFC 2920, RFC 6152, RFC 6531), sans-IO.

A copy of somebody's mail must never come back as a bounce because of us: every sender, recipient, size and line length
is taken, and every recipient hears "250" at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from keyserver.model import Malformed

MAX_LINE = 4096  # octets of a command
MAX_RECIPIENTS = 10_000
_XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")


@dataclass(slots=True)
class Transaction:
    """What was said about one mail before its content."""

    sender: str = ""
    recipients: int = 0
    client: str = ""  # by XFORWARD: who handed it to the mail server
    queue_id: str = ""


@dataclass(frozen=True, slots=True)
class Begin:
    """A mail's content follows."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of it, dots unstuffed, with CRLF as it came."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class End:
    """It is complete."""


Event = Begin | Content | End


class Session:
    """One connection: octets in, replies (through `reply`) and events out."""

    def __init__(self, name: str, reply: Callable[[bytes], None]) -> None:
        self._name = name
        self._reply = reply
        self._buffer = bytearray()
        self._content = False
        self.greeted = False
        """Has LHLO been said?"""
        self._line_start = True
        self._transaction: Transaction | None = None
        self._forwarded: dict[str, str] = {}
        self.closing = False

    def greeting(self) -> bytes:
        """What is said first."""
        return f"220 {self._name} LMTP keyserver\r\n".encode()

    def feed(self, octets: bytes) -> Iterator[Event]:
        """What came of some octets. Raises Malformed for a command line without end; then the connection is over."""
        self._buffer += octets
        while self._buffer and not self.closing:
            if self._content:
                before = len(self._buffer)
                yield from self._more_content()
                if self._content and len(self._buffer) == before:
                    return
                continue
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > MAX_LINE:
                    raise Malformed("a command line of more than 4096 octets")
                return
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            if len(line) > MAX_LINE:
                raise Malformed("a command line of more than 4096 octets")
            yield from self._command(line.decode("utf-8", "replace"))

    def _more_content(self) -> Iterator[Event]:
        """Content up to the line with a single dot (RFC 5321 section 4.5.2); only CRLF ends a line."""
        data = self._buffer
        if self._line_start and data.startswith(b".\r\n"):
            del data[:3]
            yield from self._ended()
            return
        found = data.find(b"\r\n.\r\n")
        whole = found >= 0
        # what may still become the end of the content, or a stuffed dot, waits for more
        size = found + 2 if whole else len(data) - _waiting(data)
        if self._line_start and not whole and bytes(data[:3]) in (b".", b".\r"):
            return
        if size > 0:
            piece = bytes(data[:size])
            del data[:size]
            if self._line_start and piece.startswith(b"."):
                piece = piece[1:]
            self._line_start = piece.endswith(b"\r\n")
            yield Content(piece.replace(b"\r\n.", b"\r\n"))
        if whole:
            del data[:3]
            yield from self._ended()

    def _ended(self) -> Iterator[Event]:
        self._content = False
        yield End()
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        self._reply(b"250 2.0.0 read and discarded\r\n" * transaction.recipients)

    def _command(self, line: str) -> Iterator[Event]:
        verb, _, rest = line.strip().partition(" ")
        match verb.upper():
            case "LHLO":
                self.greeted, self._transaction = True, None
                extensions = ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE"]
                lines = [f"250-{word}" for word in (self._name, *extensions)] + [f"250 XFORWARD {' '.join(_XFORWARD)}"]
                self._reply("".join(f"{line}\r\n" for line in lines).encode())
            case "MAIL" if not self.greeted:
                self._reply(b"503 5.5.1 LHLO first\r\n")
            case "MAIL" if self._transaction is not None:
                self._reply(b"503 5.5.1 a sender has been given\r\n")
            case "MAIL":
                self._mail(rest)
            case "RCPT" if self._transaction is None:
                self._reply(b"503 5.5.1 MAIL first\r\n")
            case "RCPT" if self._transaction is not None and self._transaction.recipients >= MAX_RECIPIENTS:
                self._reply(b"452 4.5.3 too many recipients\r\n")
            case "RCPT" if self._transaction is not None:
                self._transaction.recipients += 1
                self._reply(b"250 2.1.5 ok\r\n")
            case "DATA" if self._transaction is None or not self._transaction.recipients:
                self._reply(b"503 5.5.1 RCPT first\r\n")
            case "DATA" if self._transaction is not None:
                self._content, self._line_start = True, True
                self._reply(b"354 go on\r\n")
                yield Begin(self._transaction)
            case "RSET":
                self._transaction = None
                self._forwarded = {}
                self._reply(b"250 2.0.0 ok\r\n")
            case "NOOP":
                self._reply(b"250 2.0.0 ok\r\n")
            case "VRFY":
                self._reply(b"252 2.5.0 nobody lives here\r\n")
            case "XFORWARD":
                self._xforward(rest)
            case "QUIT":
                self._reply(b"221 2.0.0 bye\r\n")
                self.closing = True
            case "HELO" | "EHLO":
                self._reply(b"500 5.5.1 this is LMTP: LHLO\r\n")
            case _:
                self._reply(b"500 5.5.2 unknown command\r\n")

    def _mail(self, rest: str) -> None:
        found = re.match(r"FROM:\s*<([^>]*)>", rest, re.I)
        if found is None:
            self._reply(b"501 5.5.4 MAIL FROM:<address>\r\n")
            return
        unknown = "[UNAVAILABLE]"
        client, ident = self._forwarded.get("ADDR", ""), self._forwarded.get("IDENT", "")
        self._transaction = Transaction(
            found[1], 0, "" if client == unknown else client, "" if ident == unknown else ident
        )
        self._reply(b"250 2.1.0 ok\r\n")

    def _xforward(self, rest: str) -> None:
        """Postfix's XFORWARD: attributes of the mail's own client, in xtext (RFC 3461 section 4)."""
        for pair in rest.split():
            name, equals, value = pair.partition("=")
            if not equals or name.upper() not in _XFORWARD:
                self._reply(b"501 5.5.4 unknown attribute\r\n")
                return
            self._forwarded[name.upper()] = re.sub(r"\+([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), value)[:255]
        self._reply(b"250 2.0.0 ok\r\n")


def _waiting(data: bytearray) -> int:
    """Octets at the end of a piece that may be the beginning of CRLF . CRLF."""
    for size in range(4, 0, -1):
        if data.endswith(b"\r\n.\r\n"[:size]):
            return size
    return 0
