"""What arrives as S/MIME certificates: one DER certificate, PEM, or a PKCS#7 SignedData that carries some."""

from __future__ import annotations

import warnings

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from keyserver.model import Malformed

MAX_CERTIFICATE = 65536  # octets; honest ones have 1-3 KiB
MAX_BUNDLE = 16  # certificates


def unpack(octets: bytes) -> list[bytes]:
    """The certificates inside, each as DER, at most 16. Raises Malformed where nothing can be read.

    `userSMIMECertificate` (RFC 2798 section 2.8) is a PKCS#7 SignedData, `userCertificate` plain DER.
    """
    if len(octets) > MAX_CERTIFICATE * MAX_BUNDLE:
        raise Malformed("larger than any bundle of certificates")
    if octets.lstrip().startswith(b"-----BEGIN"):
        return _pem(octets)
    if not octets.startswith(b"\x30"):
        raise Malformed("neither a DER certificate nor PKCS#7 nor PEM")
    if _is_certificate(octets):
        return [octets]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BER is tolerated here, with a warning
            found = pkcs7.load_der_pkcs7_certificates(octets)
            ders = [c.public_bytes(Encoding.DER) for c in found[: MAX_BUNDLE + 1]]
    except Exception as problem:  # the parser raises several unrelated types
        raise Malformed("neither a DER certificate nor PKCS#7 that can be read") from problem
    if len(ders) > MAX_BUNDLE:
        raise Malformed(f"more than {MAX_BUNDLE} certificates in one bundle")
    return ders


def intermediates(octets: bytes) -> list[bytes]:
    """The CA certificates of a bundle, which may complete a chain; none where it cannot be read."""
    try:
        ders = unpack(octets)
    except Malformed:
        return []
    return [der for der in ders if len(der) <= MAX_CERTIFICATE and is_ca(der)]


def is_ca(der: bytes) -> bool:
    """Does this certificate say that it may issue others?"""
    try:
        extension = load(der).extensions.get_extension_for_class(x509.BasicConstraints)
    except Exception:  # unreadable, or without the extension
        return False
    return extension.value.ca


def load(der: bytes) -> x509.Certificate:
    """A certificate from DER. Raises ValueError; warnings about odd serial numbers are judged elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return x509.load_der_x509_certificate(der)
        except x509.InvalidVersion as problem:  # the one exception of the parser's that is no ValueError
            raise ValueError(str(problem)) from problem


def _is_certificate(octets: bytes) -> bool:
    try:
        load(octets)
    except ValueError:
        return False
    return True


def _pem(octets: bytes) -> list[bytes]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = x509.load_pem_x509_certificates(octets)
    except ValueError as problem:
        raise Malformed("PEM that cannot be read") from problem
    if len(found) > MAX_BUNDLE:
        raise Malformed(f"more than {MAX_BUNDLE} certificates in one bundle")
    return [c.public_bytes(Encoding.DER) for c in found]
