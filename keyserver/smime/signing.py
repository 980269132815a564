"""How a certificate was signed, and whether that is good enough. Its signature is verified with its chain."""

from __future__ import annotations

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
