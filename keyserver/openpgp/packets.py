"""Packet framing, key packets, fingerprints (RFC 9580 sections 3.2, 4.2, 5.5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from keyserver.model import Malformed

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, MARKER, TRUST = 2, 5, 6, 7, 10, 12
USER_ID, SUBKEY, USER_ATTRIBUTE, PADDING = 13, 14, 17, 21

RSA, RSA_ENCRYPT, RSA_SIGN, ELGAMAL, DSA, ECDH, ECDSA, EDDSA_LEGACY = 1, 2, 3, 16, 17, 18, 19, 22
X25519, X448, ED25519, ED448, MLDSA65_ED25519, MLDSA87_ED448, MLKEM768_X25519, MLKEM1024_X448 = (
    *(25, 26, 27, 28),
    *(30, 31, 35, 36),  # draft-ietf-openpgp-pqc
)
RSA_ALGORITHMS = frozenset({RSA, RSA_ENCRYPT, RSA_SIGN})
ENCRYPTING = frozenset({RSA, RSA_ENCRYPT, ELGAMAL, ECDH, X25519, X448, MLKEM768_X25519, MLKEM1024_X448})
ENCRYPTING_ONLY = ENCRYPTING - {RSA}

CURVES = {  # section 9.2: object identifier -> (name, bits)
    bytes.fromhex("2a8648ce3d030107"): ("nistp256", 256),
    bytes.fromhex("2b81040022"): ("nistp384", 384),
    bytes.fromhex("2b81040023"): ("nistp521", 521),
    bytes.fromhex("2b2403030208010107"): ("brainpoolP256r1", 256),
    bytes.fromhex("2b240303020801010b"): ("brainpoolP384r1", 384),
    bytes.fromhex("2b240303020801010d"): ("brainpoolP512r1", 512),
    bytes.fromhex("2b8104000a"): ("secp256k1", 256),
    bytes.fromhex("2b06010401da470f01"): ("ed25519", 256),
    bytes.fromhex("2b060104019755010501"): ("cv25519", 256),
}
_MPIS = {RSA: 2, RSA_ENCRYPT: 2, RSA_SIGN: 2, ELGAMAL: 3, DSA: 4}
_NATIVE = {  # fixed-length public keys: (octets, bits)
    X25519: (32, 256),
    X448: (56, 448),
    ED25519: (32, 256),
    ED448: (57, 448),
    MLDSA65_ED25519: (1984, 15616),
    MLDSA87_ED448: (2649, 20736),
    MLKEM768_X25519: (1216, 9472),
    MLKEM1024_X448: (1624, 12544),
}


def walk(octets: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Type, begin and end of each packet's body (section 4.2), at most `most` of them.

    Raises Malformed at the first packet whose framing is broken, reaches beyond the end, or has a partial or
    indeterminate length, which only data packets may have. What stood before has been yielded by then.
    """
    at, size, left = 0, len(octets), most
    try:
        while at < size:
            head, first = octets[at], octets[at + 1]
            if head & 0xC0 == 0xC0:
                tag = head & 0x3F
                if first < 192:
                    start, length = at + 2, first
                elif first < 224:
                    start, length = at + 3, (first - 192 << 8) + octets[at + 2] + 192
                elif first == 255:
                    start, length = at + 6, int.from_bytes(octets[at + 2 : at + 6], "big")
                else:
                    raise Malformed("a packet of partial length, which no certificate has")
            elif head & 0x80:
                tag = head >> 2 & 15
                if head & 3 == 0:
                    start, length = at + 2, first
                elif head & 3 == 1:
                    start, length = at + 3, first << 8 | octets[at + 2]
                elif head & 3 == 2:
                    start, length = at + 5, int.from_bytes(octets[at + 1 : at + 5], "big")
                else:
                    raise Malformed("a packet of indeterminate length, which no certificate has")
            else:
                raise Malformed(f"no OpenPGP packet at octet {at}")
            end = start + length
            if end > size:
                raise Malformed(f"a packet claims {length} octets where {max(0, size - start)} are left")
            left -= 1
            if left < 0:
                raise Malformed(f"more than {most} packets")
            yield tag, start, end
            at = end
    except IndexError:
        raise Malformed("a packet's header is cut off") from None


def packet(tag: int, body: bytes, version: int) -> bytes:
    """A packet with the one header that we write: the old format as long as keys are v4, which every reader knows."""
    n = len(body)
    if version == 4:
        if n < 256:
            return bytes((0x80 | tag << 2, n)) + body
        if n < 65536:
            return bytes((0x81 | tag << 2, n >> 8, n & 255)) + body
        return bytes((0x82 | tag << 2,)) + n.to_bytes(4, "big") + body
    if n < 192:
        return bytes((0xC0 | tag, n)) + body
    if n < 8384:
        return bytes((0xC0 | tag, (n - 192 >> 8) + 192, n - 192 & 255)) + body
    return bytes((0xC0 | tag, 255)) + n.to_bytes(4, "big") + body


def mpi(body: bytes, at: int) -> tuple[bytes, int]:
    """The octets of the multiprecision integer at `at` (section 3.2), and where it ends. Raises Malformed."""
    bits = int.from_bytes(body[at : at + 2], "big")
    end = at + 2 + (bits + 7 >> 3)
    if end > len(body) or at + 2 > len(body):
        raise Malformed("a number reaches beyond its packet")
    return body[at + 2 : end], end


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A primary key or subkey as its packet states it (section 5.5.2)."""

    body: bytes
    version: int
    created: int
    algorithm: int
    bits: int
    curve: str  # "" unless it is one of CURVES
    values: tuple[bytes, ...]  # numbers, the point, or the native octets, as the algorithm has them
    fingerprint: bytes

    @property
    def key_id(self) -> bytes:
        """The 64-bit key ID (section 5.5.4)."""
        return self.fingerprint[-8:] if self.version == 4 else self.fingerprint[:8]

    @property
    def hashed(self) -> bytes:
        """What of it enters signatures and the fingerprint (section 5.2.4)."""
        return _hashed(self.body, self.version)


def _hashed(body: bytes, version: int) -> bytes:
    if version == 4:
        return b"\x99" + len(body).to_bytes(2, "big") + body
    return b"\x9b" + len(body).to_bytes(4, "big") + body


def parse_key(body: bytes) -> PublicKey:
    """A v4 or v6 key packet. Raises Malformed, also for other versions and for octets after the key's fields.

    The fingerprint is computed, so whatever is not refused here is at least what it is named."""
    version = body[0] if body else 0
    if version not in (4, 6):
        raise Malformed(f"a version {version} key; versions 4 and 6 are accepted")
    at = 6 if version == 4 else 10
    if len(body) <= at:
        raise Malformed("a key packet is cut off")
    if version == 6 and int.from_bytes(body[6:10], "big") != len(body) - 10:
        raise Malformed("a key packet's material has another length than it states")
    algorithm = body[5]
    bits, curve, values = _material(body, at, algorithm)
    hashed = _hashed(body, version)
    digest = hashlib.sha1(hashed, usedforsecurity=False) if version == 4 else hashlib.sha256(hashed)
    return PublicKey(body, version, int.from_bytes(body[1:5], "big"), algorithm, bits, curve, values, digest.digest())


def _material(body: bytes, at: int, algorithm: int) -> tuple[int, str, tuple[bytes, ...]]:
    """Bits, curve and values of the key material (section 5.5.5); an unknown algorithm's is taken as it is."""
    if numbers := _MPIS.get(algorithm):
        values = []
        for _ in range(numbers):
            value, at = _strict_mpi(body, at)
            values.append(value)
        _ends(body, at)
        return int.from_bytes(values[0], "big").bit_length(), "", tuple(values)
    if algorithm in (ECDH, ECDSA, EDDSA_LEGACY):
        length = body[at]
        curve, bits = CURVES.get(body[at + 1 : at + 1 + length], ("", 0))
        point, at = _strict_mpi(body, at + 1 + length)
        if algorithm == ECDH:
            at += 1 + (body[at] if at < len(body) else 0)
        _ends(body, at)
        return bits, curve, (point,)
    if native := _NATIVE.get(algorithm):
        _ends(body, at + native[0])
        return native[1], "", (body[at:],)
    return 0, "", (body[at:],)


def _strict_mpi(body: bytes, at: int) -> tuple[bytes, int]:
    value, end = mpi(body, at)
    if not value or value[0].bit_length() != (int.from_bytes(body[at : at + 2], "big") - 1 & 7) + 1:
        raise Malformed("a number of a key has another length than it states")
    return value, end


def _ends(body: bytes, at: int) -> None:
    if at != len(body):
        raise Malformed("a key packet is longer or shorter than its fields")
