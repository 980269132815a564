"""Merging: the order of copies never matters, and nothing that counts is lost."""

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Certificate, Validity
from keyserver.openpgp import clean, merge, merge_revocations, packets, prove, revocations
from support.openpgp import (
    CREATED,
    SIGN,
    SUBKEY,
    USER_ID,
    bind,
    certify,
    direct,
    expiry,
    make,
    new_key,
    packet,
    reason,
    revoke_subkey,
    subpacket,
)

NOW = CREATED + 500 * 86400


def cleaned(octets: bytes) -> bytes:
    (found,) = clean(octets, NOW)
    assert isinstance(found, Certificate), found
    return found.octets


@functools.cache
def pieces() -> tuple[bytes, list[tuple[bytes, list[bytes]]]]:
    """A primary key, and groups of a component with many signatures over it, some of them alike but for junk."""
    rng = random.Random(5)
    primary = new_key(seed="merge")
    groups: list[tuple[bytes, list[bytes]]] = []

    def junk() -> list[bytes]:
        return [subpacket(16, bytes.fromhex(primary.key_id)), *([subpacket(100, rng.randbytes(9))] * rng.randrange(2))]

    over_key = [direct(primary, created=CREATED + n, unhashed=junk(), hashed=expiry(n)) for n in range(3)]
    over_key += [
        direct(primary, type_=0x20, created=CREATED + n, unhashed=junk(), hashed=reason(n % 3)) for n in range(12)
    ]
    groups.append((b"", over_key))
    for who in (b"a <a@x.org>", b"b <b@x.org>", b"c <c@x.org>"):
        some = [certify(primary, who, created=CREATED + n % 20, unhashed=junk()) for n in range(30)]
        some += [certify(primary, who, type_=0x30, created=CREATED + n, hashed=reason(32)) for n in range(10)]
        groups.append((packet(USER_ID, who), some))
    for number in range(2):
        subkey = new_key(seed=f"merge {number}")
        bound = [bind(primary, subkey, usage=SIGN, created=CREATED + n % 3, unhashed=junk()) for n in range(6)]
        bound += [revoke_subkey(primary, subkey, created=CREATED + n, hashed=reason(n % 3)) for n in range(10)]
        groups.append((subkey.packet(SUBKEY), bound))
    return primary.packet(), groups


@st.composite
def copies(draw: st.DrawFn) -> bytes:
    """A clean copy with some of the pieces."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.05, 0.3, 0.9]))
    primary, groups = pieces()
    octets = primary + groups[0][1][0]
    for head, some in rng.sample(groups, len(groups)):
        octets += head + b"".join(rng.sample(some, int(len(some) * share)))
    return cleaned(octets)


@settings(max_examples=60, deadline=None)
@given(copies(), copies(), copies())
def test_laws(a: bytes, b: bytes, c: bytes) -> None:
    assert merge([a, b]) == merge([b, a])
    assert merge([merge([a, b]), c]) == merge([a, merge([b, c])]) == merge([c, a, b])
    assert merge([a, a]) == merge([a]) == a
    assert merge([a, merge([a, b])]) == merge([a, b])
    assert cleaned(merge([a, b])) == merge([a, b])


@settings(max_examples=40, deadline=None)
@given(copies(), copies(), copies())
def test_laws_of_revocations(a: bytes, b: bytes, c: bytes) -> None:
    x, y, z = (revocations(o) for o in (a, b, c))
    assert merge_revocations(x, y) == merge_revocations(y, x)
    assert merge_revocations(merge_revocations(x, y), z) == merge_revocations(x, merge_revocations(y, z))
    assert merge_revocations(x, x) == x == revocations(x)
    assert merge_revocations(x, b"") == merge_revocations(b"", x) == x
    assert revocations(merge([a, b])) == merge_revocations(x, y)
    assert merge([a], x) == a
    assert merge([a], merge_revocations(x, y)) == merge([merge([a], x)], y)


@settings(max_examples=40, deadline=None)
@given(copies(), copies())
def test_nothing_counts_less_after_a_merge(a: bytes, b: bytes) -> None:
    merged, one = prove(merge([a, b]), NOW), prove(a, NOW)
    assert one.index <= merged.index
    assert (one.validity is not Validity.REVOKED) or merged.validity is Validity.REVOKED


def test_empty_copies() -> None:
    octets = cleaned(make().octets)
    assert merge([]) == b""
    assert merge([b"", octets, b""]) == octets
    assert merge_revocations(b"", b"") == b""


def test_different_certificates_do_not_merge() -> None:
    a, b = cleaned(make(revoked=2).octets), cleaned(make(revoked=2).octets)
    with pytest.raises(ValueError, match="different certificates"):
        merge([a, b])
    with pytest.raises(ValueError, match="different certificates"):
        merge([a], revocations(b))
    with pytest.raises(ValueError, match="different certificates"):
        merge_revocations(revocations(a), revocations(b))


def test_no_revocation_no_octets() -> None:
    assert revocations(cleaned(make(signing=True).octets)) == b""


def test_stale_copy_does_not_bring_back_what_was_revoked() -> None:
    stale = make(["a <a@x.org>", "b <b@x.org>"])
    primary = stale.primary
    fresh = stale.octets + packet(USER_ID, b"a <a@x.org>")
    fresh += certify(primary, b"a <a@x.org>", type_=0x30, created=CREATED + 9, hashed=reason(32))
    fresh += stale.subkeys[0].packet(SUBKEY)
    fresh += revoke_subkey(primary, stale.subkeys[0], created=CREATED + 9, hashed=reason(2))
    merged = merge([cleaned(stale.octets), cleaned(fresh)])
    proof = prove(merged, NOW)
    assert [(u.address, u.revoked) for u in proof.user_ids] == [("b@x.org", False), ("a@x.org", True)]
    assert proof.subkeys[0].revoked
    kept = revocations(merged)
    assert merge([cleaned(stale.octets)], kept) == merged


def test_kept_revocations_do_not_give_away_user_ids_or_subkeys() -> None:
    secret = b"secret <secret@x.org>"
    whole = make([b"a <a@x.org>", secret], revoked=2, revoked_user_ids=[secret], subkeys_revoked=2)
    primary = whole.primary
    small = cleaned(primary.packet() + packet(USER_ID, b"a <a@x.org>") + certify(primary, b"a <a@x.org>"))
    merged = merge([small], revocations(cleaned(whole.octets)))
    assert secret not in merged
    assert whole.subkeys[0].body not in merged
    assert prove(merged, NOW).validity is Validity.REVOKED


def test_hard_revocation_is_not_pushed_out_by_soft_ones() -> None:
    made = make()
    hard = direct(made.primary, type_=0x20, created=CREATED, hashed=reason(2))
    soft = b"".join(direct(made.primary, type_=0x20, created=CREATED + n, hashed=reason(1)) for n in range(1, 30))
    copy = cleaned(made.octets + soft)
    merged = merge([copy, cleaned(made.octets + hard)])
    assert prove(merged, CREATED).validity is Validity.REVOKED
    assert sum(tag == 2 for tag, _, _ in packets.walk(merged, 1000)) == 8 + 2


def test_back_signature_survives_a_copy_that_lost_it() -> None:
    primary, subkey = new_key(), new_key()
    from_build = make(primary=primary, encryption=None).octets + subkey.packet(SUBKEY)
    whole = bind(primary, subkey, usage=SIGN, back=True)
    binding = bind(primary, subkey, usage=SIGN, back=False, created=CREATED + 5)
    merged = merge([cleaned(from_build + binding), cleaned(from_build + whole)])
    assert prove(merged, NOW).subkeys[0].back_signed


def test_version_6_merges() -> None:
    made = make(version=6, signing=True)
    revoked = make(version=6, primary=made.primary, revoked=2)
    merged = merge([cleaned(made.octets), cleaned(revoked.octets)])
    assert merged == merge([cleaned(revoked.octets), cleaned(made.octets)])
    assert prove(merged, NOW).validity is Validity.REVOKED
    assert len(prove(merged, NOW).subkeys) == 3


def test_unverifiable_certificate_has_no_revocations_to_keep() -> None:
    primary = new_key("unknown")
    claimed = direct(primary, type_=0x20, raw=b"\0\1\1", hashed=reason(2))
    octets = cleaned(primary.packet() + claimed)
    assert revocations(octets) == b""
    assert prove(octets, NOW).validity is Validity.UNVERIFIABLE
