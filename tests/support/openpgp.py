"""Makes OpenPGP certificates for tests: ordinary ones in a line, odd and hostile ones packet by packet.

Ordinary use::

    from support.openpgp import make, make_certificate
    octets = make_certificate(["Alice <alice@example.org>"])        # binary, v4: Ed25519 + Curve25519, as gpg makes it
    made = make(["Alice <alice@example.org>"], revoked=2)           # .octets, .fingerprint, .key_id, .primary, .subkeys

Every option has a default under which gpg 2.2 imports the result. Times are Unix seconds; expirations are seconds
after the key's creation. `seed` makes keys (and so fingerprints) the same at every run; without it they are random.
Numbers of packets, algorithms, subpackets and signature types are RFC 9580's.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, x448, x25519
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from support.kept_keys import next_dsa, next_rsa
from support.odd_dsa import OddDsa

CREATED = 1_600_000_000  # 2020-09-13, when a certificate is made unless the test says otherwise

RSA, ELGAMAL, DSA, ECDH, ECDSA, EDDSA_LEGACY = 1, 16, 17, 18, 19, 22
X25519, X448, ED25519, ED448, MLDSA65_ED25519, MLDSA87_ED448, MLKEM768_X25519 = 25, 26, 27, 28, 30, 31, 35
SIG, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, USER_ID, SUBKEY, USER_ATTRIBUTE = 2, 5, 6, 7, 13, 14, 17
MARKER, TRUST, COMPRESSED, PADDING = 10, 12, 8, 21
CERTIFY, SIGN, ENCRYPT = 1, 2, 12

HASHES = {"md5": 1, "sha1": 2, "ripemd160": 3, "sha256": 8, "sha384": 9, "sha512": 10, "sha224": 11}
HASHES |= {"sha3_256": 12, "sha3_512": 14}
SALTS = {"sha224": 16, "sha256": 16, "sha384": 24, "sha512": 32, "sha3_256": 16, "sha3_512": 32, "sha1": 16, "md5": 16}
_CRYPTOGRAPHY_HASHES: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha3_256": hashes.SHA3_256(),
    "sha3_512": hashes.SHA3_512(),
}
CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "p256": ("2a8648ce3d030107", ec.SECP256R1()),
    "p384": ("2b81040022", ec.SECP384R1()),
    "p521": ("2b81040023", ec.SECP521R1()),
    "secp256k1": ("2b8104000a", ec.SECP256K1()),
    "brainpool256": ("2b2403030208010107", ec.BrainpoolP256R1()),
    "brainpool384": ("2b240303020801010b", ec.BrainpoolP384R1()),
    "brainpool512": ("2b240303020801010d", ec.BrainpoolP512R1()),
}
_ED25519_OID, _CV25519_OID = bytes.fromhex("092b06010401da470f01"), bytes.fromhex("0a2b060104019755010501")


def number(value: int, octets: int) -> bytes:
    """A big-endian number of so many octets."""
    return value.to_bytes(octets, "big")


def mpi(value: int | bytes) -> bytes:
    """A multiprecision integer (section 3.2)."""
    value = int.from_bytes(value, "big") if isinstance(value, bytes) else value
    return number(value.bit_length(), 2) + number(value, (value.bit_length() + 7) // 8)


def packet(tag: int, body: bytes, old: bool = False) -> bytes:
    """A packet with its header, in the new format or the old one that gpg writes (section 4.2)."""
    n = len(body)
    if old:
        size = 0 if n < 256 else 1 if n < 65536 else 2
        return bytes([0x80 | tag << 2 | size]) + number(n, 1 << size) + body
    if n < 192:
        return bytes([0xC0 | tag, n]) + body
    if n < 8384:
        return bytes([0xC0 | tag, (n - 192 >> 8) + 192, n - 192 & 0xFF]) + body
    return bytes([0xC0 | tag, 255]) + number(n, 4) + body


def subpacket(kind: int, data: bytes, critical: bool = False) -> bytes:
    """A signature subpacket (section 5.2.3.7)."""
    n = len(data) + 1
    head = (
        bytes([n]) if n < 192 else bytes([(n - 192 >> 8) + 192, n - 192 & 0xFF]) if n < 8384 else b"\xff" + number(n, 4)
    )
    return head + bytes([kind | (0x80 if critical else 0)]) + data


def _crc(octet: int) -> int:
    crc = octet << 16
    for _ in range(8):
        crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc


_CRC = tuple(map(_crc, range(256)))  # of each octet by itself (section 6.1.1)


def armored(octets: bytes) -> str:
    """A public key block with its CRC-24, LF line ends; written plainly, independent of the product's own armor."""
    crc = 0xB704CE
    for octet in octets:
        crc = (crc << 8 & 0xFFFFFF) ^ _CRC[crc >> 16 ^ octet]
    text = base64.b64encode(octets).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    check = "=" + base64.b64encode(number(crc, 3)).decode()
    head, tail = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    return "\n".join([head, "", *lines, check, tail, ""])


@dataclass(frozen=True)
class Key:
    """A primary key or subkey together with what signs for it."""

    version: int
    created: int
    algorithm: int
    material: bytes = field(repr=False)
    private: Any = field(repr=False)

    @property
    def body(self) -> bytes:
        """The body of its key packet (section 5.5.2)."""
        head = bytes([self.version]) + number(self.created, 4) + bytes([self.algorithm])
        return head + (number(len(self.material), 4) if self.version >= 5 else b"") + self.material

    @property
    def hashed(self) -> bytes:
        """What of it is hashed into signatures and fingerprints (section 5.2.4)."""
        prefix = {5: b"\x9a", 6: b"\x9b"}.get(self.version, b"\x99")
        return prefix + number(len(self.body), 4 if self.version >= 5 else 2) + self.body

    @property
    def fingerprint_octets(self) -> bytes:
        """The fingerprint (section 5.5.4)."""
        return hashlib.sha256(self.hashed).digest() if self.version >= 5 else hashlib.sha1(self.hashed).digest()

    @property
    def fingerprint(self) -> str:
        """The fingerprint in upper-case hex."""
        return self.fingerprint_octets.hex().upper()

    @property
    def key_id(self) -> str:
        """The 64-bit key ID in upper-case hex."""
        return self.fingerprint[:16] if self.version >= 5 else self.fingerprint[-16:]

    def packet(self, tag: int = PUBLIC_KEY, old: bool = False) -> bytes:
        """Its public key packet (14 for a subkey)."""
        return packet(tag, self.body, old)

    def sign(self, digest: bytes, hash_name: str) -> bytes:
        """The algorithm-specific part of a signature over this digest (section 5.2.3)."""
        algorithm, private = self.algorithm, self.private
        if algorithm in (RSA, 3):
            return mpi(private.sign(digest, padding.PKCS1v15(), Prehashed(_CRYPTOGRAPHY_HASHES[hash_name])))
        if algorithm in (DSA, ECDSA):
            prehashed = Prehashed(_CRYPTOGRAPHY_HASHES[hash_name])
            made = private.sign(digest, prehashed if algorithm == DSA else ec.ECDSA(prehashed))
            r, s = decode_dss_signature(made)
            return mpi(r) + mpi(s)
        if algorithm == EDDSA_LEGACY:
            made = private.sign(digest)
            return mpi(made[:32]) + mpi(made[32:])
        if algorithm in (MLDSA65_ED25519, MLDSA87_ED448):
            return bytes(private[0].sign(digest)) + bytes(private[1].sign(digest))
        return bytes(private.sign(digest))


def _raw(public: Any) -> bytes:
    return bytes(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


def new_key(algorithm: str = "ed25519", created: int = CREATED, version: int = 4, seed: str | None = None) -> Key:
    """A fresh key.

    `algorithm`: `ed25519` and `cv25519` (v4: the legacy numbers 22 and 18 that gpg 2.2 knows; v6: 27 and 25),
    `ed25519-native`, `x25519-native`, `ed448`, `x448`, `rsa2048` (any size), `dsa2048`, `dsa1248` and `dsa1536` (odd
    ones), `p256` … `brainpool512`, `ecdh-p256` …, `mldsa65`, `mldsa87`, or `unknown` (number 99, verifiable by nobody).
    """
    secret = hashlib.sha512(f"{algorithm} {seed}".encode()).digest() if seed is not None else os.urandom(64)
    if algorithm == "ed25519" and version == 4:
        edwards = ed25519.Ed25519PrivateKey.from_private_bytes(secret[:32])
        return Key(4, created, EDDSA_LEGACY, _ED25519_OID + mpi(b"\x40" + _raw(edwards.public_key())), edwards)
    if algorithm in ("ed25519", "ed25519-native"):
        edwards = ed25519.Ed25519PrivateKey.from_private_bytes(secret[:32])
        return Key(version, created, ED25519, _raw(edwards.public_key()), edwards)
    if algorithm == "cv25519" and version == 4:
        montgomery = x25519.X25519PrivateKey.from_private_bytes(secret[:32])
        point = mpi(b"\x40" + _raw(montgomery.public_key()))
        return Key(4, created, ECDH, _CV25519_OID + point + b"\x03\x01\x08\x07", montgomery)
    if algorithm in ("cv25519", "x25519-native"):
        montgomery = x25519.X25519PrivateKey.from_private_bytes(secret[:32])
        return Key(version, created, X25519, _raw(montgomery.public_key()), montgomery)
    if algorithm == "ed448":
        edwards448 = ed448.Ed448PrivateKey.from_private_bytes(secret[:57])
        return Key(version, created, ED448, _raw(edwards448.public_key()), edwards448)
    if algorithm == "x448":
        montgomery448 = x448.X448PrivateKey.from_private_bytes(secret[:56])
        return Key(version, created, X448, _raw(montgomery448.public_key()), montgomery448)
    if algorithm.startswith("rsa"):
        rsa_key = next_rsa(int(algorithm[3:]))
        numbers = rsa_key.public_key().public_numbers()
        return Key(version, created, RSA, mpi(numbers.n) + mpi(numbers.e), rsa_key)
    if algorithm in ("dsa1248", "dsa1536"):
        odd = OddDsa.of(int(algorithm[3:]))
        return Key(version, created, DSA, b"".join(map(mpi, odd.numbers)), odd)
    if algorithm.startswith("dsa"):
        dsa_key = next_dsa(int(algorithm[3:]))
        public = dsa_key.public_key().public_numbers()
        domain = public.parameter_numbers
        return Key(version, created, DSA, b"".join(map(mpi, (domain.p, domain.q, domain.g, public.y))), dsa_key)
    if algorithm.removeprefix("ecdh-") in CURVES:
        oid, curve = CURVES[algorithm.removeprefix("ecdh-")]
        ec_key = ec.generate_private_key(curve)
        point = ec_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        material = bytes([len(oid) // 2]) + bytes.fromhex(oid) + mpi(point)
        if algorithm.startswith("ecdh-"):
            return Key(version, created, ECDH, material + b"\x03\x01\x08\x07", ec_key)
        return Key(version, created, ECDSA, material, ec_key)
    if algorithm == "mldsa65":
        halves = (ed25519.Ed25519PrivateKey.from_private_bytes(secret[:32]), mldsa.MLDSA65PrivateKey.generate())
        material = _raw(halves[0].public_key()) + _raw(halves[1].public_key())
        return Key(version, created, MLDSA65_ED25519, material, halves)
    if algorithm == "mldsa87":
        larger = (ed448.Ed448PrivateKey.from_private_bytes(secret[:57]), mldsa.MLDSA87PrivateKey.generate())
        material = _raw(larger[0].public_key()) + _raw(larger[1].public_key())
        return Key(version, created, MLDSA87_ED448, material, larger)
    if algorithm == "unknown":
        return Key(version, created, 99, secret, None)
    raise ValueError(f"{algorithm} is no algorithm this builder knows")


def hashed_user_id(user_id: bytes, tag: int = USER_ID) -> bytes:
    """How a user ID (or attribute) enters a signature (section 5.2.4)."""
    return (b"\xd1" if tag == USER_ATTRIBUTE else b"\xb4") + number(len(user_id), 4) + user_id


def signature(
    signer: Key,
    type_: int,
    target: bytes,
    *,
    created: int | None = CREATED,
    hash_name: str = "sha512",
    hashed: Sequence[bytes] = (),
    unhashed: Sequence[bytes] | None = None,
    issuer: bool = True,
    version: int | None = None,
    salt: bytes | None = None,
    corrupt: bool = False,
    left16: bytes | None = None,
    raw: bytes | None = None,
    body_only: bool = False,
    old: bool = False,
) -> bytes:
    """One signature packet over `target` (the octets of section 5.2.4, without salt and trailer).

    `hashed` and `unhashed` are subpackets added to creation time and issuer; `unhashed=None` puts the issuer key ID
    there, as gpg does. `corrupt` flips a bit of the result, `raw` replaces the algorithm's part altogether (for fakes
    that cost nothing to make), `left16` the two check octets. `version=3` makes a v3 signature.
    """
    version = signer.version if version is None else version
    algorithm, hash_id = signer.algorithm, HASHES[hash_name]
    if version == 3:
        trailer = bytes([type_]) + number(created or 0, 4)
        head = bytes([3, 5]) + trailer + bytes.fromhex(signer.key_id) + bytes([algorithm, hash_id])
        salt = b""
    else:
        inside = list(hashed)
        if created is not None:
            inside.insert(0, subpacket(2, number(created, 4)))
        if issuer:
            inside.append(subpacket(33, bytes([signer.version]) + signer.fingerprint_octets))
        if unhashed is None:
            unhashed = [subpacket(16, bytes.fromhex(signer.key_id))] if issuer and version == 4 else []
        wide = 4 if version == 6 else 2
        area, loose = b"".join(inside), b"".join(unhashed)
        head = bytes([version, type_, algorithm, hash_id]) + number(len(area), wide) + area
        trailer = head + bytes([version, 0xFF]) + number(len(head), 8 if version == 5 else 4)
        head += number(len(loose), wide) + loose
        salt = b"" if version != 6 else os.urandom(SALTS[hash_name]) if salt is None else salt
    digest = bytes(20) if hash_name == "ripemd160" else hashlib.new(hash_name, salt + target + trailer).digest()
    made = raw if raw is not None else signer.sign(digest, hash_name)
    if corrupt:
        made = made[:-1] + bytes([made[-1] ^ 1])
    head += digest[:2] if left16 is None else left16
    if version == 6:
        head += bytes([len(salt)]) + salt
    body = head + made
    return body if body_only else packet(SIG, body, old)


def flags(bits: int) -> bytes:
    """Key flags (27): 1 certify, 2 sign, 4 and 8 encrypt."""
    return subpacket(27, bytes([bits]))


def expiry(seconds: int | None) -> tuple[bytes, ...]:
    """Key expiration time (9), seconds after the key's creation; None adds nothing."""
    return () if seconds is None else (subpacket(9, number(seconds, 4)),)


def reason(code: int | None, text: str = "") -> tuple[bytes, ...]:
    """Reason for revocation (29): 0 none, 1 superseded, 2 compromised, 3 retired, 32 user ID no longer valid."""
    return () if code is None else (subpacket(29, bytes([code]) + text.encode()),)


def certify(primary: Key, user_id: bytes, *, type_: int = 0x13, signer: Key | None = None, **options: Any) -> bytes:
    """A certification of a user ID (0x30: its revocation), by the primary itself or by `signer`."""
    target = primary.hashed + (user_id if options.get("version") == 3 else hashed_user_id(user_id))
    return signature(signer or primary, type_, target, **options)


def direct(primary: Key, *, type_: int = 0x1F, signer: Key | None = None, **options: Any) -> bytes:
    """A direct-key signature (0x1F) or key revocation (0x20)."""
    return signature(signer or primary, type_, primary.hashed, **options)


def bind(primary: Key, subkey: Key, *, usage: int | None = ENCRYPT, back: bool | None = None, **options: Any) -> bytes:
    """A subkey binding (0x18). `back`: with the subkey's back-signature (0x19); None: when it is for signing."""
    target = primary.hashed + subkey.hashed
    hashed = [*([] if usage is None else [flags(usage)]), *options.pop("hashed", ())]
    if back if back is not None else bool(usage and usage & SIGN):
        made = options.get("created", CREATED)
        embedded = signature(subkey, 0x19, target, created=made, body_only=True)
        hashed.append(subpacket(32, embedded))
    return signature(primary, 0x18, target, hashed=hashed, **options)


def revoke_subkey(primary: Key, subkey: Key, **options: Any) -> bytes:
    """A subkey revocation (0x28)."""
    return signature(primary, 0x28, primary.hashed + subkey.hashed, **options)


@dataclass(frozen=True)
class Made:
    """A certificate and everything needed to sign more for it."""

    octets: bytes = field(repr=False)
    primary: Key
    subkeys: tuple[Key, ...]

    @property
    def fingerprint(self) -> str:
        """The primary key's fingerprint, upper-case hex."""
        return self.primary.fingerprint

    @property
    def key_id(self) -> str:
        """The primary key's key ID, upper-case hex."""
        return self.primary.key_id

    @property
    def armored(self) -> str:
        """The certificate as an armored block."""
        return armored(self.octets)


def make(
    user_ids: Iterable[str | bytes] = ("Alice <alice@example.org>",),
    *,
    created: int = CREATED,
    signed_at: int | None = None,
    version: int = 4,
    algorithm: str = "ed25519",
    encryption: str | None = "cv25519",
    signing: bool = False,
    expires: int | None = None,
    subkey_expires: int | None = None,
    revoked: int | None = None,
    revoked_at: int | None = None,
    subkeys_revoked: int | None = None,
    revoked_user_ids: Iterable[str | bytes] = (),
    hash_name: str = "sha512",
    third_party: int = 0,
    primary: Key | None = None,
    seed: str | None = None,
    old: bool = True,
) -> Made:
    """A whole certificate.

    - `encryption`: algorithm of the encryption subkey, None for none; `signing`: also a signing subkey, back-signed.
    - `expires`, `subkey_expires`: seconds after creation. `signed_at`: when the self-signatures are made (`created`).
    - `revoked`, `subkeys_revoked`: a reason's code (0 and 2 are hard, 1 and 3 soft), made at `revoked_at` (a day
      after the self-signatures); `revoked_user_ids`: those of `user_ids` that are revoked at that time (reason 32).
    - `third_party`: so many worthless certifications by strangers on every user ID.
    - `primary`: a key made before, to make a second copy of the same certificate. `old`: packet headers as gpg's.
    """
    signed_at = created if signed_at is None else signed_at
    revoked_at = signed_at + 86400 if revoked_at is None else revoked_at
    primary = primary or new_key(algorithm, created, version, seed)
    old = old and version == 4
    common: dict[str, Any] = {"created": signed_at, "hash_name": hash_name, "old": old}
    usage = (flags(CERTIFY | SIGN), *expiry(expires))
    out = [primary.packet(PUBLIC_KEY, old)]
    if revoked is not None:
        out.append(direct(primary, type_=0x20, hashed=reason(revoked), **{**common, "created": revoked_at}))
    if version == 6:
        out.append(direct(primary, hashed=usage, **common))
    withdrawn = {_octets(user_id) for user_id in revoked_user_ids}
    stranger = new_key("ed25519", created, version) if third_party else None
    for user_id in map(_octets, user_ids):
        out.append(packet(USER_ID, user_id, old))
        out.append(certify(primary, user_id, hashed=usage, **common))
        if user_id in withdrawn:
            options = {**common, "created": revoked_at, "hashed": reason(32)}
            out.append(certify(primary, user_id, type_=0x30, **options))
        for n in range(third_party if stranger else 0):
            out.append(certify(primary, user_id, type_=0x10, signer=stranger, created=signed_at + n, old=old))
    wanted = [(encryption, ENCRYPT)] if encryption else []
    if signing:
        wanted.append((algorithm, SIGN))
    subkeys = []
    for n, (name, use) in enumerate(wanted):
        subkey = new_key(name, created, version, None if seed is None else f"{seed} subkey {n}")
        subkeys.append(subkey)
        out.append(subkey.packet(SUBKEY, old))
        out.append(bind(primary, subkey, usage=use, hashed=expiry(subkey_expires), **common))
        if subkeys_revoked is not None:
            options = {**common, "created": revoked_at, "hashed": reason(subkeys_revoked)}
            out.append(revoke_subkey(primary, subkey, **options))
    return Made(b"".join(out), primary, tuple(subkeys))


def make_certificate(user_ids: Iterable[str | bytes] = ("Alice <alice@example.org>",), **options: Any) -> bytes:
    """The binary octets of `make(user_ids, …)`."""
    return make(user_ids, **options).octets


def secret_key(key: Key, tag: int = SECRET_KEY) -> bytes:
    """An unprotected secret key packet of an EdDSA-legacy key: what people upload by mistake."""
    material = mpi(key.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    return packet(tag, key.body + b"\x00" + material + number(sum(material) & 0xFFFF, 2))


def _octets(user_id: str | bytes) -> bytes:
    return user_id.encode() if isinstance(user_id, str) else user_id
