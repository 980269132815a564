"""Search terms and the strict address rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Kind
from keyserver.query import (
    BadQuery,
    ByAddress,
    ByFingerprint,
    ByKeyId,
    ByText,
    ShortKeyId,
    from_name,
    parse,
    parse_address,
    parse_domain,
)

FPR = "760998D4A41187B6D498D3C3D6A7A7F542205372"


@pytest.mark.parametrize(
    ("term", "query"),
    [
        (f"0x{FPR}", ByFingerprint(FPR)),
        (FPR.lower(), ByFingerprint(FPR)),
        (" 7609 98D4 A411 87B6 D498  D3C3 D6A7 A7F5 4220 5372 ", ByFingerprint(FPR)),
        ("0X" + "ab" * 32, ByFingerprint("AB" * 32)),
        ("0xD6A7A7F542205372", ByKeyId("D6A7A7F542205372")),
        ("d6a7a7f542205372", ByKeyId("D6A7A7F542205372")),
        ("Alice@Example.ORG", ByAddress("alice", "example.org")),
        ("<alice@example.org>", ByAddress("alice", "example.org")),
        ("a b@example.org", ByAddress("a+b", "example.org")),
        ("a+b@example.org", ByAddress("a+b", "example.org")),
        ("ann@münchen.example", ByAddress("ann", "xn--mnchen-3ya.example")),
        ("Alice Smith", ByText("alice smith")),
        ("Alice <alice@example.org>", ByAddress("alice", "example.org")),
        ("Alice (work) alice@example.org", ByAddress("alice", "example.org")),
        ("mailto:alice@example.org?subject=x", ByAddress("alice", "example.org")),
        ("MAILTO:a%2Bb@example.org", ByAddress("a+b", "example.org")),
        (f"openpgp4fpr:{FPR}", ByFingerprint(FPR)),
        (f"OPENPGP4FPR:{FPR.lower()}", ByFingerprint(FPR)),
        (":".join(FPR[i : i + 2] for i in range(0, 40, 2)), ByFingerprint(FPR)),
        ("-".join(FPR[i : i + 4] for i in range(0, 40, 4)), ByFingerprint(FPR)),
        ('"ann lee"@x.org', ByAddress('"ann lee"', "x.org")),
        ('"ann.lee"@x.org', ByAddress("ann.lee", "x.org")),
        ("root@localhost", ByAddress("root", "localhost")),
        ("alice@example.org, bob@example.org", ByText("alice@example.org, bob@example.org")),
        ("Alice <alice@example.org> <bob@example.org>", ByText("alice <alice@example.org> <bob@example.org>")),
        ("@example.org", ByText("@example.org")),
        ("deadbeefdeadbeefde", ByText("deadbeefdeadbeefde")),
        ("a@b@example.org", ByText("a@b@example.org")),
        ("\ufffd@x", ByAddress("\ufffd", "x")),
    ],
)
def test_terms(term: str, query: object) -> None:
    assert parse(term) == query


@pytest.mark.parametrize("term", ["", "   ", "0x123", "0x" + "a" * 41, "x" * 513])
def test_bad_terms_say_what_is_accepted(term: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(term)
    assert not isinstance(caught.value, ShortKeyId)
    assert len(str(caught.value)) > 20


def test_short_key_ids_are_told_apart() -> None:
    with pytest.raises(ShortKeyId):
        parse("0x42205372")


@pytest.mark.parametrize(
    "bare",
    [
        "x@[192.0.2.1]", "x@-x.org", "x@x-.org", "..@x.org", '"a b@x.org', 'a"b"@x.org', '""@x.org', "a@x..org",
        "a@x.org.", "a@x.1", "@x.org", "a@", "a\u202e@x.org", "a\x00@x.org", "a b@x.org", "é" * 33 + "@x.org",
        "a" * 65 + "@x.org", "a@" + "x." * 126 + "org", "a,b@x.org", "a@b@x.org", "(a)@x.org", "a\u2028@x.org",
    ],
)  # fmt: skip
def test_what_is_no_address(bare: str) -> None:
    assert parse_address(bare) is None


def test_addresses_are_normalised() -> None:
    assert parse_address("Jörg@Example.org") == "jörg@example.org"
    assert parse_address("Jo\u0308rg@example.org") == "jörg@example.org"
    assert parse_address("a/b=c@EXAMPLE.org") == "a/b=c@example.org"
    assert parse_domain("ExAmPlE.OrG") == "example.org"


@given(st.text(max_size=80))
def test_any_text_is_a_query_or_a_clear_error(text: str) -> None:
    try:
        query = parse(text)
    except BadQuery as problem:
        assert str(problem)
    else:
        if not isinstance(query, ByText):
            assert parse(str(query)) == query
        assert from_name(query.name) == query


@given(st.text(max_size=60), st.sampled_from(["example.org", "bücher.example", "x.y.z.example"]))
def test_normalising_is_idempotent(local: str, domain: str) -> None:
    once = parse_address(f"{local}@{domain}")
    if once is not None:
        assert parse_address(once) == once


def test_names_tell_the_kinds_apart() -> None:
    assert parse("a@example.org").name == "openpgp:addr:a@example.org"
    assert parse("a@example.org", Kind.X509).name == "x509:addr:a@example.org"
    assert from_name("x509:ihash:AB").name == "x509:ihash:AB"
