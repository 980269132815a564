"""Parameters of Content-Type and Content-Disposition fields (RFC 2045 section 5.1, RFC 2183, RFC 2231)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.errors import MessageError
from email.header import decode_header, make_header
from urllib.parse import unquote_to_bytes

_PARAMETER = re.compile(r"\s*;?\s*([\w!#$&^.+*-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)(?:\"|\Z)|([^\s;\"]*))\s*", re.S)
_EXTENDED = re.compile(r"(.+?)\*(?:([0-9]{1,3})(\*?))?\Z", re.S)


def read_parameters(text: str, at: int) -> dict[str, str]:
    """Parameters from an offset on; the first of two equal names counts. One in pieces, or with its character set
    named (RFC 2231), is put together, where it does not stand there whole as well."""
    whole: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    while at < len(text):
        found = _PARAMETER.match(text, at)
        if found is None:  # a comment or something broken: on to the next semicolon
            at = text.find(";", at + 1)
            if at < 0:
                break
            continue
        quoted = found[2]
        word = re.sub(r"\\(.)", r"\1", quoted, flags=re.S) if quoted is not None else found[3]
        name = found[1].lower()
        if extended := _EXTENDED.match(name):
            number, coded = int(extended[2] or 0), extended[3] != "" if extended[2] else True
            pieces.setdefault(extended[1], {}).setdefault(number, (word, coded))
        else:
            whole.setdefault(name, word)
        at = found.end()
    return {name: _together(parts) for name, parts in pieces.items()} | whole


def _together(pieces: Mapping[int, tuple[str, bool]]) -> str:
    """Pieces from the first to the first gap. The character set is taken for UTF-8, or Latin-1 where it cannot be."""
    octets = b""
    for number in range(len(pieces)):
        if number not in pieces:
            break
        text, coded = pieces[number]
        if coded and not number and text.count("'") >= 2:
            text = text.split("'", 2)[2]
        octets += unquote_to_bytes(text.encode("latin-1")) if coded else text.encode("latin-1")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def spoken(text: str) -> str:
    """Encoded words in a file name (not RFC 2047's intention, but usual) as what they say."""
    if "=?" not in text:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (MessageError, ValueError, LookupError):
        return text
