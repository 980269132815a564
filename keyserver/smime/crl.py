"""Certificate revocation lists (RFC 5280 section 5): who issues one, and what it says of a certificate. Pure.

A list may have millions of entries: they stay octets, and beside them stand eight octets for each, by which an entry is
found. `crl_reading` reads and verifies them.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from keyserver.model import Malformed
from keyserver.smime import ber, names, signing
from keyserver.smime.bundle import MAX_CERTIFICATE, unpack
from keyserver.smime.reading import Reading, read, time_of

OFFSET = 26  # bits of a place in a list
BUCKETS = 256  # each is sorted by itself, in a millisecond or two
REASON_CODE = "2.5.29.21"
REASONS = {
    1: "key compromise",
    2: "CA compromise",
    3: "affiliation changed",
    4: "superseded",
    5: "cessation of operation",
    6: "on hold",
    8: "removed from the list",
    9: "privilege withdrawn",
    10: "AA compromise",
}
"""CRLReason (RFC 5280 section 5.3.1) in words; 0 and what is not known say nothing."""

Name: TypeAlias = tuple[frozenset[tuple[str, str]], ...]


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issues certificates and a list of those that it has revoked: one CA certificate, whose key counts."""

    fingerprint: str  # SHA-256 of the certificate
    title: str  # its name for people
    name: Name
    key: PublicKeyTypes = field(repr=False)

    def issued(self, certificate: Reading) -> bool:
        """Did this very key sign this certificate, in this very name? A name alone can be imitated."""
        if comparable(certificate.issuer) != self.name:
            return False
        body, _, signature = ber.inside(certificate.octets, ber.SEQUENCE)[:3]
        return signed(self.key, certificate.algorithms[0], signature, body.octets)


class Revocation(NamedTuple):
    """One entry of a list: its date, and its extensions where it has any, as they stand there."""

    date: bytes
    extensions: bytes

    @property
    def at(self) -> int | None:
        """When it was revoked, Unix seconds; None where that cannot be read."""
        try:
            return time_of(ber.first(self.date))
        except Malformed:
            return None

    @property
    def reason(self) -> int:
        """Why, by CRLReason; 0 where it does not say."""
        return reason_of(self.extensions)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A verified list. issued, ends: thisUpdate and nextUpdate, Unix seconds; count: entries."""

    issued: int
    ends: int
    number: int | None
    count: int
    octets: bytes = field(repr=False)
    begin: int
    end: int
    _buckets: tuple[array[int], ...] = field(repr=False)

    def find(self, serial: bytes) -> int | None:
        """Where the entry of a serial number (see `serial_of`) stands; None: it is not on the list."""
        hashed = hash(serial) & MASK
        bucket, sought = self._buckets[hashed % BUCKETS], hashed // BUCKETS << OFFSET
        data = self.octets
        for number in range(bisect_left(bucket, sought), len(bucket)):
            at = bucket[number] - sought
            if at > _PLACE:
                return None
            begin = at + 2 if data[at + 1] < 0x80 else span(data, at, len(data))[1]
            date = begin + 2 + data[begin + 1]
            if (found := data[begin + 2 : date]) == serial or shortest(found) == serial:
                return at
        return None

    def entry(self, at: int) -> Revocation:
        """The entry that stands there."""
        data = self.octets
        _, begin, stop = span(data, at, len(data))
        date = begin + 2 + data[begin + 1]
        rest = date + 2 + data[date + 1]
        return Revocation(data[date:rest], data[rest:stop])

    def says_the_same(self, other: RevocationList) -> bool:
        """Are the entries of both the same?"""
        mine, theirs = memoryview(self.octets), memoryview(other.octets)
        return mine[self.begin : self.end] == theirs[other.begin : other.end]

    def precedes(self, other: RevocationList) -> bool:
        """Was it issued before the other?"""
        if self.number is not None and other.number is not None and self.number != other.number:
            return self.number < other.number
        return self.issued < other.issued


_PLACE = (1 << OFFSET) - 1
MASK = (BUCKETS << 64 - OFFSET) - 1


def authority(octets: bytes) -> Authority:
    """From one CA certificate, DER or PEM. Raises Malformed: it is none, or its key may not sign lists."""
    found = unpack(octets[: MAX_CERTIFICATE + 1])
    if len(found) != 1:
        raise Malformed("more than one certificate; accepted is the authority's alone")
    certificate = read(found[0])
    try:
        if not certificate.signs_lists:
            raise Malformed("its key usage does not allow it to sign revocation lists (cRLSign)")
        key = certificate.public_key()
    except Malformed:
        raise
    except ValueError:
        raise Malformed("a certificate of which a part is broken") from None
    title = names.written(certificate.subject_name)
    return Authority(
        hashlib.sha256(certificate.octets).hexdigest().upper(), title, comparable(certificate.subject), key
    )


def serial_of(certificate: Reading) -> bytes:
    """The serial number as lists are asked for it: in as few octets as it needs."""
    return shortest(certificate.serial.content)


def of_entry(extensions: bytes) -> Iterator[tuple[str, bool, bytes]]:
    """(type, critical, value) of each. Raises ValueError."""
    for part in ber.inside(extensions, ber.SEQUENCE):
        type_, *flag, value = ber.opened(part, ber.SEQUENCE)
        yield ber.dotted(type_), any(any(f.content) for f in flag), value.content


def reason_of(extensions: bytes) -> int:
    """The reason code among an entry's extensions; 0 where it has none, or none that can be read."""
    try:
        for named, _, value in of_entry(extensions) if extensions else ():
            if named == REASON_CODE:
                return value[-1] if len(value) == 3 else 0
    except ValueError:
        return 0
    return 0


def signed(key: PublicKeyTypes, algorithm: ber.Element, signature: ber.Element, octets: bytes | memoryview) -> bool:
    """Is it the key's signature, a BIT STRING of whole octets? Never raises."""
    if signature.tag != ber.BITS or signature.content[:1] != b"\x00":
        return False
    try:
        return signing.verifies(key, algorithm, signature.content[1:], octets)
    except ValueError:
        return False


def comparable(name: ber.Element) -> Name:
    """A distinguished name as names are compared (RFC 5280 section 7.1): however it is encoded and spaced."""
    return tuple(
        frozenset(
            (a.type, a.value.octets.hex() if a.text is None else " ".join(a.text.casefold().split())) for a in rdn
        )
        for rdn in names.distinguished(name)
    )


def shortest(number: bytes) -> bytes:
    """An INTEGER's octets without those that say nothing."""
    at = 0
    while at + 1 < len(number) and number[at] in (0, 0xFF) and (number[at] ^ number[at + 1]) < 0x80:
        at += 1
    return number[at:]


def span(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """(tag, begin of the content, its end) of the DER element at `at`. Raises Malformed, IndexError."""
    tag, length, start = data[at], data[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        if not 0 < size <= 4:
            raise Malformed("a length that no list can have")
        length = int.from_bytes(data[start : start + size], "big")
        start += size
    if start + length > end:
        raise Malformed("an element is longer than what holds it")
    return tag, start, start + length
