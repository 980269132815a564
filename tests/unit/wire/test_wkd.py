"""Web Key Directory: hashes and targets, by the draft's example."""

from __future__ import annotations

import pytest

from keyserver.wire.wkd import advanced, direct, hash_of, is_hash

JOE = "iy9q119eutrkn8s1mk4r39qejnbu3n5q"  # draft-koch-openpgp-webkey-service-21 §3.1: Joe.Doe@Example.ORG


def test_the_drafts_example() -> None:
    assert hash_of("Joe.Doe") == hash_of("joe.doe") == JOE
    assert advanced("example.org", "Joe.Doe") == f"/.well-known/openpgpkey/example.org/hu/{JOE}?l=Joe.Doe"
    assert direct("Joe.Doe") == f"/.well-known/openpgpkey/hu/{JOE}?l=Joe.Doe"


def test_only_ascii_letters_change_their_case() -> None:
    assert hash_of("ÄB") == hash_of("Äb") != hash_of("äb")


@pytest.mark.parametrize(
    ("local", "written"),
    [
        ("joe+x", "joe%2Bx"),
        ("a/b", "a%2Fb"),
        ("ä&l=b", "%C3%A4%26l%3Db"),
        ('"a b"', "%22a%20b%22"),
        ("a%2b#?", "a%252b%23%3F"),
    ],
)
def test_the_local_part_is_escaped_whole(local: str, written: str) -> None:
    assert direct(local).endswith(f"?l={written}")


@pytest.mark.parametrize("text", [JOE[:-1], JOE + "y", JOE.upper(), JOE[:-1] + "l", JOE[:-1] + "2", "", JOE + "\n"])
def test_what_is_no_hash(text: str) -> None:
    assert is_hash(JOE)
    assert not is_hash(text)
