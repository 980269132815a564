"""The worst that an upstream can send, made by code: what each would cost a careless reader is in its sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bench.certificates import Made
from support.openpgp import (
    SIG,
    USER_ID,
    Key,
    certify,
    make_certificate,
    mpi,
    new_key,
    packet,
)

MIB = 1 << 20
VICTIM = b"Victim <victim@bench.example>"


def poisoned(key: Key) -> bytes:
    """50,000 signatures of 300 octets by strangers: the well-known attack on keyservers."""
    return _start(key) + _strangers(50_000, 300)


def third_party(key: Key) -> bytes:
    """150,000 small signatures by strangers: many objects."""
    return _start(key) + _strangers(150_000, 95)


def user_ids(key: Key) -> bytes:
    """100,000 user IDs, each with a signature that names the primary key and is false."""
    false = certify(key, VICTIM, hash_name="sha256", corrupt=True)
    texts = (f"u{number} <u{number}@bench.example>".encode() for number in range(70_000))
    signed = b"".join(packet(USER_ID, text) + false for text in texts)
    return _start(key) + signed + b"".join(packet(USER_ID, b"n%d" % number) for number in range(30_000))


def unhashed(key: Key) -> bytes:
    """200 signatures with 65 kB of unhashed subpackets each: whatever they say is not signed."""
    loose = b"\x02\x1b\x03" * 21_800
    one = b"\x04\x13\x16\x08\x00\x00" + len(loose).to_bytes(2, "big") + loose + b"ab" + mpi(b"\x55" * 32) * 2
    return _start(key) + packet(SIG, one) * 200


def length_bomb(key: Key) -> bytes:
    """A packet that claims four gigabytes."""
    return _start(key) + b"\xcd\xff\xff\xff\xff\xff" + b"x" * 100


def numbers(key: Key) -> bytes:
    """4,000 signatures whose numbers claim 65,535 bits, in 15 MB."""
    huge = (65_535).to_bytes(2, "big") + b"\xff" * 3_000
    head = b"\x04\x13\x01\x08\x00\x00\x00\x0a\x09\x10" + bytes.fromhex(key.key_id) + b"ab"
    return _start(key) + packet(SIG, head + huge) * 4_000


def small_packets(key: Key) -> bytes:
    """5 million empty packets."""
    return _start(key) + b"\xca\x00" * 5_000_000


def false_signatures(key: Key, octets: int = MIB) -> bytes:
    """Signatures that name the primary key, so that each must be verified, and none holds."""
    false = certify(key, VICTIM, hash_name="sha256", corrupt=True)[:-8]  # the quick check of two octets passes
    count = (octets - 2_000) // (len(false) + 8)
    front = make_certificate([VICTIM], primary=key, encryption=None, old=False)
    return front + b"".join(false + os.urandom(8) for _ in range(count)) + _start(key)[len(front) :]


INPUTS: Mapping[str, Callable[[Key], bytes]] = {
    "50,000 signatures by strangers": poisoned,
    "150,000 signatures by strangers": third_party,
    "100,000 user IDs": user_ids,
    "65 kB unhashed subpackets": unhashed,
    "a length of 4 GiB": length_bomb,
    "numbers of 65,535 bits": numbers,
    "5 million empty packets": small_packets,
    "15 MB of false self-signatures": lambda key: false_signatures(key, 15 * MIB),
}
"""Each by its name; sizes are near the 16 MiB above which an answer is not read."""


def all_inputs() -> dict[str, Made]:
    """Every input under a fingerprint of its own."""
    found = {}
    for name, build in INPUTS.items():
        key = new_key(seed=f"hostile {name}")
        found[name] = Made(build(key), key.fingerprint)
    return found


def _start(key: Key) -> bytes:
    return make_certificate([VICTIM], primary=key, seed="victim", old=False)


def _strangers(count: int, size: int) -> bytes:
    """Distinct signatures by other keys, of about `size` octets."""
    pad = size - 45
    head = b"\x04\x10\x01\x08\x00\x06\x05\x02\x5f\x5e\x10\x00\x00\x0a\x09\x10"
    numbers = b"ab" + (pad * 8).to_bytes(2, "big") + b"\xff" * (pad - 8)
    return b"".join(packet(SIG, head + n.to_bytes(8, "big") + numbers + n.to_bytes(8, "big")) for n in range(count))
