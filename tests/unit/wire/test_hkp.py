"""HKP's codec: parameters as real clients write them, and the index as its strictest readers want it."""

import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Kind, Malformed, Proof, UserId, Validity
from keyserver.wire.hkp import (
    MAX_FIELDS,
    Parameters,
    escape,
    parameters,
    pub_line,
    write_index,
)

NOW = 1_700_000_000
FPR = "760998D4A41187B6D498D3C3D6A7A7F542205372"


def user_id(text: str, expires: int | None = None, revoked: bool = False) -> UserId:
    return UserId(text, None, NOW - 1000, expires, revoked)


def proof(*user_ids: UserId, **changes: object) -> Proof:
    made = Proof(
        kind=Kind.OPENPGP,
        version=4,
        fingerprint=FPR,
        key_id=FPR[-16:],
        algorithm=1,
        bits=4096,
        created=NOW - 5000,
        expires=None,
        validity=Validity.VALID,
        can_encrypt=True,
        user_ids=user_ids or (user_id("Alice <alice@example.org>"),),
        subkeys=(),
        strong=frozenset(),
        weak=frozenset(),
        index=frozenset(),
        newest=NOW - 1000,
        turns=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


# ---- parameters


@pytest.mark.parametrize(
    ("line", "op", "search", "machine", "exact"),
    [
        (f"op=get&options=mr&search=0x{FPR}", "get", f"0x{FPR}", True, False),
        ("op=get&options=mr&search=a@b.org&exact=on", "get", "a@b.org", True, True),
        ("op=index&options=mr&fingerprint=on&search=Name%20<a@b>", "index", "Name <a@b>", True, False),
        (
            "search=alice%40example.org&fingerprint=on&op=index&options=mr&exact=on",
            "index",
            "alice@example.org",
            True,
            True,
        ),
        ("op=get&search=0xD6A7A7F542205372&options=mr", "get", "0xD6A7A7F542205372", True, False),
        ("op=GET&options=MR,nm&search=x", "get", "x", True, False),
        ("op=index&options=nm%2C%20mr&search=x", "index", "x", True, False),
        ("op=index&search=a+b@h.org", "index", "a b@h.org", False, False),
        ("op=index&search=\"<>'", "index", "\"<>'", False, False),
        ("op=get&search=first&search=second", "get", "first", False, False),
        ("search=x", None, "x", False, False),
        ("op=get", "get", None, False, False),
        ("", None, None, False, False),
        ("&&&=&op=get&=x&", "get", None, False, False),
    ],
)
def test_parameters_of_real_clients(line: str, op: str | None, search: str | None, machine: bool, exact: bool) -> None:
    given = parameters(line)
    assert (given.op, given.search, given.machine, given.exact) == (op, search, machine, exact)
    assert given.readable


@pytest.mark.parametrize("term", ["a%B9@h.org", "%u4F60%u597D", "m%FCller@example.org", "%ED%A0%80", "\udcb9@h.org"])
def test_what_is_not_utf8_is_unreadable_and_never_an_error(term: str) -> None:
    given = parameters(f"op=get&search={term}")
    assert given.op == "get"
    assert given.search
    assert not given.readable


def test_utf8_is_readable() -> None:
    given = parameters("op=get&search=m%C3%BCller@b%C3%BCcher.example")
    assert given.search == "müller@bücher.example"
    assert given.readable


def test_too_many_parameters() -> None:
    assert parameters("&".join(["a=b"] * MAX_FIELDS)) == Parameters()
    with pytest.raises(Malformed, match=str(MAX_FIELDS)):
        parameters("&".join(["a=b"] * (MAX_FIELDS + 1)))


@given(st.text(max_size=300))
def test_any_query_string_is_read_or_malformed(line: str) -> None:
    try:
        given = parameters(line)
    except Malformed:
        return
    assert given.op is None or given.op == given.op.strip().lower()


# ---- the index


def test_index_of_a_plain_certificate_is_what_every_reader_takes() -> None:
    text = write_index([proof()], NOW)
    assert text == (f"info:1:1\npub:{FPR}:1:4096:{NOW - 5000}::\nuid:Alice <alice@example.org>:{NOW - 1000}::\n")
    # The regular expressions of two strict readers, as they describe them.
    assert re.search(rf"^pub:{FPR}:[0-9:]*:$", text, re.MULTILINE)
    assert re.search(
        r"pub:([0-9a-fA-F]{40}|[0-9a-fA-F]{16}):([0-9]+):([0-9]+):([0-9]+):([0-9]*):([rde]*)[ \n\r]*"
        r"((uid:([^:]*):([0-9]*):([0-9]*):([rde]*)[ \n\r]*)+)",
        text,
    )


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ""),
        ({"validity": Validity.EXPIRED, "expires": NOW - 1}, "e"),
        ({"validity": Validity.REVOKED}, "r"),
        ({"validity": Validity.REVOKED, "expires": NOW}, "re"),
        ({"validity": Validity.UNVERIFIABLE}, ""),
        ({"expires": NOW + 1}, ""),
    ],
)
def test_flags_of_a_key(changes: dict[str, object], flags: str) -> None:
    assert pub_line(proof(**changes), NOW).rsplit(":", 1)[1] == flags


def test_flags_and_times_of_user_ids() -> None:
    given = proof(user_id("a", expires=NOW), user_id("b", revoked=True), user_id("c", expires=NOW + 1))
    lines = write_index([given], NOW).splitlines()[2:]
    created = NOW - 1000
    assert lines == [f"uid:a:{created}:{NOW}:e", f"uid:b:{created}::r", f"uid:c:{created}:{NOW + 1}:"]


def test_certificates_without_user_ids_are_left_out_and_not_counted() -> None:
    other = proof(fingerprint="B" * 40)
    text = write_index([proof(user_ids=()), proof(user_ids=(user_id(""),)), other], NOW)
    assert text.startswith("info:1:1\npub:BBBB")
    assert text.count("pub:") == 1
    assert write_index([], NOW) == "info:1:0\n"


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Alice <alice+tag@example.org>", "Alice <alice+tag@example.org>"),
        ("100% a:b", "100%25 a%3Ab"),
        ("line\nuid:fake:::\r\0\x7f", "line%0Auid%3Afake%3A%3A%3A%0D%00%7F"),
        ("Jürgen", "J%C3%BCrgen"),
        ("\u202eevil", "%E2%80%AEevil"),
        ("\ud800", "?"),
    ],
)
def test_escaping(text: str, escaped: str) -> None:
    assert escape(text) == escaped


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_text_is_one_field_of_ascii_and_comes_back(text: str) -> None:
    field = escape(text)
    assert field.isascii()
    assert not re.search(r"[:\x00-\x1f\x7f]", field)
    assert unquote(field) == text


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t == t.strip()), min_size=1
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read(owners: list[list[str]]) -> None:
    text = write_index([proof(*(user_id(t) for t in texts)) for texts in owners], NOW)
    lines = [line.split(":") for line in text.splitlines()]
    assert [fields[1:] for fields in lines if fields[0] == "pub"] == [
        [FPR, "1", "4096", f"{NOW - 5000}", "", ""]
    ] * len(owners)
    written = "\n".join(unquote(fields[1]) if fields[0] == "uid" else "pub" for fields in lines[1:])
    assert written == "\n".join(line for texts in owners for line in ("pub", *texts))
    assert text.count("\npub:") == len(owners) == int(text.split("\n")[0].split(":")[2])
