"""Web Key Directory: hashes and targets, by the draft's example."""

from __future__ import annotations

import pytest

from keyserver.wire.wkd import Target, advanced, direct, domain_of, hash_of, hot_line, is_hash, read_target

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


ADVANCED = f"/.well-known/openpgpkey/example.org/hu/{JOE}"
DIRECT = f"/.well-known/openpgpkey/hu/{JOE}"


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (f"{ADVANCED}?l=Joe.Doe", Target("example.org", JOE, "Joe.Doe")),
        (f"{ADVANCED}?l=joe%2Bx", Target("example.org", JOE, "joe+x")),
        (f"{ADVANCED}?l=joe+x", Target("example.org", JOE, "joe+x")),
        (f"{ADVANCED}?x=1&l=a=b&l=c", Target("example.org", JOE, "a=b")),
        (f"{ADVANCED}?l=%ff", Target("example.org", JOE, "\ufffd")),
        (f"{ADVANCED}?l", Target("example.org", JOE, None)),
        (ADVANCED, Target("example.org", JOE, None)),
        (f"{DIRECT}?l=joe", Target(None, JOE, "joe")),
        (f"/.well-known/openpgpkey/hu/hu/{JOE}", Target("hu", JOE, None)),
        ("/.well-known/openpgpkey/b%C3%BCcher.example/policy", Target("bücher.example", "policy", None)),
        ("/.well-known/openpgpkey/policy", Target(None, "policy", None)),
        ("/.well-known/openpgpkey/submission-address", Target(None, "submission-address", None)),
    ],
)
def test_targets_in_both_forms(target: str, read: Target) -> None:
    assert read_target(target) == read


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/.well-known/openpgpkey",
        "/.well-known/openpgpkey/hu/",
        f"{DIRECT}/",
        f"{DIRECT.upper()}",
        f"/.well-known/%6fpenpgpkey/hu/{JOE}",
        f"/.well-known/openpgpkey//hu/{JOE}",
        f"/.well-known/openpgpkey/a/b/hu/{JOE}",
        f"http://example.org{DIRECT}",
    ],
)
def test_what_is_no_target(target: str) -> None:
    assert read_target(target) is None


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("example.org", "example.org"),
        ("Example.ORG:443", "example.org"),
        ("example.org.:443", "example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("", None),
        (":443", None),
        ("127.0.0.1:443", None),
        ("[::1]:443", None),
        ("example..org", None),
        ("example.org:443x", None),
        ("a b", None),
        ("bücher.example", None),
        (f"{'a' * 64}.example", None),
    ],
)
def test_the_domain_of_a_host(host: str, domain: str | None) -> None:
    assert domain_of(host) == domain


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_direct_form_is_remembered_as_the_advanced_one(method: bytes) -> None:
    line = b"%b %b?l=joe HTTP/1.1\r\n"
    mine = line % (method, DIRECT.encode())
    assert hot_line(mine, b"example.org") == line % (method, ADVANCED.encode())
    assert hot_line(mine, b"") == b""
    for other in (
        ADVANCED.encode(),
        b"/pks/lookup",
        b"/.well-known/openpgpkey/policy",
        b"/x/.well-known/openpgpkey/hu/a",
    ):
        for domain in (b"example.org", b""):
            assert hot_line(line % (method, other), domain) == line % (method, other)
    assert hot_line(mine.replace(b"?l=joe", b"?l=a/b"), b"x.example").count(b"/x.example/hu/") == 1
    domain_named_hu = line % (method, b"/.well-known/openpgpkey/hu/hu/a")
    assert hot_line(domain_named_hu, b"x.example") == domain_named_hu
