"""How much of a hostile certificate is looked at, verified and kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Octets, counts, and nominal microseconds of verification. What is beyond is dropped, or refused where noted."""

    octets: int = 16 << 20  # one upstream's answer, decoded; refused beyond
    packets: int = 250_000  # walked; refused beyond
    certificates: int = 64  # cleaned in one answer
    key: int = 8 << 10  # a key packet
    user_id: int = 2 << 10  # a user ID packet
    signature: int = 64 << 10  # a signature packet
    unsigned: int = 1024  # user IDs and subkeys without signatures, held in case theirs are misplaced
    candidates: int = 20_000  # signatures that name the primary key, held for verification
    strangers: int = 64  # key revocations by others, held in case a designated revoker made them
    user_ids: int = 256  # kept
    subkeys: int = 128  # kept
    good: int = 64  # signatures of one component that verify; the rest is not looked at
    self_signatures: int = 16  # kept of one component
    revocations: int = 8  # kept of one component
    claimed: int = 4  # kept revocations by a designated revoker, which we cannot check
    cost: int = 250_000  # µs of verification by the table of verify.py, one certificate
    answer_cost: int = 2_000_000  # the same, all certificates of an answer
    certificate: int = 1 << 20  # octets after cleaning; refused beyond


BRIEF = Limits(octets=3 << 10, packets=16, certificates=1, cost=700, answer_cost=700)
"""An ordinary certificate keeps within, and what is within takes 2 ms at most. Beyond, all of these refuse: none only
drops, so that what passes is what the full limits would give."""
