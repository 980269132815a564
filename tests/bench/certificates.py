"""Certificates of a wished size, always the same for one seed: version 4, EdDSA, with an encryption subkey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from support import openpgp

ARMOR_OVERHEAD = 90  # octets of an armored block beside its lines
LONGEST_USER_ID = 1300  # octets with its signature; gpg takes 2,048 without

_SIGNED = 127  # octets of a self-signature, and of the user ID's own header


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate: its packets, fingerprint, and whole user IDs."""

    octets: bytes = field(repr=False)
    fingerprint: str
    user_ids: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those of its user IDs."""
        return tuple(text.rpartition("<")[2].rstrip(">") for text in self.user_ids)


def make(seed: str, size: int = 0) -> Made:
    """A certificate whose armored form has about `size` octets (0: one short user ID, about 600)."""
    user_ids = [f"Bench <{seed}@bench.example>"]
    room = (size - ARMOR_OVERHEAD) * 48 // 65 - len(_signed(seed, user_ids).octets) if size else 0  # lines of base64
    while room > 200:
        address = f"{seed}.{len(user_ids)}@bench.example"
        share = room // math.ceil(room / LONGEST_USER_ID)
        user_ids.append(f"({'x' * (share - len(f'() <{address}>') - _SIGNED)}) <{address}>")
        room -= share
    made = _signed(seed, user_ids)
    return Made(made.octets, made.fingerprint, tuple(user_ids))


def _signed(seed: str, user_ids: Sequence[str]) -> openpgp.Made:
    return openpgp.make(user_ids, seed=seed, hash_name="sha256", old=False)


def many(prefix: str, count: int, size: int = 0) -> list[Made]:
    """So many, all different, the same at every run."""
    return [make(f"{prefix}{number}", size) for number in range(count)]


def joined(certificates: Sequence[Made]) -> bytes:
    """As one keyring."""
    return b"".join(made.octets for made in certificates)
