"""Instants and places of the proof that decide by one second, one flag or one order (RFC 9580 section 5.2.3)."""

from __future__ import annotations

from typing import Any

import pytest

from keyserver.model import Certificate, Proof, Validity
from keyserver.openpgp import clean, index, prove
from keyserver.openpgp.proof import UNCERTIFIED
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
    signature,
    subpacket,
)

DAY = 86400
ALICE, BOB, CAROL = b"Alice <alice@example.org>", b"Bob <bob@example.org>", b"Carol <carol@example.org>"
PRIMARY = new_key(seed="bounds")
ENCRYPTS, SIGNS = new_key("cv25519", seed="bounds"), new_key(seed="bounds subkey")


def clean_of(*packets: bytes, primary: Key = PRIMARY) -> bytes:
    (found,) = clean(primary.packet() + b"".join(packets), CREATED + 500 * DAY)
    assert isinstance(found, Certificate), found
    return found.octets


def proof(*packets: bytes, second: int = DAY, primary: Key = PRIMARY) -> Proof:
    """So many seconds after everything began."""
    return prove(clean_of(*packets, primary=primary), CREATED + second)


def user_id(text: bytes = ALICE, primary: Key = PRIMARY, **options: Any) -> bytes:
    return packet(USER_ID, text) + certify(primary, text, **options)


def subkey(key: Key = ENCRYPTS, primary: Key = PRIMARY, **options: Any) -> bytes:
    return key.packet(SUBKEY) + bind(primary, key, **options)


def lasting(seconds: int) -> bytes:
    """Signature expiration time."""
    return subpacket(3, number(seconds, 4))


def named(key: Key) -> set[str]:
    return {f"openpgp:fpr:{key.fingerprint}", f"openpgp:kid:{key.key_id}"}


def test_a_signature_counts_from_its_own_second_to_the_one_before_its_end() -> None:
    parts = user_id(created=CREATED + 100, hashed=[lasting(50)])
    assert [proof(parts, second=s).validity for s in (99, 100, 149, 150)] == [
        Validity.EXPIRED, Validity.VALID, Validity.VALID, Validity.EXPIRED,
    ]  # fmt: skip
    assert [len(proof(parts, second=s).user_ids) for s in (99, 100, 150)] == [0, 1, 1]
    assert [proof(parts, second=s).newest for s in (99, 100)] == [CREATED, CREATED + 100]
    assert [proof(parts, second=s).turns for s in (0, 99, 100, 149, 150)] == [
        CREATED + 100, CREATED + 100, CREATED + 150, CREATED + 150, None,
    ]  # fmt: skip


def test_a_key_counts_from_its_own_second_to_the_one_before_its_end() -> None:
    parts = user_id(hashed=[*expiry(100), flags(CERTIFY)]), subkey(hashed=expiry(60))
    at = {s: proof(*parts, second=s) for s in (-1, 0, 59, 60, 99, 100)}
    assert [at[s].validity for s in (-1, 0, 99, 100)] == [
        Validity.EXPIRED, Validity.VALID, Validity.VALID, Validity.EXPIRED,
    ]  # fmt: skip
    assert [at[s].can_encrypt for s in (-1, 0, 59, 60)] == [False, True, True, False]
    assert [at[s].turns for s in (-1, 0, 59, 60, 99, 100)] == [
        CREATED, CREATED + 60, CREATED + 60, CREATED + 100, CREATED + 100, None,
    ]  # fmt: skip


def test_a_subkey_of_the_future_is_no_key_to_encrypt_to_yet() -> None:
    later = new_key("cv25519", created=CREATED + 100, seed="later")
    parts = user_id(hashed=[flags(CERTIFY)]), subkey(later, created=CREATED + 50)
    assert [proof(*parts, second=s).can_encrypt for s in (49, 50, 99, 100)] == [False, False, False, True]
    assert [len(proof(*parts, second=s).subkeys) for s in (49, 50)] == [0, 1]
    assert [proof(*parts, second=s).turns for s in (0, 50, 100)] == [CREATED + 50, CREATED + 100, None]
    ends = subkey(later, created=CREATED + 50, hashed=expiry(30))
    assert proof(parts[0], ends, second=110).subkeys[0].expires == CREATED + 130, "counted from its own creation"
    assert proof(parts[0], ends, second=110).turns == CREATED + 130


@pytest.mark.parametrize(("key_ends", "ends"), [(None, 40), (30, 30), (90, 40)])
def test_a_subkey_ends_with_its_last_binding(key_ends: int | None, ends: int) -> None:
    parts = user_id(hashed=[flags(CERTIFY)]), subkey(hashed=[lasting(40), *expiry(key_ends)])
    before, after = proof(*parts, second=20).subkeys[0], proof(*parts, second=200).subkeys[0]
    assert before.expires == (None if key_ends is None else CREATED + key_ends)
    assert after.expires == CREATED + ends
    assert after.can_encrypt and not after.revoked, "what it was for is still said"
    assert not proof(*parts, second=200).can_encrypt


def test_flags_of_a_binding_say_what_a_subkey_is_for() -> None:
    def can(usage: int | None, key: Key = ENCRYPTS) -> bool:
        return proof(user_id(), subkey(key, usage=usage, back=False)).subkeys[0].can_encrypt

    assert [can(usage) for usage in (None, ENCRYPT, 4, 8, SIGN, CERTIFY, 32)] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
    assert not can(None, SIGNS), "its algorithm cannot"


def test_the_newest_flags_that_are_said_hold_for_the_primary_key() -> None:
    rsa = new_key("rsa1024")
    silent = direct(rsa, created=CREATED + 20)
    says = user_id(primary=rsa, created=CREATED + 10, hashed=[flags(CERTIFY)])
    assert not proof(silent, says, primary=rsa).can_encrypt
    later = direct(rsa, created=CREATED + 20, hashed=[flags(CERTIFY | 4)])
    assert proof(later, says, primary=rsa).can_encrypt
    earlier = direct(rsa, created=CREATED + 5, hashed=[flags(CERTIFY | 4)])
    assert not proof(earlier, says, primary=rsa).can_encrypt


def test_a_back_signature_or_harmless_flags_make_it_found_by_a_subkey() -> None:
    agreed = proof(user_id(), subkey(SIGNS, usage=SIGN))
    assert named(SIGNS) <= agreed.strong and not named(SIGNS) & agreed.weak and agreed.subkeys[0].back_signed
    only = proof(user_id(), subkey())
    assert named(ENCRYPTS) <= only.weak and not named(ENCRYPTS) & only.strong and not only.subkeys[0].back_signed
    adopted = proof(user_id(), subkey(SIGNS, usage=SIGN, back=False))
    assert not named(SIGNS) & (adopted.names | adopted.index)
    assert [s.fingerprint for s in adopted.subkeys] == [SIGNS.fingerprint], "listed all the same"
    once = subkey(SIGNS, usage=SIGN, back=False) + bind(PRIMARY, SIGNS, usage=ENCRYPT, created=CREATED + 5)
    assert not named(SIGNS) & proof(user_id(), once).index, "what any binding says counts"
    silent = proof(user_id(), subkey(SIGNS, usage=None, back=False))
    assert named(SIGNS) <= silent.weak, "no flags: nothing says that it may sign"
    both = subkey(SIGNS, usage=SIGN) + bind(PRIMARY, SIGNS, usage=SIGN, back=False, created=CREATED + 5)
    assert named(SIGNS) <= proof(user_id(), both).strong, "it has agreed once"


def test_nobody_agrees_by_an_algorithm_that_nobody_can_verify() -> None:
    strange = new_key("unknown", seed="strange")
    fake = signature(SIGNS, 0x19, PRIMARY.hashed + strange.hashed, body_only=True)
    parts = user_id(), subkey(strange, usage=SIGN, back=False, hashed=[subpacket(32, fake)])
    assert not named(strange) & (proof(*parts).names | proof(*parts).index)


def test_listings_and_proof_have_the_same_index() -> None:
    later = user_id(BOB, created=CREATED + 20 * DAY)
    no_address = user_id(b"Nobody in particular")
    octets = clean_of(no_address, user_id(), later, subkey(), subkey(SIGNS, usage=SIGN, back=False))
    names, texts = index(octets)
    found = prove(octets, CREATED + DAY)
    assert names == found.index > found.names
    assert "openpgp:addr:bob@example.org" in names - found.names
    assert set(texts) == set(found.identities) == {"Nobody in particular", ALICE.decode(), BOB.decode()}
    assert [c.address for c in found.claims] == ["alice@example.org", "bob@example.org", None], "by their octets"


@pytest.mark.parametrize(("code", "before"), [(1, Validity.VALID), (2, Validity.REVOKED)])
def test_a_key_is_revoked_from_the_very_second(code: int, before: Validity) -> None:
    revoked = direct(PRIMARY, type_=0x20, created=CREATED + 100, hashed=reason(code))
    assert [proof(user_id(), revoked, second=s).validity for s in (99, 100)] == [before, Validity.REVOKED]
    assert proof(user_id(), revoked).revocations and not proof(user_id()).revocations


def test_a_subkeys_revocation_holds_against_the_binding_that_counts() -> None:
    def revoked(code: int, at: int, *, bound: int = 50, second: int = 200) -> bool:
        taken = revoke_subkey(PRIMARY, ENCRYPTS, created=CREATED + at, hashed=reason(code))
        found = proof(user_id(), subkey(created=CREATED + bound) + taken, second=second)
        assert found.revocations
        return found.subkeys[0].revoked

    assert [revoked(1, at) for at in (49, 50, 51)] == [False, True, True]
    assert [revoked(2, at) for at in (49, 50, 51)] == [True, True, True]
    assert [revoked(1, 150, second=s) for s in (149, 150)] == [False, True]
    assert [revoked(2, 150, second=s) for s in (149, 150)] == [True, True]


def test_a_user_ids_revocation_holds_against_the_self_signature_that_counts() -> None:
    def revoked(code: int, at: int, second: int = 200) -> bool:
        taken = certify(PRIMARY, ALICE, type_=0x30, created=CREATED + at, hashed=reason(code))
        return proof(user_id(created=CREATED + 50), taken, second=second).user_ids[0].revoked

    assert [revoked(32, at) for at in (49, 50, 51)] == [False, True, True]
    assert [revoked(2, at) for at in (49, 50, 51)] == [False, True, True], "given again, whatever the reason was"
    assert [revoked(32, 150, second=s) for s in (149, 150)] == [False, True]
    assert [revoked(2, 150, second=s) for s in (149, 150)] == [True, True]


def withdrawn(text: bytes, at: int, **options: Any) -> bytes:
    """Nothing but a revocation of the user ID."""
    return packet(USER_ID, text) + certify(PRIMARY, text, type_=0x30, created=CREATED + at, **options)


def test_what_only_a_revocation_speaks_of_is_listed_from_its_second_on_and_speaks_for_nothing() -> None:
    gone = withdrawn(BOB, 100, hashed=reason(32))
    assert [len(proof(user_id(), gone, second=s).user_ids) for s in (99, 100)] == [1, 2]
    listed = proof(user_id(), gone, second=100).user_ids[1]
    assert (listed.text, listed.address, listed.created, listed.expires, listed.revoked) == (
        BOB.decode(), "bob@example.org", CREATED + 100, None, True,
    )  # fmt: skip
    lapsed = direct(PRIMARY, hashed=[lasting(50)])
    assert proof(lapsed, gone, second=200).validity is Validity.EXPIRED, "no self-signature lives"


def test_user_ids_are_in_order_of_use_primary_and_age() -> None:
    taken = user_id(CAROL, created=CREATED + 35) + certify(
        PRIMARY, CAROL, type_=0x30, created=CREATED + 50, hashed=reason(32)
    )
    over = user_id(b"over", created=CREATED + 5, hashed=[lasting(10)])
    first = user_id(b"first", created=CREATED + 1, hashed=[subpacket(25, b"\1")])
    parts = (
        taken, over, withdrawn(b"x", 30, hashed=reason(32)), withdrawn(b"w", 40, hashed=reason(32)),
        user_id(), user_id(BOB), first,
    )  # fmt: skip
    assert [u.text for u in proof(*parts, second=200).user_ids] == [
        "first", ALICE.decode(), BOB.decode(), "w", CAROL.decode(), "x", "over",
    ]  # fmt: skip


def test_the_first_living_user_id_speaks_for_a_version_4_key() -> None:
    lapsed = user_id(BOB, created=CREATED + 5, hashed=[lasting(10), *expiry(7 * DAY)])
    living = user_id(hashed=expiry(9 * DAY))
    assert proof(lapsed, living).expires == CREATED + 9 * DAY
    assert proof(lapsed, direct(PRIMARY, hashed=[lasting(20), *expiry(3 * DAY)]), living).expires == CREATED + 9 * DAY


def test_turns_count_every_date_that_is_stated() -> None:
    at = {s: proof(
        direct(PRIMARY, hashed=[*expiry(100), lasting(200)]),
        user_id(created=CREATED + 300, hashed=[lasting(50), *expiry(400)]),
        subkey(created=CREATED + 500, hashed=[lasting(50), *expiry(600)]),
        direct(PRIMARY, type_=0x20, created=CREATED + 700, hashed=reason(1)),
        second=s,
    ) for s in (0, 100, 200, 300, 350, 400, 500, 550, 600, 700)}  # fmt: skip
    assert [None if p.turns is None else p.turns - CREATED for p in at.values()] == [
        100, 200, 300, 350, 400, 500, 550, 600, 700, None,
    ]  # fmt: skip


def test_marks_are_of_what_counts_now() -> None:
    """Of RSA: with EdDSA a signature over SHA-1 is none."""
    key, signing = new_key("rsa1024"), new_key("rsa1024")

    def marks(*packets: bytes) -> tuple[str, ...]:
        return proof(*packets, primary=key).marks

    alice, old = user_id(primary=key), user_id(primary=key, hash_name="sha1")
    assert (marks(old), marks(alice)) == (("sha1",), ())
    assert marks(old, certify(key, ALICE, created=CREATED + 5)) == ()
    assert marks(alice, subkey(primary=key, hash_name="sha1")) == ("sha1",)
    assert marks(alice, direct(key, hash_name="sha1")) == ("sha1",)
    target = key.hashed + signing.hashed
    for hash_name, said in (("sha1", ("sha1",)), ("sha256", ())):
        back = signature(signing, 0x19, target, hash_name=hash_name, body_only=True)
        assert marks(alice, subkey(signing, key, usage=SIGN, back=False, hashed=[subpacket(32, back)])) == said
    assert marks(subkey(primary=key, hash_name="sha1")) == ("sha1", UNCERTIFIED)
    gone = packet(USER_ID, BOB) + certify(key, BOB, type_=0x30, hashed=reason(32), hash_name="sha1")
    assert len(proof(alice, gone, primary=key).user_ids) == 2
    assert marks(alice, gone) == (), "nothing rests on it"


def test_an_ordinary_proof_has_every_figure_of_its_octets() -> None:
    made = make(["Alice <alice@example.org>"], expires=300 * DAY, signing=True)
    (found,) = clean(made.octets, CREATED)
    assert isinstance(found, Certificate)
    one = found.proof
    assert (one.fingerprint, one.key_id, one.algorithm) == (made.fingerprint, made.key_id, made.primary.algorithm)
    for shown, key in zip(one.subkeys, made.subkeys, strict=True):
        assert (shown.fingerprint, shown.key_id, shown.algorithm) == (key.fingerprint, key.key_id, key.algorithm)
        assert (shown.created, shown.expires, shown.bits) == (CREATED, None, 256)
    (user,) = one.user_ids
    assert (user.text, user.address) == ("Alice <alice@example.org>", "alice@example.org")
    assert (user.created, user.expires, user.revoked) == (CREATED, None, False)
