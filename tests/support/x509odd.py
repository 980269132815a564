"""Certificates that err as real issuers do: one control, built octet by octet, and a list of ways to be wrong.

Nothing here uses a library's encoder: what is wrong must stay wrong. Every certificate is signed by a CA of its own,
so that openssl and gpgsm can be asked to encrypt to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.x509 import Issued, authority, rsa_key

NULL = b"\x05\x00"
SHA256_RSA = bytes.fromhex("06092a864886f70d01010b")


def tlv(tag: int, *parts: bytes) -> bytes:
    """Tag, shortest length, content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def long_form(value: bytes) -> bytes:
    """The same value, its length in four octets."""
    content, tag = opened(value), value[:1]
    return tag + b"\x84" + len(content).to_bytes(4, "big") + content


def indefinite(value: bytes) -> bytes:
    """The same value with an indefinite length."""
    return value[:1] + b"\x80" + opened(value) + b"\x00\x00"


def opened(value: bytes) -> bytes:
    """What is inside."""
    first = value[1]
    return value[2 + (first & 0x7F if first & 0x80 else 0) :]


def sequence(*parts: bytes) -> bytes:
    return tlv(0x30, *parts)


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    octets = b""
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        octets += bytes(reversed(groups))
    return tlv(6, octets)


UTF8, NUMERIC, PRINTABLE, TELETEX, IA5, VISIBLE, UNIVERSAL, BMP = 12, 18, 19, 20, 22, 26, 28, 30
CN, COUNTRY, ORGANIZATION, MAIL = "2.5.4.3", "2.5.4.6", "2.5.4.10", "1.2.840.113549.1.9.1"


def rdn(type_: str, text: str | bytes, tag: int = UTF8) -> bytes:
    """One RelativeDistinguishedName."""
    octets = text if isinstance(text, bytes) else text.encode()
    return tlv(0x31, sequence(oid(type_), tlv(tag, octets)))


def extension(type_: str, value: bytes, critical: bytes = b"") -> bytes:
    """critical: the encoded BOOLEAN, if any."""
    return sequence(oid(type_), critical, tlv(4, value))


TRUE, FALSE, ONE = b"\x01\x01\xff", b"\x01\x01\x00", b"\x01\x01\x01"
BASIC, USAGE, EXTENDED, ALTERNATIVE = "2.5.29.19", "2.5.29.15", "2.5.29.37", "2.5.29.17"
EMAIL_PROTECTION = oid("1.3.6.1.5.5.7.3.4")


def mailbox(address: str | bytes) -> bytes:
    """An rfc822Name."""
    return tlv(0x81, address if isinstance(address, bytes) else address.encode())


def other(type_: str, value: bytes) -> bytes:
    """An otherName."""
    return tlv(0xA0, oid(type_), tlv(0xA0, value))


def alternative(*names: bytes, critical: bytes = b"") -> bytes:
    return extension(ALTERNATIVE, sequence(*names), critical)


@cache
def root() -> Issued:
    return authority("Odd CA", key=rsa_key(2048, 7))


@dataclass(frozen=True)
class Parts:
    """What a certificate is made of, encoded."""

    version: bytes = tlv(0xA0, integer(2))
    serial: bytes = integer(0x0102)
    inner: bytes = sequence(SHA256_RSA, NULL)
    outer: bytes | None = None  # as `inner`
    begins: bytes = tlv(0x17, b"250101000000Z")
    ends: bytes = tlv(0x17, b"350101000000Z")
    subject: bytes = sequence(rdn(CN, "Alice"))
    key: bytes = b""
    unique: bytes = b""
    extensions: Mapping[str, bytes] = field(
        default_factory=lambda: {
            "basic": extension(BASIC, sequence(), TRUE),
            "usage": extension(USAGE, b"\x03\x02\x05\xa0", TRUE),
            "extended": extension(EXTENDED, sequence(EMAIL_PROTECTION)),
            "names": alternative(mailbox("alice@example.org")),
        }
    )
    wrap_extensions: Callable[[bytes], bytes] = lambda inner: tlv(0xA3, sequence(inner))
    wrap: Callable[[bytes], bytes] = lambda der: der


@cache
def alice() -> rsa.RSAPrivateKey:
    """The key of every certificate here, but for those that are odd by their keys."""
    return rsa_key(2048, 8)


def spki(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@cache
def control() -> Parts:
    return Parts(key=spki(alice()))


def built(parts: Parts) -> bytes:
    """The certificate, rightly signed."""
    tbs = sequence(
        parts.version,
        parts.serial,
        parts.inner,
        root().certificate.subject.public_bytes(),
        sequence(parts.begins, parts.ends),
        parts.subject,
        parts.key,
        parts.unique,
        parts.wrap_extensions(b"".join(parts.extensions.values())) if parts.extensions else b"",
    )
    signature = root().key.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    return parts.wrap(sequence(tbs, parts.outer or parts.inner, tlv(3, b"\x00", signature)))


def odd(**changes: object) -> bytes:
    """The control with some parts changed; `x_<name>`: one extension (b"" removes it)."""
    fields: dict[str, Any] = {"extensions": dict(control().extensions)}
    for key, value in changes.items():
        if key.startswith("x_"):
            fields["extensions"][key[2:]] = value
        else:
            fields[key] = value
    return built(replace(control(), **fields))


def rsa_spki(modulus: bytes, exponent: bytes, parameters: bytes = NULL) -> bytes:
    """A public key from encoded INTEGERs."""
    return sequence(sequence(oid("1.2.840.113549.1.1.1"), parameters), tlv(3, b"\x00", sequence(modulus, exponent)))


def _modulus() -> bytes:
    n = alice().public_key().public_numbers().n
    return n.to_bytes(256, "big")


def subject(*rdns: bytes) -> bytes:
    return sequence(*rdns)


def corpus() -> dict[str, bytes]:
    """Every kind of error by name."""
    n, e = tlv(2, b"\x00" + _modulus()), integer(65537)
    address = mailbox("alice@example.org")
    mail = rdn(MAIL, "alice@example.org", IA5)
    return {
        "control": odd(),
        # values that are not DER
        "critical-false-encoded": odd(x_names=alternative(address, critical=FALSE)),
        "ca-false-encoded": odd(x_basic=extension(BASIC, sequence(FALSE), TRUE)),
        "true-as-one": odd(x_usage=extension(USAGE, b"\x03\x02\x05\xa0", ONE)),
        "usage-trailing-zero-bits": odd(x_usage=extension(USAGE, b"\x03\x02\x00\xa0", TRUE)),
        "usage-two-octets": odd(x_usage=extension(USAGE, b"\x03\x03\x07\xa0\x00", TRUE)),
        "usage-set-unused-bits": odd(x_usage=extension(USAGE, b"\x03\x02\x05\xbf", TRUE)),
        "length-in-long-form": odd(wrap=long_form),
        "length-in-long-form-inside": odd(subject=long_form(subject(rdn(CN, "Alice")))),
        "indefinite-outside": odd(wrap=indefinite),
        "indefinite-extension-value": odd(x_names=extension(ALTERNATIVE, indefinite(sequence(address)))),
        "trailing-octets": odd(wrap=lambda der: der + b"\x00\x00\x00"),
        "trailing-in-extension": odd(x_names=extension(ALTERNATIVE, sequence(address) + b"\x00\x00")),
        "rdn-set-unsorted": odd(subject=subject(tlv(
            0x31, sequence(oid(ORGANIZATION), tlv(UTF8, b"Zeta")), sequence(oid(CN), tlv(UTF8, b"A"))))),
        "rdn-set-empty": odd(subject=subject(tlv(0x31), rdn(CN, "Alice"))),
        "no-parameters": odd(inner=sequence(SHA256_RSA)),
        "parameters-differ": odd(outer=sequence(SHA256_RSA)),
        # names
        "printable-at-sign": odd(subject=subject(rdn(CN, "alice@example.org A&B *_", PRINTABLE))),
        "printable-umlaut": odd(subject=subject(rdn(CN, "Jörg".encode("latin-1"), PRINTABLE))),
        "teletex-latin1": odd(subject=subject(rdn(CN, "Jörg".encode("latin-1"), TELETEX))),
        "utf8-that-is-latin1": odd(subject=subject(rdn(CN, "Jörg".encode("latin-1")))),
        "ia5-umlaut": odd(subject=subject(rdn(CN, "Jörg".encode("latin-1"), IA5))),
        "bmp": odd(subject=subject(rdn(CN, "Jörg".encode("utf-16-be"), BMP))),
        "bmp-odd-length": odd(subject=subject(rdn(CN, "Jörg".encode("utf-16-be") + b"\x00", BMP))),
        "bmp-surrogates": odd(subject=subject(rdn(CN, "J😀".encode("utf-16-be"), BMP))),
        "universal": odd(subject=subject(rdn(CN, "Jörg".encode("utf-32-be"), UNIVERSAL))),
        "numeric-letters": odd(subject=subject(rdn(CN, "Alice", NUMERIC))),
        "visible": odd(subject=subject(rdn(CN, "Alice", VISIBLE))),
        "name-that-is-an-integer": odd(subject=subject(rdn(CN, "Alice"), tlv(
            0x31, sequence(oid("1.2.3.4"), integer(5))))),
        "country-of-three": odd(subject=subject(rdn(COUNTRY, "DEU", PRINTABLE), rdn(CN, "Alice"))),
        "empty-common-name": odd(subject=subject(rdn(CN, ""))),
        "empty-subject": odd(subject=sequence(), x_names=alternative(address, critical=TRUE)),
        "subject-zwnj": odd(subject=subject(rdn(CN, "علی\u200cرضا"))),
        "subject-bidi": odd(subject=subject(rdn(CN, "Alice \u202egro.elpmaxe"))),
        "subject-nul": odd(subject=subject(rdn(CN, "Alice\x00evil"))),
        # numbers
        "serial-zero": odd(serial=integer(0)),
        "serial-negative": odd(serial=integer(-77)),
        "serial-padded": odd(serial=tlv(2, b"\x00\x00\x00\x05")),
        "serial-21-octets": odd(serial=tlv(2, b"\x7f" * 21)),
        "serial-64-octets": odd(serial=tlv(2, b"\x7f" * 64)),
        "serial-empty": odd(serial=tlv(2)),
        "version-1": odd(version=b"", extensions={}, subject=subject(rdn(CN, "Alice"), mail)),
        "version-1-encoded": odd(version=tlv(0xA0, integer(0)), extensions={}, subject=subject(rdn(CN, "Alice"), mail)),
        "version-1-with-extensions": odd(version=b""),
        "version-2": odd(version=tlv(0xA0, integer(1)), extensions={}, subject=subject(rdn(CN, "Alice"), mail)),
        "version-4": odd(version=tlv(0xA0, integer(3))),
        "version-7": odd(version=tlv(0xA0, integer(6))),
        "unique-identifiers": odd(unique=tlv(0x81, b"\x00\x01") + tlv(0x82, b"\x00\x02")),
        # times
        "no-expiry-9999": odd(ends=tlv(0x18, b"99991231235959Z")),
        "fifty-years": odd(ends=tlv(0x18, b"20750101000000Z")),
        "generalized-before-2050": odd(ends=tlv(0x18, b"20350101000000Z")),
        "utc-without-seconds": odd(ends=tlv(0x17, b"3501010000Z")),
        "utc-with-offset": odd(ends=tlv(0x17, b"350101000000+0100")),
        "generalized-fraction": odd(ends=tlv(0x18, b"20350101000000.5Z")),
        "ends-before-it-begins": odd(begins=tlv(0x17, b"350101000000Z"), ends=tlv(0x17, b"250101000000Z")),
        "no-such-day": odd(ends=tlv(0x17, b"350231000000Z")),
        # alternative names
        "bad-address-beside": odd(x_names=alternative(address, mailbox("nobody"))),
        "address-with-name": odd(x_names=alternative(address, mailbox("Alice <alice@example.org>"))),
        "address-utf8": odd(x_names=alternative(address, mailbox("jörg@example.org"))),
        "address-empty": odd(x_names=alternative(address, mailbox(""))),
        "address-nul": odd(x_names=alternative(address, mailbox("boss@here.example\x00.evil.example"))),
        "address-bidi": odd(x_names=alternative(address, other(
            "1.3.6.1.5.5.7.8.9", tlv(UTF8, "bob\u202e@example.org".encode())))),
        "smtp-utf8-garbage": odd(x_names=alternative(address, other("1.3.6.1.5.5.7.8.9", b"\x0c\x05ab"))),
        "ip-of-five-octets": odd(x_names=alternative(address, tlv(0x87, b"\x0a\x00\x00\x01\x05"))),
        "dns-umlaut": odd(x_names=alternative(address, tlv(0x82, "müller.example".encode()))),
        "dns-with-space": odd(x_names=alternative(address, tlv(0x82, b"not a host"))),
        "uri-relative": odd(x_names=alternative(address, tlv(0x86, b"//"))),
        "principal-name": odd(x_names=alternative(address, other(
            "1.3.6.1.4.1.311.20.2.3", tlv(UTF8, b"alice@corp.example")))),
        "names-empty": odd(x_names=alternative(), subject=subject(rdn(CN, "Alice"), mail)),
        "names-garbage": odd(x_names=extension(ALTERNATIVE, b"\x04\x01a"), subject=subject(rdn(CN, "Alice"), mail)),
        "names-cut-off": odd(x_names=extension(ALTERNATIVE, sequence(address, b"\x81\x20ab"))),
        "names-twice": odd(x_more=alternative(mailbox("carol@example.org"))),
        "names-dns-and-subject": odd(x_names=alternative(tlv(0x82, b"example.org")), subject=subject(mail)),
        "names-bad-address-and-subject": odd(x_names=alternative(mailbox("nobody")), subject=subject(mail)),
        "names-absent": odd(x_names=b"", subject=subject(mail)),
        "subject-mail-utf8": odd(x_names=b"", subject=subject(rdn(MAIL, "alice@example.org", UTF8))),
        "subject-mail-printable": odd(x_names=b"", subject=subject(rdn(MAIL, "alice@example.org", PRINTABLE))),
        "subject-mail-same": odd(subject=subject(rdn(MAIL, "Alice@example.org", IA5))),
        "subject-mail-other": odd(subject=subject(rdn(MAIL, "carol@example.org", IA5))),
        "subject-mail-bad": odd(subject=subject(rdn(MAIL, "a@b@example.org", IA5))),
        "subject-mail-nul": odd(subject=subject(rdn(MAIL, "boss@here.example\x00.evil.example", IA5))),
        # other extensions
        "unknown-garbage": odd(x_more=extension("1.2.3.4", b"garbage")),
        "points-garbage": odd(x_more=extension("2.5.29.31", b"\x30\x03abc")),
        "policies-garbage": odd(x_more=extension("2.5.29.32", b"\x04\x01a")),
        "authority-key-garbage": odd(x_more=extension("2.5.29.35", b"\x04\x01a")),
        "subject-key-garbage": odd(x_more=extension("2.5.29.14", b"\x30\x00")),
        "basic-absent": odd(x_basic=b""),
        "basic-path-length-without-ca": odd(x_basic=extension(BASIC, sequence(integer(0)), TRUE)),
        "usage-absent": odd(x_usage=b""),
        "usage-nothing": odd(x_usage=extension(USAGE, b"\x03\x01\x00", TRUE)),
        "extended-absent": odd(x_extended=b""),
        "extended-any": odd(x_extended=extension(EXTENDED, sequence(oid("2.5.29.37.0")), TRUE)),
        "extended-empty": odd(x_extended=extension(EXTENDED, sequence())),
        "extended-garbage": odd(x_extended=extension(EXTENDED, b"\x04\x01a")),
        # keys
        "key-without-parameters": odd(key=rsa_spki(n, e, b"")),
        "key-negative-modulus": odd(key=rsa_spki(tlv(2, _modulus()), e)),
        "key-padded-modulus": odd(key=rsa_spki(tlv(2, b"\x00\x00\x00" + _modulus()), e)),
        "key-padded-exponent": odd(key=rsa_spki(n, tlv(2, b"\x00\x01\x00\x01"))),
        "key-even-exponent": odd(key=rsa_spki(n, integer(65536))),
        "key-exponent-one": odd(key=rsa_spki(n, integer(1))),
        "key-for-pss-only": odd(key=spki(alice()).replace(
            sequence(oid("1.2.840.113549.1.1.1"), NULL), sequence(oid("1.2.840.113549.1.1.10")) ).replace(
            b"\x30\x82\x01\x22", b"\x30\x82\x01\x20", 1)),
        # refused for what it is
        "a-ca": odd(x_basic=extension(BASIC, sequence(TRUE), TRUE)),
        "a-ca-true-as-one": odd(x_basic=extension(BASIC, sequence(ONE), TRUE)),
        "server-only": odd(x_extended=extension(EXTENDED, sequence(oid("1.3.6.1.5.5.7.3.1")))),
        "unknown-critical": odd(x_more=extension("1.2.3.4", NULL, TRUE)),
        "unknown-critical-as-one": odd(x_more=extension("1.2.3.4", NULL, ONE)),
        "key-of-1024-bits": odd(key=spki(rsa_key(1024))),
        "signed-with-sha1": odd(inner=sequence(oid("1.2.840.113549.1.1.5"), NULL)),
    }  # fmt: skip
