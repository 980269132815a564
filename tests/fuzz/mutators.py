"""Mutations that get past what an entry looks at first: packets, BER, armor and frames whose lengths and checksums are
right, and in which one piece is changed, left out, doubled or moved."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

from fuzz.target import joined, parts
from keyserver.model import Malformed
from keyserver.openpgp import packets
from keyserver.openpgp.armor import armor, read_armor
from keyserver.wire import ber
from keyserver.wire.socketmap import netstring

T = TypeVar("T")
Raw = Callable[[bytes], bytes]
"""The fuzzer's own mutation of some octets."""

Mutator = Callable[[bytes, Random, Raw], bytes]

_CONSTRUCTED = 0x20
_HOLDS_MORE = frozenset({0x03, 0x04})  # BIT STRING and OCTET STRING, in which X.509 has further elements


def shuffled(pieces: list[T], rng: Random, change: Callable[[T], T]) -> list[T]:
    """One of the pieces changed (mostly), left out, doubled or put elsewhere."""
    at, what = rng.randrange(len(pieces)), rng.randrange(8)
    piece = pieces[at]
    if what > 2:
        return [*pieces[:at], change(piece), *pieces[at + 1 :]]
    rest = pieces if what == 0 else pieces[:at] + pieces[at + 1 :]
    to = rng.randrange(len(rest) + 1)
    return rest if what == 1 else [*rest[:to], piece, *rest[to:]]


def openpgp(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """Packets (RFC 9580 section 4.2); of signatures mostly what is not signed, so that they still verify."""
    try:
        found = [(tag, octets[start:end]) for tag, start, end in packets.walk(octets, 1000)]
    except Malformed:
        return raw(octets)
    if not found:
        return raw(octets)

    def change(piece: tuple[int, bytes]) -> tuple[int, bytes]:
        tag, body = piece
        return tag, _unsigned(body, raw) if tag == packets.SIGNATURE and rng.randrange(4) else raw(body)

    changed = shuffled(found, rng, change)
    return b"".join(packets.packet(tag, body, 6 if tag > 15 else rng.choice((4, 6))) for tag, body in changed)


def _unsigned(body: bytes, raw: Raw) -> bytes:
    """A signature's body with other unhashed subpackets (section 5.2.3)."""
    size = 4 if body[:1] == b"\6" else 2
    at = 4 + size + int.from_bytes(body[4 : 4 + size], "big")
    end = at + size + int.from_bytes(body[at : at + size], "big")
    area = raw(body[at + size : end])[: (1 << 8 * size) - 1]
    return body[:at] + len(area).to_bytes(size, "big") + area + body[end:]


def armored(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """Blocks of armor with a right checksum; the text around them goes."""
    blocks = [block for block in read_armor(octets, binary=False).blocks if block]
    if not blocks or not rng.randrange(4):
        return raw(octets)
    return b"\n".join(armor(block) for block in shuffled(blocks, rng, lambda block: openpgp(block, rng, raw)) if block)


def elements(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """BER of definite lengths, at any depth."""
    found = _elements(octets)
    if not found:
        return raw(octets)

    def change(piece: tuple[int, bytes]) -> tuple[int, bytes]:
        tag, content = piece
        if tag & _CONSTRUCTED or (tag in _HOLDS_MORE and rng.randrange(2)):
            unused = content[:1] if tag == 0x03 else b""
            return tag, unused + elements(content[len(unused) :], rng, raw)
        return (raw(bytes((tag,)))[:1] or b"\0")[0] if not rng.randrange(8) else tag, raw(content)

    return b"".join(ber.element(tag, content) for tag, content in shuffled(found, rng, change))


def _elements(octets: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = 0
    try:
        while at < len(octets):
            tag, start, at = ber.header(octets, at, len(octets))
            found.append((tag, octets[start:at]))
    except Malformed:
        return []
    return found


def milter_frames(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """Length, letter, data."""
    found: list[bytes] = []
    while len(octets) >= 5:
        end = 4 + int.from_bytes(octets[:4], "big")
        found.append(octets[4:end])
        octets = octets[end:]
    if not found:
        return raw(octets)

    def change(frame: bytes) -> bytes:
        return raw(frame) if not rng.randrange(4) else frame[:1] + raw(frame[1:])

    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in shuffled(found, rng, change))


def netstrings(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """Length, colon, octets, comma."""
    found: list[bytes] = []
    while (colon := octets.find(b":")) >= 0 and octets[:colon].isdigit():
        end = colon + 1 + int(octets[:colon][:6])
        found.append(octets[colon + 1 : end])
        octets = octets[end + 1 :]
    return b"".join(map(netstring, shuffled(found, rng, raw))) if found else raw(octets)


def lines(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """Lines that end as they did."""
    if not octets:
        return raw(octets)
    changed: list[bytes] = shuffled(octets.splitlines(keepends=True), rng, raw)
    return b"".join(changed)


def behind_a_cut(mutator: Mutator) -> Mutator:
    """For targets whose first two octets say where a stream is cut."""

    def mutate(octets: bytes, rng: Random, raw: Raw) -> bytes:
        cut = rng.randbytes(2) if not rng.randrange(4) else octets[:2].ljust(2, b"\0")
        return cut + mutator(octets[2:], rng, raw)

    return mutate


def of_fields(*mutators: Mutator) -> Mutator:
    """For targets of several fields with their lengths: one of them is changed, the last is the rest."""

    def mutate(octets: bytes, rng: Random, raw: Raw) -> bytes:
        fields, rest = parts(octets, len(mutators) - 1)
        fields.append(rest)
        at = rng.randrange(len(fields))
        fields[at] = mutators[at](fields[at], rng, raw)[:65535]
        return joined(*fields[:-1], rest=fields[-1])

    return mutate


def anyhow(octets: bytes, rng: Random, raw: Raw) -> bytes:
    """As the fuzzer likes."""
    return raw(octets)
