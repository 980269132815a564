"""Hostile and merely odd OpenPGP input, made by code. Each builder returns binary octets and says what is wrong.

`HOSTILE` holds those that must cost little and yield nothing bad, by name; what each of the others must become is for
its test to say.
"""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Callable

from support.openpgp import (
    CERTIFY,
    COMPRESSED,
    CREATED,
    ENCRYPT,
    MARKER,
    PUBLIC_KEY,
    RSA,
    SIG,
    SIGN,
    SUBKEY,
    USER_ATTRIBUTE,
    USER_ID,
    Key,
    Made,
    bind,
    certify,
    direct,
    flags,
    hashed_user_id,
    make,
    make_certificate,
    mpi,
    new_key,
    number,
    packet,
    reason,
    secret_key,
    signature,
    subpacket,
)

ALICE = b"Alice <alice@example.org>"
MEBI = 1 << 20


# Framing -------------------------------------------------------------------------------------------------------------


def compressed_bomb(octets: int = 32 * MEBI) -> bytes:
    """A compressed packet (bzip2) that would open to that much."""
    return make_certificate([ALICE]) + packet(COMPRESSED, b"\x03" + bz2.compress(bytes(octets)))


def deflated_bomb(octets: int = 32 * MEBI) -> bytes:
    """The same with zlib, and nothing before it."""
    return packet(COMPRESSED, b"\x02" + zlib.compress(bytes(octets)))


def nested_compression(depth: int = 3000) -> bytes:
    """Compressed packets in compressed packets."""
    inside = make_certificate([ALICE])
    for _ in range(depth):
        inside = packet(COMPRESSED, b"\x00" + inside)
    return make_certificate([ALICE]) + inside


def endless_packet() -> bytes:
    """A good certificate, then a packet that claims 2^32-1 octets."""
    return make_certificate([ALICE]) + b"\xcd\xff\xff\xff\xff\xff" + b"x" * 100


def endless_packet_first() -> bytes:
    """The same claim at the very beginning."""
    return b"\xc6\xff\xff\xff\xff\xff" + b"x" * 100


def partial_length() -> bytes:
    """A user ID in pieces, which only data packets may be (section 4.2.1.4)."""
    return make_certificate([ALICE]) + b"\xcd\xe5" + b"x" * 32 + b"\x01y"


def indeterminate_length() -> bytes:
    """An old-format packet that reaches to the end of input."""
    return make_certificate([ALICE]) + b"\xb7" + b"x" * 40


def markers(count: int = 200_000) -> bytes:
    """Hundreds of thousands of marker packets."""
    return make_certificate([ALICE]) + packet(MARKER, b"PGP") * count


def empty_user_ids(count: int = 500_000) -> bytes:
    """More packets than anybody should walk."""
    return make_certificate([ALICE]) + packet(USER_ID, b"") * count


def encrypted_data() -> bytes:
    """Integrity-protected data inside a certificate."""
    return make_certificate([ALICE]) + packet(18, b"\x01" + os.urandom(64))


# Numbers and sizes ---------------------------------------------------------------------------------------------------


def huge_exponent(bits: int = 16384) -> bytes:
    """RSA with an exponent as long as its modulus: slow to verify where it is allowed."""
    n, e = int.from_bytes(os.urandom(bits // 8), "big") | 1 << bits - 1 | 1, (1 << bits - 1) | 1
    key = Key(4, CREATED, RSA, mpi(n) + mpi(e), None)
    fakes = b"".join(fake(key, ALICE, raw=mpi(os.urandom(bits // 8))) for _ in range(50))
    return key.packet() + packet(USER_ID, ALICE) + fakes


def small_modulus(bits: int = 512) -> bytes:
    """RSA that anybody can factor."""
    n = int.from_bytes(os.urandom(bits // 8), "big") | 1 << bits - 1 | 1
    return Key(4, CREATED, RSA, mpi(n) + mpi(65537), None).packet() + packet(USER_ID, ALICE)


def many_user_ids(count: int = 100_000) -> bytes:
    """Unsigned user IDs, all different."""
    primary = new_key()
    good = packet(USER_ID, ALICE) + certify(primary, ALICE)
    return primary.packet() + b"".join(packet(USER_ID, b"Eve %d <eve@x.org>" % n) for n in range(count)) + good


def many_signed_user_ids(count: int = 60_000) -> bytes:
    """User IDs with a fake self-signature each, as many as 16 MiB hold."""
    primary = new_key()
    one = fake(primary, ALICE)
    return primary.packet() + b"".join(packet(USER_ID, b"Eve %d <eve@x.org>" % n) + one for n in range(count))


def many_subpackets(count: int = 21_844) -> bytes:
    """A self-signature whose unsigned area is full of tiny subpackets."""
    primary = new_key()
    loose = [subpacket(100, b"x")] * count
    stuffed = certify(primary, ALICE, unhashed=loose)
    return primary.packet() + packet(USER_ID, ALICE) + stuffed + certify(primary, ALICE)


def large_notation(octets: int = 2 * MEBI) -> bytes:
    """A v6 signature of megabytes: area lengths have four octets there."""
    made = make([ALICE], version=6)
    return made.octets + direct(made.primary, hashed=[subpacket(20, bytes(octets))])


def embedded_signatures(depth: int = 500) -> bytes:
    """Signatures embedded in one another, as deep as a packet can hold."""
    made = make([ALICE])
    inside = signature(made.subkeys[0], 0x19, b"", raw=b"\x00\x01\x01" * 2, body_only=True)
    for _ in range(depth):
        inside = signature(
            made.primary, 0x19, b"", raw=b"\x00\x01\x01" * 2, body_only=True, unhashed=[subpacket(32, inside)]
        )
    return made.octets + bind(made.primary, made.subkeys[0], unhashed=[subpacket(32, inside)])


# Floods --------------------------------------------------------------------------------------------------------------


def fake(key: Key, user_id: bytes, raw: bytes | None = None, created: int = CREATED) -> bytes:
    """A certification with the right left 16 bits and a worthless signature: what costs a verification each."""
    if raw is None:
        raw = mpi(os.urandom(32)) + mpi(os.urandom(32))
    return certify(key, user_id, raw=raw, created=created)


def flood_of_fakes(algorithm: str, octets: int = MEBI) -> bytes:
    """So many octets of fake self-signatures with the right left 16 bits, before the real ones."""
    made = make([ALICE], algorithm=algorithm, encryption=None)
    size = int(algorithm[3:]) // 8 if algorithm.startswith("rsa") else 64
    out, total, n = [made.primary.packet(), packet(USER_ID, ALICE)], 0, 0
    while total < octets:
        n += 1
        raw = mpi(b"\x7f" + os.urandom(size - 1))
        out.append(fake(made.primary, ALICE, raw if size > 64 else raw + mpi(b"\x7f" + os.urandom(60)), CREATED + n))
        total += len(out[-1])
    second = b"Alice <alice@second.example>"
    out += [certify(made.primary, ALICE), packet(USER_ID, second), certify(made.primary, second)]
    return b"".join(out)


def flood_at_second_user_id() -> bytes:
    """A flood over one user ID; the other, and the revocation, must still be seen."""
    primary = new_key()
    second = b"Alice <alice@second.example>"
    fakes = [fake(primary, second, created=CREATED + n) for n in range(8000)]
    rest = packet(USER_ID, ALICE) + certify(primary, ALICE)
    return (
        primary.packet()
        + direct(primary, type_=0x20, hashed=reason(2))
        + packet(USER_ID, second)
        + b"".join(fakes)
        + rest
    )


def poisoned(count: int = 50_000) -> bytes:
    """A good certificate under tens of thousands of strangers' certifications, as keyservers held them in 2019."""
    made = make([ALICE])
    stranger = new_key("rsa2048")
    one = certify(stranger, ALICE, raw=mpi(os.urandom(255)), created=CREATED)
    packets = [one[:-4] + number(n, 4) for n in range(count)]
    at = made.octets.index(ALICE) + len(ALICE)
    return made.octets[:at] + b"".join(packets) + made.octets[at:]


def strangers_revocations(count: int = 5000) -> bytes:
    """Key revocations by others."""
    made, stranger = make([ALICE]), new_key()
    one = direct(made.primary, type_=0x20, signer=stranger, hashed=reason(2))
    return made.primary.packet() + one * count + made.octets[len(made.primary.packet()) :]


def many_certificates(count: int = 200) -> bytes:
    """More certificates than one answer may hold."""
    return b"".join(make_certificate([ALICE], encryption=None) for _ in range(count))


def misplaced_fakes(count: int = 4000) -> bytes:
    """Fakes that fit nowhere, to be tried over every one of many user IDs."""
    primary = new_key()
    user_ids = [b"Alice %d <alice%d@example.org>" % (n, n) for n in range(200)]
    good = b"".join(packet(USER_ID, u) + certify(primary, u) for u in user_ids)
    fakes = b"".join(fake(primary, b"nobody", created=CREATED + n) for n in range(count))
    return primary.packet() + good + fakes


HOSTILE: dict[str, Callable[[], bytes]] = {
    "compressed_bomb": compressed_bomb,
    "deflated_bomb": deflated_bomb,
    "nested_compression": nested_compression,
    "endless_packet": endless_packet,
    "endless_packet_first": endless_packet_first,
    "partial_length": partial_length,
    "indeterminate_length": indeterminate_length,
    "markers": markers,
    "empty_user_ids": empty_user_ids,
    "encrypted_data": encrypted_data,
    "huge_exponent": huge_exponent,
    "small_modulus": small_modulus,
    "many_user_ids": many_user_ids,
    "many_signed_user_ids": many_signed_user_ids,
    "many_subpackets": many_subpackets,
    "large_notation": large_notation,
    "embedded_signatures": embedded_signatures,
    "fakes_brainpool512": lambda: flood_of_fakes("brainpool512"),
    "fakes_p521": lambda: flood_of_fakes("p521"),
    "fakes_rsa2048": lambda: flood_of_fakes("rsa2048"),
    "fakes_at_second_user_id": flood_at_second_user_id,
    "poisoned": poisoned,
    "strangers_revocations": strangers_revocations,
    "many_certificates": many_certificates,
    "misplaced_fakes": misplaced_fakes,
}


# What keyservers really hold -----------------------------------------------------------------------------------------


def with_secret_key() -> bytes:
    """A certificate, then somebody's secret key."""
    made = make([ALICE])
    return made.octets + secret_key(made.primary) + packet(USER_ID, ALICE) + certify(made.primary, ALICE)


def version_3_key() -> bytes:
    """A v3 RSA key, whose key ID anybody can forge."""
    material = mpi(int.from_bytes(os.urandom(128), "big") | 1 << 1023 | 1) + mpi(65537)
    return packet(PUBLIC_KEY, b"\x03" + number(CREATED, 4) + b"\x00\x00" + b"\x01" + material) + packet(USER_ID, ALICE)


def version_5_key() -> bytes:
    """A LibrePGP key."""
    key = new_key("ed25519-native", version=5)
    return key.packet() + packet(USER_ID, ALICE) + certify(key, ALICE)


def misplaced() -> Made:
    """All signatures behind the last component, as some keyservers once stored them."""
    primary = new_key()
    user_ids = [ALICE, b"Alice <alice@second.example>"]
    subkeys = (new_key("cv25519"), new_key())
    moved = [certify(primary, u) for u in user_ids]
    moved += [bind(primary, subkeys[0]), bind(primary, subkeys[1], usage=SIGN)]
    octets = (
        primary.packet()
        + b"".join(packet(USER_ID, u) for u in user_ids)
        + b"".join(s.packet(SUBKEY) for s in subkeys)
        + b"".join(moved)
        + direct(primary, hashed=[flags(CERTIFY)])
    )
    return Made(octets, primary, subkeys)


def version_3_signatures() -> Made:
    """A v4 certificate whose self-signatures are of version 3."""
    primary, subkey = new_key(), new_key("cv25519")
    bound = signature(primary, 0x18, primary.hashed + subkey.hashed, version=3)
    octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE, version=3)
    return Made(octets + subkey.packet(SUBKEY) + bound, primary, (subkey,))


def adopted_subkey(victim: Key, usage: int = SIGN) -> Made:
    """Somebody else's subkey, bound to a certificate of one's own without its consent."""
    primary = new_key()
    user_id = b"Eve <eve@example.net>"
    octets = primary.packet() + packet(USER_ID, user_id) + certify(primary, user_id, hashed=[flags(CERTIFY | SIGN)])
    octets += victim.packet(SUBKEY) + bind(primary, victim, usage=usage, back=False)
    return Made(octets, primary, (victim,))


def broken_packets() -> Made:
    """Good packets among user IDs too long, signatures cut off, numbers beyond their packet, a subkey of version 3."""
    made = make([ALICE])
    whole = certify(made.primary, ALICE, body_only=True)
    junk = [
        packet(USER_ID, b"x" * 3000),
        packet(SIG, b""),
        packet(SIG, b"\x04"),
        packet(SIG, whole[:20]),
        packet(SIG, whole[:-70]),
        packet(SIG, whole[:6] + b"\xff\xff" + whole[8:]),
        packet(SUBKEY, b"\x03" + bytes(20)),
        packet(SUBKEY, b"\x04" + number(CREATED, 4) + b"\x01\xff\xff\x01"),
        packet(SUBKEY, b""),
        packet(USER_ATTRIBUTE, os.urandom(500)),
        packet(40, b"unknown") + certify(made.primary, ALICE, corrupt=True),
        packet(61, b"old comment"),
        packet(12, b"\x05\x06"),
        packet(21, bytes(99)),
    ]
    return Made(made.octets + b"".join(junk), made.primary, made.subkeys)


def one_address_claimed(count: int = 100, address: str = "ceo@partner.example") -> list[bytes]:
    """Certificates of strangers that all claim one address; every one is a good certificate."""
    return [make_certificate([f"CEO <{address}>"], encryption=None) for _ in range(count)]


def designated_revoker() -> tuple[Made, Key]:
    """A certificate that names a revoker, who has revoked it; and that revoker's key."""
    primary, revoker = new_key(), new_key()
    named = subpacket(12, b"\x80\x16" + revoker.fingerprint_octets)
    octets = primary.packet() + direct(primary, type_=0x20, signer=revoker, hashed=reason(2))
    octets += direct(primary, hashed=[named]) + packet(USER_ID, ALICE) + certify(primary, ALICE)
    return Made(octets, primary, ()), revoker


def junk_back_signature() -> Made:
    """An encryption subkey whose binding was given a worthless back-signature on its way."""
    made = make([ALICE], encryption=None)
    subkey = new_key()
    junk = signature(made.primary, 0x19, b"something else", body_only=True)
    octets = made.octets + subkey.packet(SUBKEY) + bind(made.primary, subkey, unhashed=[subpacket(32, junk)])
    return Made(octets, made.primary, (subkey,))


def attribute_with_certification() -> Made:
    """A user attribute with its self-signature between two user IDs."""
    primary = new_key()
    picture, second = b"\x03\x01xy", b"Alice <alice@second.example>"
    over = signature(primary, 0x13, primary.hashed + hashed_user_id(picture, USER_ATTRIBUTE))
    octets = (
        primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE) + packet(USER_ATTRIBUTE, picture) + over
    )
    octets += packet(USER_ID, second) + certify(primary, second)
    return Made(octets, primary, ())


USAGES = {"encrypt": ENCRYPT, "sign": SIGN}
