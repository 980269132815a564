"""What arrives as S/MIME certificates: one certificate, PEM, or a PKCS#7 SignedData that carries some; and back."""

from __future__ import annotations

import binascii
import warnings
from collections.abc import Iterable, Iterator

from cryptography import x509

from keyserver.model import Malformed
from keyserver.smime import ber

MAX_CERTIFICATE = 65536  # octets; honest ones have 1-3 KiB
MAX_BUNDLE = 16  # certificates
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"PKCS7", b"CMS"})
_DATA, _SIGNED_DATA = (ber.element(ber.OID, b"\x2a\x86\x48\x86\xf7\x0d\x01\x07" + n) for n in (b"\x01", b"\x02"))
_EXPLICIT = 0xA0  # [0], constructed


def unpack(octets: bytes) -> list[bytes]:
    """The certificates inside, each as it came, at most 16, readable or not. Raises Malformed where there are none.

    `userSMIMECertificate` (RFC 2798 section 2.8) is a PKCS#7 SignedData, `userCertificate` plain DER.
    """
    if len(octets) > MAX_CERTIFICATE * MAX_BUNDLE:
        raise Malformed("larger than any bundle of certificates")
    if octets.lstrip().startswith(b"-----BEGIN"):
        found = [piece for block in _pem(octets) for piece in _pieces(block)]
    elif octets.startswith(b"\x30"):
        found = _pieces(octets)
    else:
        raise Malformed("neither a DER certificate nor PKCS#7 nor PEM")
    if not found:
        raise Malformed("no certificate in it")
    if len(found) > MAX_BUNDLE:
        raise Malformed(f"more than {MAX_BUNDLE} certificates in one bundle")
    return found


def pack(certificates: Iterable[bytes]) -> bytes:
    """A PKCS#7 SignedData that carries these certificates as they came, and nothing else (RFC 8551 section 3.8)."""
    content = ber.element(ber.SEQUENCE, _DATA)
    carried = ber.element(_EXPLICIT, *sorted(certificates))
    nothing = ber.element(ber.SET)
    signed = ber.element(ber.SEQUENCE, ber.element(ber.INTEGER, b"\x01"), nothing, content, carried, nothing)
    return ber.element(ber.SEQUENCE, _SIGNED_DATA, ber.element(_EXPLICIT, signed))


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
    """A certificate from strict DER, for its chain. Raises ValueError; odd serial numbers are judged elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return x509.load_der_x509_certificate(der)
        except x509.InvalidVersion as problem:  # the one exception of the parser's that is no ValueError
            raise ValueError(str(problem)) from problem


def _pieces(octets: bytes) -> list[bytes]:
    """The certificates of a PKCS#7 SignedData; anything else is one certificate, be it readable or not."""
    try:
        outer = ber.inside(octets, ber.SEQUENCE)
        if not outer or outer[0].octets != _SIGNED_DATA:
            return [ber.first(octets).octets]
        fields = [field for part in outer[1:] for field in ber.inside(part.content, ber.SEQUENCE)]
    except Malformed:
        return [octets]
    return [piece for field in fields if field.tag == _EXPLICIT for piece in _carried(field.content)]


def _carried(content: bytes) -> Iterator[bytes]:
    """The certificates of a set, as far as it can be read, and what cannot be; other choices are passed over."""
    at = 0
    try:
        for part in ber.walk(content):
            at += len(part.octets)
            if part.tag == ber.SEQUENCE:
                yield part.octets
    except Malformed:
        yield content[at:]


def _pem(text: bytes) -> Iterator[bytes]:
    """What the PEM blocks of certificates hold (RFC 7468), nothing for a damaged one."""
    at = text.find(_BEGIN)
    while at >= 0 and (end := text.find(_END, at)) >= 0:
        label, _, rest = text[at + len(_BEGIN) : end].partition(_DASHES)
        if label in _LABELS:
            try:
                yield binascii.a2b_base64(rest)
            except binascii.Error:
                yield b""
        at = text.find(_BEGIN, end)
