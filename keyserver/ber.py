"""Lengths in BER (X.690 section 8.1.3), for everybody who reads elements: LDAP, certificates, the guard below ldap3."""

from __future__ import annotations

from keyserver.model import Malformed


def long_length(data: bytes | bytearray, at: int, most: int = 4) -> tuple[int, int] | None:
    """(length, where the content begins) by the long form that begins at `at`, an octet from 80 (X.690 8.1.3.5); None
    while it is incomplete. Raises Malformed for an indefinite length, and for more than `most` octets.

    Whoever reads an element looks at the short form itself: it is nearly every one, and one octet."""
    octets = data[at] & 0x7F
    if not 1 <= octets <= most:
        raise Malformed(f"a length must be definite and have at most {most} octets")
    start = at + 1 + octets
    return None if start > len(data) else (int.from_bytes(data[at + 1 : start], "big"), start)
