"""Revocation lists: what is read of good ones, as another reader reads it, and what every bad one is refused for."""

from __future__ import annotations

import base64
import datetime
import random
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding
from cryptography.x509 import ReasonFlags
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.smime import ber
from keyserver.smime.crl import Authority, RevocationList, authority, serial_of, shortest
from keyserver.smime.crl_reading import AHEAD, MOST, read_list
from keyserver.smime.reading import read
from support import x509 as made
from support.crls import ENDS, ISSUED, NEXT, REVOKED, body, body_of, revocation_list, signed_again

NOW = ISSUED + 1000
CA = made.authority("List CA")
ISSUER = authority(CA.der)


def number(serial: int) -> bytes:
    """As a certificate with this serial number is looked up."""
    return shortest(serial.to_bytes(serial.bit_length() // 8 + 1, "big"))


def read_of(octets: bytes, issuer: Authority = ISSUER, now: int = NOW) -> RevocationList:
    return read_list(octets, issuer, now)


def refusal(octets: bytes, issuer: Authority = ISSUER, now: int = NOW) -> str:
    with pytest.raises(Malformed) as refused:
        read_list(octets, issuer, now)
    return str(refused.value)


def test_each_entry_is_found_with_its_date_and_reason() -> None:
    reasons = [None, *(r for r in ReasonFlags if r is not ReasonFlags.remove_from_crl)]
    revoked = {1 << n * 9: reason for n, reason in enumerate(reasons)}
    found = read_of(revocation_list(CA, revoked))
    assert (found.issued, found.ends, found.number, found.count) == (ISSUED, ENDS, 1, len(revoked))
    numbers = {"unspecified": 0, "key_compromise": 1, "ca_compromise": 2, "affiliation_changed": 3, "superseded": 4}
    numbers |= {"cessation_of_operation": 5, "certificate_hold": 6, "privilege_withdrawn": 9, "aa_compromise": 10}
    for serial, reason in revoked.items():
        at = found.find(number(serial))
        assert at is not None
        entry = found.entry(at)
        assert entry.at == REVOKED
        assert entry.reason == (numbers[reason.name] if reason else 0)
    assert found.find(number(2)) is None


def test_random_lists_say_what_another_reader_reads() -> None:
    rng = random.Random(7)
    for count in (0, 1, 2, 300, 5000):
        serials = {rng.getrandbits(rng.choice((7, 8, 16, 63, 64, 159))) + 1 for _ in range(count)}
        octets = revocation_list(CA, {s: rng.choice((None, ReasonFlags.superseded)) for s in serials})
        found, theirs = read_of(octets), x509.load_der_x509_crl(octets)
        assert found.count == len(serials) == len(theirs)
        for entry in theirs:
            assert found.find(number(entry.serial_number)) is not None
        others = {rng.getrandbits(64) + 1 for _ in range(500)} - serials
        assert not any(found.find(number(serial)) for serial in others)


def test_a_certificate_is_looked_up_by_its_number_however_that_is_padded() -> None:
    alice = made.person("alice@example.org", CA, serial=0x80FF)
    found = read_of(revocation_list(CA, [0x80FF]))
    assert found.find(serial_of(read(alice.der))) is not None
    padded = ber.element(ber.SEQUENCE, b"\x02\x04\x00\x00\x80\xff", b"\x17\x0d240101000000Z")
    octets = signed_again(CA, body(CA, NEXT, ber.element(ber.SEQUENCE, padded)))
    assert read_of(octets).find(serial_of(read(alice.der))) is not None


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (made.rsa_key(), {}),
        (made.rsa_key(), {"hash_": hashes.SHA512()}),
        (made.rsa_key(), {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA256()), 32)}),
        (made.rsa_key(), {"hash_": hashes.SHA3_256()}),
        (ec.generate_private_key(ec.SECP384R1()), {"hash_": hashes.SHA384()}),
        (ec.generate_private_key(ec.SECP256R1()), {"hash_": hashes.SHA3_256()}),
        (ed25519.Ed25519PrivateKey.generate(), {}),
    ],
    ids=["rsa", "rsa sha512", "pss", "rsa sha3", "ecdsa", "ecdsa sha3", "ed25519"],
)
def test_signatures_of_every_kind(key: object, options: dict[str, object]) -> None:
    ca = made.authority("Other CA", key=key)
    octets = revocation_list(ca, [5], **options)
    assert read_of(octets, authority(ca.pem)).find(number(5)) is not None
    broken = bytearray(octets)
    broken[-5] ^= 1
    assert "signature" in refusal(bytes(broken), authority(ca.pem))


def test_pem_is_read_as_well() -> None:
    octets = revocation_list(CA, [5])
    lines = base64.encodebytes(octets)
    pem = b"-----BEGIN X509 CRL-----\n" + lines + b"-----END X509 CRL-----\n"
    assert read_of(pem).octets == octets
    assert refusal(pem.replace(b"X509 CRL", b"CERTIFICATE"))
    assert refusal(b"-----BEGIN X509 CRL-----\n" + lines)
    assert refusal(b"<html>not found</html>")
    assert refusal(b"")


def test_an_impostor_with_the_authoritys_name_is_refused() -> None:
    impostor = made.authority("List CA")
    assert "signature is not that" in refusal(revocation_list(impostor, [5]))
    assert refusal(revocation_list(made.authority("Somebody"), [5])).endswith("CN=Somebody")


def test_names_are_compared_however_they_are_written() -> None:
    """A list may write the issuer's name in other types of text than the certificate (RFC 5280 section 7.1)."""
    name = ber.element(ber.SEQUENCE, ber.element(ber.SET, ber.element(ber.SEQUENCE, b"\x06\x03\x55\x04\x03", text)))
    head = [b"\x02\x01\x01", bytes.fromhex("300a06082a8648ce3d040302"), name, b"\x17\x0d240101000000Z"]
    assert read_of(signed_again(CA, body(CA, NEXT, head=head))).count == 0


text = ber.element(0x13, b"list  ca")


@pytest.mark.parametrize(
    ("extension", "critical", "why"),
    [
        (x509.DeltaCRLIndicator(1), True, "delta"),
        (x509.DeltaCRLIndicator(1), False, "delta"),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True, "unknown critical"),
        (x509.IssuingDistributionPoint(None, None, False, False, None, True, False), True, "indirect"),
        (x509.IssuingDistributionPoint(None, None, False, True, None, False, False), True, "authorities' certificates"),
        (x509.IssuingDistributionPoint(None, None, False, False, None, False, True), True, "attribute certificates"),
        (
            x509.IssuingDistributionPoint(
                None, None, False, False, frozenset({ReasonFlags.key_compromise}), False, False
            ),
            True,
            "some reasons",
        ),
    ],
)
def test_lists_that_are_no_complete_ones_are_refused(extension: x509.ExtensionType, critical: bool, why: str) -> None:
    assert why in refusal(revocation_list(CA, [5], extensions=[(extension, critical)]))


def test_extensions_that_change_nothing_are_passed_over() -> None:
    point = [x509.UniformResourceIdentifier("http://crl.example/ca.crl")]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.IssuingDistributionPoint(point, None, True, False, None, False, False), True),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(CA.key.public_key()), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False),
    ]
    assert read_of(revocation_list(CA, [5], extensions=extensions)).count == 1


def test_entries_of_others_or_with_unknown_rules_cost_the_list() -> None:
    issuer = x509.CertificateIssuer([x509.DirectoryName(made.name("Somebody"))])
    for critical in (True, False):
        assert "indirect" in refusal(revocation_list(CA, [5, 6], entries=[(issuer, critical)]))
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert "unknown critical" in refusal(revocation_list(CA, [5], entries=[(unknown, True)]))
    known = read_of(revocation_list(CA, {5: ReasonFlags.key_compromise}, entries=[(unknown, False)]))
    assert (at := known.find(number(5))) is not None and known.entry(at).reason == 1


def test_a_thousand_dates_of_invalidity_beside_reasons() -> None:
    """Each entry's extensions differ from all others', and the ordinary reason holds what a BOOLEAN begins with."""
    date = x509.InvalidityDate(datetime.datetime(2024, 1, 1))
    reasons = dict.fromkeys(range(1, 1000), ReasonFlags.key_compromise)
    found = read_of(revocation_list(CA, reasons, entries=[(date, False)]))
    assert found.count == 999
    assert (at := found.find(number(500))) is not None and found.entry(at).reason == 1
    critical = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.10"), b"\x05\x00")
    assert "unknown critical" in refusal(revocation_list(CA, reasons, entries=[(date, False), (critical, True)]))


def test_others_have_their_turn_while_a_list_is_read() -> None:
    turns: list[int] = []
    octets = revocation_list(CA, range(1, 5001))
    read_list(octets, ISSUER, NOW, lambda: turns.append(1))
    assert len(turns) >= 5

    def ends() -> None:
        raise RuntimeError("nobody wants it any more")

    with pytest.raises(RuntimeError):
        read_list(octets, ISSUER, NOW, ends)


def test_removed_from_the_list_is_good_again() -> None:
    """removeFromCRL belongs into delta lists; where it stands in another it means what it says."""
    found = read_of(revocation_list(CA, {5: ReasonFlags.remove_from_crl, 6: ReasonFlags.certificate_hold}))
    assert found.find(number(5)) is None
    assert found.find(number(6)) is not None


def test_weak_signatures_are_refused() -> None:
    """As openssl makes them where it is told to: SHA-1 is good for nobody's list."""
    sha1 = bytes.fromhex("300906072a8648ce3d0401")
    head = [b"\x02\x01\x01", sha1, CA.certificate.subject.public_bytes(), b"\x17\x0d240101000000Z"]
    inner = body(CA, NEXT, head=head)
    signature = CA.key.sign(inner, ec.ECDSA(hashes.SHA1()))
    whole = ber.element(ber.SEQUENCE, inner, sha1, ber.element(ber.BITS, b"\0" + signature))
    assert refusal(whole) == "signed with SHA1"


def test_times() -> None:
    assert read_of(revocation_list(CA, issued=NOW + AHEAD)).issued == NOW + AHEAD
    assert "future" in refusal(revocation_list(CA, issued=NOW + AHEAD + 1))
    assert "nextUpdate" in refusal(signed_again(CA, body(CA)))
    assert "nextUpdate" in refusal(signed_again(CA, body(CA, ber.element(ber.SEQUENCE))))
    assert "ends before" in refusal(signed_again(CA, body(CA, b"\x17\x0d230101000000Z")))
    assert read_of(revocation_list(CA, ends=ISSUED + 1), now=ENDS).ends == ISSUED + 1, "its end is the reader's matter"


def test_the_order_of_lists_is_that_of_their_numbers_and_dates() -> None:
    first, second = (read_of(revocation_list(CA, [5], number=n)) for n in (7, 8))
    assert first.precedes(second) and not second.precedes(first) and not first.precedes(first)
    assert first.says_the_same(second)
    old, new = (read_of(revocation_list(CA, [5], number=None, issued=i)) for i in (ISSUED - 1, ISSUED))
    assert old.precedes(new) and not new.precedes(old)
    assert not old.says_the_same(read_of(revocation_list(CA, [6])))


def test_an_authority_is_one_certificate_that_may_sign_lists() -> None:
    assert ISSUER.title == "CN=List CA"
    assert ISSUER.fingerprint == CA.fingerprint
    for wrong in (CA.pem + CA.pem, b"", b"stand-in", CA.der[:-1], made.person("a@example.org", CA).pem):
        with pytest.raises(Malformed):
            authority(wrong)
    free = made.issue(made.name("Without usage"))
    assert authority(free.der).title == "CN=Without usage"


def test_only_what_the_very_key_signed_is_issued_by_an_authority() -> None:
    alice = made.person("alice@example.org", CA)
    assert ISSUER.issued(read(alice.der))
    assert not ISSUER.issued(read(made.person("alice@example.org", made.authority("List CA")).der))
    assert not ISSUER.issued(read(made.person("alice@example.org", made.authority("Somebody")).der))
    renamed = made.Issued(made.authority("Renamed", key=CA.key).certificate, CA.key)
    assert not ISSUER.issued(read(made.person("alice@example.org", renamed).der))


def test_a_wrapper_that_is_no_der_hides_no_issuer() -> None:
    """Whoever writes a revoked certificate's outer length another way has another fingerprint, and the same number."""
    alice = made.person("alice@example.org", CA)
    inner = ber.first(alice.der).content
    odd = b"\x30\x84" + len(inner).to_bytes(4, "big") + inner
    assert odd != alice.der and ISSUER.issued(read(odd))


def test_every_truncation_is_refused() -> None:
    octets = revocation_list(CA, [5, 6])
    for at in range(len(octets)):
        assert refusal(octets[:at])
    assert refusal(octets + b"\0")


def test_lengths_that_lie_and_deep_nesting() -> None:
    for octets in (
        b"\x30\x84\xff\xff\xff\xff" + b"\x30" * 10,
        b"\x30\x80" * 50_000,
        b"\x30\x82\xff\xff" * 16_000,
        ber.element(ber.SEQUENCE, b"\x30\x89" + b"\xff" * 20),
    ):
        assert refusal(octets)
    deep = b""
    for _ in range(2000):
        deep = ber.element(ber.SEQUENCE, deep)
    for place in (deep, ber.element(0xA0, deep), ber.element(ber.SEQUENCE, deep)):
        assert refusal(signed_again(CA, body(CA, NEXT, place)))
    assert "larger" in refusal(b"\x30" * (MOST + 1))


BODY = body_of(revocation_list(CA, {5: ReasonFlags.key_compromise, 1 << 80: None, 7: ReasonFlags.superseded}))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_signed_or_not_no_octets_raise_anything_else(data: st.DataObject) -> None:
    """Changed octets, and the authority's signature over what they have become: it may write nonsense, too."""
    octets = bytearray(BODY)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(octets) - 1))
        piece = data.draw(st.binary(max_size=3))
        octets[at : at + data.draw(st.integers(0, 3))] = piece
        if not octets:
            octets = bytearray(b"\x30")
    for whole in (signed_again(CA, bytes(octets)), bytes(octets)):
        try:
            found = read_of(whole)
        except Malformed:
            continue
        for serial in (5, 7, 1 << 80, 9):
            if (at := found.find(number(serial))) is not None:
                entry = found.entry(at)
                assert entry.at is None or isinstance(entry.at, int)
                assert 0 <= entry.reason < 256


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_entries_of_any_octets(octets: bytes) -> None:
    try:
        found = read_of(signed_again(CA, body(CA, NEXT, ber.element(ber.SEQUENCE, octets))))
    except Malformed:
        return
    assert found.count or not octets


def test_what_openssl_makes_is_read(tmp_path: Path) -> None:
    """A list without extensions is a version 1 list, as `openssl ca -gencrl` makes it by default."""
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    (tmp_path / "ca.key").write_bytes(CA.key_pem)
    (tmp_path / "index").write_text("R\t330101000000Z\t250101000000Z,keyCompromise\t0A0B\tunknown\t/CN=Alice\n")
    (tmp_path / "conf").write_text(f"[ca]\ndefault_ca=x\n[x]\ndatabase={tmp_path}/index\ndefault_md=sha256\n")
    words = ["ca", "-gencrl", "-config", "conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-crldays", "30"]
    made_ = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, check=True).stdout
    found = read_of(made_[made_.index(b"-----BEGIN") :], now=1 << 31)
    assert found.number is None and found.count == 1
    assert (at := found.find(b"\x0a\x0b")) is not None
    assert found.entry(at) and found.entry(at).reason == 1 and found.entry(at).at == 1735689600


def test_ed448_and_a_kind_of_key_that_is_not_taken() -> None:
    key = ed448.Ed448PrivateKey.generate()
    algorithm = bytes.fromhex("300506032b6571")
    head = [b"\x02\x01\x01", algorithm, CA.certificate.subject.public_bytes(), b"\x17\x0d240101000000Z"]
    inner = body(CA, NEXT, head=head)
    whole = ber.element(ber.SEQUENCE, inner, algorithm, ber.element(ber.BITS, b"\0" + key.sign(inner)))
    issuer = Authority("F", "CN=List CA", ISSUER.name, key.public_key())
    assert read_of(whole, issuer).count == 0
    assert "signature" in refusal(whole)
