"""The PROXY protocol, versions 1 and 2 (HAProxy, proxy-protocol.txt, 2020): who is behind a proxy, said once, first.

Sans-IO. The reader of a socket asks for octets step by step, because not one octet behind the header may be taken:
what follows may be TLS.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from keyserver.model import Malformed

LEAST = 15
"""Octets that every header has: `PROXY UNKNOWN` with its line end; version 2 begins with 16."""

MAX_LINE = 107
"""Octets of a version 1 header, its CRLF included (section 2.1)."""

FIXED = 16
"""Octets of a version 2 header before its addresses."""

MAX_REST = 4096
"""Octets of addresses and TLVs in a version 2 header; what honest proxies send is far below."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21
_WITHOUT_ADDRESS = frozenset({0x00, 0x31})  # AF_UNSPEC; AF_UNIX as a stream
_PORT = r"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY (TCP[46]) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ({_PORT}) ({_PORT})\r\n")


def version(head: bytes) -> int:
    """Which version begins with these 15 octets. Raises Malformed for neither."""
    if head.startswith(SIGNATURE):
        return 2
    if head.startswith(b"PROXY "):
        return 1
    raise Malformed("no PROXY header")


def read_line(line: bytes) -> str | None:
    """The client of a version 1 header, CRLF included; None where the proxy does not say. Raises Malformed."""
    if len(line) > MAX_LINE or not line.endswith(b"\r\n"):
        raise Malformed(f"a PROXY line without end within {MAX_LINE} octets")
    if line.startswith((b"PROXY UNKNOWN\r", b"PROXY UNKNOWN ")):
        return None
    found = _LINE.fullmatch(line.decode("latin-1"))
    if found is None or max(int(found[4]), int(found[5])) > 65535:
        raise Malformed("a PROXY line that cannot be read")
    kind = IPv4Address if found[1] == "TCP4" else IPv6Address
    try:
        kind(found[3])
        return str(kind(found[2]))
    except ValueError:
        raise Malformed("a PROXY line with an address that is none") from None


def rest_length(head: bytes) -> int:
    """How many octets follow the 16 fixed ones of a version 2 header. Raises Malformed."""
    if head[12] not in (_LOCAL, _PROXY):
        raise Malformed("a PROXY header of another version or command")
    length = int.from_bytes(head[14:16], "big")
    if length > MAX_REST:
        raise Malformed(f"a PROXY header of more than {MAX_REST} octets")
    return length


def read_rest(head: bytes, rest: bytes) -> str | None:
    """The client of a version 2 header; None where the proxy speaks for itself or does not say. TLVs are skipped.

    Raises Malformed."""
    family = head[13]
    if head[12] == _LOCAL or family in _WITHOUT_ADDRESS:
        return None
    if family == _TCP4 and len(rest) >= 12:
        return str(IPv4Address(rest[:4]))
    if family == _TCP6 and len(rest) >= 36:
        return str(IPv6Address(rest[:16]))
    raise Malformed("a PROXY header with addresses of another kind, or cut short")
