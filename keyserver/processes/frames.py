"""What a front and the core say to each other: frames on one connection, each of one stream or of none.

A stream is one client's connection as far as the core knows of it. Both ends are forked from one program, so there is
one version and no negotiation; bounds are checked all the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from keyserver.model import Malformed

MAX_PAYLOAD = 1 << 20
"""Octets of one frame behind its head."""

PIECE = 256 * 1024
"""Octets of a stream that go into one frame: other streams come between."""

_HEAD = struct.Struct("!IBI")
_LENGTH = struct.Struct("!I")


class FrameKind(IntEnum):
    """What a frame says; to the core (>), to the front (<), or either."""

    OPEN = 1  # > a client's connection has a question: `StreamOpening`
    DATA = 2  # octets
    PAUSE = 3  # send no more for now: the client does not read, or the handler does not
    RESUME = 4
    FINISH = 5  # > end the stream when what is under way is answered
    LOST = 6  # > the client is gone, or needs the core no more
    CLOSE = 7  # < all is said; the connection may end when it has left
    ABORT = 8  # < end it now
    FACTS = 9  # < what the reply under way stands on, before its last octet
    RENDERED = 10  # < a reply to an LDAP request, for whoever asks the same
    START_TLS = 11  # < do the handshake; > it is done
    ALIVE = 12  # > the client was here, though the core heard nothing
    COUNTS = 13  # > what was answered from memory since the last time; stream 0
    HELLO = 14  # < the core serves; stream 0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. `stream`: chosen by the front, 0 for none."""

    kind: FrameKind
    stream: int
    payload: bytes


def write(kind: FrameKind, stream: int, payload: bytes = b"") -> bytes:
    """A frame's octets. Raises ValueError for a payload that no reader would take."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a frame of {len(payload)} octets")
    return _HEAD.pack(len(payload), kind, stream) + payload


def pieces(stream: int, data: bytes) -> bytes:
    """A stream's octets as DATA frames."""
    if len(data) <= PIECE:
        return _HEAD.pack(len(data), FrameKind.DATA, stream) + data
    return b"".join(write(FrameKind.DATA, stream, data[at : at + PIECE]) for at in range(0, len(data), PIECE))


class Reader:
    """Frames out of octets as they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises Malformed; what was whole before is given first."""
        data = self._rest + data if self._rest else data
        at, end = 0, len(data)
        try:
            while end - at >= _HEAD.size:
                length, kind, stream = _HEAD.unpack_from(data, at)
                if length > MAX_PAYLOAD or not 1 <= kind <= len(FrameKind):
                    raise Malformed(f"a frame of kind {kind} and {length} octets")
                start = at + _HEAD.size
                if start + length > end:
                    break
                at = start + length
                yield Frame(FrameKind(kind), stream, data[start:at])
        finally:
            self._rest = data[at:]


def pack(facts: dict[str, Any], octets: Sequence[bytes] = ()) -> bytes:
    """A payload of plain values, and octets that JSON cannot say."""
    text = json.dumps({**facts, "lengths": [len(part) for part in octets]}).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *octets))


def unpack(payload: bytes) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """The opposite of `pack`. Raises Malformed."""
    try:
        (length,) = _LENGTH.unpack_from(payload)
        at = _LENGTH.size + length
        facts = json.loads(payload[_LENGTH.size : at])
        parts = []
        for size in facts.pop("lengths"):
            parts.append(payload[at : at + size])
            at += size
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise Malformed(f"a payload that cannot be read: {problem}") from None
    if at != len(payload):
        raise Malformed("a payload that is not as long as it says")
    return facts, tuple(parts)
