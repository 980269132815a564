"""What gpg and Sequoia say of certificates made for cases on which programs differ, beside what we say.

Where we differ from one of them on purpose, the case says so.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver.model import Certificate, Validity
from keyserver.openpgp import clean
from support.openpgp import (
    CREATED,
    SUBKEY,
    USER_ID,
    bind,
    certify,
    direct,
    expiry,
    make,
    new_key,
    number,
    packet,
    reason,
)
from support.openpgp import subpacket as extra
from support.running import Gpg

DAY = 86400
NOW = 1_800_000_000
ALICE, BOB = b"Alice <alice@example.org>", b"Bob <bob@example.org>"
PRIMARY, ENCRYPTION = new_key(seed="verdicts"), new_key("cv25519", seed="verdicts")
KEY = PRIMARY.packet()
SUB = ENCRYPTION.packet(SUBKEY) + bind(PRIMARY, ENCRYPTION)
OF_ALICE = packet(USER_ID, ALICE) + certify(PRIMARY, ALICE)


def withdrawn(code: int, *more: bytes) -> bytes:
    return certify(PRIMARY, BOB, type_=0x30, created=CREATED + 5 * DAY, hashed=[*reason(code), *more])


def ending(of_key: int | None, of_user_id: int | None, key_first: bool = True) -> bytes:
    first, second = (1, 2) if key_first else (2, 1)
    seconds = [None if days is None else days * DAY for days in (of_key, of_user_id)]
    over_key = direct(PRIMARY, created=CREATED + first * DAY, hashed=expiry(seconds[0]))
    over_user_id = certify(PRIMARY, ALICE, created=CREATED + second * DAY, hashed=expiry(seconds[1]))
    return KEY + over_key + packet(USER_ID, ALICE) + over_user_id + SUB


@dataclass(frozen=True)
class Verdict:
    """May it be used now, and which user IDs are listed, True for those that are revoked?"""

    usable: bool
    user_ids: frozenset[tuple[str, bool]]


def of_gpg(octets: bytes, home: Path) -> Verdict:
    with Gpg(home) as gpg:
        show = ["--import-options", "show-only", "--with-colons", "--import"]
        listed = subprocess.run(
            ["gpg", "--homedir", str(gpg.home), "--batch", *show], input=octets, capture_output=True, check=False
        ).stdout.decode()
    lines = [line.split(":") for line in listed.splitlines()]
    usable = any(f[0] == "pub" and f[1] == "-" and "E" in f[11] for f in lines)
    return Verdict(usable, frozenset((f[9], f[1] == "r") for f in lines if f[0] == "uid"))


def of_sequoia(octets: bytes) -> Verdict:
    said = subprocess.run(["sq", "inspect"], input=octets, capture_output=True, check=False).stdout.decode()
    head, *user_ids = re.split(r"^ *UserID: ", said, flags=re.MULTILINE)
    primary = head.split("Subkey:")[0]
    listed = frozenset((u.splitlines()[0], "Revoked" in u) for u in user_ids)
    return Verdict("Invalid:" not in primary and "Revoked" not in primary and "encryption" in said, listed)


def of_us(octets: bytes) -> Verdict:
    (found,) = clean(octets, NOW)
    assert isinstance(found, Certificate), found
    proof = found.proof
    assert (proof.validity is Validity.VALID) or not proof.can_encrypt
    return Verdict(proof.can_encrypt, frozenset((u.text, u.revoked) for u in proof.user_ids))


CASES = {
    "ordinary": KEY + OF_ALICE + SUB,
    "key 0, user ID ends": ending(0, 10),
    "key 0, user ID ends, which is older": ending(0, 10, key_first=False),
    "key silent, user ID ends": ending(None, 10),
    "key ends, user ID silent": ending(10, None),
    "key ends, user ID silent, which is older": ending(10, None, key_first=False),
    "both 0": ending(0, 0),
    "both ended": ending(10, 100),
    "a user ID of which only a revocation is left": KEY + OF_ALICE + packet(USER_ID, BOB) + withdrawn(32) + SUB,
    "as before, for a hard reason": KEY + OF_ALICE + packet(USER_ID, BOB) + withdrawn(0) + SUB,
    "a revoked user ID": KEY + OF_ALICE + packet(USER_ID, BOB) + certify(PRIMARY, BOB) + withdrawn(32) + SUB,
    "an odd DSA key": make(algorithm="dsa1248", seed="odd").octets,
}


@pytest.mark.parametrize("octets", CASES.values(), ids=CASES)
def test_all_three_say_the_same(octets: bytes, tmp_path: Path) -> None:
    assert of_us(octets) == of_gpg(octets, tmp_path / "g")
    if octets != CASES["an odd DSA key"]:  # of 160 bits: gpg's concern alone
        assert of_us(octets) == of_sequoia(octets)


def test_nobody_uses_what_nothing_certifies(tmp_path: Path) -> None:
    """Listed without user IDs by us, refused as a whole by both."""
    octets = KEY + SUB
    (found,) = clean(octets, NOW)
    assert isinstance(found, Certificate)
    assert not of_us(octets).usable
    assert not of_gpg(octets, tmp_path / "g").usable
    assert not of_sequoia(octets).usable


@pytest.mark.parametrize("code", [0, 32])
def test_a_user_id_revocation_that_has_expired_itself(code: int, tmp_path: Path) -> None:
    """As gpg: what was taken back stays so. Sequoia lets it come back by itself."""
    lasting = extra(3, number(3 * DAY, 4))
    octets = KEY + OF_ALICE + packet(USER_ID, BOB) + certify(PRIMARY, BOB) + withdrawn(code, lasting) + SUB
    assert (BOB.decode(), True) in of_us(octets).user_ids
    assert of_us(octets) == of_gpg(octets, tmp_path / "g")
    assert (BOB.decode(), False) in of_sequoia(octets).user_ids


@pytest.mark.parametrize("first", [True, False])
def test_an_end_of_the_key_beside_a_0_of_the_user_id(first: bool, tmp_path: Path) -> None:
    """As gpg: it has ended. Sequoia listens to the user ID."""
    octets = ending(10, 0, key_first=first)
    assert not of_us(octets).usable
    assert of_us(octets) == of_gpg(octets, tmp_path / "g")
    assert of_sequoia(octets).usable
