"""Does a clean certificate count for the sender of the mail that it came with? Pure."""

from __future__ import annotations

from keyserver.mailflow.signed import names
from keyserver.mailflow.values import Candidate, Remark, Why
from keyserver.model import Certificate, Validity
from keyserver.policy import shown_by


def unfit(certificate: Certificate, candidate: Candidate, sender: str, most: int) -> Remark | None:
    """Why a clean certificate does not count for this sender; None where it does."""
    proof = certificate.proof
    if len(certificate.octets) > most:
        return Remark(Why.REFUSED, f"{candidate.how}: larger than {most} octets after cleaning", proof.fingerprint)
    if names(certificate, sender):
        if proof.validity in (Validity.VALID, Validity.REVOKED):  # a revocation is news that must spread
            return None
        return Remark(Why.REFUSED, f"{candidate.how}: the certificate is {proof.validity}", proof.fingerprint)
    listed = ", ".join(u.text for u in proof.user_ids[:3])
    return Remark(
        Why.MISMATCH,
        f"{candidate.how}: the certificate does not name the From address",
        f"it names {listed or 'nobody'}, the mail is from {sender}",
    )


def names_others(certificate: Certificate, sender: str) -> bool:
    """Does anything in it look like another address, to whoever reads more loosely than we do?"""
    proof = certificate.proof
    shown = frozenset[str | None]().union(*map(shown_by, proof.claims))
    return bool(shown.union(u.address for u in proof.user_ids) - {sender})
