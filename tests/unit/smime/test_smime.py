"""S/MIME hygiene: what is let in, what it proves, and which chains lead to an anchor."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from keyserver import smime
from keyserver.model import Certificate, Kind, Refused, Validity
from keyserver.query import name_of
from support import x509odd
from support.x509 import BEGINS, YEAR, Issued, authority, issue, name, person, rsa_key

NOW = BEGINS + YEAR
CA = authority()


def one(octets: bytes, now: int = NOW) -> Certificate:
    (result,) = smime.clean(octets, now)
    assert isinstance(result, Certificate), result
    return result


def refusal(issued: Issued) -> str:
    (result,) = smime.clean(issued.der, NOW)
    assert isinstance(result, Refused), result
    return result.reason


def test_an_ordinary_certificate_and_what_it_proves() -> None:
    issued = person("Alice@Example.org", CA, subject=name("Alice Smith", surname="Smith", given_name="Alice"))
    proof = one(issued.der).proof
    assert proof.fingerprint == hashlib.sha256(issued.der).hexdigest().upper()
    assert [u.address for u in proof.user_ids] == ["alice@example.org"]
    assert name_of(Kind.X509, "addr", "alice@example.org") in proof.weak
    assert name_of(Kind.X509, "fpr", proof.fingerprint) in proof.strong
    assert proof.validity is Validity.VALID
    assert proof.can_encrypt
    assert proof.x509 is not None
    assert (proof.x509.common_name, proof.x509.surname, proof.x509.given_name) == ("Alice Smith", "Smith", "Alice")
    assert one(issued.der).octets == issued.der


def test_an_expired_certificate_is_found_by_fingerprint_only() -> None:
    issued = person("alice@example.org", CA)
    after = BEGINS + 11 * YEAR
    proof = smime.prove(issued.der, after)
    assert proof.validity is Validity.EXPIRED
    assert not proof.weak
    assert name_of(Kind.X509, "fpr", proof.fingerprint) in proof.strong
    assert not proof.can_encrypt
    assert proof.turns is None
    assert smime.prove(issued.der, NOW).turns == BEGINS + 10 * YEAR + 1
    assert smime.prove(issued.der, BEGINS - 1).turns == BEGINS


def test_addresses_by_rfc_8398_and_subject() -> None:
    mailbox = x509.OtherName(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), b"\x0c\x12" + "jörg@münchen.de".encode() + b"!"
    )
    good = "jörg@xn--mnchen-3ya.example".encode()
    good_name = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), bytes([12, len(good)]) + good)
    proof = one(person("x@example.org", CA, emails=[good_name, "x@example.org"]).der).proof
    assert {u.address for u in proof.user_ids} == {"x@example.org", "jörg@xn--mnchen-3ya.example"}
    (broken,) = smime.clean(person("x@example.org", CA, emails=[mailbox]).der, NOW)
    assert isinstance(broken, Refused)
    subject_only = issue(name("Bob", email="Bob@example.org"), issuer=CA, key=rsa_key())
    assert [u.address for u in one(subject_only.der).proof.user_ids] == ["bob@example.org"]
    both = person("san@example.org", CA, subject=name("Bob", email="subject@example.org"))
    assert [u.address for u in one(both.der).proof.user_ids] == ["san@example.org"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"key": rsa_key(1024)}, "RSA key of 1024 bits"),
        ({"hash_": hashes.SHA1()}, "SHA1"),
        ({"key": ec.generate_private_key(ec.SECP192R1()), "usage": None}, "curve of 192 bits"),
        ({"eku": [ExtendedKeyUsageOID.SERVER_AUTH]}, "extended key usage"),
        ({"emails": [], "subject": name("A", email="a@b@example.org")}, "no e-mail address"),
        ({"emails": [f"u{n}@example.org" for n in range(200)]}, "alternative names"),
        ({"emails": [x509.DNSName("example.org")]}, "no e-mail address"),
        ({"emails": ["alice@example.org", "boss@here.example\x00.evil.example"]}, "an address with control"),
        ({"emails": [], "subject": name("A", email="alice\u202e@example.org")}, "direction-changing"),
        (
            {"extensions": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]},
            "critical",
        ),
    ],
)
def test_what_is_refused_and_why(options: dict[str, object], why: str) -> None:
    der = _signed_with_sha1() if "hash_" in options else person("alice@example.org", CA, **options).der
    (result,) = smime.clean(der, NOW)
    assert isinstance(result, Refused)
    assert why in result.reason


def _signed_with_sha1() -> bytes:
    """The library makes no SHA-1 signatures any more: openssl does."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-sha1", "-days", "3650",
         "-subj", "/CN=Alice", "-addext", "subjectAltName=email:alice@example.org",
         "-addext", "basicConstraints=critical,CA:FALSE", "-outform", "DER"],
        check=True, capture_output=True,
    )  # fmt: skip
    return made.stdout


def test_a_serial_number_may_be_odd_but_not_without_end() -> None:
    good = person("alice@example.org", CA, serial=0x0102030405060708)
    negative = good.der.replace(bytes.fromhex("02080102030405060708"), bytes.fromhex("0208f102030405060708"), 1)
    proof = one(negative).proof
    assert proof.marks == ("serial number not positive",)
    assert proof.x509 is not None
    assert proof.x509.serial == "-EFDFCFBFAF9F8F8"
    (result,) = smime.clean(x509odd.odd(serial=x509odd.tlv(2, b"\x01" * 129)), NOW)
    assert isinstance(result, Refused)
    assert "serial number" in result.reason


def test_a_ca_is_not_a_person() -> None:
    (result,) = smime.clean(CA.der, NOW)
    assert isinstance(result, Refused)
    assert "CA" in result.reason
    assert not result.fatal


def test_bundles() -> None:
    alice, bob = person("alice@example.org", CA), person("bob@example.org", CA)
    bundle = pkcs7.serialize_certificates([alice.certificate, bob.certificate, CA.certificate], Encoding.DER)
    results = smime.clean(bundle, NOW)
    assert {r.fingerprint for r in results} == {alice.fingerprint, bob.fingerprint}
    assert smime.intermediates(bundle) == [CA.der]
    pem = alice.pem + bob.pem
    assert len(smime.clean(pem, NOW)) == 2
    (many,) = smime.clean(
        pkcs7.serialize_certificates([issue(name(str(n))).certificate for n in range(17)], Encoding.DER), NOW
    )
    assert isinstance(many, Refused)
    assert many.fatal


@given(st.binary(max_size=300))
def test_any_octets_are_refused_without_raising(octets: bytes) -> None:
    assert all(isinstance(r, Refused) for r in smime.clean(b"\x30" + octets, NOW))
    assert smime.intermediates(octets) == []


@given(st.data())
def test_mutations_never_raise(data: st.DataObject) -> None:
    der = bytearray(_ALICE.der)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    for result in smime.clean(bytes(der), NOW):
        assert isinstance(result, Refused | Certificate)


_ALICE = person("alice@example.org", CA)


def test_chains() -> None:
    middle = authority("Middle", CA)
    leaf = person("alice@example.org", middle)
    anchors = smime.Anchors([CA.certificate])
    assert not anchors.chained(leaf.der, [], NOW)
    assert anchors.chained(leaf.der, [middle.der], NOW)
    assert anchors.chained(person("bob@example.org", middle).der, [], NOW), "the intermediate was kept"
    assert not anchors.chained(leaf.der, [middle.der], BEGINS + 20 * YEAR)
    assert not smime.Anchors([authority("Other").certificate]).chained(leaf.der, [middle.der], NOW)
    assert not smime.Anchors([]).chained(leaf.der, [middle.der], NOW)
    assert not anchors.chained(person("self@example.org").der, [], NOW)
    assert not anchors.chained(b"garbage", [b"more"], NOW)


def test_name_constraints_bind_addresses_in_subjects_too() -> None:
    constraint = x509.NameConstraints([x509.RFC822Name("example.org")], None)
    middle = authority("Narrow", CA, extensions=[(constraint, True)])
    anchors = smime.Anchors([CA.certificate])
    assert anchors.chained(person("alice@example.org", middle).der, [middle.der], NOW)
    assert not anchors.chained(person("alice@evil.example", middle).der, [middle.der], NOW)
    subject_only = issue(name("Eve", email="eve@evil.example"), issuer=middle, key=rsa_key())
    assert not anchors.chained(subject_only.der, [middle.der], NOW)


@pytest.mark.parametrize(
    ("key", "usage", "encrypts"),
    [
        (rsa_key(), "digital_signature", False),
        (rsa_key(), "key_encipherment", True),
        (rsa_key(), None, True),
        (ec.generate_private_key(ec.SECP256R1()), "key_agreement", True),
        (ec.generate_private_key(ec.SECP256R1()), "digital_signature", False),
        (ed25519.Ed25519PrivateKey.generate(), "digital_signature", False),
    ],
)
def test_what_can_encrypt(key: object, usage: str | None, encrypts: bool) -> None:
    assert one(person("a@example.org", CA, key=key, usage=usage).der).proof.can_encrypt is encrypts


def test_search_hashes_are_those_of_openssl(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(_ALICE.pem)
    spoken = subprocess.run(
        ["openssl", "x509", "-in", str(tmp_path / "a.pem"), "-noout", "-fingerprint", "-sha1"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    sha1 = spoken.partition("=")[2].strip().replace(":", "")
    strong = one(_ALICE.der).proof.strong
    assert name_of(Kind.X509, "certhash", sha1) in strong
    issuer = hashlib.sha1(CA.certificate.subject.public_bytes()).hexdigest().upper()
    assert name_of(Kind.X509, "ihash", issuer) in strong


def test_index_holds_every_name_of_any_instant() -> None:
    names, identities = smime.index(_ALICE.der)
    assert names >= smime.prove(_ALICE.der, NOW).names
    name = smime.prove(_ALICE.der, NOW).x509
    assert name is not None
    assert identities == ("alice@example.org", name.common_name)
    assert smime.merge([_ALICE.der, _ALICE.der]) == _ALICE.der
    assert smime.revocations(_ALICE.der) == b""
