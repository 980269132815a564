"""The hostile corpus: bounded in time and size, and never a false proof."""

import functools
import time

import pytest

from keyserver.model import Certificate, Refused, Validity
from keyserver.openpgp import clean, clean_brief
from support import hostile
from support.openpgp import CREATED, SIGN, USER_ID, bind, certify, make, new_key, packet

NOW = CREATED + 100 * 86400
SECONDS = 3.0  # of CPU; the budget is 0.25 s a certificate, unbounded work took 4 to 60 s for most of these
DROPPED_WHOLE = {
    "compressed_bomb",
    "deflated_bomb",
    "nested_compression",
    "endless_packet_first",
    "encrypted_data",
    "huge_exponent",
    "small_modulus",
    "many_signed_user_ids",
}


def cleaned(octets: bytes) -> list[Certificate]:
    return [f for f in clean(octets, NOW) if isinstance(f, Certificate)]


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_hostile(name: str) -> None:
    octets = hostile.HOSTILE[name]()
    start = time.process_time()
    found = clean(octets, NOW)
    assert time.process_time() - start < SECONDS
    certificates = [f for f in found if isinstance(f, Certificate)]
    assert len(found) <= 66
    assert sum(len(c.octets) for c in certificates) < 64 << 10
    assert bool(certificates) is (name not in DROPPED_WHOLE)
    for certificate in certificates:
        assert {u.address for u in certificate.proof.user_ids} <= {
            "alice@example.org",
            "alice@second.example",
            *(f"alice{n}@example.org" for n in range(200)),
        }
        assert not any("eve" in each for each in certificate.proof.index)


@pytest.mark.parametrize("name", ["compressed_bomb", "deflated_bomb", "encrypted_data", "endless_packet_first"])
def test_what_cannot_be_read_is_fatal(name: str) -> None:
    (found,) = clean(hostile.HOSTILE[name](), NOW)
    assert isinstance(found, Refused) and found.fatal


def test_what_stood_before_a_broken_packet_is_delivered() -> None:
    good, broken = clean(hostile.endless_packet(), NOW)
    assert isinstance(good, Certificate) and good.proof.user_ids
    assert isinstance(broken, Refused) and broken.fatal and "4294967295" in broken.reason


def test_poisoned_certificate_comes_out_small() -> None:
    octets = hostile.poisoned()
    assert len(octets) > 14 << 20
    (certificate,) = cleaned(octets)
    assert len(certificate.octets) < 500
    assert certificate.proof.user_ids and certificate.proof.can_encrypt


def test_answer_over_16_mib_is_fatal() -> None:
    (found,) = clean(hostile.poisoned(60_000), NOW)
    assert isinstance(found, Refused) and found.fatal and "16777216" in found.reason


def test_flood_over_one_user_id_hides_neither_revocation_nor_the_other() -> None:
    (certificate,) = cleaned(hostile.flood_at_second_user_id())
    assert certificate.proof.validity is Validity.REVOKED
    assert "openpgp:addr:alice@example.org" in certificate.proof.weak


def test_at_most_64_certificates() -> None:
    found = clean(hostile.many_certificates(70), NOW)
    assert len([f for f in found if isinstance(f, Certificate)]) == 64
    (last,) = [f for f in found if isinstance(f, Refused)]
    assert "more than 64" in last.reason and not last.fatal


def test_budget_of_an_answer_ends_it() -> None:
    floods = b"".join(hostile.flood_of_fakes("p521", 200_000) for _ in range(12))
    start = time.process_time()
    found = clean(floods, NOW)
    assert time.process_time() - start < 2 * SECONDS
    refused = [f for f in found if isinstance(f, Refused)]
    assert refused and all(f.fatal and "cost too much" in f.reason for f in refused)


def test_secret_keys_refuse_everything() -> None:
    (found,) = clean(hostile.with_secret_key(), NOW)
    assert isinstance(found, Refused) and found.fatal and "secret key" in found.reason


@pytest.mark.parametrize("builder", [hostile.version_3_key, hostile.version_5_key])
def test_versions_3_and_5_are_refused(builder: object) -> None:
    assert callable(builder)
    (found,) = clean(builder(), NOW)
    assert isinstance(found, Refused) and not found.fatal and "versions 4 and 6" in found.reason


def test_misplaced_signatures_find_their_components() -> None:
    made = hostile.misplaced()
    (certificate,) = cleaned(made.octets)
    assert {u.address for u in certificate.proof.user_ids} == {"alice@example.org", "alice@second.example"}
    assert sorted((s.can_encrypt, s.back_signed) for s in certificate.proof.subkeys) == [(False, True), (True, False)]


def test_version_3_signatures_on_a_version_4_key() -> None:
    (certificate,) = cleaned(hostile.version_3_signatures().octets)
    assert [u.address for u in certificate.proof.user_ids] == ["alice@example.org"]
    assert certificate.proof.can_encrypt


def test_broken_packets_spoil_only_themselves() -> None:
    made = hostile.broken_packets()
    (certificate,) = cleaned(made.octets)
    assert certificate.proof.user_ids and certificate.proof.can_encrypt
    assert len(certificate.octets) < 500


def test_junk_back_signature_is_cut_out() -> None:
    made = hostile.junk_back_signature()
    (certificate,) = cleaned(made.octets)
    assert [s.back_signed for s in certificate.proof.subkeys] == [False]
    assert len(certificate.octets) < len(made.octets)


def test_user_attributes_go() -> None:
    (certificate,) = cleaned(hostile.attribute_with_certification().octets)
    assert b"\x03\x01xy" not in certificate.octets
    assert len(certificate.proof.user_ids) == 2


@functools.cache
def brief_but_dense() -> dict[str, bytes]:
    """As much work as 3 KiB of one certificate can make."""
    primary, subkey = new_key("ed25519", seed="dense"), new_key("ed25519", seed="dense subkey")
    dots = [bytes([1, 100]) * 120, bytes([1, 32]) * 110]
    foreign = [f"{n} <a@{'ä' * 20}.{'ö' * 20}.{'ü' * 10}.org>".encode() for n in range(7)]
    rsa = new_key("rsa1024")
    return {
        "subpackets": primary.packet()
        + packet(USER_ID, b"x")
        + b"".join(certify(primary, b"x", hashed=(dots[0],), created=CREATED + n) for n in range(7)),
        "embedded": primary.packet()
        + subkey.packet(14)
        + b"".join(bind(primary, subkey, usage=SIGN, hashed=(dots[1],), created=CREATED + n) for n in range(6)),
        "foreign domains": rsa.packet() + b"".join(packet(USER_ID, u) + certify(rsa, u) for u in foreign),
        "signatures": primary.packet()
        + packet(USER_ID, b"x")
        + b"".join(certify(primary, b"x", created=CREATED + n) for n in range(13)),
        "ordinary": make(seed="ordinary").octets,
        "RSA 4096": make(algorithm="rsa4096", encryption="rsa4096").octets,
        "two": make(seed="a").octets + make(seed="b").octets,
        "empty": b"",
    }


@pytest.mark.parametrize("name", brief_but_dense())
def test_brief_is_brief_and_the_same(name: str) -> None:
    """The bound is 2 ms; ten times as much here, for a busy machine."""
    octets = brief_but_dense()[name]
    start = time.thread_time()
    found = clean_brief(octets, NOW)
    assert time.thread_time() - start < 0.02
    assert found == (clean(octets, NOW) if name in ("ordinary", "RSA 4096") else None)
