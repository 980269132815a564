"""How a certificate was signed, whether that is good enough, and whether a key made the signature."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from keyserver.smime import ber

_PKCS1 = "1.2.840.113549.1.1."
_PSS = _PKCS1 + "10"
_NIST = "2.16.840.1.101.3.4."
_WEAK = {
    _PKCS1 + "2": "MD2",
    _PKCS1 + "3": "MD4",
    _PKCS1 + "4": "MD5",
    _PKCS1 + "5": "SHA1",
    "1.2.840.10040.4.3": "SHA1",  # DSA
    "1.2.840.10045.4.1": "SHA1",  # ECDSA
    "1.3.14.3.2.27": "SHA1",
    "1.3.14.3.2.29": "SHA1",
    "1.3.14.3.2.26": "SHA1",  # the hash itself, in PSS parameters
}
_HASHES = frozenset(f"{_NIST}2.{n}" for n in range(1, 11))  # SHA-2 and SHA-3
_GOOD = frozenset(
    {
        *(f"{_PKCS1}{n}" for n in (11, 12, 13, 14, 15, 16)),
        *(f"1.2.840.10045.4.3.{n}" for n in (1, 2, 3, 4)),  # ECDSA with SHA-2
        *(f"{_NIST}3.{n}" for n in range(1, 17)),  # DSA with SHA-2; DSA, ECDSA and RSA with SHA-3
        "1.3.101.112",
        "1.3.101.113",
    }
)
_MD: dict[str, hashes.HashAlgorithm] = {
    f"{_NIST}2.1": hashes.SHA256(),
    f"{_NIST}2.2": hashes.SHA384(),
    f"{_NIST}2.3": hashes.SHA512(),
    f"{_NIST}2.4": hashes.SHA224(),
    f"{_NIST}2.7": hashes.SHA3_224(),
    f"{_NIST}2.8": hashes.SHA3_256(),
    f"{_NIST}2.9": hashes.SHA3_384(),
    f"{_NIST}2.10": hashes.SHA3_512(),
}
_RSA_BY = {
    **{f"{_PKCS1}{n}": _MD[f"{_NIST}2.{h}"] for n, h in ((11, 1), (12, 2), (13, 3), (14, 4))},
    **{f"{_NIST}3.{n}": _MD[f"{_NIST}2.{n - 6}"] for n in (13, 14, 15, 16)},
}
_ECDSA_BY = {
    **{f"1.2.840.10045.4.3.{n}": _MD[f"{_NIST}2.{h}"] for n, h in ((1, 4), (2, 1), (3, 2), (4, 3))},
    **{f"{_NIST}3.{n}": _MD[f"{_NIST}2.{n - 2}"] for n in (9, 10, 11, 12)},
}


def verifies(key: PublicKeyTypes, algorithm: ber.Element, signature: bytes, signed: bytes | memoryview) -> bool:
    """Did this key make the signature over `signed`, by an algorithm that is good enough? Raises Malformed."""
    if weakness(algorithm) is not None:
        return False
    type_, *parameters = ber.opened(algorithm, ber.SEQUENCE)
    try:
        return _verifies(key, ber.dotted(type_), parameters, signature, signed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError):
        return False


def _verifies(
    key: PublicKeyTypes, name: str, parameters: list[ber.Element], signature: bytes, signed: bytes | memoryview
) -> bool:
    """True; raises one of several exceptions where it does not verify."""
    if isinstance(key, rsa.RSAPublicKey) and name == _PSS:
        md, scheme = _pss(parameters)
        key.verify(signature, _digest(md, signed), scheme, utils.Prehashed(md))
    elif isinstance(key, rsa.RSAPublicKey):
        md = _RSA_BY[name]
        key.verify(signature, _digest(md, signed), padding.PKCS1v15(), utils.Prehashed(md))
    elif isinstance(key, ec.EllipticCurvePublicKey):
        md = _ECDSA_BY[name]
        key.verify(signature, _digest(md, signed), ec.ECDSA(utils.Prehashed(md)))
    elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, bytes(signed))
    else:
        return False
    return True


def _digest(md: hashes.HashAlgorithm, signed: bytes | memoryview) -> bytes:
    """By hashlib, which lets other threads run over megabytes."""
    return hashlib.new(md.name.replace("sha3-", "sha3_"), signed).digest()


def _pss(parameters: list[ber.Element]) -> tuple[hashes.HashAlgorithm, padding.PSS]:
    """RSASSA-PSS-params (RFC 4055 section 3.1), whose hash is named: the default is SHA-1.

    Raises ValueError, KeyError."""
    fields = {field.tag: ber.first(field.content) for field in ber.opened(parameters[0], ber.SEQUENCE)}
    mask = ber.opened(fields[0xA1], ber.SEQUENCE)[1]
    salt = ber.number(fields[0xA2]) if 0xA2 in fields else 20
    if not 0 <= salt <= 512:
        raise ValueError("a salt of that length")
    md = _MD[ber.dotted(ber.opened(fields[0xA0], ber.SEQUENCE)[0])]
    return md, padding.PSS(padding.MGF1(_MD[ber.dotted(ber.opened(mask, ber.SEQUENCE)[0])]), salt)


def weakness(algorithm: ber.Element) -> str | None:
    """Why an AlgorithmIdentifier is not accepted for a signature, or None. Raises Malformed.

    What is not known is not accepted either: nobody can say how weak its hash is."""
    type_, *parameters = ber.opened(algorithm, ber.SEQUENCE)
    name = ber.dotted(type_)
    if name == _PSS:
        name = _pss_hash(parameters)
    if name in _WEAK:
        return f"signed with {_WEAK[name]}"
    return None if name in _GOOD or name in _HASHES else f"signed with an unknown algorithm {name}"


def _pss_hash(parameters: list[ber.Element]) -> str:
    """The hash that RSASSA-PSS-params name; SHA-1 where they do not (RFC 4055 section 3.1)."""
    fields = ber.opened(parameters[0], ber.SEQUENCE) if parameters else []
    named = [field for field in fields if field.tag == 0xA0]
    if not named:
        return "1.3.14.3.2.26"
    return ber.dotted(ber.inside(named[0].content, ber.SEQUENCE)[0])
