"""Which certificates a verified S/MIME signature stands for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from keyserver import smime
from keyserver.mailflow.values import Candidate, Remark, Why
from keyserver.model import Certificate, Kind, Refused
from keyserver.smime.cms import Signed

HOW = "S/MIME signature"


def chosen(signed: Signed, address: str, now: int) -> tuple[list[Candidate], list[Remark]]:
    """The certificates to cache of one signer: his own, and the one to encrypt to where that is another.

    His own must name the From address. The other one is what the signed encryption preference names (RFC 8551 section
    2.5.3), or, where his own cannot encrypt, one of the same subject and address that can."""
    signer = _clean(signed.signer, now)
    if isinstance(signer, Refused):
        return [], [Remark(Why.REFUSED, f"the signer's certificate: {signer.reason}", signer.fingerprint or "")]
    if not names(signer, address):
        return [], [_mismatch(signer, address)]
    found = [signer]
    remarks: list[Remark] = []
    others = [*([signed.encryption] if signed.encryption else []), *signed.others]
    if signed.encryption is not None and signed.encryption != signed.signer:
        preferred = _clean(signed.encryption, now)
        if isinstance(preferred, Certificate) and names(preferred, address) and preferred.proof.can_encrypt:
            found = [preferred, signer] if signer.proof.can_encrypt is False else [preferred]
        else:
            remarks.append(Remark(Why.REFUSED, "the certificate preferred for encryption does not fit the sender"))
    elif not signer.proof.can_encrypt:
        found += _halves(signer, signed.others, address, now)[:1]
    if not any(c.proof.can_encrypt for c in found):
        remarks.append(Remark(Why.REFUSED, "the certificate is for signing only, and no other one came along"))
    return [Candidate(Kind.X509, HOW, c.octets, tuple(others), c) for c in found], remarks


def names(certificate: Certificate, address: str) -> bool:
    """Does a certificate name this address (whether it is valid now or not)?"""
    return any(user_id.address == address for user_id in certificate.proof.user_ids)


def _halves(signer: Certificate, others: Sequence[bytes], address: str, now: int) -> list[Certificate]:
    """The encryption half of a split pair: same subject, same address, another key usage."""
    found = []
    for der in others:
        other = _clean(der, now)
        if (
            isinstance(other, Certificate)
            and other.proof.can_encrypt
            and names(other, address)
            and other.proof.x509 is not None
            and signer.proof.x509 is not None
            and other.proof.x509.subject == signer.proof.x509.subject
        ):
            found.append(other)
    return found


def _mismatch(signer: Certificate, address: str) -> Remark:
    listed = ", ".join(u.text for u in signer.proof.user_ids[:3])
    detail = f"the certificate names {listed}, the mail is from {address}"
    return Remark(Why.MISMATCH, "the signer's certificate does not name the From address", detail)


def _clean(der: bytes, now: int) -> Certificate | Refused:
    results = smime.clean(der, now)
    return results[0] if results else Refused("nothing in it")
