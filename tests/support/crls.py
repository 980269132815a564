"""Makes certificate revocation lists for tests: ordinary ones in a line, odd ones by their octets."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from keyserver.smime import ber
from support.x509 import BEGINS, YEAR, Issued

REVOKED = BEGINS + 1000
ISSUED = BEGINS + YEAR
ENDS = BEGINS + 9 * YEAR
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def revocation_list(
    authority: Issued,
    revoked: Mapping[int, x509.ReasonFlags | None] | Iterable[int] = (),
    *,
    issued: int = ISSUED,
    ends: int = ENDS,
    number: int | None = 1,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    entries: Sequence[tuple[x509.ExtensionType, bool]] = (),
    hash_: Any = None,
    **options: Any,
) -> bytes:
    """A list in DER. revoked: serial numbers, with the reason of each; entries: extensions of each entry; options: of
    `sign`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(_at(issued))
        .next_update(_at(ends))
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    reasons = revoked if isinstance(revoked, Mapping) else dict.fromkeys(revoked)
    for serial, reason in reasons.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_at(REVOKED))
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        for extension, critical in entries:
            entry = entry.add_extension(extension, critical)
        builder = builder.add_revoked_certificate(entry.build())
    algorithm = None if isinstance(authority.key, ed25519.Ed25519PrivateKey) else hash_ or hashes.SHA256()
    return builder.sign(authority.key, algorithm, **options).public_bytes(Encoding.DER)


def signed_again(authority: Issued, body: bytes) -> bytes:
    """Whatever octets as what a list signs, with a good signature of an authority that has an EC key."""
    assert isinstance(authority.key, ec.EllipticCurvePrivateKey)
    signature = authority.key.sign(body, ec.ECDSA(hashes.SHA256()))
    return ber.element(ber.SEQUENCE, body, ECDSA_SHA256, ber.element(ber.BITS, b"\0" + signature))


def body_of(listed: bytes) -> bytes:
    """What a list signs."""
    return ber.inside(listed, ber.SEQUENCE)[0].octets


def body(authority: Issued, *rest: bytes, head: Sequence[bytes] | None = None) -> bytes:
    """What a list signs, put together: version, algorithm, issuer and thisUpdate, then what is given."""
    ordinary = (
        b"\x02\x01\x01",
        ECDSA_SHA256,
        authority.certificate.subject.public_bytes(),
        b"\x17\x0d240101000000Z",
    )
    return ber.element(ber.SEQUENCE, *(ordinary if head is None else head), *rest)


NEXT = b"\x17\x0d320101000000Z"
"""nextUpdate, for `body`."""


def _at(instant: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(instant, datetime.UTC)
