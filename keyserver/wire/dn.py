"""Distinguished names in their string form (RFC 4514), read for comparing: types by one name, values prepared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from keyserver.model import Malformed
from keyserver.wire.ber import header
from keyserver.wire.ldap_text import prepare

MAX_DN = 1024  # characters
MAX_RDNS = 32

Rdn: TypeAlias = frozenset[tuple[str, str]]
Dn: TypeAlias = tuple[Rdn, ...]
"""Leaf first. () is the root. Types in lower case, values as RFC 4518 prepares them."""

TYPES = {
    "2.5.4.3": "cn",
    "commonname": "cn",
    "2.5.4.6": "c",
    "countryname": "c",
    "2.5.4.10": "o",
    "organizationname": "o",
    "2.5.4.11": "ou",
    "organizationalunitname": "ou",
    "0.9.2342.19200300.100.1.25": "dc",
    "domaincomponent": "dc",
    "0.9.2342.19200300.100.1.1": "uid",
    "userid": "uid",
}
_SPECIAL = ',+"\\<>;=# '
_HEX = "0123456789abcdefABCDEF"
_ENCODED = re.compile(r"#((?:[0-9A-Fa-f]{2})+) *(?=[,;+]|\Z)")
_STRINGS = {0x04: "utf-8", 0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}
"""Tags of what a value in hex may be: OCTET, UTF8, Printable, Teletex, IA5 and BMP strings."""


class BadDn(ValueError):
    """Not a distinguished name."""


def parse_dn(text: str, types: Mapping[str, str] = TYPES) -> Dn:
    """A DN as written, also with RFC 2253's quotes, semicolons and spaces. Raises BadDn.

    `types`: other names of attribute types and their OIDs, in lower case -> the name by which they are compared."""
    if len(text) > MAX_DN:
        raise BadDn(f"longer than {MAX_DN} characters")
    if not text.strip(" "):
        return ()
    at = 0
    rdns: list[Rdn] = []
    pairs: set[tuple[str, str]] = set()
    while True:
        type_, equals, _ = text[at:].partition("=")
        name = type_.strip(" ").lower().removeprefix("oid.")
        if not equals or not name or not all(c.isascii() and (c.isalnum() or c in ".-") for c in name):
            raise BadDn("a type and = is missing")
        value, at = _value(text, at + len(type_) + 1)
        pairs.add((types.get(name, name), prepare(value).strip(" ")))
        end = text[at : at + 1]
        if end != "+":
            rdns.append(frozenset(pairs))
            pairs = set()
        if not end:
            return tuple(rdns)
        if len(rdns) >= MAX_RDNS:
            raise BadDn(f"more than {MAX_RDNS} parts")
        at += 1


def _value(text: str, at: int) -> tuple[str, int]:
    """(value, index of the separator behind it) of the value at `at`."""
    while text[at : at + 1] == " ":
        at += 1
    if text[at : at + 1] == "#":
        return _encoded(text, at)
    quoted = text[at : at + 1] == '"'
    if quoted:
        at += 1
    octets = bytearray()
    kept = 0  # what escapes and quotes protect from the trailing strip
    while at < len(text) and (quoted or text[at] not in ",;+"):
        char = text[at]
        if char == "\\":
            piece, at = _escaped(text, at + 1)
            octets += piece
            kept = len(octets)
            continue
        at += 1
        if quoted and char == '"':
            while text[at : at + 1] == " ":
                at += 1
            if at < len(text) and text[at] not in ",;+":
                raise BadDn("something stands behind the closing quote")
            return _text(bytes(octets)), at
        if not quoted and char in '"<>':
            raise BadDn(f"an unescaped {char}")
        octets += char.encode("utf-8", "surrogateescape")
    if quoted:
        raise BadDn("a quote is not closed")
    while len(octets) > kept and octets[-1:] == b" ":
        del octets[-1]
    return _text(bytes(octets)), at


def _encoded(text: str, at: int) -> tuple[str, int]:
    """As `_value`: a value in BER, as it stands behind an OID (RFC 4514 section 2.4)."""
    match = _ENCODED.match(text, at)
    if match is None:
        raise BadDn("behind # stand pairs of hex digits")
    octets = bytes.fromhex(match[1])
    try:
        tag, start, stop = header(octets, 0, len(octets))
        if stop == len(octets) and tag in _STRINGS:
            return octets[start:].decode(_STRINGS[tag]), match.end()
    except (Malformed, UnicodeDecodeError):
        pass
    raise BadDn("what stands behind # is no string")


def _escaped(text: str, at: int) -> tuple[bytes, int]:
    pair = text[at : at + 2]
    if len(pair) == 2 and pair[0] in _HEX and pair[1] in _HEX:
        return bytes((int(pair, 16),)), at + 2
    if pair[:1] and pair[0] in _SPECIAL:
        return pair[0].encode(), at + 1
    raise BadDn("a backslash escapes nothing")


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise BadDn("not UTF-8") from None
