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
        ("@example.org", ByText("@example.org")),
        ("deadbeefdeadbeefde", ByText("deadbeefdeadbeefde")),
        ("a@b@example.org", ByText("a@b@example.org")),
        ("\ufffd@x", ByText("\ufffd@x")),
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
        "x@[192.0.2.1]", "x@-x.org", "x@x-.org", ".a@x.org", "..@x.org", "a@x.org.", "a@x..org", "a@x.org..", "a@1",
        '""@x.org', '"a@b"@x.org', '"<a>"@x.org', '"a@x.org', '"a"b@x.org', '"a""b"@x.org', '"a\\"@x.org',
        "a\ufffd@x.org",
        '"a\u3000b"@x.org', '"a\tb"@x.org', '"' + "a " * 32 + '"@x.org', "a\u037eb@x.org", "a@\U0001f600.example",
        "a@" + "b" * 64 + ".org", "a@x y.org", "a@x\u200d.org", "a@\uff1c.org",
        "a@x.1", "@x.org", "a@", "a\u202e@x.org", "a\x00@x.org", "a b@x.org", "é" * 33 + "@x.org",
        "a" * 65 + "@x.org", "a@" + "x." * 126 + "org", "a,b@x.org", "a@b@x.org", "(a)@x.org", "a\u2028@x.org",
    ],
)  # fmt: skip
def test_what_is_no_address(bare: str) -> None:
    assert parse_address(bare) is None


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("phil@XN--YP8HA.example", "phil@xn--yp8ha.example"),  # an emoji, which IDNA 2008 does not have
        ("a@r3---sn.example.org", "a@r3---sn.example.org"),
        ("a@_dmarc.x_y.org", "a@_dmarc.x_y.org"),
        ("a@x_y.B\u00fccher.example", "a@x_y.xn--bcher-kva.example"),
        ("a@b\u00fccher\u3002example", "a@xn--bcher-kva.example"),
        ("a@" + "b" * 63 + ".org", "a@" + "b" * 63 + ".org"),
        ("Root@LocalHost", "root@localhost"),
        ("taro..yamada.@docomo.ne.jp", "taro..yamada.@docomo.ne.jp"),
        ('"taro..yamada."@docomo.ne.jp', "taro..yamada.@docomo.ne.jp"),
        ('"Ann"@x.org', "ann@x.org"),
        ('"A\\n\\n"@x.org', "ann@x.org"),
        ('"Ann Lee"@x.org', '"ann lee"@x.org'),
        ('".ann"@x.org', '".ann"@x.org'),
        ('"a\\"b\\\\c\\d"@x.org', '"a\\"b\\\\cd"@x.org'),
        ('"(),:;[]"@x.org', '"(),:;[]"@x.org'),
        ('"Jo\u0308rg M"@x.org', '"j\u00f6rg m"@x.org'),
    ],
)
def test_what_is_an_address_though_few_have_one(address: str, normal: str) -> None:
    assert parse_address(address) == normal
    assert parse_address(normal) == normal
    query = parse(address)
    assert isinstance(query, ByAddress)
    assert str(query) == normal
    assert from_name(query.name) == query


X509_SHA256 = ":".join(["AB"] * 32)


@pytest.mark.parametrize(
    ("term", "query"),
    [
        ("Alice (work) <Alice@Example.org> (home)", ByAddress("alice", "example.org")),
        ("alice@example.org <alice@example.org>", ByAddress("alice", "example.org")),
        ("mailto:alice@example.org", ByAddress("alice", "example.org")),
        ("MAILTO:alice%2Bx@example.org?subject=key", ByAddress("alice+x", "example.org")),
        ("<mailto:alice@example.org>", ByAddress("alice", "example.org")),
        ("Smith, Alice; alice@example.org", ByAddress("alice", "example.org")),
        ("alice@example.org (work)", ByAddress("alice", "example.org")),
        ("'alice@example.org',", ByAddress("alice", "example.org")),
        ('"alice@example.org"', ByAddress("alice", "example.org")),
        ("write to alice@example.org.", ByAddress("alice", "example.org")),
        ("=Alice <a b@example.org>", ByAddress("a+b", "example.org")),
        ("\u202aalice@example.org\u202c", ByAddress("alice", "example.org")),
        ("\ufeff alice@example.org\u00a0", ByAddress("alice", "example.org")),
        ("@alice <alice@example.org>", ByAddress("alice", "example.org")),
        ('"ann lee"@example.org', ByAddress('"ann lee"', "example.org")),
        (f"openpgp4fpr:{FPR.lower()}", ByFingerprint(FPR)),
        (f"OPENPGP4FPR:{FPR}#a=bob%40example.org&n=Bob&i=x", ByFingerprint(FPR)),
        (f"Key fingerprint = {FPR[:4]} {FPR[4:]}", ByFingerprint(FPR)),
        (f"sha256 Fingerprint={X509_SHA256}", ByFingerprint("AB" * 32)),
        (X509_SHA256.lower(), ByFingerprint("AB" * 32)),
        (f"0x{FPR[:20]}\u00a0{FPR[20:]}", ByFingerprint(FPR)),
        ("-".join([FPR[n : n + 4] for n in range(0, 40, 4)]), ByFingerprint(FPR)),
        ("D6A7:A7F5:4220:5372", ByKeyId("D6A7A7F542205372")),
    ],
)
def test_the_one_address_or_fingerprint_in_a_term(term: str, query: object) -> None:
    assert parse(term) == query


@pytest.mark.parametrize(
    "term",
    [
        "alice@example.org, bob@example.org",
        "bob@example.org <alice@example.org>",
        "<alice@example.org> <bob@example.org>",
        "mailto:alice@example.org,bob@example.org",
        '"a@b"@example.org',
        "alice@example.org bob@[192.0.2.1]",
        "alice\u200b@example.org",
        "alice",
        "dead:beef",
        "Fingerprint of Alice",
    ],
)
def test_text_is_what_names_nobody_or_two(term: str) -> None:
    assert isinstance(parse(term), ByText)


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


@given(st.text(max_size=60) | st.text("a.\"\\ \u037e\u0308(é", max_size=9), st.booleans(),
       st.sampled_from(["example.org", "bücher.example", "x.y.z.example"]) | st.text(max_size=12))  # fmt: skip
def test_normalising_is_idempotent(local: str, quoted: bool, domain: str) -> None:
    once = parse_address(f'"{local}"@{domain}' if quoted else f"{local}@{domain}")
    if once is not None:
        assert parse_address(once) == once
        assert parse(once) == ByAddress(*once.rsplit("@", 1))


def test_names_tell_the_kinds_apart() -> None:
    assert parse("a@example.org").name == "openpgp:addr:a@example.org"
    assert parse("a@example.org", Kind.X509).name == "x509:addr:a@example.org"
    assert from_name("x509:ihash:AB").name == "x509:ihash:AB"
