"""A certificate as it stands in a file."""

from __future__ import annotations

import ssl

from keyserver.model import Certificate, Kind
from keyserver.openpgp.armor import armor


def file_of(certificate: Certificate) -> bytes:
    """Armor, or PEM for X.509."""
    if certificate.proof.kind is Kind.X509:
        return ssl.DER_cert_to_PEM_cert(certificate.octets).encode()
    return armor(certificate.octets, crc=certificate.proof.version < 6)
