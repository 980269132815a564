"""One X.509 end-entity certificate: is it fit to be kept, and what does it prove (RFC 5280, RFC 8398, RFC 9598).

What openssl and gpgsm read and can encrypt to is kept, its octets as they came; what is odd about it becomes a remark.
One bad name costs that name. What would deceive its reader, or is too weak, costs the certificate.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from keyserver.model import Certificate, Claim, Kind, Malformed, Name, Proof, Refused, UserId, Validity, X509Facts
from keyserver.query import name_of, parse_address
from keyserver.smime import ber, names, signing
from keyserver.smime.bundle import MAX_CERTIFICATE, load, unpack
from keyserver.smime.reading import NO_EXPIRY, Reading, read

EMAIL_PROTECTION, ANY_PURPOSE = "1.3.6.1.5.5.7.3.4", "2.5.29.37.0"
KNOWN_CRITICAL = frozenset(
    {
        *(f"2.5.29.{n}" for n in (14, 15, 16, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37, 46, 54)),
        "1.3.6.1.5.5.7.1.1",
        "1.3.6.1.5.5.7.1.11",
    }
)
"""The extensions of RFC 5280 section 4.2: any other that is critical forbids to use the certificate."""
YEAR = 365 * 86400
_LONG = 40 * YEAR  # a lifetime worth a remark


@dataclass(frozen=True, slots=True)
class Limits:
    """What one certificate may hold."""

    octets: int = MAX_CERTIFICATE
    alternative_names: int = 128  # and as many addresses in the subject
    serial: int = 128  # octets
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
    results = [_cleaned(der, now, limits) for der in ders]
    fit = [r for r in results if isinstance(r, Certificate)]
    return list(fit) + [r for r in results if isinstance(r, Refused) and not (fit and r.reason == _IS_CA)]


_IS_CA = "a CA certificate, not a person's"


def prove(der: bytes, now: int) -> Proof:
    """What a certificate that `clean` let in proves at Unix time `now`."""
    certificate = read(der)
    sha256, sha1 = hashlib.sha256(der).hexdigest().upper(), _sha1(der)
    begins, ends = certificate.begins, certificate.ends
    expires = None if ends == NO_EXPIRY else ends
    valid = begins <= now <= ends
    found, facts = certificate.addresses, _facts(certificate, sha1)
    algorithm, bits = _key(certificate.public_key())
    strong = frozenset(
        {
            name_of(Kind.X509, "fpr", sha256),
            name_of(Kind.X509, "fpr", sha1),
            *(name_of(Kind.X509, a, d) for a, d in _search_hashes(certificate, sha1)),
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
        expires=expires,
        validity=Validity.VALID if valid else Validity.EXPIRED,
        can_encrypt=valid and _encrypts(certificate),
        user_ids=tuple(UserId(a, a, begins, expires, False) for a in found),
        subkeys=(),
        strong=strong,
        weak=claimed if valid else frozenset(),
        index=strong | claimed,
        newest=begins,
        turns=begins if now < begins else ends + 1 if valid and expires is not None else None,
        claims=tuple(Claim(mail, parse_address(mail)) for mail in dict.fromkeys(_mail(certificate))),
        identities=_identities(found, facts.common_name),
        marks=tuple(_remarks(certificate)),
        x509=facts,
    )


def _identities(addresses: Iterable[str], common_name: str) -> tuple[str, ...]:
    """The addresses and the subject's common name; an address there proves nothing, and would look as if it did."""
    return tuple(dict.fromkeys((*addresses, *([common_name] if common_name and "@" not in common_name else []))))


def _mail(certificate: Reading) -> tuple[str, ...]:
    """Every text that a mail program may take for an address, whether it proves one to us or not: gpgsm finds a
    certificate by what its subject says, whatever its alternative names say."""
    subject = [attribute.text or "" for rdn in certificate.subject_name for attribute in rdn]
    shown = (text for text in subject if "@" in unicodedata.normalize("NFKC", text))
    return (*certificate.alternative_mail, *certificate.subject_mail, *shown)


def index(der: bytes) -> tuple[frozenset[Name], tuple[str, ...]]:
    """Names to index under; the addresses and the subject's common name, for listings and text searches."""
    proof = prove(der, 0)
    return proof.index, proof.identities


def merge(copies: Sequence[bytes], revoked: bytes = b"") -> bytes:
    """Copies of one certificate are the same octets."""
    return min(copies)


def revocations(der: bytes) -> bytes:
    """X.509 certificates carry none of their own."""
    return b""


def merge_revocations(one: bytes, other: bytes) -> bytes:
    """See `revocations`."""
    return b""


def _cleaned(der: bytes, now: int, limits: Limits) -> Certificate | Refused:
    fingerprint = hashlib.sha256(der).hexdigest().upper()
    try:
        if len(der) > limits.octets:
            raise _Unfit(f"larger than {limits.octets} octets")
        _check(read(der), limits)
        return Certificate(der, prove(der, now))
    except _Unfit as why:
        return Refused(str(why), fingerprint)
    except Malformed as problem:
        return Refused(f"cannot be read: {problem}", fingerprint, fatal=True)
    except Exception:  # too few parts, or too many, where nothing names them
        return Refused("cannot be read: one of its parts is broken", fingerprint, fatal=True)


def _check(certificate: Reading, limits: Limits) -> None:
    """Raises _Unfit with the reason why a certificate is not kept."""
    if certificate.is_ca:
        raise _Unfit(_IS_CA)
    if len(certificate.serial.content) > limits.serial:
        raise _Unfit(f"a serial number of more than {limits.serial} octets")
    if certificate.begins >= certificate.ends:
        raise _Unfit("it ends before it begins")
    for extension in certificate.extensions:
        if extension.critical and extension.type not in KNOWN_CRITICAL:
            raise _Unfit(f"an unknown critical extension {extension.type}")
    if any(purposes and not purposes & {EMAIL_PROTECTION, ANY_PURPOSE} for purposes in certificate.purposes):
        raise _Unfit("its extended key usage does not allow e-mail protection")
    _check_names(certificate, limits)
    _check_strength(certificate, limits)


def _check_names(certificate: Reading, limits: Limits) -> None:
    if max(len(certificate.alternative_names), len(certificate.subject_mail)) > limits.alternative_names:
        raise _Unfit(f"more than {limits.alternative_names} alternative names, or addresses in its subject")
    if any(map(names.deceives, certificate.alternative_mail + certificate.subject_mail)):
        raise _Unfit("an address with control or direction-changing characters")
    if not certificate.addresses:
        raise _Unfit("it names no e-mail address")


def _check_strength(certificate: Reading, limits: Limits) -> None:
    for algorithm in certificate.algorithms:
        if (weakness := signing.weakness(algorithm)) is not None:
            raise _Unfit(weakness)
    try:
        key = certificate.public_key()
    except Malformed as problem:
        raise _Unfit(str(problem)) from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < limits.rsa_bits or key.key_size > 16384:
            raise _Unfit(f"an RSA key of {key.key_size} bits; accepted are {limits.rsa_bits} to 16384")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.key_size < limits.curve_bits:
            raise _Unfit(f"a curve of {key.curve.key_size} bits")
    elif isinstance(key, dsa.DSAPublicKey):
        raise _Unfit("a DSA key")


def _remarks(certificate: Reading) -> Iterator[str]:
    """What is odd about a certificate that is kept all the same."""
    if not _strict(certificate.octets):
        yield "not strict DER"
    if certificate.version != 3:
        yield f"X.509 version {certificate.version}"
    serial = certificate.serial.content
    if ber.number(certificate.serial) <= 0:
        yield "serial number not positive"
    elif len(serial) > 20:  # RFC 5280 section 4.1.2.2
        yield "serial number longer than 20 octets"
    if certificate.ends == NO_EXPIRY:
        yield "no expiry"
    elif certificate.ends - certificate.begins > _LONG:
        yield f"valid for more than {_LONG // YEAR} years"
    if any(a.shown is None for rdn in certificate.subject_name for a in rdn):
        yield "a name that cannot be shown"
    if any(parse_address(text) is None for text in certificate.alternative_mail + certificate.subject_mail):
        yield "names something that is no address"


def _strict(der: bytes) -> bool:
    """Does a strict parser read all of it, too?"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lengths beyond the standard's
            certificate = load(der)
            return all((certificate.subject is not None, certificate.extensions is not None, certificate.public_key()))
    except Exception:  # of several unrelated types
        return False


def _facts(certificate: Reading, sha1: str) -> X509Facts:
    shown = {
        a.type: a.shown or "" for rdn in reversed(certificate.subject_name) for a in reversed(rdn)
    }  # the first of a type counts
    return X509Facts(
        subject=names.written(certificate.subject_name),
        issuer=names.written(names.distinguished(certificate.issuer)),
        serial=f"{ber.number(certificate.serial):X}",
        not_before=certificate.begins,
        not_after=certificate.ends,
        common_name=shown.get(names.COMMON_NAME, ""),
        surname=shown.get(names.SURNAME, ""),
        given_name=shown.get(names.GIVEN_NAME, ""),
        key_usage=certificate.usage or (),
        sha1=sha1,
    )


def _key(key: PublicKeyTypes) -> tuple[int, int]:
    """The key's algorithm, by OpenPGP's numbers (as listings use them), and its bits; 0 for any other."""
    if isinstance(key, rsa.RSAPublicKey):
        return 1, key.key_size
    if isinstance(key, ec.EllipticCurvePublicKey):
        return 18, key.curve.key_size
    if isinstance(key, ed25519.Ed25519PublicKey):
        return 27, 256
    return (28, 456) if isinstance(key, ed448.Ed448PublicKey) else (0, 0)


def _encrypts(certificate: Reading) -> bool:
    """May mail be encrypted to this key (RFC 8550 section 4.4.2)?"""
    key, usage = certificate.public_key(), certificate.usage
    if isinstance(key, rsa.RSAPublicKey):
        return not certificate.signs_only and (usage is None or "key_encipherment" in usage)
    return isinstance(key, ec.EllipticCurvePublicKey) and (usage is None or "key_agreement" in usage)


def _search_hashes(certificate: Reading, sha1: str) -> list[tuple[str, str]]:
    """RFC 4387 section 2.1: SHA-1 over the DER of certificate, issuer, subject, issuer and serial, key identifier."""
    issuer, serial = certificate.issuer.octets, certificate.serial.octets
    found = [
        ("certhash", sha1),
        ("ihash", _sha1(issuer)),
        ("shash", _sha1(certificate.subject.octets)),
        ("iandshash", _sha1(ber.element(ber.SEQUENCE, issuer, serial))),
    ]
    identifier = certificate.key_identifier
    return [*found, ("skidhash", _sha1(identifier))] if identifier else found


def _sha1(octets: bytes) -> str:
    return hashlib.sha1(octets).hexdigest().upper()  # noqa: S324  RFC 4387 fixes the hash
