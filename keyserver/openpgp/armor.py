"""ASCII armor both ways, in linear time (RFC 9580 section 6)."""

from __future__ import annotations

import binascii

from keyserver.model import Malformed

_BEGIN = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = b"-----END PGP PUBLIC KEY BLOCK-----"
_PRIVATE = b"-----BEGIN PGP PRIVATE KEY BLOCK-----"
_BOM = b"\xef\xbb\xbf"

_POLYNOMIAL = 0x1864CFB  # section 6.1.1
_INITIAL = 0xB704CE


def _times(a: int, b: int) -> int:
    """The product of two polynomials over GF(2); linear in the longer one, as `b` has at most 24 bits."""
    product = 0
    while b:
        low = b & -b
        product ^= a << (low.bit_length() - 1)
        b ^= low
    return product


def _remainder(value: int) -> int:
    """`value` modulo the CRC's polynomial, bit by bit: only for short values."""
    while (excess := value.bit_length() - 25) >= 0:
        value ^= _POLYNOMIAL << excess
    return value


def _folds() -> tuple[int, ...]:
    """x^(2^j) modulo the polynomial, for j from 0."""
    folds = [2]
    for _ in range(40):
        folds.append(_remainder(_times(folds[-1], folds[-1])))
    return tuple(folds)


_FOLDS = _folds()


def crc24(octets: bytes) -> int:
    """The CRC-24 of section 6.1.1.

    The octets are one polynomial in a big integer, which is halved again and again: its upper half H·x^k is replaced
    by H·(x^k mod P), at most 24 shifts of H. That is about 100 times as fast as a table in Python.
    """
    value = int.from_bytes(octets, "big") << 24 ^ _INITIAL << 8 * len(octets)
    while (size := value.bit_length()) > 64:
        j = (size - 1).bit_length() - 1  # the largest power of two below the size
        upper = value >> (1 << j)
        value ^= upper << (1 << j)
        value ^= _times(upper, _FOLDS[j])
    return _remainder(value)


def armor(octets: bytes, crc: bool = True) -> bytes:
    """A public key block: lines of 64 columns, LF. `crc`: with its checksum line, which v4 certificates need for some
    readers and v6 certificates must not have (section 6.1)."""
    text = binascii.b2a_base64(octets, newline=False)
    lines = [_BEGIN, b"", *(text[at : at + 64] for at in range(0, len(text), 64))]
    if crc:
        lines.append(b"=" + binascii.b2a_base64(crc24(octets).to_bytes(3, "big"), newline=False))
    return b"\n".join([*lines, _END, b""])


def dearmor(text: bytes) -> tuple[bytes, ...]:
    """The octets of every public key block in `text`; binary input (first octet with bit 7) is returned as it is.

    Whatever surrounds the blocks is ignored, as are headers, checksums (section 6.1: a reader must not reject a
    missing or wrong one), line lengths and trailing white space. Raises Malformed where no whole block is found, one
    has no end or no base64, or a private key block stands among them.
    """
    if text.startswith(_BOM):
        text = text[3:]
    if text[:1] >= b"\x80":
        return (text,)
    if _PRIVATE in text:
        raise Malformed("a private key block, which nobody should send to a keyserver")
    blocks = []
    at = text.find(_BEGIN)
    while at >= 0:
        start = at + len(_BEGIN)
        end = text.find(_END, start)
        if end < 0:
            raise Malformed("an armored block without its END line")
        blocks.append(_block(text[start:end]))
        at = text.find(_BEGIN, end)
    if not blocks:
        raise Malformed("no PGP PUBLIC KEY BLOCK in it")
    return tuple(blocks)


def _block(inside: bytes) -> bytes:
    """What stands between BEGIN and END: headers up to an empty line, base64, perhaps a checksum."""
    lines = [line.strip() for line in inside.splitlines()]
    first = next((n for n, line in enumerate(lines) if line), len(lines))
    if first < len(lines) and b":" in lines[first]:  # base64 has no colon: a header
        first = next((n for n in range(first, len(lines)) if not lines[n]), len(lines))
    last = next((n for n in range(first, len(lines)) if _is_checksum(lines[n])), len(lines))
    if any(lines[last + 1 :]):
        raise Malformed("an armored block goes on after its checksum")
    try:
        octets = binascii.a2b_base64(b"".join(lines[first:last]), strict_mode=True)
    except binascii.Error:
        raise Malformed("an armored block is not base64") from None
    if not octets:
        raise Malformed("an armored block is empty")
    return octets


def _is_checksum(line: bytes) -> bool:
    """`=` and base64; padding that odd wrapping put on a line of its own is not."""
    return line[:1] == b"=" and line[1:2] not in (b"", b"=")
