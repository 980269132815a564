"""What a certificate proves at one instant: validity, names, and when that turns."""

from collections.abc import Sequence
from typing import Any

import pytest

from keyserver.model import Certificate, Claim, Kind, Proof, Validity
from keyserver.openpgp import clean, index, merge, prove
from keyserver.openpgp.proof import UNCERTIFIED
from keyserver.wire.hkp import write_index
from support import hostile
from support.openpgp import (
    CERTIFY,
    CREATED,
    ENCRYPT,
    SIGN,
    SUBKEY,
    USER_ID,
    Key,
    bind,
    certify,
    direct,
    expiry,
    flags,
    make,
    new_key,
    number,
    packet,
    reason,
    revoke_subkey,
    subpacket,
)

DAY = 86400
ALICE = b"Alice <alice@example.org>"
PRIMARY_USER_ID = subpacket(25, b"\1")


def cleaned(octets: bytes, now: int = CREATED + 50 * DAY) -> Certificate:
    (found,) = clean(octets, now)
    assert isinstance(found, Certificate), found
    return found


def proof_at(octets: bytes, day: float) -> Proof:
    """Proved at so many days after everything began, from the clean octets, as the resolver does."""
    return prove(cleaned(octets).octets, CREATED + int(day * DAY))


def built(primary: Key, *packets: bytes) -> bytes:
    return primary.packet() + b"".join(packets)


def name(address: str) -> str:
    return f"openpgp:addr:{address}"


def lasting(days: int) -> bytes:
    """Signature expiration time."""
    return subpacket(3, number(days * DAY, 4))


def test_ordinary_certificate() -> None:
    made = make(signing=True)
    proof = proof_at(made.octets, 1)
    encryption, signing = made.subkeys
    assert (proof.version, proof.created, proof.bits) == (4, CREATED, 256)
    assert proof.strong == {
        f"openpgp:{type_}:{value}"
        for key in (made.primary, signing)
        for type_, value in (("fpr", key.fingerprint), ("kid", key.key_id))
    }
    assert proof.weak == {
        name("alice@example.org"),
        f"openpgp:fpr:{encryption.fingerprint}",
        f"openpgp:kid:{encryption.key_id}",
    }
    assert proof.index == proof.names
    assert (proof.expires, proof.turns, proof.newest, proof.marks) == (None, None, CREATED, ())
    assert index(cleaned(made.octets).octets) == (proof.index, ("Alice <alice@example.org>",))
    assert proof.identities == ("Alice <alice@example.org>",)


def test_key_expiration_turns_once() -> None:
    octets = make(expires=10 * DAY).octets
    before, after = proof_at(octets, 9.9), proof_at(octets, 10)
    assert (before.validity, before.can_encrypt, before.turns) == (Validity.VALID, True, CREATED + 10 * DAY)
    assert (after.validity, after.can_encrypt, after.turns) == (Validity.EXPIRED, False, None)
    assert before.expires == after.expires == CREATED + 10 * DAY
    assert after.names == before.names  # still found: what it once signed can be checked


def test_subkey_expiration_ends_encryption_only() -> None:
    octets = make(subkey_expires=10 * DAY).octets
    assert proof_at(octets, 9).can_encrypt
    after = proof_at(octets, 10)
    assert (after.validity, after.can_encrypt) == (Validity.VALID, False)
    assert after.subkeys[0].can_encrypt and after.subkeys[0].expires == CREATED + 10 * DAY


def test_newest_self_signature_says_when_the_key_ends() -> None:
    primary = new_key()
    octets = built(
        primary,
        packet(USER_ID, ALICE),
        certify(primary, ALICE, hashed=expiry(10 * DAY)),
        certify(primary, ALICE, hashed=expiry(100 * DAY), created=CREATED + 5 * DAY),
    )
    assert proof_at(octets, 4).expires == CREATED + 10 * DAY
    assert proof_at(octets, 4).turns == CREATED + 5 * DAY
    assert proof_at(octets, 20).expires == CREATED + 100 * DAY
    assert proof_at(octets, 20).newest == CREATED + 5 * DAY


def test_direct_key_signature_and_primary_user_id_both_speak() -> None:
    primary = new_key()
    user_id = certify(primary, ALICE, hashed=expiry(10 * DAY))
    octets = built(primary, packet(USER_ID, ALICE), user_id)
    silent = octets + direct(primary, created=CREATED + DAY)
    assert proof_at(silent, 2).expires == CREATED + 10 * DAY
    newer = octets + direct(primary, created=CREATED + DAY, hashed=expiry(30 * DAY))
    assert proof_at(newer, 2).expires == CREATED + 30 * DAY
    for_ever = octets + direct(primary, created=CREATED + DAY, hashed=expiry(0))
    assert proof_at(for_ever, 2).expires == CREATED + 10 * DAY  # 0 hides no end that the other states
    assert proof_at(for_ever, 11).validity is Validity.EXPIRED


@pytest.mark.parametrize("newer", ["direct", "user ID"])
@pytest.mark.parametrize(
    ("of_key", "of_user_id", "ends"),
    [(0, 10, 10), (10, 0, 10), (0, 0, None), (None, 0, None), (0, None, None), (None, 10, 10), (10, None, 10)],
)
def test_0_is_no_end_and_hides_none(newer: str, of_key: int | None, of_user_id: int | None, ends: int | None) -> None:
    primary = new_key()
    first, second = (2, 1) if newer == "direct" else (1, 2)
    spoken = [expiry(None if days is None else days * DAY) for days in (of_key, of_user_id)]
    octets = built(
        primary,
        direct(primary, created=CREATED + first * DAY, hashed=spoken[0]),
        packet(USER_ID, ALICE),
        certify(primary, ALICE, created=CREATED + second * DAY, hashed=spoken[1]),
    )
    assert proof_at(octets, 3).expires == (None if ends is None else CREATED + ends * DAY)
    assert proof_at(octets, 20).validity is (Validity.VALID if ends is None else Validity.EXPIRED)


def test_version_6_listens_to_the_direct_key_signature_alone() -> None:
    primary = new_key(version=6)
    octets = built(
        primary,
        direct(primary, hashed=expiry(30 * DAY)),
        packet(USER_ID, ALICE),
        certify(primary, ALICE, created=CREATED + DAY, hashed=expiry(10 * DAY)),
    )
    assert proof_at(octets, 2).expires == CREATED + 30 * DAY


def test_expired_self_signature_falls_back_to_the_older_one() -> None:
    primary = new_key()
    octets = built(
        primary,
        packet(USER_ID, ALICE),
        certify(primary, ALICE),
        certify(primary, ALICE, created=CREATED + DAY, hashed=[lasting(3), *expiry(90 * DAY)]),
    )
    assert proof_at(octets, 2).expires == CREATED + 90 * DAY
    assert proof_at(octets, 2).turns == CREATED + 4 * DAY
    after = proof_at(octets, 5)
    assert (after.expires, after.user_ids[0].created, after.validity) == (None, CREATED, Validity.VALID)


def test_user_id_whose_last_self_signature_ran_out() -> None:
    primary = new_key()
    octets = built(primary, packet(USER_ID, ALICE), certify(primary, ALICE, hashed=[lasting(3)]))
    proof = proof_at(octets, 4)
    assert name("alice@example.org") not in proof.names
    assert name("alice@example.org") in proof.index
    assert proof.user_ids[0].expires == CREATED + 3 * DAY
    assert proof.validity is Validity.EXPIRED


def test_self_signature_of_the_future_does_not_count_yet() -> None:
    primary = new_key()
    octets = built(
        primary,
        packet(USER_ID, ALICE),
        certify(primary, ALICE),
        packet(USER_ID, b"later <later@example.org>"),
        certify(primary, b"later <later@example.org>", created=CREATED + 10 * DAY),
    )
    before = proof_at(octets, 9)
    assert [u.address for u in before.user_ids] == ["alice@example.org"]
    assert before.turns == CREATED + 10 * DAY
    assert name("later@example.org") in before.index
    assert name("later@example.org") in proof_at(octets, 10).weak


def test_key_of_the_future_is_not_valid_yet() -> None:
    octets = make().octets
    proof = prove(cleaned(octets).octets, CREATED - DAY)
    assert (proof.validity, proof.can_encrypt, proof.user_ids) == (Validity.EXPIRED, False, ())
    assert proof.turns == CREATED


@pytest.mark.parametrize("code", [None, 0, 2, 77])
def test_hard_key_revocation_is_for_all_time(code: int | None) -> None:
    made = make()
    octets = made.octets + direct(made.primary, type_=0x20, created=CREATED + 10 * DAY, hashed=reason(code))
    for day in (1, 11):
        proof = proof_at(octets, day)
        assert (proof.validity, proof.can_encrypt) == (Validity.REVOKED, False)
        assert name("alice@example.org") in proof.weak  # found, so that people see that it is revoked


@pytest.mark.parametrize("code", [1, 3])
def test_soft_key_revocation_counts_from_its_date(code: int) -> None:
    made = make()
    octets = made.octets + direct(made.primary, type_=0x20, created=CREATED + 10 * DAY, hashed=reason(code))
    before = proof_at(octets, 9)
    assert (before.validity, before.turns) == (Validity.VALID, CREATED + 10 * DAY)
    assert proof_at(octets, 10).validity is Validity.REVOKED


def test_revoked_key_stays_revoked_whatever_is_signed_later() -> None:
    made = make()
    octets = made.octets + direct(made.primary, type_=0x20, created=CREATED + DAY, hashed=reason(1))
    octets += direct(made.primary, created=CREATED + 2 * DAY)
    assert proof_at(octets, 3).validity is Validity.REVOKED


@pytest.mark.parametrize(
    ("code", "renewed", "revoked"), [(2, False, True), (2, True, True), (1, False, True), (1, True, False)]
)
def test_subkey_revocation(code: int, renewed: bool, revoked: bool) -> None:
    made = make()
    (subkey,) = made.subkeys
    octets = made.octets + revoke_subkey(made.primary, subkey, created=CREATED + DAY, hashed=reason(code))
    if renewed:
        octets += bind(made.primary, subkey, created=CREATED + 2 * DAY)
    proof = proof_at(octets, 3)
    assert (proof.subkeys[0].revoked, proof.can_encrypt) == (revoked, not revoked)
    assert f"openpgp:fpr:{subkey.fingerprint}" in proof.weak


def test_soft_subkey_revocation_counts_from_its_date() -> None:
    made = make()
    octets = made.octets + revoke_subkey(made.primary, made.subkeys[0], created=CREATED + 5 * DAY, hashed=reason(3))
    assert not proof_at(octets, 4).subkeys[0].revoked
    assert proof_at(octets, 5).subkeys[0].revoked


@pytest.mark.parametrize("code", [0, 32])
def test_user_id_revocation_and_return(code: int) -> None:
    made = make(encryption=None)
    octets = made.octets
    octets += certify(made.primary, ALICE, type_=0x30, created=CREATED + DAY, hashed=reason(code))
    gone = proof_at(octets, 2)
    assert gone.user_ids[0].revoked
    assert name("alice@example.org") not in gone.names
    assert name("alice@example.org") in gone.index
    octets += certify(made.primary, ALICE, created=CREATED + 3 * DAY)
    assert name("alice@example.org") not in proof_at(octets, 2).names
    assert name("alice@example.org") in proof_at(octets, 3).weak


def test_revocation_of_the_same_second_wins() -> None:
    made = make(encryption=None)
    octets = made.octets + certify(made.primary, ALICE, type_=0x30, created=CREATED, hashed=reason(32))
    assert proof_at(octets, 1).user_ids[0].revoked


def test_primary_user_id_comes_first() -> None:
    primary = new_key()
    user_ids: Sequence[tuple[bytes, dict[str, Any]]] = [
        (b"a <a@x.org>", {"created": CREATED + 5 * DAY}),
        (b"b <b@x.org>", {"hashed": [PRIMARY_USER_ID]}),
        (b"c <c@x.org>", {"hashed": [PRIMARY_USER_ID], "created": CREATED + DAY}),
        (b"d <d@x.org>", {"created": CREATED + 6 * DAY}),
    ]
    octets = built(primary, *(packet(USER_ID, u) + certify(primary, u, **options) for u, options in user_ids))
    assert [u.address for u in proof_at(octets, 10).user_ids] == ["c@x.org", "b@x.org", "d@x.org", "a@x.org"]
    octets += packet(USER_ID, b"c <c@x.org>")
    octets += certify(primary, b"c <c@x.org>", type_=0x30, created=CREATED + 2 * DAY, hashed=reason(32))
    assert [u.address for u in proof_at(octets, 10).user_ids] == ["b@x.org", "d@x.org", "a@x.org", "c@x.org"]


def test_one_of_several_user_ids_with_one_address_is_enough() -> None:
    made = make(["Alice <alice@example.org>", "alice@example.org"], revoked_user_ids=["alice@example.org"])
    assert name("alice@example.org") in proof_at(made.octets, 5).weak


@pytest.mark.parametrize(
    ("usage", "weak"), [(SIGN, False), (CERTIFY, False), (SIGN | ENCRYPT, False), (ENCRYPT, True), (32, True)]
)
def test_adopted_subkeys(usage: int, weak: bool) -> None:
    """A subkey that could sign needs its own consent; one that cannot is found, but is never a hit by itself."""
    victim = make(signing=True).subkeys[1]
    proof = proof_at(hostile.adopted_subkey(victim, usage).octets, 1)
    names = {f"openpgp:fpr:{victim.fingerprint}", f"openpgp:kid:{victim.key_id}"}
    assert not names & proof.strong
    assert (names <= proof.weak) is weak
    assert bool(names & proof.index) is weak


def test_flags_decide_what_encrypts() -> None:
    primary = new_key("rsa1024")
    for usage, expected in ((None, True), (CERTIFY | SIGN, False), (CERTIFY | ENCRYPT, True)):
        hashed = [] if usage is None else [flags(usage)]
        octets = built(primary, packet(USER_ID, ALICE), certify(primary, ALICE, hashed=hashed))
        assert proof_at(octets, 1).can_encrypt is expected
    signing = new_key()
    octets = built(primary, packet(USER_ID, ALICE), certify(primary, ALICE, hashed=[flags(CERTIFY)]))
    octets += signing.packet(SUBKEY) + bind(primary, signing, usage=ENCRYPT)
    assert not proof_at(octets, 1).can_encrypt  # Ed25519 cannot, whatever its flags say


def test_certificate_of_which_only_bindings_verify_is_found_and_not_used() -> None:
    """Nothing certifies its primary key; keyservers that take user IDs out hand out such ones."""
    made = make([])
    proof = proof_at(made.octets, 1)
    assert (proof.validity, proof.can_encrypt, proof.user_ids) == (Validity.UNVERIFIABLE, False, ())
    assert proof.marks == (UNCERTIFIED,)
    assert f"openpgp:fpr:{made.fingerprint}" in proof.strong
    revoked = made.octets + direct(made.primary, type_=0x20, hashed=reason(2))
    assert proof_at(revoked, 1).validity is Validity.REVOKED
    for more in (direct(made.primary), packet(USER_ID, ALICE) + certify(made.primary, ALICE)):
        whole = proof_at(made.octets + more, 1)
        assert (whole.validity, whole.can_encrypt, whole.marks) == (Validity.VALID, True, ())
        together = merge([cleaned(made.octets).octets, cleaned(made.octets + more).octets])
        assert prove(together, CREATED + DAY).can_encrypt


@pytest.mark.parametrize("code", [0, 32])
@pytest.mark.parametrize("ends", [(), (lasting(3),)], ids=["for good", "expired by its own signature"])
def test_user_id_of_which_only_a_revocation_is_left_is_listed_as_revoked(code: int, ends: tuple[bytes, ...]) -> None:
    primary = new_key()
    bob = b"Bob <bob@example.org>"
    withdrawn = certify(primary, bob, type_=0x30, created=CREATED + 5 * DAY, hashed=[*reason(code), *ends])
    octets = built(primary, packet(USER_ID, ALICE), certify(primary, ALICE), packet(USER_ID, bob), withdrawn)
    proof = proof_at(octets, 20)
    assert [(u.text, u.revoked) for u in proof.user_ids] == [(ALICE.decode(), False), (bob.decode(), True)]
    assert name("bob@example.org") not in proof.names | proof.index
    assert index(cleaned(octets).octets)[1] == proof.identities == (ALICE.decode(),)
    lines = write_index([proof], CREATED + 20 * DAY).splitlines()
    assert lines[-1] == f"uid:Bob <bob@example.org>:{CREATED + 5 * DAY}::r"
    assert proof.marks == ()
    before = proof_at(octets, 4)
    assert len(before.user_ids) == (2 if code == 0 else 1)  # a hard one holds for all time, another from its date on


@pytest.mark.parametrize("code", [0, 32])
def test_a_revocation_does_not_end_with_its_own_signature(code: int) -> None:
    """What was taken back does not come back by itself (gpg: the same; Sequoia lets it)."""
    primary, bob = new_key(), b"Bob <bob@example.org>"
    withdrawn = certify(primary, bob, type_=0x30, created=CREATED + 5 * DAY, hashed=[*reason(code), lasting(3)])
    octets = built(primary, packet(USER_ID, bob), certify(primary, bob), withdrawn)
    for day in (6, 9, 900):
        proof = proof_at(octets, day)
        assert proof.user_ids[0].revoked
        assert name("bob@example.org") not in proof.weak


def test_marks() -> None:
    made = make(algorithm="rsa1024", hash_name="sha1")
    assert proof_at(made.octets, 1).marks == ("sha1",)
    renewed = made.octets + bind(made.primary, made.subkeys[0], created=CREATED + DAY)
    renewed += packet(USER_ID, ALICE) + certify(made.primary, ALICE, created=CREATED + DAY)
    assert proof_at(renewed, 2).marks == ()


def test_designated_revoker_is_claimed_not_believed() -> None:
    made, revoker = hostile.designated_revoker()
    found = cleaned(made.octets)
    assert found.proof.validity is Validity.VALID
    assert found.proof.marks == ("claimed revoker",)
    assert bytes.fromhex(revoker.key_id) in found.octets
    unnamed = make()
    strange = direct(unnamed.primary, type_=0x20, signer=revoker, hashed=reason(2))
    assert cleaned(unnamed.octets + strange).octets == cleaned(unnamed.octets).octets


def test_many_claim_one_address_and_every_one_only_weakly() -> None:
    for octets in hostile.one_address_claimed(5):
        proof = proof_at(octets, 1)
        assert name("ceo@partner.example") in proof.weak
        assert not any("addr" in strong for strong in proof.strong)


def test_what_nobody_can_verify_says_what_its_octets_are() -> None:
    primary = new_key("unknown", seed="nobody")
    proof = prove(primary.packet() + packet(USER_ID, ALICE), CREATED + DAY)
    assert (proof.kind, proof.version, proof.algorithm, proof.bits) == (Kind.OPENPGP, 4, 99, 0)
    assert (proof.fingerprint, proof.key_id) == (primary.fingerprint, primary.key_id)
    assert (proof.created, proof.newest, proof.expires) == (CREATED, CREATED, None)
    assert (proof.can_encrypt, proof.subkeys, proof.marks) == (False, (), ("unverifiable",))
    assert proof.claims == (Claim("Alice <alice@example.org>", "alice@example.org"),)
    assert (proof.index, ()) == (proof.strong, index(primary.packet())[1])
