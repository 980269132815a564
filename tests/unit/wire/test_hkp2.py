"""HKP v2's words and index."""

from __future__ import annotations

import json

import pytest

from keyserver import openpgp
from keyserver.model import Certificate
from keyserver.wire.hkp2 import read_fingerprint, read_key_id, write_index
from support.openpgp import CREATED, make

FOUR, SIX = "AB" * 20, "CD" * 32


@pytest.mark.parametrize(
    ("text", "fingerprint"),
    [
        (f"04{FOUR}", FOUR),
        (f"04{FOUR.lower()}", FOUR),
        (f"4/{FOUR}", FOUR),
        (f"06{SIX}", SIX),
        (f"06/{SIX}", SIX),
        (FOUR, None),
        (f"4{FOUR}", None),
        (f"06{FOUR}", None),
        (f"04{SIX}", None),
        (f"05{SIX}", None),
        (f"04{FOUR}\n", None),
        (f"04//{FOUR}", None),
    ],
)
def test_fingerprints_behind_their_version(text: str, fingerprint: str | None) -> None:
    query = read_fingerprint(text)
    assert (query.fingerprint if query else None) == fingerprint


def test_key_ids() -> None:
    query = read_key_id("00112233aabbccdd")
    assert query is not None
    assert query.key_id == "00112233AABBCCDD"
    assert read_key_id("0x00112233aabbccdd") is None
    assert read_key_id("aabbccdd") is None


def test_the_index_says_nothing_that_it_does_not_know() -> None:
    names = ("Jörg \N{KEY} <j@example.org>", "\x00\x1b[2J <k@example.org>")
    made = make(names, revoked_user_ids=(names[1],), subkey_expires=86400, signing=True)
    (certificate,) = openpgp.clean(made.octets, CREATED + 10**6)
    assert isinstance(certificate, Certificate)
    (one,) = json.loads(write_index([certificate.proof]))
    assert [(u["uidString"], u["isRevoked"]) for u in one["userIDs"]] == [(names[0], False), (names[1], True)]
    assert "confidence" not in one["userIDs"][0]
    assert "expiration" not in one
    assert {s["fingerprint"] for s in one["subkeys"]} == {k.fingerprint.lower() for k in made.subkeys}
    assert all(s["version"] == 4 and s["expiration"].endswith("Z") for s in one["subkeys"])
    assert write_index([]) == b"[]"
