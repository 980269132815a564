"""The reader of certificates: what hostile octets can make it do, which is nothing but refuse."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver import smime
from keyserver.model import Certificate, Malformed, Refused
from keyserver.smime import ber, names
from keyserver.smime.reading import read
from support import x509odd
from support.x509 import authority, name, person

NOW = 1_790_000_000
VECTORS = Path(__file__).parents[2] / "vectors" / "x509"
CORPUS = x509odd.corpus()
CONTROL = CORPUS["control"]


def judged(octets: bytes) -> list[Certificate | Refused]:
    """What `clean` says, and that everything it keeps can be used by whatever comes after it."""
    results = smime.clean(octets, NOW)
    for result in results:
        if isinstance(result, Refused):
            assert "Error" not in result.reason, "a sentence, not an exception"
        else:
            assert smime.prove(result.octets, NOW) == result.proof
            proved, identities = smime.index(result.octets)
            assert proved >= result.proof.names
            assert identities == result.proof.identities
            assert result.proof.user_ids
            assert all(text.isprintable() or "\u200c" in text for text in identities)
    smime.intermediates(octets)
    ANCHORS.chained(octets, [octets], NOW)
    return results


ANCHORS = smime.Anchors([x509odd.root().certificate])


@pytest.mark.parametrize("file", sorted(VECTORS.glob("*.der")), ids=lambda f: f.stem)
def test_what_other_software_reads(file: Path) -> None:
    (result,) = judged(file.read_bytes())
    assert isinstance(result, Certificate), result
    expected = "phil@xn--yp8ha.example" if file.stem == "address-emoji" else "alice@example.org"
    assert [u.address for u in result.proof.user_ids] == [expected]
    assert result.octets == file.read_bytes()
    assert result.proof.can_encrypt


def test_one_bad_certificate_in_a_bundle_costs_itself() -> None:
    found = smime.clean((VECTORS / "bundle.p7b").read_bytes(), NOW)
    assert [isinstance(r, Certificate) for r in found] == [True, True], "both can be read by now"
    good, ca = CONTROL, authority("A CA").der
    endless = (b"\x30\x80", b"\x30\x7fab")  # where one ends nobody can say: what stands behind it is lost
    for bad in (b"\x30\x03\x02\x01\x05", CORPUS["serial-empty"], *endless):
        for order in ((good, bad), (ca, good, bad), *([] if bad in endless else [(bad, good)])):
            kept, refused = smime.clean(bundle(order), NOW)
            assert isinstance(kept, Certificate)
            assert kept.octets == good
            assert isinstance(refused, Refused)
            assert refused.fatal
            assert refused.fingerprint
    pem = b"".join(block(octets) for octets in (CORPUS["serial-empty"], good, b"")) + (
        b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nMIIB"
    )
    results = smime.clean(pem, NOW)
    assert [r.octets for r in results if isinstance(r, Certificate)] == [good]
    assert len(results) == 4


def bundle(certificates: Sequence[bytes]) -> bytes:
    """A PKCS#7 with these in this order."""
    signed = ber.element(0x30, b"\x02\x01\x01", b"\x31\x00", b"\x30\x00", ber.element(0xA0, *certificates), b"\x31\x00")
    return ber.element(0x30, x509odd.oid("1.2.840.113549.1.7.2"), ber.element(0xA0, signed))


def block(octets: bytes, label: str = "CERTIFICATE") -> bytes:
    text = base64.encodebytes(octets).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def test_version_7_in_pem_and_in_a_bundle() -> None:
    octets = CORPUS["version-7"]
    for form in (block(octets), bundle([octets]), block(bundle([octets]), "PKCS7")):
        (result,) = judged(form)
        assert isinstance(result, Certificate)
        assert "X.509 version 7" in result.proof.marks


def test_a_bundle_in_indefinite_lengths() -> None:
    inner = x509odd.indefinite(ber.element(0xA0, CONTROL, CORPUS["true-as-one"]))
    signed = b"\x30\x80\x02\x01\x01\x31\x00\x30\x80\x00\x00" + inner + b"\x31\x00\x00\x00"
    octets = b"\x30\x80" + x509odd.oid("1.2.840.113549.1.7.2") + b"\xa0\x80" + signed + b"\x00\x00\x00\x00"
    assert [r.octets for r in judged(octets) if isinstance(r, Certificate)] == [CONTROL, CORPUS["true-as-one"]]


def test_pack_writes_what_the_library_writes_and_keeps_octets() -> None:
    ca = authority()
    people = [person(f"{n}@example.org", ca) for n in range(3)]
    expected = pkcs7.serialize_certificates([p.certificate for p in people], Encoding.DER)
    assert smime.pack([p.der for p in people]) == expected
    odd = [CORPUS["critical-false-encoded"], CORPUS["printable-at-sign"]]
    assert sorted(smime.unpack(smime.pack(odd))) == sorted(odd)


def test_names_are_written_as_the_library_writes_them() -> None:
    made = person("a@example.org", subject=name('A, "b" <c>; \\x +=# ', surname="#x", given_name=" ", organization="Ö"))
    subject = made.certificate.subject
    assert names.written(read(made.der).subject_name) == subject.rfc4514_string()


@pytest.mark.parametrize(
    ("octets", "value"),
    [(b"\x06\x03\x55\x04\x03", "2.5.4.3"), (b"\x06\x01\x2a", "1.2"), (b"\x06\x03\x88\x37\x01", "2.999.1")],
)
def test_object_identifiers(octets: bytes, value: str) -> None:
    assert ber.dotted(ber.first(octets)) == value


@pytest.mark.parametrize(
    "octets", [b"", b"\x06\x00", b"\x06\x01\x80", b"\x06\x82\xff\xff" + b"\x81" * 65535, b"\x04\x01a"]
)
def test_what_is_no_object_identifier(octets: bytes) -> None:
    with pytest.raises(Malformed):
        ber.dotted(ber.first(octets))


BOMBS = {
    "nested": b"\x30\x80" * 30_000,
    "nested, whole": b"\x30\x80" * 30_000 + b"\x00\x00" * 30_000,
    "wide": b"\x30\x80" + b"\x30\x80\x00\x00" * 250_000,
    "wide, whole": ber.element(0x30, b"\x05\x00" * 500_000),
    "wide below a bundle": bundle([b"\x05\x00" * 400_000]),
    "many in a bundle": bundle([b"\x30\x00"] * 200_000),
    "many blocks": b"-----BEGIN CERTIFICATE-----" * 38_000,
    "many blocks, whole": (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n") * 19_000,
    "many labels": b"-----BEGIN X-----" + b"-----END " * 100_000,
    "a length of 126 octets": b"\x30\xfe" + b"\xff" * 1000,
    "huge serial": x509odd.odd(serial=x509odd.tlv(2, b"\x01" * 60_000)),
    "many addresses": x509odd.odd(
        x_names=x509odd.alternative(*[x509odd.mailbox(f"{n}@a.example") for n in range(4000)])
    ),
    "many in the subject": x509odd.odd(
        x_names=b"",
        subject=x509odd.subject(*[x509odd.rdn(x509odd.MAIL, f"{n}@a.example", x509odd.IA5) for n in range(1500)]),
    ),
    "many extensions": x509odd.odd(x_more=b"".join(x509odd.extension("1.2.3.4", b"") for _ in range(4000))),
    "huge modulus": x509odd.odd(key=x509odd.rsa_spki(x509odd.tlv(2, b"\x7f" * 60_000), x509odd.integer(65537))),
    "huge exponent": x509odd.odd(
        key=x509odd.rsa_spki(x509odd.tlv(2, b"\x00" + b"\xff" * 256), x509odd.tlv(2, b"\x7f" * 60_000))
    ),
}  # fmt: skip


@pytest.mark.parametrize("which", BOMBS)
def test_bombs_are_refused_soon(which: str) -> None:
    begun = time.process_time()
    results = judged(BOMBS[which])
    assert all(isinstance(r, Refused) for r in results) or which == "many extensions"
    assert results
    assert time.process_time() - begun < 1.0


@settings(deadline=None)
@given(st.data())
def test_no_octets_raise(data: st.DataObject) -> None:
    """Flipped, cut, doubled: in a certificate, in PEM, in a bundle."""
    octets = bytearray(data.draw(st.sampled_from(sorted(CORPUS.values()))))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "double", "swap"])):
            case "flip":
                octets[at] ^= data.draw(st.integers(1, 255))
            case "cut" if len(octets) > 20:
                del octets[at : at + data.draw(st.integers(1, 8))]
            case "double":
                octets[at:at] = octets[at : at + 16]
            case _:
                octets[at : at + 2] = octets[at : at + 2][::-1]
        octets = octets or bytearray(b"\x30")
    form = data.draw(st.sampled_from([bytes, block, lambda o: bundle([bytes(o), CONTROL])]))
    judged(form(bytes(octets)))


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x30", b"\x30\x80", CONTROL[:200], bundle([CONTROL])[:60]]))
def test_no_random_octets_raise(octets: bytes, before: bytes) -> None:
    judged(before + octets)
    judged(block(before + octets))


def test_every_octet_flipped_once() -> None:
    for at in range(len(CONTROL)):
        octets = bytearray(CONTROL)
        octets[at] ^= 0x21
        smime.clean(bytes(octets), NOW)
