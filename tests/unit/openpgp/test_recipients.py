"""To which keys mail may be encrypted: none that is revoked, expired, not yet made, or of another address."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from keyserver.openpgp import clean, prove
from keyserver.openpgp.recipients import recipients
from support import openpgp
from support.openpgp import CREATED, Key, bind, certify, expiry, flags, new_key, packet, revoke_subkey

NOW = CREATED + 100 * 86400
DAY = 86400


def fingerprints(octets: bytes, address: str = "alice@example.org", now: int = NOW) -> list[str]:
    (cleaned,) = clean(octets, NOW)
    return [one.fingerprint for one in recipients(cleaned.octets, address, now)]  # type: ignore[union-attr]


def assembled(primary: Key, *parts: bytes, user_ids: Sequence[str] = ("Alice <alice@example.org>",)) -> bytes:
    named = [
        packet(openpgp.USER_ID, text.encode()) + certify(primary, text.encode(), hashed=[flags(openpgp.CERTIFY)])
        for text in user_ids
    ]
    return b"".join([primary.packet(), *named, *parts])


def bound(primary: Key, subkey: Key, *more: bytes, expires: int | None = None, usage: int = openpgp.ENCRYPT) -> bytes:
    binding = bind(primary, subkey, usage=usage, hashed=expiry(expires), created=subkey.created)
    return b"".join([subkey.packet(openpgp.SUBKEY), binding, *more])


def test_revoked_expired_and_future_subkeys_are_none() -> None:
    primary = new_key()
    good, expired, revoked, softly, signing = (new_key("cv25519", CREATED + n) for n in (1, 2, 3, 4, 5))
    later = new_key("cv25519", NOW + DAY)
    octets = assembled(
        primary,
        bound(primary, good),
        bound(primary, expired, expires=DAY),
        bound(primary, revoked, revoke_subkey(primary, revoked, created=CREATED + DAY)),
        bound(primary, softly, revoke_subkey(primary, softly, created=CREATED + DAY, hashed=openpgp.reason(1))),
        bound(primary, later),
        bound(primary, signing, usage=openpgp.CERTIFY),
    )
    assert fingerprints(octets) == [good.fingerprint]
    assert fingerprints(octets, now=CREATED + 10) == [
        softly.fingerprint,
        expired.fingerprint,
        good.fingerprint,
    ], "revoked for good, whenever; softly and by its date, from then on"


def test_the_newest_comes_first() -> None:
    primary = new_key()
    older, newer = new_key("cv25519", CREATED), new_key("cv25519", CREATED + DAY)
    assert fingerprints(assembled(primary, bound(primary, older), bound(primary, newer))) == [
        newer.fingerprint,
        older.fingerprint,
    ]


def test_the_primary_key_is_one_where_no_subkey_is() -> None:
    rsa = new_key("rsa2048")
    usage = [flags(openpgp.CERTIFY | openpgp.ENCRYPT)]
    user_id = b"alice@example.org"
    named = rsa.packet() + packet(openpgp.USER_ID, user_id) + certify(rsa, user_id, hashed=usage)
    assert fingerprints(named) == [rsa.fingerprint]
    subkey = new_key("cv25519")
    assert fingerprints(named + bound(rsa, subkey)) == [subkey.fingerprint]
    assert fingerprints(assembled(new_key("rsa2048"))) == [], "it is for certifying only"


@pytest.mark.parametrize(
    "options",
    [
        {"expires": DAY},
        {"revoked": 2},
        {"revoked": 1},
        {"subkeys_revoked": 1},
        {"revoked_user_ids": ["Alice <alice@example.org>"]},
        {"encryption": None},
        {"user_ids": ["Bob <bob@example.org>"]},
        {"user_ids": ["alice@example.org <bob@example.org>"]},
    ],
)
def test_what_is_over_or_names_somebody_else_has_none(options: dict[str, object]) -> None:
    assert fingerprints(openpgp.make(**options).octets) == []  # type: ignore[arg-type]


def test_only_one_user_id_and_one_subkey_are_left_of_a_certificate() -> None:
    primary = new_key()
    subkeys = [new_key("cv25519", CREATED + n) for n in range(3)]
    octets = assembled(
        primary,
        *(bound(primary, subkey) for subkey in subkeys),
        user_ids=["Bob <bob@example.org>", "Alice <alice@example.org>", "Carol <carol@example.org>"],
    )
    (cleaned,) = clean(octets, NOW)
    for one in recipients(cleaned.octets, "alice@example.org", NOW):  # type: ignore[union-attr]
        proof = prove(one.octets, NOW)
        assert [user_id.address for user_id in proof.user_ids] == ["alice@example.org"]
        assert [subkey.fingerprint for subkey in proof.subkeys] == [one.fingerprint]
        assert proof.can_encrypt
        assert proof.fingerprint == primary.fingerprint
