"""Compression that nobody asked for, undone within bounds (RFC 9110 section 8.4.1)."""

from __future__ import annotations

import zlib

from keyserver.model import Malformed

RATIO = 10  # certificates are noise, and armor is 4/3 of them: what unpacks to more is a bomb or a web page
AT_LEAST = 64 << 10  # octets that anything may unpack to


def decoded(body: bytes, coding: str, most: int) -> bytes:
    """The content of `gzip`, `x-gzip` or `deflate` (zlib's format, or bare as some servers send it).

    Unpacks at most `most` octets, and ten times what came. Raises Malformed: another coding, damage, too much.
    """
    match coding:
        case "gzip" | "x-gzip":
            forms = [16 + zlib.MAX_WBITS]
        case "deflate":
            forms = [zlib.MAX_WBITS, -zlib.MAX_WBITS]
        case _:
            raise Malformed(f"{coding[:20]!r} encoding, which nobody asked for")
    most = min(most, max(AT_LEAST, len(body) * RATIO))
    for form in forms:
        unpacking = zlib.decompressobj(form)
        try:
            content = unpacking.decompress(body, most + 1)
        except zlib.error:
            continue
        if len(content) > most:
            raise Malformed(f"{coding} that unpacks to more than {most} octets")
        if unpacking.eof:
            return content
    raise Malformed(f"damaged {coding}")
