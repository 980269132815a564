"""Does a certificate's chain lead to a trust anchor (RFC 5280 section 6), by a policy made for mail?

The library's default policy is made for TLS and refuses every mail certificate; this one asks the end-entity
certificate for emailProtection (where it limits itself at all) and CAs for their right to issue, and to issue for these
addresses. What the library cannot load has no chain. Whether a certificate is revoked is asked whenever it is judged
(`crl`).
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cachetools import FIFOCache
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from keyserver.smime.bundle import MAX_CERTIFICATE, load
from keyserver.smime.constraints import allow
from keyserver.smime.reading import Reading, read

MAX_DEPTH = 4
KEPT_PER_ANCHOR = 64  # intermediates that completed a chain
_MAIL = {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


def load_anchors(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file; unreadable ones are an error (ValueError)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some roots that systems ship have odd serial numbers
        return x509.load_pem_x509_certificates(pem)


class Anchors:
    """Trust anchors and the intermediates that have led to them."""

    def __init__(self, anchors: Sequence[x509.Certificate]) -> None:
        self._store = Store(list(anchors)) if anchors else None
        self._kept: dict[bytes, FIFOCache[bytes, x509.Certificate]] = {}

    def chained(self, der: bytes, intermediates: Iterable[bytes], now: int) -> bool:
        """Whether a chain of at most four CAs leads from this certificate to an anchor at Unix time `now`.

        Intermediates of a good chain are kept for certificates that come without theirs."""
        if self._store is None:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names whose length is beyond the standard's
                chain = self._chain(der, intermediates, now)
        except (VerificationError, ValueError, TypeError):
            return False
        self._keep(chain)
        return True

    def _chain(self, der: bytes, intermediates: Iterable[bytes], now: int) -> Sequence[x509.Certificate]:
        assert self._store is not None
        leaf = load(der)
        given = [load(i) for i in intermediates if len(i) <= MAX_CERTIFICATE][:KEPT_PER_ANCHOR]
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(datetime.datetime.fromtimestamp(now, datetime.UTC))
            .max_chain_depth(MAX_DEPTH)
            .extension_policies(ca_policy=_ca_for(read(der)), ee_policy=_LEAF)
            .build_client_verifier()
        )
        known = [c for kept in self._kept.values() for c in kept.values() if c.subject == leaf.issuer]
        return verifier.verify(leaf, [*given, *known, *self._issuers(given)]).chain

    def _issuers(self, given: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        wanted = {c.issuer for c in given}
        return [c for kept in self._kept.values() for c in kept.values() if c.subject in wanted]

    def _keep(self, chain: Sequence[x509.Certificate]) -> None:
        anchor = chain[-1].fingerprint(_SHA256)
        kept = self._kept.setdefault(anchor, FIFOCache(KEPT_PER_ANCHOR))
        for certificate in chain[1:-1]:
            kept[certificate.fingerprint(_SHA256)] = certificate


def _rule(good: Callable[[Any], bool], why: str) -> Callable[[Any, x509.Certificate, Any], None]:
    def check(policy: Any, certificate: x509.Certificate, extension: Any) -> None:
        if extension is not None and not good(extension):
            raise ValueError(why)

    return check


_SHA256 = hashes.SHA256()
_for_mail = _rule(lambda usage: bool(_MAIL & set(usage)), "not for e-mail")
_LEAF = (
    ExtensionPolicy.permit_all()
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_mail)
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _rule(lambda e: not e.ca, "a CA's own certificate"))
)
_CA = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _rule(lambda e: e.ca, "not a CA"))
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _rule(lambda e: e.key_cert_sign, "may not sign certificates"))
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _for_mail)
)


def _ca_for(leaf: Reading) -> ExtensionPolicy:
    """What is asked of each CA, the anchor too, that stands above this certificate."""

    def constrained(policy: Any, certificate: x509.Certificate, extension: Any) -> None:
        if extension is not None and not allow(read(certificate.public_bytes(Encoding.DER)), leaf):
            raise ValueError("its name constraints do not allow every name of the certificate")

    return _CA.may_be_present(x509.NameConstraints, Criticality.AGNOSTIC, constrained)
