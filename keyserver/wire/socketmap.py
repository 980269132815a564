"""Sendmail's socketmap protocol, as Postfix speaks it (socketmap_table(5); no RFC): netstrings both ways.

Sans-IO. A request is `<map> <key>`; a reply is `OK <data>`, `NOTFOUND `, `TEMP <reason>` or `PERM <reason>`.
"""

from __future__ import annotations

from keyserver.model import Malformed

MOST = 10_000
"""Octets of a request."""

REASON = 200  # characters of a reason: it ends in somebody's log

_DIGITS = len(str(MOST))
_COMMA = 0x2C


class Reader:
    """Cuts netstrings out of octets, whatever pieces those come in."""

    def __init__(self) -> None:
        self._octets = b""
        self._at = 0

    @property
    def empty(self) -> bool:
        """Is nothing left, not even a part of a request?"""
        return self._at == len(self._octets)

    def add(self, octets: bytes) -> None:
        """More of them."""
        self._octets = self._octets[self._at :] + octets
        self._at = 0

    def next(self) -> bytes | None:
        """What the next netstring holds; None where it is not complete. Raises Malformed where it can be none."""
        octets, start = self._octets, self._at
        colon = octets.find(b":", start, start + _DIGITS + 1)
        length = octets[start : colon if colon >= 0 else start + _DIGITS + 1]
        if (length or colon >= 0) and not _is_number(length):
            raise Malformed("a request that is no netstring")
        if colon < 0:
            return None
        end = colon + 1 + int(length)
        if end >= len(octets):
            return None
        if octets[end] != _COMMA:
            raise Malformed("a request that is no netstring")
        self._at = end + 1
        return octets[colon + 1 : end]


def _is_number(length: bytes) -> bool:
    """May a request begin so? No length has zeros before it."""
    return length.isdigit() and (length[:1] != b"0" or length == b"0") and int(length) <= MOST


def netstring(octets: bytes) -> bytes:
    """Octets as they are sent."""
    return b"%d:%b," % (len(octets), octets)


def read(request: bytes) -> tuple[str, str]:
    """The map and the key of a request; octets that are no UTF-8 become U+FFFD, which no address may hold."""
    name, _, key = request.partition(b" ")
    return name.decode(errors="replace"), key.decode(errors="replace")


NOTFOUND = netstring(b"NOTFOUND ")


def ok(data: str) -> bytes:
    """The key is there."""
    return netstring(b"OK " + data.encode())


def temp(reason: str) -> bytes:
    """Nobody can say at the moment."""
    return netstring(b"TEMP " + _reason(reason))


def perm(reason: str) -> bytes:
    """Nobody will ever be able to say."""
    return netstring(b"PERM " + _reason(reason))


def _reason(text: str) -> bytes:
    """One line of printable ASCII."""
    return "".join(c if " " <= c <= "~" else "?" for c in text[:REASON]).encode()
