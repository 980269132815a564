"""One X.509 end-entity certificate: is it fit to be kept, and what does it prove (RFC 5280, RFC 8398, RFC 9598).

Octets are kept as they came; nothing is re-encoded. Every property is read in a `try`: the parser is lazy, and odd
certificates raise only when looked into.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from asn1crypto import cms as asn1_cms
from asn1crypto import core as asn1_core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyserver.model import Certificate, Claim, Kind, Malformed, Name, Proof, Refused, UserId, Validity, X509Facts
from keyserver.query import name_of, parse_address
from keyserver.smime.bundle import MAX_CERTIFICATE, load, unpack

_SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")
_MAIL = {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_TRICKS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_WEAK_HASHES = (hashes.SHA1, hashes.MD5)
YEAR = 365 * 86400


@dataclass(frozen=True, slots=True)
class Limits:
    """What one certificate may hold."""

    octets: int = MAX_CERTIFICATE
    alternative_names: int = 128
    serial_bits: int = 160  # RFC 5280 section 4.1.2.2: at most 20 octets
    lifetime: int = 40 * YEAR
    rsa_bits: int = 2048
    curve_bits: int = 256


class _Unfit(Exception):
    """Why a certificate is refused."""


def clean(octets: bytes, now: int, limits: Limits = Limits()) -> list[Certificate | Refused]:
    """DER, PEM or PKCS#7 in; each end-entity certificate that is fit, or why it is not. Never raises.

    CA certificates are passed over silently when others come with them: they are chain material.
    """
    try:
        ders = unpack(octets)
    except Malformed as problem:
        return [Refused(str(problem), fatal=True)]
    results: list[Certificate | Refused] = []
    for der in ders:
        fingerprint = hashlib.sha256(der).hexdigest().upper()
        try:
            _check(der, limits)
            results.append(Certificate(der, prove(der, now)))
        except _Unfit as why:
            results.append(Refused(str(why), fingerprint))
        except Exception as problem:  # whatever lazily parsed field is broken
            results.append(Refused(f"cannot be read: {type(problem).__name__}", fingerprint, fatal=True))
    fit = [r for r in results if isinstance(r, Certificate)]
    return list(fit) + [r for r in results if isinstance(r, Refused) and not (fit and r.reason == _IS_CA)]


_IS_CA = "a CA certificate, not a person's"


def prove(der: bytes, now: int) -> Proof:
    """What a certificate that `clean` let in proves at Unix time `now`."""
    certificate = load(der)
    sha256, sha1 = hashlib.sha256(der).hexdigest().upper(), hashlib.sha1(der).hexdigest().upper()  # noqa: S324
    begins = int(certificate.not_valid_before_utc.timestamp())
    ends = int(certificate.not_valid_after_utc.timestamp())
    valid = begins <= now <= ends
    found = addresses(certificate)
    usage = _key_usage(certificate)
    algorithm, bits = _key(certificate)
    strong = frozenset(
        {
            name_of(Kind.X509, "fpr", sha256),
            name_of(Kind.X509, "fpr", sha1),
            *(name_of(Kind.X509, a, d) for a, d in _search_hashes(der, sha1)),
        }
    )
    claimed = frozenset(name_of(Kind.X509, "addr", address) for address in found)
    return Proof(
        kind=Kind.X509,
        version=3,
        fingerprint=sha256,
        key_id=sha1[-16:],
        algorithm=algorithm,
        bits=bits,
        created=begins,
        expires=ends,
        validity=Validity.VALID if valid else Validity.EXPIRED,
        can_encrypt=valid and _encrypts(certificate, usage),
        user_ids=tuple(UserId(a, a, begins, ends, False) for a in found),
        subkeys=(),
        strong=strong,
        weak=claimed if valid else frozenset(),
        index=strong | claimed,
        newest=begins,
        turns=begins if now < begins else ends + 1 if valid else None,
        claims=_claims(certificate),
        x509=X509Facts(
            subject=certificate.subject.rfc4514_string(),
            issuer=certificate.issuer.rfc4514_string(),
            serial=f"{certificate.serial_number:X}",
            not_before=begins,
            not_after=ends,
            common_name=_attribute(certificate, NameOID.COMMON_NAME),
            surname=_attribute(certificate, NameOID.SURNAME),
            given_name=_attribute(certificate, NameOID.GIVEN_NAME),
            key_usage=usage,
            sha1=sha1,
        ),
    )


def index(der: bytes) -> tuple[frozenset[Name], tuple[str, ...]]:
    """Names to index under; the addresses and the subject's common name, for listings and text searches."""
    proof = prove(der, 0)
    identities = [u.text for u in proof.user_ids]
    if proof.x509 is not None and proof.x509.common_name and "@" not in proof.x509.common_name:
        identities.append(proof.x509.common_name)  # an address there proves nothing, and would look as if it did
    return proof.index, tuple(dict.fromkeys(identities))


def merge(copies: Sequence[bytes], revoked: bytes = b"") -> bytes:
    """Copies of one certificate are the same octets."""
    return min(copies)


def revocations(der: bytes) -> bytes:
    """X.509 certificates carry none of their own."""
    return b""


def merge_revocations(one: bytes, other: bytes) -> bytes:
    """See `revocations`."""
    return b""


def addresses(certificate: x509.Certificate) -> tuple[str, ...]:
    """The proven addresses: rfc822Name and SmtpUTF8Mailbox; without these the subject's emailAddress."""
    raw = _alternative_addresses(certificate)
    if not raw:
        raw = [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)]
    return tuple(dict.fromkeys(a for a in map(parse_address, raw) if a))


def _claims(certificate: x509.Certificate) -> tuple[Claim, ...]:
    """Every text that a mail program may take for an address, whether it proves one to us or not: gpgsm finds a
    certificate by the emailAddress in its subject, whatever its alternative names say."""
    subject = [str(attribute.value) for attribute in certificate.subject]
    texts = [*_alternative_mail(certificate), *(t for t in subject if "@" in unicodedata.normalize("NFKC", t))]
    return tuple(Claim(text, parse_address(text)) for text in dict.fromkeys(texts))


def _alternative_addresses(certificate: x509.Certificate) -> list[str]:
    return _alternative_mail(certificate, loose=False)


def _alternative_mail(certificate: x509.Certificate, *, loose: bool = True) -> list[str]:
    """`loose`: an rfc822Name that is not ASCII, too, which proves nothing (RFC 9598 section 3)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    found = [str(n) for n in names.get_values_for_type(x509.RFC822Name) if loose or str(n).isascii()]
    for other in names.get_values_for_type(x509.OtherName):
        if other.type_id == _SMTP_UTF8_MAILBOX:
            found.append(_utf8_string(other.value))
    return found


def _utf8_string(der: bytes) -> str:
    return str(asn1_core.UTF8String.load(der, strict=True).native)


def _check(der: bytes, limits: Limits) -> None:
    """Raises _Unfit with the reason why a certificate is not kept."""
    if len(der) > limits.octets:
        raise _Unfit(f"larger than {limits.octets} octets")
    certificate = load(der)
    if certificate.version is not x509.Version.v3:
        raise _Unfit("not an X.509 version 3 certificate")
    serial = asn1_x509.Certificate.load(der)["tbs_certificate"]["serial_number"].native
    if not 0 < serial < 1 << limits.serial_bits:
        raise _Unfit("its serial number is not positive or longer than 20 octets")
    _check_dates(certificate, limits)
    extensions = certificate.extensions
    basic = [e.value for e in extensions if isinstance(e.value, x509.BasicConstraints)]
    if any(b.ca for b in basic):
        raise _Unfit(_IS_CA)
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName) and len(list(value)) > limits.alternative_names:
            raise _Unfit(f"more than {limits.alternative_names} alternative names")
        if isinstance(value, x509.ExtendedKeyUsage) and not _MAIL & set(value):
            raise _Unfit("its extended key usage does not allow e-mail protection")
        if extension.critical and isinstance(value, x509.UnrecognizedExtension):
            raise _Unfit(f"an unknown critical extension {extension.oid.dotted_string}")
    _check_names(certificate)
    _check_strength(certificate, limits)


def _check_dates(certificate: x509.Certificate, limits: Limits) -> None:
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if begins >= ends:
        raise _Unfit("it ends before it begins")
    if ends - begins > limits.lifetime:
        raise _Unfit(f"valid for more than {limits.lifetime // YEAR} years")


def _check_names(certificate: x509.Certificate) -> None:
    texts = [str(a.value) for a in certificate.subject] + _alternative_addresses(certificate)
    for text in texts:
        if any(unicodedata.category(c) in _TRICKS for c in text):
            raise _Unfit("a name with control or direction-changing characters")
    mail = _alternative_addresses(certificate)
    mail += [str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)]
    if any(text.count("@") != 1 for text in mail):
        raise _Unfit("an address without exactly one @")
    if not addresses(certificate):
        raise _Unfit("it names no e-mail address")


def _check_strength(certificate: x509.Certificate, limits: Limits) -> None:
    if isinstance(certificate.signature_hash_algorithm, _WEAK_HASHES):
        raise _Unfit(f"signed with {certificate.signature_hash_algorithm.name.upper()}")
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < limits.rsa_bits or key.key_size > 16384:
            raise _Unfit(f"an RSA key of {key.key_size} bits; accepted are {limits.rsa_bits} to 16384")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.key_size < limits.curve_bits:
            raise _Unfit(f"a curve of {key.curve.key_size} bits")
    elif isinstance(key, dsa.DSAPublicKey):
        raise _Unfit("a DSA key")


def _key(certificate: x509.Certificate) -> tuple[int, int]:
    """The key's algorithm, by OpenPGP's numbers (as listings use them), and its bits; 0 for any other."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return 1, key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return 18, key.curve.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return 27, 256
    return (28, 456) if isinstance(key, ed448.Ed448PublicKey) else (0, 0)


def _key_usage(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    words = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return tuple(word for word in words if getattr(usage, word))


def _encrypts(certificate: x509.Certificate, usage: tuple[str, ...]) -> bool:
    """May mail be encrypted to this key (RFC 8550 section 4.4.2)?"""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return not usage or "key_encipherment" in usage
    if isinstance(key, ec.EllipticCurvePublicKey):
        return not usage or "key_agreement" in usage
    return False


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _search_hashes(der: bytes, sha1: str) -> list[tuple[str, str]]:
    """RFC 4387 section 2.1: SHA-1 over the DER of certificate, issuer, subject, issuer and serial, key identifier."""
    parsed = asn1_x509.Certificate.load(der)
    body = parsed["tbs_certificate"]
    issuer_and_serial = asn1_cms.IssuerAndSerialNumber(
        {"issuer": body["issuer"], "serial_number": body["serial_number"].native}
    )
    found = [
        ("certhash", sha1),
        ("ihash", _sha1(body["issuer"].dump())),
        ("shash", _sha1(body["subject"].dump())),
        ("iandshash", _sha1(issuer_and_serial.dump())),
    ]
    identifier = parsed.key_identifier
    if identifier:
        found.append(("skidhash", _sha1(bytes(identifier))))
    return found


def _sha1(octets: bytes) -> str:
    return hashlib.sha1(octets).hexdigest().upper()  # noqa: S324  RFC 4387 fixes the hash
