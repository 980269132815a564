"""Certificates of a wished size, quickly: version 4, EdDSA, with an encryption subkey, every signature valid.

The layout of packets is RFC 9580's (sections 5.2 and 5.5).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CREATED = 1_600_000_000
ARMOR_OVERHEAD = 90  # octets of an armored block beside its lines
LONGEST_USER_ID = 1300  # octets with its signature; gpg takes 2,048 without

_EDDSA, _ECDH = 22, 18
_ED25519 = bytes.fromhex("092b06010401da470f01")
_CV25519 = bytes.fromhex("0a2b060104019755010501")
_POSITIVE, _BINDING = 0x13, 0x18
_SHA256 = 8
_SIGNED = 132  # octets of a self-signature, and of the user ID's own header


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate: its packets, fingerprint, addresses, and whole user IDs."""

    octets: bytes = field(repr=False)
    fingerprint: str
    addresses: tuple[str, ...]
    user_ids: tuple[str, ...] = ()


class Key:
    """A primary key, always the same for one seed."""

    def __init__(self, seed: str) -> None:
        digest = hashlib.sha256(seed.encode()).digest()
        self._private = Ed25519PrivateKey.from_private_bytes(digest)
        point = b"\x40" + self._private.public_key().public_bytes_raw()
        self.body = b"\x04" + CREATED.to_bytes(4, "big") + bytes([_EDDSA]) + _ED25519 + mpi(point)
        self.hashed = b"\x99" + len(self.body).to_bytes(2, "big") + self.body
        self.fingerprint = hashlib.sha1(self.hashed, usedforsecurity=False).digest()
        # The subkey's secret half belongs to nobody: any 32 octets are a point of Curve25519.
        secret = b"\x40" + hashlib.sha256(digest).digest()
        self.subkey = (
            b"\x04" + CREATED.to_bytes(4, "big") + bytes([_ECDH]) + _CV25519 + mpi(secret) + bytes.fromhex("03010807")
        )

    def signature(self, kind: int, over: bytes, flags: int, good: bool = True) -> bytes:
        """A signature packet by this key; not `good`: a well-formed one that does not verify."""
        hashed = _subpacket(2, CREATED.to_bytes(4, "big")) + _subpacket(27, bytes([flags]))
        hashed += _subpacket(33, b"\x04" + self.fingerprint)
        head = bytes([4, kind, _EDDSA, _SHA256]) + len(hashed).to_bytes(2, "big") + hashed
        digest = hashlib.sha256(over + head + b"\x04\xff" + len(head).to_bytes(4, "big")).digest()
        signed = self._private.sign(digest if good else digest[::-1])
        loose = _subpacket(16, self.fingerprint[-8:])
        body = head + len(loose).to_bytes(2, "big") + loose + digest[:2] + mpi(signed[:32]) + mpi(signed[32:])
        return packet(2, body)

    def user_id(self, text: bytes, good: bool = True) -> bytes:
        """A user ID with its self-signature."""
        over = self.hashed + b"\xb4" + len(text).to_bytes(4, "big") + text
        return packet(13, text) + self.signature(_POSITIVE, over, 3, good)

    def bound_subkey(self) -> bytes:
        """The encryption subkey with its binding."""
        over = self.hashed + b"\x99" + len(self.subkey).to_bytes(2, "big") + self.subkey
        return packet(14, self.subkey) + self.signature(_BINDING, over, 12)


def make(seed: str, size: int = 0) -> Made:
    """A certificate whose armored form has about `size` octets (0: one short user ID, about 600)."""
    key = Key(seed)
    addresses = [f"{seed}@bench.example"]
    user_ids = [f"Bench <{addresses[0]}>"]
    octets = packet(6, key.body) + key.user_id(user_ids[0].encode())
    tail = key.bound_subkey()
    wanted = (size - ARMOR_OVERHEAD) * 48 // 65  # base64 in lines of 64
    while (room := wanted - len(octets) - len(tail)) > 200:
        addresses.append(f"{seed}.{len(addresses)}@bench.example")
        share = room // math.ceil(room / LONGEST_USER_ID)
        padding = "x" * (share - len(f"() <{addresses[-1]}>") - _SIGNED)
        user_ids.append(f"({padding}) <{addresses[-1]}>")
        octets += key.user_id(user_ids[-1].encode())
    return Made(octets + tail, key.fingerprint.hex().upper(), tuple(addresses), tuple(user_ids))


def many(prefix: str, count: int, size: int = 0) -> list[Made]:
    """So many, all different, the same at every run."""
    return [make(f"{prefix}{number}", size) for number in range(count)]


def joined(certificates: Sequence[Made]) -> bytes:
    """As one keyring."""
    return b"".join(made.octets for made in certificates)


def packet(tag: int, body: bytes) -> bytes:
    """A packet with a new-format header (section 4.2.1)."""
    n = len(body)
    if n < 192:
        return bytes([0xC0 | tag, n]) + body
    if n < 8384:
        return bytes([0xC0 | tag, (n - 192 >> 8) + 192, n - 192 & 0xFF]) + body
    return bytes([0xC0 | tag, 255]) + n.to_bytes(4, "big") + body


def mpi(octets: bytes) -> bytes:
    """A multiprecision integer (section 3.2)."""
    value = int.from_bytes(octets, "big")
    return value.bit_length().to_bytes(2, "big") + value.to_bytes((value.bit_length() + 7) // 8, "big")


def _subpacket(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data
