"""A hostile sender of mail, and of search terms: one sender or none, no term that acts, bounded time."""

from __future__ import annotations

import contextlib
import time
from email.utils import getaddresses
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.mailflow.harvest import look
from keyserver.mailflow.values import Envelope, Mail, Rules, Seen, Way, Why
from keyserver.model import Malformed
from keyserver.policy import with_subdomains
from keyserver.query import BadQuery, ByAddress, parse, parse_address
from keyserver.upstreams.hkp.upstream import search_of
from keyserver.upstreams.ldap.kinds import Style, openpgp_filter, x509_filter
from keyserver.wire.mailbox import MAX_FROM, one_mailbox
from support.mails import attached_key, crlf, head, multipart, signed, text
from support.openpgp import make_certificate
from support.x509 import BEGINS, YEAR, authority, person

NOW = BEGINS + YEAR
EVE = person("eve@evil.example", authority())
RULES = Rules(
    internal_domains=with_subdomains(["here.example"]), authserv_id="mx.here.example", require_authenticated_sender=True
)


def seen(mail: bytes) -> Seen:
    return look(Mail(Envelope(Way.MILTER), crlf(mail)), RULES, NOW)


TRICKS = [
    "{victim}, Eve <eve@evil.example>",
    "Eve <eve@evil.example>, {victim}",
    "{victim} <eve@evil.example>",
    "x: {victim} <eve@evil.example>",
    "x: {victim}; <eve@evil.example>",
    "{victim};<eve@evil.example>",
    "<{victim}> <eve@evil.example>",
    "{spaced} <eve@evil.example>",
    "{victim}(c) <eve@evil.example>",
    '"x" {victim} <eve@evil.example>',
    "<eve@evil.example> {victim}",
    "<{victim},eve@evil.example>",
    "<@{victim}:eve@evil.example>",
    "eve@evil.example\t{victim}",
    '"{victim}"@evil.example, eve@evil.example',
    "=?utf-8?q?x?= {victim} <eve@evil.example>",
    "{victim}\u3002 <eve@evil.example>",
]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("victim", ["ceo@here.example", "bob@partner.example"])
def test_a_second_address_in_from_makes_nobody_of_the_sender(trick: str, victim: str) -> None:
    """Whichever of the two our border's DMARC judged: neither gets a certificate by this mail."""
    sender = trick.format(victim=victim, spaced=victim.replace("@", " @ ").replace(".", " . "))
    for domain in ("evil.example", "partner.example", "here.example"):
        results = f"mx.here.example; dmarc=pass header.from={domain}"
        found = seen(signed(text(), EVE, sender=sender, Authentication_Results=results))
        assert not found.candidates
        assert {r.why for r in found.remarks} == {Why.NO_SENDER}


@pytest.mark.parametrize(
    "sender", ["Boss, The <eve@evil.example>", "Boss @ Here <eve@evil.example>", "eve@evil.example"]
)
def test_direction_and_dmarc_judge_the_sender_that_is_harvested(sender: str) -> None:
    for domain, passed in {"evil.example": True, "here.example": False, "here": False}.items():
        results = f"mx.here.example; dmarc=pass header.from={domain}"
        found = seen(signed(text(), EVE, sender=sender, Authentication_Results=results))
        assert (found.sender, found.authenticated, bool(found.candidates)) == ("eve@evil.example", passed, passed)
    for ours in ("Lee, Ann <ann@here.example>", 'Ann: x <"ann"@HERE.example>', "Ann @ Work <ann@sub.here.example>"):
        assert {r.why for r in seen(signed(text(), EVE, sender=ours)).remarks} == {Why.INTERNAL}


WORDS = st.sampled_from(
    ["boss@partner.example", "boss", "@", "partner.example", "<", ">", ",", ";", ":", '"', "(", ")", " ", ".", "\\",
     "Ann", "<eve@evil.example>", "eve@evil.example", "[", "]", "=?utf-8?q?x?=", "\u3002", "corp"]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(WORDS, max_size=9).map("".join))
def test_a_sender_is_never_one_of_two(value: str) -> None:
    """Python's reader finds no other whole address in what has a sender here."""
    try:
        sender = one_mailbox([value.encode()])
    except Malformed:
        return
    theirs = {a for _, spelt in getaddresses([value]) if (a := parse_address(spelt)) and "." in a.rpartition("@")[2]}
    assert theirs <= {sender}


@pytest.mark.parametrize(
    "value",
    [
        "@" * MAX_FROM,
        "a@" * (MAX_FROM // 2),
        " . " * (MAX_FROM // 3) + "<a@b.example>",
        "a @" * 600 + "<a@b.example>",
        '"' + "\\" * (MAX_FROM - 1),
        '""' * 900 + "<a@b.example>",
        "(" * MAX_FROM,
        "a." * 900 + "@b.example",
    ],
)
def test_a_hostile_from_header_is_read_in_no_time(value: str) -> None:
    began = time.process_time()
    for _ in range(5):
        with contextlib.suppress(Malformed):
            one_mailbox([value.encode()])
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "term",
    ["a." * 255, "a@" * 255, "<" * 512, "<a@b" * 120, '"' + "\\" * 300 + '"@b.example', "0x" + "a:" * 250,
     "fingerprint" * 46, "fingerprint=" * 42, "mailto:" + "%40" * 160,
     "\u0130" * 300 + "@x.example", "a@" + "\u0430." * 150],
)  # fmt: skip
def test_a_hostile_term_is_read_in_no_time(term: str) -> None:
    began = time.process_time()
    for _ in range(20):
        with contextlib.suppress(BadQuery):
            parse(term)
    assert time.process_time() - began < 0.5


ACTING = ['"*)(uid=*"@x.example', '"a)(|(mail=*"@x.example', '"\\\\2a"@x.example', '"a&op=index"@x.example',
          '"a b#c%0d%0ahost: x"@x.example', '"{domain}"@x.example', '"../..?x"@x.example']  # fmt: skip


@pytest.mark.parametrize("term", ACTING)
def test_a_quoted_local_part_acts_nowhere(term: str) -> None:
    """In no filter and no URL: what is asked for is the address itself, escaped."""
    query = parse(term)
    assert isinstance(query, ByAddress)
    search = search_of(query) or ""
    assert unquote(search.split("search=")[1].removesuffix("&exact=on")) == query.address
    assert not set(search.split("search=")[1]) & set(' #?/{}"\\')
    assert search.count("&") == 3
    for text_ in (
        x509_filter(query, "", active_directory=True),
        x509_filter(query, "(&(x={local})(mail={address}))", active_directory=False),
        openpgp_filter(query, Style.GNUPG_2) or "",
    ):
        assert text_.count("(") == text_.count(")") <= 4
        assert "*)(" not in text_
        assert not set('"{}#&\n ') & set(text_.removeprefix("(&"))


def test_attachments_named_like_keys_are_bounded() -> None:
    """A thousand files, or ones of many megabytes, named like keys and signatures."""
    key = make_certificate(["Eve <eve@evil.example>"])
    results = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=evil.example"}
    many = [attached_key(key[:-1] + bytes([n % 256]), "application/octet-stream; name=a.asc") for n in range(600)]
    large = attached_key(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * 300_000, "application/octet-stream; name=a.asc")
    named = b"Content-Type: application/octet-stream; name=smime.p7m\n\n" + b"\x30\x80" * 4_000_000
    for parts in (many, [large], [named], [large[:1_400_000]]):
        began = time.process_time()
        found = seen(head("eve@evil.example", **results) + multipart(*parts))
        assert time.process_time() - began < 3
        assert len(found.candidates) <= 8
