"""Signed mail as openssl makes it, every scheme; and what must not verify."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from asn1crypto import cms as asn1
from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.smime import cms
from keyserver.smime.reading import read
from keyserver.wire import mime
from support import x509odd
from support.mails import openssl, signed, text
from support.x509 import Issued, authority, issue, name, person, rsa_key

CA = authority()
ALICE = person("alice@example.org", CA)
CONTENT = text("Hello, this is signed.\n")


def detached(mail: bytes) -> tuple[bytes, bytes | memoryview]:
    """Structure and content of a multipart/signed."""
    message = mime.parse(mail)
    first, second = message.root.parts
    return message.decoded(second, 1 << 20), mime.canonical(message.raw(first))


def verified(mail: bytes) -> list[cms.Signed]:
    structure, content = detached(mail)
    found, covered = cms.verify(structure, content)
    assert bytes(covered) == bytes(content)
    return found


def elliptic(curve: ec.EllipticCurve) -> Issued:
    return person("alice@example.org", CA, key=ec.generate_private_key(curve), usage=None)


@pytest.mark.parametrize(
    ("signer", "options"),
    [
        (ALICE, ()),
        (ALICE, ("-md", "sha512")),
        (ALICE, ("-md", "sha384", "-keyid")),
        (ALICE, ("-noattr",)),
        (ALICE, ("-noattr", "-keyid", "-md", "sha512")),
        (ALICE, ("-keyopt", "rsa_padding_mode:pss")),
        (ALICE, ("-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20", "-md", "sha512")),
        (ALICE, ("-nosmimecap",)),
        (ALICE, ("-stream",)),
        (elliptic(ec.SECP256R1()), ()),
        (elliptic(ec.SECP384R1()), ("-md", "sha384")),
        (elliptic(ec.SECP521R1()), ("-md", "sha512")),
        (elliptic(ec.BrainpoolP256R1()), ()),
        (elliptic(ec.SECP256R1()), ("-noattr",)),
    ],
)
def test_what_openssl_signs_verifies(signer: Issued, options: tuple[str, ...]) -> None:
    (one,) = verified(signed(CONTENT, signer, *options))
    assert one.signer == signer.der
    assert one.encryption is None


def test_smime_tool_and_either_line_end() -> None:
    mail = signed(CONTENT, ALICE, tool="smime")
    assert verified(mail)[0].signer == ALICE.der
    assert verified(mail.replace(b"\r\n", b"\n"))[0].signer == ALICE.der
    assert verified(mail.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))[0].signer == ALICE.der


def test_opaque_and_its_content() -> None:
    for options in (("-nodetach",), ("-nodetach", "-stream"), ("-nodetach", "-noattr")):
        message = mime.parse(signed(CONTENT, ALICE, *options))
        assert message.root.type == "application/pkcs7-mime"
        structure = message.decoded(message.root, 1 << 20)
        assert cms.content_type(structure) == "signed_data"
        (one,), content = cms.verify(structure, None)
        assert one.signer == ALICE.der
        assert bytes(content) == CONTENT.replace(b"\n", b"\r\n")


def test_ber_with_indefinite_lengths() -> None:
    der = openssl(
        "cms", "-sign", "-outform", "DER", "-nodetach", "-stream", "-signer", *_files(ALICE), stdin=CONTENT * 400
    )
    assert der[1] == 0x80
    (one,), content = cms.verify(der, None)
    assert one.signer == ALICE.der
    assert bytes(content) == (CONTENT * 400).replace(b"\n", b"\r\n")


def _files(signer: Issued) -> list[str]:
    with tempfile.NamedTemporaryFile(delete=False, suffix=".pem") as file:
        file.write(signer.pem + signer.key_pem)
    return [file.name]


def test_two_signers_and_what_comes_along() -> None:
    bob = person("bob@example.org", CA, key=rsa_key(2048, 1))
    both = verified(signed(CONTENT, [ALICE, bob], extra=[CA]))
    assert {s.signer for s in both} == {ALICE.der, bob.der}
    assert all(CA.der in s.others for s in both)


def test_one_good_signer_of_two_is_enough() -> None:
    weak = person("weak@example.org", CA, key=rsa_key(1024))
    (one,) = verified(signed(CONTENT, [weak, ALICE]))
    assert one.signer == ALICE.der


@pytest.mark.parametrize(
    ("by", "microsoft"), [("serial", False), ("recipient", False), ("identifier", False), ("serial", True)]
)
def test_the_encryption_preference_is_honoured(by: str, microsoft: bool) -> None:
    sign = person("alice@example.org", CA, usage="digital_signature")
    encrypt = person("alice@example.org", CA, key=rsa_key(2048, 2), usage="key_encipherment")
    structure = with_preference(sign, encrypt, by, microsoft)
    (one,), _ = cms.verify(structure, b"content")
    assert (one.signer, one.encryption) == (sign.der, encrypt.der)


def with_preference(sign: Issued, encrypt: Issued, by: str, microsoft: bool = False) -> bytes:
    """A detached signature over b"content" that says which certificate to encrypt to; signed here, attribute by
    attribute, as openssl makes none."""

    def tlv(tag: int, contents: bytes) -> bytes:
        size = len(contents)
        octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
        length = bytes([size]) if size < 128 else bytes([0x80 | len(octets)]) + octets
        return bytes([tag]) + length + contents

    parsed = asn1_x509.Certificate.load(encrypt.der)
    named = parsed["tbs_certificate"]["issuer"].dump() + parsed["tbs_certificate"]["serial_number"].dump()
    identifier = bytes(parsed.key_identifier)
    value = {
        "serial": tlv(0x30 if microsoft else 0xA0, named),
        "recipient": tlv(0xA1, tlv(0x04, identifier)),
        "identifier": tlv(0x82, identifier),
    }[by]
    oid = "1.3.6.1.4.1.311.16.4" if microsoft else "1.2.840.113549.1.9.16.2.11"

    def attribute(oid: str, value: bytes) -> bytes:
        return tlv(0x30, core.ObjectIdentifier(oid).dump() + tlv(0x31, value))

    attributes = sorted(
        [
            attribute("1.2.840.113549.1.9.3", core.ObjectIdentifier("1.2.840.113549.1.7.1").dump()),
            attribute("1.2.840.113549.1.9.4", tlv(0x04, hashlib.sha256(b"content").digest())),
            attribute(oid, value),
        ]
    )
    edwards = isinstance(sign.key, ed25519.Ed25519PrivateKey)
    scheme = () if edwards else (padding.PKCS1v15(), hashes.SHA256())
    signature = sign.key.sign(tlv(0x31, b"".join(attributes)), *scheme)
    mine = asn1_x509.Certificate.load(sign.der)
    signer = asn1.SignerInfo(
        {
            "version": "v1",
            "sid": asn1.SignerIdentifier(
                "issuer_and_serial_number",
                {"issuer": mine.issuer, "serial_number": mine.serial_number},
            ),
            "digest_algorithm": {"algorithm": "sha256"},
            "signed_attrs": asn1.CMSAttributes.load(tlv(0x31, b"".join(attributes))),
            "signature_algorithm": {"algorithm": "ed25519" if edwards else "rsassa_pkcs1v15"},
            "signature": signature,
        }
    )
    data = asn1.SignedData(
        {
            "version": "v1",
            "digest_algorithms": [{"algorithm": "sha256"}],
            "encap_content_info": {"content_type": "data"},
            "certificates": [mine, parsed],
            "signer_infos": [signer],
        }
    )
    return asn1.ContentInfo({"content_type": "signed_data", "content": data}).dump()


def fails(structure: bytes, content: bytes | memoryview | None) -> str:
    with pytest.raises(cms.NotVerified) as caught:
        cms.verify(structure, content)
    return str(caught.value)


def test_another_content_does_not_verify() -> None:
    for options in ((), ("-noattr",), ("-keyopt", "rsa_padding_mode:pss")):
        structure, content = detached(signed(CONTENT, ALICE, *options))
        assert "not" in fails(structure, bytes(content) + b"!")
        assert fails(structure, b"")


def test_another_certificate_of_the_same_name_and_number_does_not_verify() -> None:
    """A forger cannot put a certificate of his choice beside somebody's signature."""
    forged = person("boss@example.org", CA, key=rsa_key(2048, 3), serial=ALICE.certificate.serial_number)
    structure, content = detached(signed(CONTENT, ALICE))
    assert ALICE.der in structure
    info = asn1.ContentInfo.load(structure)
    info["content"]["certificates"] = [asn1_x509.Certificate.load(forged.der)]
    assert "does not verify" in fails(info.dump(force=True), content)


def test_weak_and_unknown_schemes_are_refused() -> None:
    assert "sha1" in fails(*detached(signed(CONTENT, ALICE, "-md", "sha1")))
    assert "md5" in fails(*detached(signed(CONTENT, ALICE, "-md", "md5")))
    weak = person("weak@example.org", CA, key=rsa_key(1024))
    assert "1024" in fails(*detached(signed(CONTENT, weak)))
    assert "not in the message" in fails(*detached(signed(CONTENT, ALICE, "-nocerts")))


def test_ed25519_is_signed_over_the_attributes_themselves() -> None:
    """RFC 8419; this openssl makes none, so it is made here."""
    signer = issue(name("Alice"), issuer=CA, emails=["alice@example.org"], key=ed25519.Ed25519PrivateKey.generate())
    structure = with_preference(signer, ALICE, "serial")
    (one,), _ = cms.verify(structure, b"content")
    assert (one.signer, one.encryption) == (signer.der, ALICE.der)
    assert fails(structure, b"another content")


def test_certificates_alone_are_no_signature() -> None:
    der = openssl("crl2pkcs7", "-nocrl", "-certfile", *_files(ALICE), "-outform", "DER")
    with pytest.raises((cms.NotVerified, Malformed)):
        cms.verify(der, None)
    assert "no signer" in fails(der, b"content")


def test_encrypted_says_what_it_is() -> None:
    der = openssl("cms", "-encrypt", "-outform", "DER", *_files(ALICE), stdin=CONTENT)
    assert cms.content_type(der) == "enveloped_data"
    with pytest.raises(Malformed):
        cms.verify(der, None)


def test_many_signers_and_certificates_are_refused() -> None:
    signers = [person(f"u{n}@example.org", CA, key=rsa_key(2048, n % 3)) for n in range(5)]
    with pytest.raises(Malformed, match="signers"):
        cms.verify(*detached(signed(CONTENT, signers)))
    with pytest.raises(Malformed, match="certificates"):
        cms.verify(*detached(signed(CONTENT, ALICE, extra=[issue(name(str(n))) for n in range(17)])))


STRUCTURE, COVERED = detached(signed(CONTENT, ALICE, extra=[CA]))


@pytest.mark.parametrize("broken", [b"\x30\x03\x02\x01\x05", b"\x30\x00", x509odd.odd(serial=x509odd.tlv(2))])
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_certificate_beside_the_signers_costs_itself(broken: bytes, first: bool) -> None:
    info = asn1.ContentInfo.load(STRUCTURE)
    held = [choice.chosen.dump() for choice in info["content"]["certificates"]]
    held.insert(0 if first else 2, broken)
    fields = [info["content"][n] for n in ("version", "digest_algorithms", "encap_content_info")]
    parts = [*(f.dump() for f in fields), x509odd.tlv(0xA0, *held), info["content"]["signer_infos"].dump()]
    structure = x509odd.sequence(x509odd.oid("1.2.840.113549.1.7.2"), x509odd.tlv(0xA0, x509odd.sequence(*parts)))
    (one,), _ = cms.verify(structure, COVERED)
    assert one.signer == ALICE.der
    assert broken in one.others


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutations_never_verify_another_signer_and_never_raise_otherwise(data: st.DataObject) -> None:
    octets = bytearray(STRUCTURE)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets) - 1))
        octets[at] ^= data.draw(st.integers(1, 255))
    try:
        found, _ = cms.verify(bytes(octets), COVERED)
    except (Malformed, cms.NotVerified):
        return
    key = ALICE.certificate.public_key()
    assert all(read(s.signer).public_key() == key for s in found)


@given(st.binary(max_size=400))
def test_any_octets_are_malformed(octets: bytes) -> None:
    for content in (None, b"x"):
        with pytest.raises((Malformed, cms.NotVerified)):
            cms.verify(octets, content)
    with pytest.raises(Malformed):
        cms.content_type(octets[:3])


def test_deep_nesting_is_malformed() -> None:
    deep = b"\x30\x80" * 50_000
    with pytest.raises(Malformed):
        cms.verify(deep, None)
    with pytest.raises(Malformed):
        cms.verify(b"\0" * (cms.MAX_STRUCTURE + 1), b"x")


def test_openssl_agrees_about_our_own_attribute_examples() -> None:
    """The examples with preferences are made here: a foreign reader must find them good, too."""
    der = with_preference(ALICE, ALICE, "serial")
    pem = b"-----BEGIN CMS-----\n" + base64.encodebytes(der) + b"-----END CMS-----\n"
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "content").write_bytes(b"content")
        words = ["cms", "-verify", "-inform", "PEM", "-noverify", "-binary", "-content", f"{place}/content"]
        done = subprocess.run(["openssl", *words], input=pem, capture_output=True)
    assert done.returncode == 0 and re.search(rb"uccess", done.stderr), done.stderr
