"""A socket that hands ldap3 one sound LDAP message at a time, within a deadline and a byte cap.

ldap3 is the library that speaks with directories, and the guard stands below it because ldap3's own limits do not hold
against a hostile server: its time-out starts anew with each byte, its size limit is only a request, and its decoder is
quadratic in claimed lengths and long integers, allocates as many octets as an INTEGER in the wrong place says, and
recurses. So every message is framed and checked here before ldap3 sees it:

- the whole answer has one deadline and one byte cap, whatever arrives in which portions;
- a message that claims more than what is left of the cap is refused by its header;
- an entry may consist of octet strings, sequences and sets as RFC 4511 section 4.5.2 orders them, and nothing else;
- other messages are small; controls are read here and taken out; references and intermediate messages are dropped.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from enum import StrEnum

from keyserver.ber import long_length
from keyserver.model import Malformed
from keyserver.wire.ber import header

ENTRY, DONE, REFERENCE, INTERMEDIATE = 0x64, 0x65, 0x73, 0x79  # RFC 4511 section 4.5.2 and 4.13
CONTROLS = 0xA0

MAX_SMALL = 16 * 1024  # octets of a message that is no entry, and of all controls of one
MAX_ELEMENTS = 20_000  # BER elements in the entries of one answer
MAX_DROPPED = 1_000  # messages of one answer that are passed over
MAX_DEPTH = 12
_ENTRY_TAGS = {2: (0x04, 0x30), 3: (0x30,), 4: (0x04, 0x31), 5: (0x04,)}  # by depth below the message


class LinkFault(StrEnum):
    """What went wrong on a connection, as a clause for people."""

    CLOSED = "closed the connection"
    TIME = "did not answer completely in time"
    SIZE = "sends too much"
    GARBAGE = "does not speak LDAP"


class GuardError(OSError):
    """The connection is of no more use; `Guard.trouble` says why. ldap3 treats it as the socket error it is."""


def frame(buffer: bytearray, limit: int) -> tuple[int, int] | None:
    """Where the first message's content begins and ends (RFC 4511 section 5.1), or None: more octets are needed.

    Raises Malformed for what cannot be a message, GuardError when its length is over `limit`, before it is here.
    """
    if buffer and buffer[0] != 0x30:
        raise Malformed("no LDAP message")
    if len(buffer) < 2:
        return None
    start, length = 2, buffer[1]
    if length >= 0x80:
        read = long_length(buffer, 1)
        if read is None:
            return None
        length, start = read
    if start + length > limit:
        raise GuardError("message too large")
    return (start, start + length) if len(buffer) >= start + length else None


def elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Tag, begin and end of each BER element directly within data[start:end]. Raises Malformed."""
    while start < end:
        tag, at, start = header(data, start, end)
        yield tag, at, start


def check_message(message: bytes, start: int, budget: int) -> tuple[int, int, int]:
    """One whole message, its content beginning at `start`, judged before anybody decodes it.

    Returns the operation's tag, where the operation ends, and how many elements were counted. Raises Malformed, also
    for more than `budget` elements.
    """
    parts = list(_first(elements(message, start, len(message)), 4))
    if not 2 <= len(parts) <= 3 or parts[0][0] != 0x02 or not 1 <= parts[0][2] - parts[0][1] <= 4:
        raise Malformed("no LDAP message")
    operation, begin, end = parts[1]
    if len(parts) == 3 and (parts[2][0] != CONTROLS or parts[2][2] - parts[2][1] > MAX_SMALL):
        raise Malformed("a message with a strange end")
    if operation != ENTRY and end - begin > MAX_SMALL:
        raise Malformed("a result of that size")
    count = 0
    pending = [(2, begin, end)]
    while pending:
        depth, begin, stop = pending.pop()
        allowed = _ENTRY_TAGS.get(depth, ()) if operation == ENTRY else None
        for tag, at, after in elements(message, begin, stop):
            count += 1
            if count > budget or depth > MAX_DEPTH:
                raise Malformed("a message of too many parts")
            if allowed is not None and tag not in allowed:
                raise Malformed("an entry with a strange part")
            if tag in (0x01, 0x02, 0x0A) and not 1 <= after - at <= 4:
                raise Malformed("a number that LDAP does not allow")
            if tag & 0x20:
                pending.append((depth + 1, at, after))
    return operation, end, count


def read_controls(message: bytes, start: int) -> dict[str, bytes]:
    """The controls of a checked message (RFC 4511 section 4.1.11): OID to value, empty where it has none."""
    found: dict[str, bytes] = {}
    for tag, begin, end in elements(message, start, len(message)):
        if tag != CONTROLS:
            continue
        for _, at, after in _first(elements(message, begin, end), 16):
            strings = [message[a:b] for t, a, b in elements(message, at, after) if t == 0x04]
            if strings:
                found[strings[0].decode("ascii", "replace")] = strings[1] if len(strings) > 1 else b""
    return found


def page_cookie(value: bytes) -> bytes:
    """The cookie in a paged-results control (RFC 2696 section 2), empty on the last page. Raises Malformed."""
    for _, begin, end in _first(elements(value, 0, len(value)), 1):
        return next((value[a:b] for t, a, b in elements(value, begin, end) if t == 0x04), b"")
    return b""


def _first(parts: Iterator[tuple[int, int, int]], most: int) -> Iterator[tuple[int, int, int]]:
    """At most so many; the rest of a hostile list is not even looked at."""
    for _, part in zip(range(most), parts, strict=False):
        yield part


class Guard:
    """Stands in for a socket inside an ldap3 connection; `arm` begins each answer.

    Used by one thread at a time, except `cut`, which any thread may call.
    """

    def __init__(self, sock: socket.socket, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._socket = sock
        self._lever = sock.dup()  # stays with the connection when TLS takes the socket over
        self._buffer = bytearray()
        self._end = 0.0
        self._left = 0
        self._elements = MAX_ELEMENTS
        self._dropped = 0
        self._entries = 0
        self.trouble: LinkFault | None = None
        self.heard = False  # anything at all since `arm`
        self.truncated = False  # entries over the limit were passed over
        self.controls: dict[str, bytes] = {}  # of the last message handed on
        self.answered = False  # this peer once sent a sound LDAP message

    def arm(self, end: float, cap: int) -> None:
        """A new answer: until `end` on the monotonic clock, at most `cap` octets."""
        self._end, self._left = end, cap
        self._elements, self._dropped = MAX_ELEMENTS, 0
        self.heard = False

    def expect(self, entries: int) -> None:
        """A search begins: at most so many of its entries are handed on."""
        self._entries, self.truncated, self.controls = entries, False, {}

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least a millisecond. Raises GuardError when it is past."""
        left = self._end - self._monotonic()
        if left <= 0:
            raise self._fail(LinkFault.TIME)
        return max(0.001, left)

    @property
    def clean(self) -> bool:
        """Whether the connection may serve another question: nothing went wrong and nothing is left over."""
        return self.trouble is None and not self._buffer

    def recv(self, _size: int) -> bytes:
        """The next message that is worth ldap3's while, whole and checked. Raises GuardError."""
        while True:
            try:
                message = self._next()
            except Malformed as error:
                raise self._fail(LinkFault.GARBAGE) from error
            if message is not None:
                return message
            self._fill()

    def sendall(self, data: bytes) -> None:
        """Send within the deadline. Raises GuardError."""
        try:
            self._socket.settimeout(self.left)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise self._fail(LinkFault.TIME) from error
        except OSError as error:
            raise error if isinstance(error, GuardError) else self._fail(LinkFault.CLOSED) from error

    def wrap(self, wrapped: socket.socket) -> None:
        """TLS has taken the socket over. Octets already here are an injection (RFC 4511 section 4.14.1)."""
        self._socket = wrapped

    @property
    def raw(self) -> socket.socket:
        """The socket itself, for a TLS handshake, its time-out set to what is left. Raises GuardError."""
        if self._buffer:
            raise self._fail(LinkFault.GARBAGE)
        self._socket.settimeout(self.left)
        return self._socket

    def cut(self) -> None:
        """End the connection from outside: whoever waits on it returns with an error at once."""
        with contextlib.suppress(OSError):
            self._lever.shutdown(socket.SHUT_RDWR)

    def shutdown(self, _how: int) -> None:
        """What ldap3 calls before `close`."""
        self.cut()

    def close(self) -> None:
        """Give the socket back; may be called repeatedly."""
        self.trouble = self.trouble or LinkFault.CLOSED
        for sock in (self._socket, self._lever):
            with contextlib.suppress(OSError):
                sock.close()

    def _fill(self) -> None:
        try:
            self._socket.settimeout(self.left)
            data = self._socket.recv(65_536)
        except TimeoutError as error:
            raise self._fail(LinkFault.TIME) from error
        except OSError as error:
            raise error if isinstance(error, GuardError) else self._fail(LinkFault.CLOSED) from error
        if not data:
            raise self._fail(LinkFault.CLOSED)
        self.heard = True
        self._left -= len(data)
        if self._left < 0:
            raise self._fail(LinkFault.SIZE)
        self._buffer += data

    def _next(self) -> bytes | None:
        """The next message in the buffer that is to be handed on, or None: more octets are needed."""
        while True:
            try:
                bounds = frame(self._buffer, self._left + len(self._buffer))
            except GuardError as error:
                raise self._fail(LinkFault.SIZE) from error
            if bounds is None:
                return None
            start, end = bounds
            message = bytes(self._buffer[:end])
            del self._buffer[:end]
            if (kept := self._judge(message, start)) is not None:
                return kept
            self._dropped += 1
            if self._dropped > MAX_DROPPED:
                raise self._fail(LinkFault.SIZE)

    def _judge(self, message: bytes, start: int) -> bytes | None:
        operation, end, count = check_message(message, start, self._elements)
        self._elements -= count
        self.answered = True
        if operation in (REFERENCE, INTERMEDIATE):
            return None
        if operation == ENTRY:
            if not self._entries:
                self.truncated = True
                return None
            self._entries -= 1
        elif end != len(message):
            self.controls = read_controls(message, start)
        content = message[start:end]
        return b"\x30\x84" + len(content).to_bytes(4, "big") + content  # without its controls

    def _fail(self, trouble: LinkFault) -> GuardError:
        self.trouble = self.trouble or trouble
        return GuardError(self.trouble.value)
