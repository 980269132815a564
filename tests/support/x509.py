"""Makes X.509 certificates for tests with a private CA: ordinary ones in a line, odd ones by options."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from support.kept_keys import next_rsa

BEGINS = 1_690_000_000  # 2023-07-22
YEAR = 365 * 86400
EMAIL = [ExtendedKeyUsageOID.EMAIL_PROTECTION]


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Any

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex().upper()


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """An RSA key, the same at each call with this number."""
    return next_rsa(bits)


def name(common_name: str, **more: str) -> x509.Name:
    """A subject: common name, and `email=`, `surname=`, `given_name=`, `organization=`."""
    oids = {
        "email": NameOID.EMAIL_ADDRESS,
        "surname": NameOID.SURNAME,
        "given_name": NameOID.GIVEN_NAME,
        "organization": NameOID.ORGANIZATION_NAME,
    }
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        + [x509.NameAttribute(oids[k], v) for k, v in more.items()]
    )


def issue(
    subject: x509.Name,
    *,
    issuer: Issued | None = None,
    emails: Sequence[str | x509.GeneralName] = (),
    key: Any = None,
    ca: bool = False,
    begins: int = BEGINS,
    ends: int = BEGINS + 10 * YEAR,
    serial: int | None = None,
    hash_: Any = None,
    eku: Sequence[x509.ObjectIdentifier] | None = None,
    usage: str | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """One certificate; self-signed without an issuer.

    `usage`: words of KeyUsage such as "digital_signature key_encipherment"; None leaves the extension out.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(datetime.datetime.fromtimestamp(begins, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if emails:
        names = [x509.RFC822Name(e) if isinstance(e, str) else e for e in emails]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if eku is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
    if usage is not None or ca:
        words = set((usage or "").split()) | ({"key_cert_sign", "crl_sign"} if ca else set())
        all_words = (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(**{w: w in words for w in all_words}), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else (hash_ or hashes.SHA256())
    return Issued(builder.sign(signer, algorithm), key)


def authority(common_name: str = "Test CA", issuer: Issued | None = None, **options: Any) -> Issued:
    """A CA certificate: a root without an issuer, else an intermediate."""
    return issue(name(common_name), issuer=issuer, ca=True, **options)


def person(address: str, issuer: Issued | None = None, **options: Any) -> Issued:
    """What a mail CA gives to a person: RSA-2048, rfc822Name, emailProtection, signing and encryption."""
    options.setdefault("key", rsa_key())
    options.setdefault("usage", "digital_signature key_encipherment")
    options.setdefault("eku", EMAIL)
    subject = options.pop("subject", None) or name(address.partition("@")[0].title())
    return issue(subject, issuer=issuer, emails=options.pop("emails", [address]), **options)
