"""Can anybody encrypt with a certificate, and does that keep it from a view? Pure: faces, lookups, verdicts ask here.

A `Proof` is judged at one instant, which is "now" for whoever has just made it; `Proof.turns` says how long that holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.model import Proof, Validity, View


def unusable(proof: Proof) -> str:
    """Why nobody can encrypt with this certificate now; empty where one can."""
    if proof.barred:
        return proof.barred
    if proof.validity is not Validity.VALID:
        return f"it is {proof.validity}"
    return "" if proof.can_encrypt else "it has no key for encryption that is valid now"


EXPIRES, KEY_EXPIRES = "it expires", "its key for encryption expires"


@dataclass(frozen=True, slots=True)
class End:
    """When nobody can encrypt with a certificate any more (Unix seconds, the first such instant), and why."""

    at: int
    why: str


def end_of(proof: Proof, now: int) -> End | None:
    """When it ends by its own times, of one that can be encrypted with now; None: never."""
    ends = [] if proof.expires is None else [End(proof.expires, EXPIRES)]
    living = [s.expires for s in proof.subkeys if s.can_encrypt and not s.revoked and not _over(s.expires, now)]
    finite = [expires for expires in living if expires is not None]
    if living and len(finite) == len(living):
        ends.append(End(max(finite), KEY_EXPIRES))
    return min(ends, key=lambda end: end.at, default=None)


def ends_by(proof: Proof, now: int, at: int) -> str:
    """Why nobody can encrypt with it any more at a later instant (Unix seconds), though one can now; empty where one
    can."""
    end = end_of(proof, now)
    return end.why if end is not None and end.at <= at else ""


def withheld(proof: Proof, view: View) -> str:
    """Why this view does not hand a certificate out although it may be answered (rule 6); empty where it does."""
    if (view.usable_only or view.by_domain) and (why := unusable(proof)):
        rest = "stands for no domain" if view.by_domain else "this view hands out only what can be encrypted to"
        return f"nobody can encrypt with it ({why}), and {rest}"
    return ""


def _over(expires: int | None, at: int) -> bool:
    return expires is not None and expires <= at
