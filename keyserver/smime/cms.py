"""Signed mail: whose certificate signed this content, and which one is to be encrypted to (RFC 5652, RFC 8551).

Verifies the message's signature only; whether the signer's chain is good is asked elsewhere. Pure and bounded: the
caller bounds the content, this module the structure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from asn1crypto import cms as asn1
from asn1crypto import core, parser
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

from keyserver.model import Malformed
from keyserver.smime import ber
from keyserver.smime.bundle import MAX_BUNDLE, MAX_CERTIFICATE
from keyserver.smime.reading import Reading, read

MAX_STRUCTURE = 2 << 20  # octets of a detached signature; opaque ones carry the content and are bounded by the caller
MAX_SIGNERS = 4
MAX_ATTRIBUTES = 64

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
    "sha224": hashes.SHA224(),
}
_MICROSOFT_PREFERENCE = "1.3.6.1.4.1.311.16.4"
_PREFERENCE = "1.2.840.113549.1.9.16.2.11"
_CONTEXT, _RECIPIENT_KEY_ID = 2, 1  # ASN.1 class and tag
_INDEFINITE = 0x80  # a length octet of BER
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)
Octets: TypeAlias = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Signed:
    """One verified signature: the signer's certificate, the one preferred for encryption, and what came along (DER)."""

    signer: bytes
    encryption: bytes | None  # named by an encryption-preference attribute and present in the message
    others: tuple[bytes, ...]


class NotVerified(Exception):
    """The signature does not hold, and why."""


def content_type(structure: bytes) -> str:
    """What a CMS structure is: `signed_data`, `enveloped_data`, …; its object identifier where it is none of these.

    Raises Malformed where it is no CMS structure.
    """
    try:
        return str(asn1.ContentInfo.load(structure)["content_type"].native)
    except _UNREADABLE as problem:
        raise Malformed("no CMS structure") from problem


def verify(structure: bytes, content: Octets | None) -> tuple[list[Signed], Octets]:
    """Every signature of a SignedData that holds over `content` (None: the content inside), and that content.

    Raises Malformed where the structure cannot be read, NotVerified where no signature holds.
    """
    if content is not None and len(structure) > MAX_STRUCTURE:
        raise Malformed("a signature larger than 2 MiB")
    try:
        return _verify(structure, content)
    except (Malformed, NotVerified):
        raise
    except _UNREADABLE as problem:
        raise Malformed(f"a signature that cannot be read: {type(problem).__name__}") from problem


def _verify(structure: bytes, content: Octets | None) -> tuple[list[Signed], Octets]:
    info = asn1.ContentInfo.load(structure)
    if info["content_type"].native != "signed_data":
        raise Malformed(f"not signed data but {info['content_type'].native}")
    data = info["content"]
    if data["encap_content_info"]["content_type"].native != "data":
        raise NotVerified("what is signed is no mail content")
    if content is None:
        inner = data["encap_content_info"]["content"]
        if isinstance(inner, core.Void):
            raise Malformed("neither content inside nor beside the signature")
        content = bytes(inner)
    certificates = _certificates(data)
    signers = data["signer_infos"]
    if len(signers) > MAX_SIGNERS:
        raise Malformed(f"more than {MAX_SIGNERS} signers")
    good: list[Signed] = []
    why = "no signer"
    for signer in signers:
        try:
            good.append(_one(signer, data, content, certificates))
        except NotVerified as problem:
            why = str(problem)
    if not good:
        raise NotVerified(why)
    return good, content


def _certificates(data: Any) -> list[bytes]:
    found = data["certificates"]
    if isinstance(found, core.Void):
        return []
    if len(found) > MAX_BUNDLE:
        raise Malformed(f"more than {MAX_BUNDLE} certificates in one message")
    ders = [choice.chosen.dump() for choice in found if choice.name == "certificate"]
    return [der for der in ders if len(der) <= MAX_CERTIFICATE]


def _one(signer: Any, data: Any, content: Octets, certificates: list[bytes]) -> Signed:
    mine = _named(signer["sid"], certificates)
    if mine is None:
        raise NotVerified("the signer's certificate is not in the message")
    digest_name = signer["digest_algorithm"]["algorithm"].native
    if digest_name not in _HASHES:
        raise NotVerified(f"signed over a {digest_name} digest")
    digest = hashlib.new(digest_name, content).digest()
    attributes = signer["signed_attrs"]
    if isinstance(attributes, core.Void):
        _check(mine, signer, digest_name, digest, content)
        return Signed(mine, None, tuple(c for c in certificates if c != mine))
    if len(attributes) > MAX_ATTRIBUTES:
        raise Malformed(f"more than {MAX_ATTRIBUTES} signed attributes")
    if not hmac.compare_digest(_only(attributes, "message_digest").native, digest):
        raise NotVerified("the message is not the one that was signed")
    if _only(attributes, "content_type").native != data["encap_content_info"]["content_type"].native:
        raise NotVerified("the signed content type is another")
    signed = b"\x31" + attributes.dump()[1:]  # signed as a SET, sent as [0] (RFC 5652 section 5.4)
    if signed[1] == _INDEFINITE:  # sent as BER: what is signed is DER
        signed = b"\x31" + attributes.dump(force=True)[1:]
    _check(mine, signer, digest_name, hashlib.new(digest_name, signed).digest(), signed)
    preferred = _preferred(attributes, certificates)
    return Signed(mine, preferred, tuple(c for c in certificates if c not in (mine, preferred)))


def _only(attributes: Any, name: str) -> Any:
    """The one value of an attribute that must stand there once (RFC 5652 section 11)."""
    found = [a for a in attributes if a["type"].native == name]
    if len(found) != 1 or len(found[0]["values"]) != 1:
        raise NotVerified(f"the signed attribute {name} does not stand there once")
    return found[0]["values"][0]


def _named(sid: Any, certificates: list[bytes]) -> bytes | None:
    named = sid.chosen
    for der, certificate in _readable(certificates):
        if sid.name == "issuer_and_serial_number":
            if named["serial_number"].native == ber.number(certificate.serial) and (
                named["issuer"].dump() == certificate.issuer.octets
            ):
                return der
        elif certificate.key_identifier and certificate.key_identifier == named.native:
            return der
    return None


def _readable(certificates: list[bytes]) -> Iterator[tuple[bytes, Reading]]:
    """Those that can be read: a broken one beside them costs itself."""
    for der in certificates:
        try:
            yield der, read(der)
        except Malformed:
            continue


def _check(der: bytes, signer: Any, digest_name: str, hashed: bytes, signed: Octets) -> None:
    """The signature itself, over `signed` and so over its digest."""
    try:
        key: Any = read(der).public_key()
    except Malformed as problem:
        raise NotVerified(f"the signer's key: {problem}") from None
    signature = signer["signature"].native
    scheme = signer["signature_algorithm"]
    algorithm = _HASHES[digest_name]
    prehashed = utils.Prehashed(algorithm)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            if not 2048 <= key.key_size <= 16384:
                raise NotVerified(f"an RSA key of {key.key_size} bits")
            if scheme["algorithm"].native == "rsassa_pss":
                _check_pss(key, signature, scheme["parameters"], digest_name, hashed)
            else:
                key.verify(signature, hashed, padding.PKCS1v15(), prehashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, hashed, ec.ECDSA(prehashed))
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            key.verify(signature, signed)
        else:
            raise NotVerified("signed with a kind of key that is not accepted")
    except InvalidSignature:
        raise NotVerified("the signature does not verify") from None
    except UnsupportedAlgorithm:
        raise NotVerified("signed with an algorithm that is not known") from None


def _check_pss(key: rsa.RSAPublicKey, signature: bytes, parameters: Any, digest_name: str, hashed: bytes) -> None:
    """RFC 4056: the hash of the parameters must be that of the digest; the salt's length is theirs."""
    if parameters["hash_algorithm"]["algorithm"].native != digest_name:
        raise NotVerified("PSS with another hash than the message's")
    mask = parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native
    if mask not in _HASHES:
        raise NotVerified(f"PSS with a {mask} mask")
    salt = parameters["salt_length"].native
    scheme = padding.PSS(padding.MGF1(_HASHES[mask]), salt)
    key.verify(signature, hashed, scheme, utils.Prehashed(_HASHES[digest_name]))


def _preferred(attributes: Any, certificates: list[bytes]) -> bytes | None:
    """Which certificate the signer wants to be encrypted to, where it came along (RFC 8551 section 2.5.3).

    The standard's attribute is a choice of issuer and serial [0], recipient key identifier [1] and subject key
    identifier [2]; Microsoft's is issuer and serial without a tag.
    """
    for attribute in attributes:
        if attribute["type"].dotted in (_PREFERENCE, _MICROSOFT_PREFERENCE):
            try:
                wanted = _wanted(attribute["values"].contents)
            except _UNREADABLE:
                return None
            return next((der for der, found in _readable(certificates) if wanted in _identifiers(found)), None)
    return None


def _wanted(value: bytes) -> bytes:
    """What the preference names: DER of issuer and serial number, or the octets of a key identifier."""
    class_, _, tag, _, contents, _ = parser.parse(value)
    if class_ == _CONTEXT and tag == _RECIPIENT_KEY_ID:
        return bytes(parser.parse(contents)[4])
    return bytes(contents)


def _identifiers(certificate: Reading) -> tuple[bytes, ...]:
    """Everything by which a preference may name this certificate."""
    identifier = certificate.key_identifier
    return (certificate.issuer.octets + certificate.serial.octets, *([identifier] if identifier else ()))
