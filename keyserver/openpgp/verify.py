"""Checking one signature against one key, and what that costs (RFC 9580 sections 5.2.3, 9; draft-ietf-openpgp-pqc)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from keyserver.model import Malformed
from keyserver.openpgp import packets
from keyserver.openpgp.packets import PublicKey
from keyserver.openpgp.signatures import REVOCATIONS, SHA1, STRENGTH, Signature

SHA1_UNTIL = 1_675_209_600  # 2023-02-01: SHA-1 self-signatures made later prove nothing
"""Where Sequoia 1 drew the line; its later versions are stricter, and gpg takes them whenever they were made."""

_HASHLIB: dict[int, Callable[..., hashlib._Hash]] = {
    2: hashlib.sha1,
    8: hashlib.sha256,
    9: hashlib.sha384,
    10: hashlib.sha512,
    11: hashlib.sha224,
    12: hashlib.sha3_256,
    14: hashlib.sha3_512,
}  # no MD5 (1), which proves nothing, and no RIPEMD-160 (3), which `cryptography` does not have
_PREHASHED = {
    2: Prehashed(hashes.SHA1()),  # noqa: S303 - only by date, see SHA1_UNTIL
    8: Prehashed(hashes.SHA256()),
    9: Prehashed(hashes.SHA384()),
    10: Prehashed(hashes.SHA512()),
    11: Prehashed(hashes.SHA224()),
    12: Prehashed(hashes.SHA3_256()),
    14: Prehashed(hashes.SHA3_512()),
}
_EC: dict[str, tuple[ec.EllipticCurve, int]] = {  # curve and nominal µs of a verification
    "nistp256": (ec.SECP256R1(), 110),
    "nistp384": (ec.SECP384R1(), 700),
    "nistp521": (ec.SECP521R1(), 850),
    "secp256k1": (ec.SECP256K1(), 550),
    "brainpoolP256r1": (ec.BrainpoolP256R1(), 600),
    "brainpoolP384r1": (ec.BrainpoolP384R1(), 1200),
    "brainpoolP512r1": (ec.BrainpoolP512R1(), 2000),
}
_DSA_COST = {1024: 180, 2048: 600, 3072: 1300, 4096: 2500}  # sizes that `cryptography` takes
_DSA_Q = frozenset({160, 224, 256})
_DSA_P, _DSA_OTHER_Q = range(1024, 3073), range(160, 257)  # bits of others, which are rare: see `_dsa_by_hand`
_OTHER_COST = {
    packets.EDDSA_LEGACY: 125,
    packets.ED25519: 125,
    packets.ED448: 260,
    packets.MLDSA65_ED25519: 530,
    packets.MLDSA87_ED448: 900,
}
_SMALLEST_DIGEST = {  # octets; sections 5.2.3.3.3 to 5.2.3.3.5
    packets.EDDSA_LEGACY: 32,
    packets.ED25519: 32,
    packets.ED448: 64,
    packets.MLDSA65_ED25519: 32,
    packets.MLDSA87_ED448: 64,
}
RSA_SMALLEST, RSA_LARGEST = 1024, 16384
_ED25519_SIGNATURE = 64  # octets
_HASH_COST = 3  # µs per signature, and one more for each 256 octets hashed

Check: TypeAlias = Callable[[bytes, int, bytes, int], None]


class Exhausted(Exception):
    """The budget of verification is used up."""


class VerificationBudget:
    """Nominal microseconds left; charged before the work, so that its end depends on the input alone."""

    def __init__(self, cost: int, parent: VerificationBudget | None = None) -> None:
        self.left = cost
        self.parent = parent

    def charge(self, cost: int) -> None:
        """Raises Exhausted where less is left."""
        self.left -= cost
        if self.parent is not None:
            self.parent.charge(cost)
        if self.left < 0:
            raise Exhausted


def verifiable(key: PublicKey) -> bool:
    """Do we have this key's algorithm (and curve, and version) for verifying?"""
    algorithm = key.algorithm
    if algorithm in (packets.RSA, packets.RSA_SIGN, packets.ED25519, packets.ED448):
        return True
    if algorithm == packets.ECDSA:
        return key.curve in _EC
    if algorithm == packets.EDDSA_LEGACY:
        return key.curve == "ed25519" and key.version == 4
    if algorithm == packets.DSA:
        bits = _q_bits(key)
        return (key.bits in _DSA_COST and bits in _DSA_Q) or (key.bits in _DSA_P and bits in _DSA_OTHER_Q)
    return algorithm in (packets.MLDSA65_ED25519, packets.MLDSA87_ED448) and key.version == 6


def _q_bits(key: PublicKey) -> int:
    return int.from_bytes(key.values[1], "big").bit_length()


class Target:
    """What a signature is made over: hashed once for each hash function, then copied."""

    __slots__ = ("_begun", "_v3", "octets")

    def __init__(self, octets: bytes, v3: bytes | None = None) -> None:
        self.octets = octets
        self._v3 = v3  # what a v3 signature is made over, where that differs
        self._begun: dict[int, hashlib._Hash] = {}

    def digest(self, signature: Signature) -> bytes:
        """The digest that was signed: salt, target, trailer (section 5.2.4)."""
        new = _HASHLIB[signature.hash]
        if signature.salt:
            begun = new(signature.salt + self.octets, usedforsecurity=False)
        elif signature.version == 3 and self._v3 is not None:
            begun = new(self._v3, usedforsecurity=False)
        else:
            first = self._begun.get(signature.hash)
            if first is None:
                first = self._begun[signature.hash] = new(self.octets, usedforsecurity=False)
            begun = first.copy()
        begun.update(signature.trailer())
        return begun.digest()


_NAMES = {1: "MD5", 2: "SHA-1", 3: "RIPEMD-160"}


def weakness(signature: Signature) -> str:
    """Why a signature has no chance to prove anything, whoever made it; empty where it has one."""
    if signature.hash not in _HASHLIB:
        return f"made with {_NAMES.get(signature.hash, f'hash {signature.hash}')}, which proves nothing here"
    if signature.hash == SHA1 and signature.made >= SHA1_UNTIL and signature.type not in REVOCATIONS:
        return "made with SHA-1 after January 2023"
    return signature.flaw


class Verifier:
    """One key, ready to check signatures."""

    def __init__(self, key: PublicKey, budget: VerificationBudget) -> None:
        """Raises Malformed where the key's numbers are no key. `verifiable(key)` must hold."""
        self.key = key
        self._budget = budget
        self._smallest = _SMALLEST_DIGEST.get(key.algorithm, 0)
        try:
            self._cost, self._check = _load(key)
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
            raise Malformed(f"a key whose numbers are no key: {str(error)[:80]}") from None

    def admits(self, signature: Signature) -> bool:
        """What can be said of a signature without hashing anything."""
        key = self.key
        if signature.flaw or signature.created is None or signature.created < key.created:
            return False
        if signature.version != key.version and (signature.version, key.version) != (3, 4):
            return False
        if signature.algorithm != key.algorithm and not {signature.algorithm, key.algorithm} <= packets.RSA_ALGORITHMS:
            return False
        if signature.hash not in _HASHLIB or STRENGTH[signature.hash] < self._smallest:
            return False
        # a revocation too many harms less than one too few, so that these may stay on SHA-1
        return signature.hash != SHA1 or signature.created < SHA1_UNTIL or signature.type in REVOCATIONS

    def digest(self, signature: Signature, target: Target) -> bytes | None:
        """The digest, if its left 16 bits are those in the packet. Raises Exhausted."""
        self._budget.charge(_HASH_COST + (len(signature.body) + (len(target.octets) if signature.salt else 0) >> 8))
        digest = target.digest(signature)
        return digest if digest[:2] == signature.left16 else None

    def check(self, signature: Signature, digest: bytes) -> bool:
        """Is this digest signed? Raises Exhausted."""
        self._budget.charge(self._cost)
        try:
            self._check(digest, signature.hash, signature.body, signature.material)
        except (InvalidSignature, ValueError, OverflowError, UnsupportedAlgorithm):  # Malformed is a ValueError
            return False
        return True


def _load(key: PublicKey) -> tuple[int, Check]:
    """Nominal µs of one verification, and what does it (raising InvalidSignature or ValueError)."""
    algorithm, values = key.algorithm, key.values
    if algorithm in packets.RSA_ALGORITHMS:
        return _load_rsa(*(int.from_bytes(v, "big") for v in values))
    if algorithm == packets.DSA:
        p, q, g, y = (int.from_bytes(v, "big") for v in values)
        if key.bits not in _DSA_COST or _q_bits(key) not in _DSA_Q:
            return _dsa_by_hand(p, q, g, y)
        return _DSA_COST[key.bits], _dsa(dsa.DSAPublicNumbers(y, dsa.DSAParameterNumbers(p, q, g)).public_key())
    if algorithm == packets.ECDSA:
        curve, cost = _EC[key.curve]
        return cost, _ecdsa(ec.EllipticCurvePublicKey.from_encoded_point(curve, values[0]))
    cost = _OTHER_COST[algorithm]
    if algorithm == packets.EDDSA_LEGACY:
        if len(values[0]) != 33 or values[0][0] != 0x40:
            raise ValueError("a point without its prefix 40")
        return cost, _eddsa_legacy(_ed25519(values[0][1:]))
    if algorithm == packets.ED25519:
        return cost, _native([(_ed25519(values[0]), _ED25519_SIGNATURE)])
    if algorithm == packets.ED448:
        return cost, _native([(ed448.Ed448PublicKey.from_public_bytes(values[0]).verify, 114)])
    if algorithm == packets.MLDSA65_ED25519:
        edwards = _ed25519(values[0][:32])
        lattice = mldsa.MLDSA65PublicKey.from_public_bytes(values[0][32:])
        return cost, _native([(edwards, _ED25519_SIGNATURE), (lattice.verify, 3309)])
    edwards448 = ed448.Ed448PublicKey.from_public_bytes(values[0][:57])
    larger = mldsa.MLDSA87PublicKey.from_public_bytes(values[0][57:])
    return cost, _native([(edwards448.verify, 114), (larger.verify, 4627)])


def _load_rsa(n: int, e: int) -> tuple[int, Check]:
    bits = n.bit_length()
    if not RSA_SMALLEST <= bits <= RSA_LARGEST:
        raise ValueError(f"RSA of {bits} bits; {RSA_SMALLEST} to {RSA_LARGEST} are accepted")
    if not (3 <= e <= 1 << 33 and e & 1):
        raise ValueError("an RSA exponent that is even or too large")
    public = rsa.RSAPublicNumbers(e, n).public_key()
    size = bits + 7 >> 3
    scheme = padding.PKCS1v15()

    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        value, _ = packets.mpi(body, at)
        public.verify(value.rjust(size, b"\0"), digest, scheme, _PREHASHED[hash_id])

    squarings = max(17, e.bit_length())
    return 10 + bits * bits * squarings // 2_300_000, check


def _dsa(public: dsa.DSAPublicKey) -> Check:
    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        public.verify(_pair(body, at), digest, _PREHASHED[hash_id])

    return check


def _dsa_by_hand(p: int, q: int, g: int, y: int) -> tuple[int, Check]:
    """DSA of sizes that no standard names and `cryptography` refuses, but gpg verifies (FIPS 186-4 section 4.7).

    All of it is public, so that its time may depend on anything: at most 15 ms, in which no other thread goes on."""
    if not (p & 1 and q & 1 and 1 < g < p and 1 < y < p and q < p):
        raise ValueError("DSA numbers out of their bounds")
    bits = q.bit_length()

    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        r, s = _numbers(body, at)
        if not (0 < r < q and 0 < s < q):
            raise InvalidSignature
        inverse = pow(s, -1, q)  # ValueError where q is no prime
        z = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - bits)
        if pow(g, z * inverse % q, p) * pow(y, r * inverse % q, p) % p % q != r:
            raise InvalidSignature

    return p.bit_length() ** 2 * bits // 100_000, check


def _ecdsa(public: ec.EllipticCurvePublicKey) -> Check:
    schemes = {hash_id: ec.ECDSA(prehashed) for hash_id, prehashed in _PREHASHED.items()}

    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        public.verify(_pair(body, at), digest, schemes[hash_id])

    return check


def _ed25519(public: bytes) -> Callable[[bytes, bytes], None]:
    """By libsodium, in half the time of `cryptography`. It also refuses the points of small order, under which one
    signature fits any text: such a key is nobody's.
    """

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != _ED25519_SIGNATURE:
            raise InvalidSignature
        try:
            crypto_sign_open(signature + message, public)
        except CryptoError:
            raise InvalidSignature from None

    return verify


def _eddsa_legacy(verify: Callable[[bytes, bytes], None]) -> Check:
    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        r, at = packets.mpi(body, at)
        s, _ = packets.mpi(body, at)
        verify(r.rjust(32, b"\0") + s.rjust(32, b"\0"), digest)

    return check


def _native(halves: list[tuple[Callable[[bytes, bytes], None], int]]) -> Check:
    """Signatures of fixed length, one behind the other; every one must verify."""

    def check(digest: bytes, hash_id: int, body: bytes, at: int) -> None:
        if len(body) < at + sum(size for _, size in halves):
            raise InvalidSignature
        for verify, size in halves:
            verify(body[at : at + size], digest)
            at += size

    return check


def _pair(body: bytes, at: int) -> bytes:
    return encode_dss_signature(*_numbers(body, at))


def _numbers(body: bytes, at: int) -> tuple[int, int]:
    r, at = packets.mpi(body, at)
    s, _ = packets.mpi(body, at)
    return int.from_bytes(r, "big"), int.from_bytes(s, "big")
