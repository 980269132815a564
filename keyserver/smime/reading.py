"""One X.509 certificate, read as tolerantly as openssl and gpgsm read it (RFC 5280 section 4.1), judged elsewhere.

The one reader for everything that a certificate is found under: what is checked and what is proved cannot differ.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keyserver.model import Malformed
from keyserver.smime import ber, names

BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE = "2.5.29.19", "2.5.29.15", "2.5.29.37"
ALTERNATIVE_NAME, KEY_IDENTIFIER, NAME_CONSTRAINTS = "2.5.29.17", "2.5.29.14", "2.5.29.30"
NO_EXPIRY = 253402300799  # 99991231235959Z: no well-defined expiration date (RFC 5280 section 4.1.2.5)
_RSA, _RSA_PSS = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_TIMES = {
    0x17: re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?Z"),
    0x18: re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?Z"),
}
_DAY_ZERO = datetime.date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension; `value` is what its OCTET STRING holds."""

    type: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What a certificate says, elements with their octets as they came.

    What is looked into later (usages, purposes, key) raises ValueError where it is broken."""

    octets: bytes
    version: int
    serial: ber.Element
    algorithms: tuple[ber.Element, ...]  # of the signature: as signed, and beside it
    issuer: ber.Element
    begins: int
    ends: int
    subject: ber.Element
    subject_name: names.DistinguishedName
    key: ber.Element  # SubjectPublicKeyInfo
    extensions: tuple[Extension, ...]
    alternative_names: tuple[ber.Element, ...]
    alternative_mail: tuple[str, ...]  # what stands in the place of addresses, be it addresses or not
    subject_mail: tuple[str, ...]
    addresses: tuple[str, ...]  # that it proves; see `names.addresses`

    def values(self, type_: str) -> list[bytes]:
        """The values of every extension of one type."""
        return [e.value for e in self.extensions if e.type == type_]

    @property
    def is_ca(self) -> bool:
        """Does it say that it may issue others?"""
        found = [part for value in self.values(BASIC_CONSTRAINTS) for part in ber.inside(value, ber.SEQUENCE)]
        return any(part.tag == ber.BOOLEAN and any(part.content) for part in found)

    @property
    def usage(self) -> tuple[str, ...] | None:
        """What its key may be used for; None where it does not say."""
        found = [_bits(value) for value in self.values(KEY_USAGE)]
        return tuple(word for n, word in enumerate(_USAGES) if all(f >> 15 - n & 1 for f in found)) if found else None

    @property
    def signs_lists(self) -> bool:
        """May its key sign revocation lists (RFC 5280 section 4.2.1.3)? Yes where it does not limit its use."""
        return all(_bits(value) >> 9 & 1 for value in self.values(KEY_USAGE))

    @property
    def purposes(self) -> list[frozenset[str]]:
        """The object identifiers of each extended key usage."""
        return [frozenset(map(ber.dotted, ber.inside(v, ber.SEQUENCE))) for v in self.values(EXTENDED_KEY_USAGE)]

    @property
    def key_identifier(self) -> bytes:
        """Its subject key identifier, or nothing."""
        for value in self.values(KEY_IDENTIFIER):
            try:
                found = ber.first(value)
            except Malformed:
                continue
            if found.tag == ber.OCTETS:
                return found.content
        return b""

    @property
    def signs_only(self) -> bool:
        """Is its key an RSA key for signatures alone (RFC 4055 section 1.2)?"""
        return _algorithm(self.key) == _RSA_PSS

    def public_key(self) -> PublicKeyTypes:
        """Its key. Raises Malformed for one that cannot be read, or that nobody should use."""
        try:
            return load_der_public_key(self.key.octets)
        except UnsupportedAlgorithm:
            raise Malformed("a kind of key that is not known") from None
        except ValueError:
            return _rsa_key(self.key)


def read(octets: bytes) -> Reading:
    """The certificate that `octets` begin with; what follows it is left out. Raises Malformed."""
    try:
        return _read(octets)
    except Malformed:
        raise
    except ValueError:  # too few parts, or too many
        raise Malformed("not a certificate") from None


def _read(octets: bytes) -> Reading:
    whole = ber.first(octets)
    body, outer = ber.opened(whole, ber.SEQUENCE)[:2]
    fields = ber.opened(body, ber.SEQUENCE)
    version = 0
    if fields and fields[0].tag == 0xA0:
        version = ber.number(ber.first(fields.pop(0).content))
    if len(fields) < 6:
        raise Malformed("not a certificate")
    serial, inner, issuer, validity, subject, key = fields[:6]
    ber.number(serial)
    begins, ends = ber.opened(validity, ber.SEQUENCE)
    extensions = tuple(_extension(e) for f in fields[6:] if f.tag == 0xA3 for e in ber.inside(f.content, ber.SEQUENCE))
    subject_name = names.distinguished(subject)
    called = tuple(name for e in extensions if e.type == ALTERNATIVE_NAME for name in names.alternative(e.value))
    mail = tuple(text for text in map(names.mail_of, called) if text is not None)
    subject_mail = names.mail_in(subject_name)
    return Reading(
        octets=whole.octets,
        version=version + 1,
        serial=serial,
        algorithms=(inner, outer),
        issuer=issuer,
        begins=time_of(begins),
        ends=min(time_of(ends), NO_EXPIRY),
        subject=subject,
        subject_name=subject_name,
        key=key,
        extensions=extensions,
        alternative_names=called,
        alternative_mail=mail,
        subject_mail=subject_mail,
        addresses=names.addresses(mail, subject_mail),
    )


def _extension(element: ber.Element) -> Extension:
    type_, *flag, value = ber.opened(element, ber.SEQUENCE)
    if value.tag != ber.OCTETS:
        raise Malformed("an extension without a value")
    return Extension(ber.dotted(type_), any(any(f.content) for f in flag), value.content)


def time_of(element: ber.Element) -> int:
    """Unix time of a UTCTime or GeneralizedTime in Zulu, seconds or not; the 31st of February is the 3rd of March.

    Raises Malformed."""
    found = _TIMES[element.tag].fullmatch(element.content) if element.tag in _TIMES else None
    if found is None:
        raise Malformed("a date that cannot be read")
    year, month, day, hour, minute, second = (int(group or 0) for group in found.groups())
    if element.tag == 0x17:
        year += 1900 if year >= 50 else 2000  # RFC 5280 section 4.1.2.5.1
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise Malformed("a date that is none")
    return ((datetime.date(year, month, 1).toordinal() - _DAY_ZERO + day - 1) * 24 + hour) * 3600 + minute * 60 + second


def _bits(value: bytes) -> int:
    """The first 16 bits of a BIT STRING, as a number; bits declared unused are not set."""
    found = ber.first(value)
    if found.tag != ber.BITS or not found.content or found.content[0] > 7:
        raise Malformed("a key usage that cannot be read")
    unused, octets = found.content[0], found.content[1:]
    if octets:
        octets = octets[:-1] + bytes((octets[-1] & 0xFF << unused & 0xFF,))
    return int.from_bytes(octets[:2].ljust(2, b"\x00"), "big")


def _algorithm(spki: ber.Element) -> str:
    return ber.dotted(ber.first(ber.opened(spki, ber.SEQUENCE)[0].content))


def _rsa_key(spki: ber.Element) -> rsa.RSAPublicKey:
    """An RSA key in an encoding that only tolerant readers take: without parameters, padded, or as if negative."""
    if _algorithm(spki) != _RSA:
        raise Malformed("a key that cannot be read")
    bits = ber.opened(spki, ber.SEQUENCE)[1]
    if bits.tag != ber.BITS:
        raise Malformed("a key that cannot be read")
    modulus, exponent = (int.from_bytes(n.content, "big") for n in ber.inside(bits.content[1:], ber.SEQUENCE)[:2])
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise Malformed("an RSA key that nobody should use") from None
