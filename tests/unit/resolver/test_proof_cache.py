"""Remembered proofs are those that a fresh look would give, at every instant."""

from hypothesis import given
from hypothesis import strategies as st

from keyserver import openpgp
from keyserver.resolver.proof_cache import LARGEST, MOST, ProofCache
from support.openpgp import CREATED, make_certificate

DAY = 86400
OCTETS = openpgp.clean(
    make_certificate(
        ["A <a@example.org>"], expires=100 * DAY, subkey_expires=50 * DAY, revoked=1, revoked_at=CREATED + 70 * DAY
    ),
    CREATED,
)[0].octets  # type: ignore[union-attr]


@given(st.lists(st.integers(CREATED - DAY, CREATED + 120 * DAY), min_size=2, max_size=30))
def test_a_remembered_proof_is_the_fresh_one(instants: list[int]) -> None:
    proofs = ProofCache(openpgp.prove)
    for now in instants:
        assert proofs(OCTETS, now) == openpgp.prove(OCTETS, now)


def test_it_asks_once_between_two_instants_and_stays_small() -> None:
    asked: list[int] = []

    def prove(octets: bytes, now: int):  # type: ignore[no-untyped-def]
        asked.append(now)
        return openpgp.prove(OCTETS, now)

    proofs = ProofCache(prove)
    for now in range(CREATED, CREATED + 10):
        proofs(OCTETS, now)
    assert len(asked) <= 2
    names = [n.to_bytes(4, "big") for n in range(MOST + 50)]
    for name in names:
        proofs(name, CREATED + 5)

    def proves(octets: bytes) -> bool:
        before = len(asked)
        proofs(octets, CREATED + 5)
        return len(asked) > before

    assert [name for name in names[50:] if proves(name)] == []
    assert [name for name in names[:50] if not proves(name)] == []
    assert proves(bytes(LARGEST + 1))
    assert proves(bytes(LARGEST + 1))
