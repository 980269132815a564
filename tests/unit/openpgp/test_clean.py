"""Hygiene: what stays of a certificate, what goes, what is refused; checked with gpg and sq as independent makers."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Certificate, Refused, Validity
from keyserver.openpgp import Limits, clean, dearmor, packets, prove, signatures
from support.odd_dsa import DOMAINS, OddDsa
from support.openpgp import (
    CERTIFY,
    CREATED,
    PUBLIC_KEY,
    SIGN,
    SUBKEY,
    USER_ID,
    Key,
    Made,
    armored,
    bind,
    certify,
    direct,
    flags,
    make,
    make_certificate,
    mpi,
    new_key,
    number,
    packet,
    reason,
    signature,
    subpacket,
)

NOW = CREATED + 100 * 86400
ALICE = b"Alice <alice@example.org>"


def only(octets: bytes, now: int = NOW, limits: Limits = Limits()) -> Certificate:
    (found,) = clean(octets, now, limits)
    assert isinstance(found, Certificate), found
    return found


def refused(octets: bytes, now: int = NOW, limits: Limits = Limits()) -> Refused:
    (found,) = clean(octets, now, limits)
    assert isinstance(found, Refused), found
    return found


def parts(octets: bytes) -> list[tuple[int, bytes]]:
    return [(tag, octets[start:end]) for tag, start, end in packets.walk(octets, 10**6)]


def user_ids(certificate: Certificate) -> list[str]:
    return sorted(u.text for u in certificate.proof.user_ids)


def types(octets: bytes) -> list[int]:
    return [signatures.parse(body).type for tag, body in parts(octets) if tag == 2]


# Made by others ------------------------------------------------------------------------------------------------------


class Gpg:
    """GnuPG with a home of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home

    def __call__(self, *arguments: str, data: bytes = b"", check: bool = True) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--yes", "--pinentry-mode", "loopback"]
        command += ["--passphrase", "", *arguments]
        return subprocess.run(command, input=data, check=check, capture_output=True, timeout=60).stdout

    def edit(self, key: str, *commands: str) -> None:
        self("--command-fd", "0", "--edit-key", key, data="\n".join([*commands, "save", ""]).encode())

    def listing(self, *arguments: str) -> list[list[str]]:
        return [line.split(":") for line in self("--with-colons", *arguments).decode().splitlines()]

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    if not shutil.which("gpg"):
        pytest.fail("gpg is needed to make certificates: install the package gnupg")
    maker = Gpg(tmp_path_factory.mktemp("gpg") / "home")
    yield maker
    maker.close()


@pytest.fixture(scope="module")
def by_gpg(gpg: Gpg) -> tuple[str, bytes]:
    """Ed25519 with two user IDs, one of them revoked, an encryption, a signing and a revoked subkey, an expiration."""
    gpg("--quick-generate-key", "Alice <alice@gpg.example>", "ed25519", "cert", "2y")
    fingerprint = next(f[9] for f in gpg.listing("--list-keys", "alice@gpg.example") if f[0] == "fpr")
    gpg("--quick-add-key", fingerprint, "cv25519", "encr", "1y")
    gpg("--quick-add-key", fingerprint, "ed25519", "sign", "1y")
    gpg("--quick-add-key", fingerprint, "cv25519", "encr", "1y")
    gpg("--quick-add-uid", fingerprint, "Alice (old) <old@gpg.example>")
    gpg("--quick-revoke-uid", fingerprint, "Alice (old) <old@gpg.example>")
    gpg.edit(fingerprint, "key 3", "revkey", "y", "1", "", "y")
    return fingerprint, gpg("--export", fingerprint)


def test_gpg_made_certificate_stays_as_it_is(by_gpg: tuple[str, bytes]) -> None:
    fingerprint, octets = by_gpg
    now = prove_time(octets)
    found = only(octets, now)
    assert sorted(parts(found.octets)) == sorted(parts(octets))
    proof = found.proof
    assert proof.fingerprint == fingerprint
    assert (proof.validity, proof.can_encrypt, proof.version, proof.algorithm) == (Validity.VALID, True, 4, 22)
    assert proof.expires is not None and abs(proof.expires - proof.created - 2 * 365 * 86400) < 86400
    assert [(u.text, u.revoked) for u in proof.user_ids] == [
        ("Alice <alice@gpg.example>", False),
        ("Alice (old) <old@gpg.example>", True),
    ]
    assert sorted((s.can_encrypt, s.back_signed, s.revoked) for s in proof.subkeys) == [
        (False, True, False),
        (True, False, False),
        (True, False, True),
    ]
    assert "openpgp:addr:alice@gpg.example" in proof.weak
    assert "openpgp:addr:old@gpg.example" not in proof.names
    assert "openpgp:addr:old@gpg.example" in proof.index


def prove_time(octets: bytes) -> int:
    """An instant just after the newest signature."""
    return max(signatures.parse(body).made for tag, body in parts(octets) if tag == 2) + 1


def test_gpg_imports_what_comes_out(by_gpg: tuple[str, bytes], tmp_path: Path) -> None:
    fingerprint, octets = by_gpg
    reader = Gpg(tmp_path / "home")
    reader("--import", data=only(octets, prove_time(octets)).octets)
    assert sorted(parts(reader("--export", fingerprint))) == sorted(parts(octets))
    reader.close()


ALGORITHMS = ["rsa2048", "p256", "p384", "p521", "secp256k1", "brainpool256", "brainpool384", "brainpool512", "ed25519"]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "dsa2048", "dsa1248", "dsa1536", "ed25519-native", "ed448"])
def test_every_algorithm_verifies(algorithm: str) -> None:
    made = make(algorithm=algorithm, signing=True)
    proof = only(made.octets).proof
    assert proof.fingerprint == made.fingerprint
    assert [u.address for u in proof.user_ids] == ["alice@example.org"]
    assert sorted((s.can_encrypt, s.back_signed) for s in proof.subkeys) == [(False, True), (True, False)]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "dsa2048", "dsa1248", "dsa1536", "ed25519-native", "ed448"])
def test_no_algorithm_verifies_what_is_not_signed(algorithm: str) -> None:
    primary = new_key(algorithm)
    bare = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE, corrupt=True)
    assert "nothing in it is signed" in refused(bare).reason


@pytest.mark.parametrize("hash_name", ["sha224", "sha256", "sha384", "sha512", "sha3_256", "sha3_512"])
def test_every_hash_verifies(hash_name: str) -> None:
    assert only(make_certificate(algorithm="p256", hash_name=hash_name)).proof.user_ids


@pytest.mark.parametrize("algorithm", ["ed25519", "ed448", "mldsa65", "mldsa87", "p384", "rsa2048"])
def test_version_6(algorithm: str) -> None:
    made = make(algorithm=algorithm, version=6, signing=True, encryption="x448" if algorithm == "ed448" else "cv25519")
    found = only(made.octets)
    assert (found.proof.version, found.proof.fingerprint) == (6, made.fingerprint)
    assert found.proof.key_id == made.fingerprint[:16]
    assert found.proof.can_encrypt
    assert sorted(parts(found.octets)) == sorted(parts(made.octets))


@pytest.mark.parametrize("half", [0, 100])
def test_both_halves_of_a_composite_signature_must_verify(half: int) -> None:
    made = make(algorithm="mldsa65", version=6, encryption=None)
    body = certify(made.primary, b"Eve <eve@example.org>", body_only=True)
    at = signatures.parse(body).material + half
    broken = packet(2, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    found = only(made.octets + packet(USER_ID, b"Eve <eve@example.org>") + broken)
    assert user_ids(found) == [ALICE.decode()]


def test_version_6_needs_a_direct_key_signature() -> None:
    made = make(version=6)
    octets = b"".join(packet(tag, body) for tag, body in parts(made.octets) if tag != 2 or body[1] != 0x1F)
    assert "without a direct-key signature" in refused(octets).reason


def test_version_6_salt_of_another_length_is_no_signature() -> None:
    made = make(version=6)
    extra = certify(made.primary, b"Eve <eve@example.org>", salt=bytes(16), hash_name="sha512")
    assert user_ids(only(made.octets + packet(USER_ID, b"Eve <eve@example.org>") + extra)) == [ALICE.decode()]


def test_sq_made_certificate(tmp_path: Path) -> None:
    if not shutil.which("sq"):
        pytest.fail("sq is needed to make certificates: install the package sq")
    secret = tmp_path / "key.pgp"
    generate = ["sq", "key", "generate", "--userid", "Bob <bob@sq.example>", "--export", str(secret)]
    subprocess.run(generate, check=True, capture_output=True, timeout=60)
    extract = ["sq", "key", "extract-cert", str(secret)]
    (octets,) = dearmor(subprocess.run(extract, check=True, capture_output=True, timeout=60).stdout)
    proof = only(octets, prove_time(octets)).proof
    assert [u.address for u in proof.user_ids] == ["bob@sq.example"]
    assert proof.can_encrypt
    assert any(s.back_signed for s in proof.subkeys)


# What goes -----------------------------------------------------------------------------------------------------------


def test_third_party_signatures_go() -> None:
    made = make(third_party=5)
    found = only(made.octets)
    assert types(found.octets) == [0x13, 0x18]
    assert len(found.octets) < len(made.octets)


@pytest.mark.parametrize("unhashed", [[], [subpacket(33, b"\x04" + bytes(20))], [subpacket(100, b"x")]])
def test_third_party_signatures_go_however_they_name_their_issuer(unhashed: list[bytes]) -> None:
    made, stranger = make(encryption=None), new_key()
    for issuer in (True, False):
        strange = certify(made.primary, ALICE, type_=0x10, signer=stranger, unhashed=unhashed, issuer=issuer)
        assert only(made.octets + strange).octets == only(made.octets).octets


def test_self_signature_without_any_issuer_counts() -> None:
    primary = new_key()
    octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE, issuer=False, unhashed=[])
    assert user_ids(only(octets)) == [ALICE.decode()]


def test_unsigned_user_ids_and_unbound_subkeys_go() -> None:
    made = make()
    extra = packet(USER_ID, b"Eve <eve@example.org>") + new_key("cv25519").packet(SUBKEY)
    assert only(made.octets + extra).octets == only(made.octets).octets


def test_signatures_behind_something_unknown_go_with_it() -> None:
    made = make(encryption=None)
    second = b"Second <second@example.org>"
    hidden = packet(50, b"?") + certify(made.primary, second)
    assert user_ids(only(made.octets + packet(USER_ID, second) + hidden)) == [ALICE.decode()]


@pytest.mark.parametrize("tag", [10, 12, 21])
def test_ignored_packets_separate_nothing(tag: int) -> None:
    made = make(encryption=None)
    second = b"Second <second@example.org>"
    octets = made.octets + packet(USER_ID, second) + packet(tag, b"PGP") + certify(made.primary, second)
    assert len(user_ids(only(octets))) == 2


@pytest.mark.parametrize("tag", [1, 3, 4, 8, 9, 11, 18, 19, 20, 30, 39])
def test_packets_that_no_certificate_has_refuse_it_alone(tag: int) -> None:
    good = make_certificate()
    first, second = clean(make_certificate() + packet(tag, b"x" * 20) + good, NOW)
    assert isinstance(first, Certificate) and first.octets == only(good).octets
    assert isinstance(second, Refused) and second.fatal and f"type {tag}" in second.reason


def test_unknown_critical_subpackets_and_notations_spoil_a_signature() -> None:
    made = make(encryption=None)
    for number_, user_id in enumerate((b"a <a@x.org>", b"b <b@x.org>")):
        kind = (100, 20)[number_]
        for critical in (True, False):
            spoiled = certify(made.primary, user_id, hashed=[subpacket(kind, bytes(10), critical)])
            found = only(made.octets + packet(USER_ID, user_id) + spoiled)
            assert (user_id.decode() in user_ids(found)) is not critical


def test_left_16_bits_must_be_right() -> None:
    primary = new_key()
    octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE, left16=b"\0\0")
    assert "nothing in it is signed" in refused(octets).reason


def test_signature_without_or_before_its_time_is_none() -> None:
    made = make(encryption=None)
    second = b"Second <second@example.org>"
    for created in (None, CREATED - 1):
        octets = made.octets + packet(USER_ID, second) + certify(made.primary, second, created=created)
        assert user_ids(only(octets)) == [ALICE.decode()]


SHA1_END = 1_675_209_600


@pytest.mark.parametrize(
    ("hash_name", "signed_at", "counts"),
    [("sha1", SHA1_END - 1, True), ("sha1", SHA1_END, False), ("md5", CREATED, False), ("sha512", SHA1_END, True)],
)
def test_sha1_by_date_md5_never(hash_name: str, signed_at: int, counts: bool) -> None:
    made = make(algorithm="rsa2048", encryption=None, hash_name=hash_name, signed_at=signed_at)
    if not counts:
        why = "made with SHA-1 after January 2023" if hash_name == "sha1" else "made with MD5, which proves nothing"
        assert why in refused(made.octets, SHA1_END + 10).reason
        return
    proof = only(made.octets, SHA1_END + 10).proof
    assert proof.marks == (("sha1",) if hash_name == "sha1" else ())


@pytest.mark.parametrize(("hash_name", "number"), [("ripemd160", 3), ("md5", 1)])
def test_a_hash_that_proves_nothing_is_named(hash_name: str, number: int) -> None:
    made = make(algorithm="rsa2048", encryption=None)
    spoiled = bytearray(made.octets)
    at = spoiled.index(bytes((4, 0x13, 1, 10)))  # version, type, algorithm, hash of the certification
    spoiled[at + 3] = number
    name = {"ripemd160": "RIPEMD-160", "md5": "MD5"}[hash_name]
    assert (
        refused(bytes(spoiled)).reason == f"no self-signature in it counts: made with {name}, which proves nothing here"
    )


@pytest.mark.parametrize(
    "numbers",
    [
        (4, 3, 2, 2),  # p is even
        (DOMAINS[1248][0], DOMAINS[1248][1], 1, 2),
        (DOMAINS[1248][0], DOMAINS[1248][1], 2, DOMAINS[1248][0] + 1),
        (DOMAINS[1248][0], DOMAINS[1248][1] + 1, 2, 2),
        (DOMAINS[1248][0] - 1, DOMAINS[1248][1], 2, 2),
        (DOMAINS[1248][0], 3**130, 2, 2),  # no prime: some numbers have no inverse
        (DOMAINS[1248][0], 1 << 511, 2, 2),
        ((1 << 4095) + 1, DOMAINS[1248][1], 2, 2),
    ],
)
def test_dsa_numbers_that_are_none_prove_nothing_and_take_no_time(numbers: tuple[int, int, int, int]) -> None:
    odd = OddDsa(DOMAINS[1248][0], DOMAINS[1248][1], DOMAINS[1248][2], 5)
    primary = Key(4, CREATED, 17, b"".join(map(mpi, numbers)), odd)
    octets = primary.packet() + b"".join(
        packet(USER_ID, b"u%d@example.org" % n) + certify(primary, b"u%d@example.org" % n) for n in range(300)
    )
    began = time.process_time()
    for result in clean(octets, NOW):
        assert isinstance(result, Refused) or result.proof.validity is Validity.UNVERIFIABLE
    assert time.process_time() - began < 1


def test_a_flood_of_odd_dsa_is_bounded() -> None:
    primary = new_key("dsa1536")
    octets = primary.packet() + b"".join(
        packet(USER_ID, b"u%d@example.org" % n) + certify(primary, b"u%d@example.org" % n) for n in range(200)
    )
    began = time.process_time()
    assert any(isinstance(r, Refused) and "too much" in r.reason for r in clean(octets, NOW))
    assert time.process_time() - began < 2


def test_sha1_revocation_counts_at_any_date() -> None:
    made = make(algorithm="rsa2048", encryption=None)
    late = direct(made.primary, type_=0x20, hash_name="sha1", created=SHA1_END + 100, hashed=reason(2))
    assert only(made.octets + late, SHA1_END + 200).proof.validity is Validity.REVOKED


def test_eddsa_over_a_short_digest_is_none() -> None:
    octets = make_certificate(algorithm="ed25519", encryption=None, hash_name="sha224")
    assert "nothing in it is signed" in refused(octets).reason


def test_short_rsa_signature_is_padded() -> None:
    """One of 256 RSA signatures is a number with a leading zero octet, which its packet does not hold."""
    primary = new_key("rsa1024")
    for second in range(4000):
        body = certify(primary, ALICE, created=CREATED + second, body_only=True)
        parsed = signatures.parse(body)
        if int.from_bytes(body[parsed.material : parsed.material + 2], "big") <= 1016:
            break
    else:
        pytest.fail("no short signature among 4000")
    assert user_ids(only(primary.packet() + packet(USER_ID, ALICE) + packet(2, body))) == [ALICE.decode()]


# What is kept --------------------------------------------------------------------------------------------------------


def test_duplicates_become_one() -> None:
    made = make(signing=True)
    first = made.primary.packet(old=True)
    assert only(made.octets + made.octets[len(first) :]).octets == only(made.octets).octets
    assert only(made.octets + made.octets).octets == only(made.octets).octets


def test_copies_that_differ_in_unsigned_parts_become_the_smaller() -> None:
    primary = new_key()
    plain = certify(primary, ALICE, unhashed=[])
    junk = [certify(primary, ALICE, unhashed=[subpacket(100, os.urandom(n))]) for n in (5, 50, 500)]
    head = primary.packet() + packet(USER_ID, ALICE)
    alone = only(head + plain).octets
    assert only(head + b"".join(junk) + plain).octets == alone
    assert only(head + plain + b"".join(junk)).octets == alone


def test_order_of_packets_does_not_matter() -> None:
    made = make(["b <b@x.org>", "a <a@x.org>"], signing=True)
    head, *rest = split(made.octets)
    assert only(head + b"".join(reversed(rest))).octets == only(made.octets).octets


def split(octets: bytes) -> list[bytes]:
    """The primary with what is directly behind it, then each component with its signatures."""
    groups: list[bytes] = []
    for tag, body in parts(octets):
        if tag == 2:
            groups[-1] += packet(tag, body)
        else:
            groups.append(packet(tag, body))
    return groups


def test_cleaning_twice_changes_nothing() -> None:
    made = make(["b <b@x.org>", "a <a@x.org>"], signing=True, revoked=2, subkeys_revoked=1, third_party=3)
    once = only(made.octets)
    assert only(once.octets) == once
    assert prove(once.octets, NOW) == once.proof


def test_packet_bodies_are_those_that_came() -> None:
    made = make(signing=True, revoked=1)
    assert set(parts(only(made.octets).octets)) == set(parts(made.octets))


def test_most_self_signatures_kept_are_the_newest() -> None:
    primary = new_key()
    octets = primary.packet() + packet(USER_ID, ALICE)
    octets += b"".join(certify(primary, ALICE, created=CREATED + n) for n in range(40))
    kept = [signatures.parse(body).made - CREATED for tag, body in parts(only(octets).octets) if tag == 2]
    assert kept == list(range(39, 23, -1))


def test_most_components_kept() -> None:
    primary = new_key()
    many = [b"Alice %d <a%d@x.org>" % (n, n) for n in range(300)]
    octets = primary.packet() + b"".join(packet(USER_ID, u) + certify(primary, u) for u in many)
    assert len(only(octets, limits=Limits(user_ids=10)).proof.user_ids) == 10
    assert len(only(octets).proof.user_ids) == 256


def test_subkey_of_another_version_goes() -> None:
    made, other = make(), new_key("ed25519", version=6)
    assert only(made.octets + other.packet(SUBKEY) + bind(made.primary, other)).octets == only(made.octets).octets


def test_only_so_many_signatures_are_held() -> None:
    primary = new_key()
    octets = primary.packet() + packet(USER_ID, ALICE)
    octets += b"".join(certify(primary, ALICE, created=CREATED + n) for n in range(6))
    assert len(types(only(octets, limits=Limits(candidates=4)).octets)) == 4


def test_only_so_many_unsigned_user_ids_are_held() -> None:
    primary = new_key()
    many = [b"Alice %d <a%d@x.org>" % (n, n) for n in range(6)]
    octets = primary.packet() + b"".join(packet(USER_ID, u) for u in many) + new_key("cv25519").packet(SUBKEY)
    octets += b"".join(certify(primary, u) for u in many)
    assert len(user_ids(only(octets))) == 6
    assert len(user_ids(only(octets, limits=Limits(unsigned=4)))) == 4


def test_only_so_many_revocations_by_others_are_held() -> None:
    primary, revoker = new_key(), new_key()
    octets = primary.packet() + direct(primary, hashed=[subpacket(12, b"\x80\x16" + revoker.fingerprint_octets)])
    octets += b"".join(direct(primary, type_=0x20, signer=revoker, created=CREATED + n) for n in range(9))
    assert types(only(octets).octets).count(0x20) == 4
    assert types(only(octets, limits=Limits(strangers=2)).octets).count(0x20) == 2


# What is refused -----------------------------------------------------------------------------------------------------


def test_octets_that_are_no_certificate() -> None:
    for octets in (b"", b"hello", b"\x98", packet(13, ALICE), packet(10, b"PGP"), b"\x99\xff"):
        assert refused(octets).fatal


def test_bare_primary_is_refused_but_not_fatal() -> None:
    found = refused(new_key().packet())
    assert not found.fatal
    assert found.fingerprint


def test_primary_that_cannot_sign() -> None:
    for name in ("cv25519", "x25519-native", "ecdh-p256"):
        key = new_key(name)
        assert "cannot sign" in refused(key.packet() + packet(USER_ID, ALICE)).reason


def test_too_large_after_cleaning() -> None:
    assert "after cleaning" in refused(make_certificate(), limits=Limits(certificate=300)).reason


def test_too_large_before() -> None:
    found = refused(make_certificate(third_party=20), limits=Limits(octets=1000))
    assert found.fatal and "1000" in found.reason


def test_good_certificates_survive_bad_neighbours() -> None:
    good, other = make_certificate(), make_certificate()
    bad = packet(PUBLIC_KEY, b"\x03" + bytes(40)) + packet(USER_ID, ALICE)
    found = clean(bad + good + bad + other, NOW)
    assert [type(f) for f in found] == [Certificate, Certificate, Refused, Refused]


def test_unverifiable_certificate_is_found_by_fingerprint_alone() -> None:
    primary = new_key("unknown")
    made_up = signature(primary, 0x13, b"", raw=b"\0\1\1", hashed=[flags(CERTIFY | SIGN)])
    found = only(primary.packet() + packet(USER_ID, ALICE) + made_up)
    proof = found.proof
    assert proof.validity is Validity.UNVERIFIABLE
    assert proof.names == proof.index == {f"openpgp:fpr:{primary.fingerprint}", f"openpgp:kid:{primary.key_id}"}
    assert proof.user_ids == () and not proof.can_encrypt
    assert ALICE in found.octets  # kept: who has the algorithm can check it
    assert only(found.octets) == found


@dataclass
class Odd:
    """Signs otherwise than RFC 8032 has it: `longer` by an octet that OpenSSL and libsodium must not take for text, or
    with the one signature that fits any text where the public key is a point of order 1."""

    longer: Any = None

    def sign(self, digest: bytes) -> bytes:
        return self.longer.sign(b"!" + digest) + b"!" if self.longer else b"\x01" + bytes(63)


def odd_keys() -> dict[str, Key]:
    whole = new_key("ed25519")
    one = b"\x01" + bytes(31)
    legacy = whole.material[: -len(mpi(b"\x40" + one))] + mpi(b"\x40" + one)
    return {
        "longer": replace(whole, private=Odd(whole.private)),
        "order 1": Key(4, CREATED, packets.EDDSA_LEGACY, legacy, Odd()),
        "order 1, native": Key(4, CREATED, packets.ED25519, one, Odd()),
    }


@pytest.mark.parametrize("name", odd_keys())
def test_ed25519_signatures_that_only_look_right_prove_nothing(name: str) -> None:
    key = odd_keys()[name]
    octets = key.packet() + packet(USER_ID, ALICE) + certify(key, ALICE)
    assert refused(octets).reason == "nothing in it is signed by its primary key"


def test_unknown_curve_is_unverifiable() -> None:
    body = b"\x04" + number(CREATED, 4) + b"\x13\x03abc" + mpi(b"\x04" + bytes(64))
    octets = packet(PUBLIC_KEY, body) + packet(USER_ID, ALICE)
    claimed = signature(new_key("p256"), 0x13, b"", issuer=False, unhashed=[])
    assert only(octets + claimed).proof.validity is Validity.UNVERIFIABLE


def test_numbers_that_are_no_key() -> None:
    body = new_key("p256").body
    off_curve = body[:-1] + bytes([body[-1] ^ 1])
    assert "numbers are no key" in refused(packet(PUBLIC_KEY, off_curve) + packet(USER_ID, ALICE)).reason


# Back-signatures -----------------------------------------------------------------------------------------------------


def test_back_signature_in_either_area() -> None:
    primary, subkey = new_key(), new_key()
    target = primary.hashed + subkey.hashed
    embedded = subpacket(32, signature(subkey, 0x19, target, body_only=True))
    for where in ("hashed", "unhashed"):
        options: dict[str, Any] = {
            where: [embedded, *([subpacket(16, bytes.fromhex(primary.key_id))] * (where != "hashed"))]
        }
        octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE) + subkey.packet(SUBKEY)
        found = only(octets + bind(primary, subkey, usage=SIGN, back=False, **options))
        assert [s.back_signed for s in found.proof.subkeys] == [True]
        assert f"openpgp:fpr:{subkey.fingerprint}" in found.proof.strong


@pytest.mark.parametrize("fault", ["corrupt", "by the primary", "over something else", "as a certification"])
def test_wrong_back_signature_proves_nothing(fault: str) -> None:
    primary, subkey = new_key(), new_key()
    target = primary.hashed + subkey.hashed
    wrong = signature(
        primary if fault == "by the primary" else subkey,
        0x13 if fault == "as a certification" else 0x19,
        b"else" if fault == "over something else" else target,
        body_only=True,
        corrupt=fault == "corrupt",
    )
    octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE) + subkey.packet(SUBKEY)
    loose = only(octets + bind(primary, subkey, usage=SIGN, back=False, unhashed=[subpacket(32, wrong)]))
    assert [s.back_signed for s in loose.proof.subkeys] == [False]
    assert not any(subkey.fingerprint in name for name in loose.proof.index)
    signed = only(octets + bind(primary, subkey, usage=SIGN, back=False, hashed=[subpacket(32, wrong)]))
    assert signed.proof.subkeys == ()


def test_good_back_signature_survives_junk_beside_it() -> None:
    primary, subkey = new_key(), new_key()
    target = primary.hashed + subkey.hashed
    good = subpacket(32, signature(subkey, 0x19, target, body_only=True))
    junk = subpacket(32, signature(primary, 0x19, target, body_only=True))
    octets = primary.packet() + packet(USER_ID, ALICE) + certify(primary, ALICE) + subkey.packet(SUBKEY)
    both = only(octets + bind(primary, subkey, usage=SIGN, back=False, unhashed=[junk, good]))
    assert [s.back_signed for s in both.proof.subkeys] == [True]
    assert both.octets == only(octets + bind(primary, subkey, usage=SIGN, back=False, unhashed=[good])).octets


# Any octets ----------------------------------------------------------------------------------------------------------

SEEDS: list[Made] = [
    make(["a <a@x.org>", "b <b@x.org>"], signing=True, revoked=3, third_party=2, seed="fuzz"),
    make(["a <a@x.org>"], version=6, signing=True, seed="fuzz 6"),
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_certificates_never_raise_and_prove_nothing_new(data: st.DataObject) -> None:
    made = data.draw(st.sampled_from(SEEDS))
    octets = bytearray(made.octets)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                octets[at] = data.draw(st.integers(0, 255))
            case 1:
                del octets[at : at + data.draw(st.integers(1, 40))]
            case _:
                octets[at:at] = data.draw(st.binary(max_size=40))
        if not octets:
            break
    whole = only(made.octets).proof
    for found in clean(bytes(octets), NOW):
        if isinstance(found, Certificate):
            assert only(found.octets) == found
            if found.fingerprint == made.fingerprint:
                assert found.proof.index <= whole.index
        else:
            assert found.reason


@given(st.binary(max_size=300))
def test_any_octets_never_raise(octets: bytes) -> None:
    assert clean(octets, NOW)
    assert clean(make_certificate(seed="any") + octets, NOW)


def test_armored_end_to_end() -> None:
    made = make()
    (octets,) = dearmor(armored(made.octets).encode())
    assert only(octets).fingerprint == made.fingerprint
