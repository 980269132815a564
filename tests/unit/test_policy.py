"""Policy: the cache rules that are pure functions of entry, view and now."""

from dataclasses import replace

import pytest

from keyserver.model import Entry, Kind, Record, Source, UpstreamSpec, View
from keyserver.policy import (
    FOREVER,
    MAILFLOW_TTL,
    Freshness,
    Terms,
    admits,
    expires_at,
    hears,
    in_domains,
    judge,
    record_until,
)
from keyserver.query import ByAddress, ByFingerprint, ByText

NOW = 1_700_000_000
DAY = 86400
ENTRY = Entry("AA" * 20, Kind.OPENPGP, b"", Source.KEYSERVER, "a", NOW, NOW)
MAIL = replace(ENTRY, source=Source.MAILFLOW, origin="example.org")
LOCAL = replace(ENTRY, source=Source.LOCAL, origin="admin")
VIEW = View()
OPEN = View("mail", answer_mailflow=True)


@pytest.mark.parametrize("ttl", [3600, DAY, 999 * DAY])
def test_a_keyserver_entry_answers_exactly_for_its_ttl(ttl: int) -> None:
    terms = Terms(ttl=ttl)
    assert judge(ENTRY, VIEW, NOW + ttl - 1, terms).answerable
    assert judge(ENTRY, VIEW, NOW + ttl - 1, terms).until == NOW + ttl
    gone = judge(ENTRY, VIEW, NOW + ttl, terms)
    assert not gone.answerable
    assert gone.freshness is Freshness.EXPIRED


@pytest.mark.parametrize(("days", "answers"), [(179, True), (180, False), (181, False)])
def test_mailflow_lives_180_days_from_the_last_mail(days: int, answers: bool) -> None:
    for ttl in (3600, 999 * DAY):
        assert judge(MAIL, OPEN, NOW + days * DAY, Terms(ttl=ttl)).answerable is answers
    again = replace(MAIL, seen_at=NOW + 100 * DAY)
    assert judge(again, OPEN, NOW + 279 * DAY, Terms()).answerable
    assert MAILFLOW_TTL == 180 * DAY


def test_local_never_expires() -> None:
    assert expires_at(LOCAL, Terms()) is None
    assert judge(LOCAL, VIEW, NOW + 5000 * DAY, Terms()).until == FOREVER


def test_an_upstreams_own_ttl_and_one_that_left() -> None:
    terms = Terms(ttl=DAY, upstreams={"a": UpstreamSpec("a", ttl=3600)})
    assert expires_at(ENTRY, terms) == NOW + 3600
    assert expires_at(replace(ENTRY, origin="gone"), terms) == NOW + DAY


def test_mailflow_needs_consent() -> None:
    assert not judge(MAIL, VIEW, NOW, Terms()).answerable
    assert judge(MAIL, OPEN, NOW, Terms()).answerable
    assert judge(replace(MAIL, approved=True), VIEW, NOW, Terms()).answerable
    held = replace(MAIL, held=True)
    assert not judge(held, OPEN, NOW, Terms()).answerable
    assert "held" in judge(held, OPEN, NOW, Terms()).reason
    assert judge(replace(held, approved=True), VIEW, NOW, Terms()).answerable


def test_serve_stale_is_for_keyserver_entries_only() -> None:
    terms = Terms(ttl=3600, serve_stale=DAY)
    assert judge(ENTRY, VIEW, NOW + 3600, terms).freshness is Freshness.STALE
    assert not judge(ENTRY, VIEW, NOW + 3600 + DAY, terms).answerable
    assert not judge(MAIL, OPEN, NOW + MAILFLOW_TTL, terms).answerable


def test_require_chain() -> None:
    entry = replace(ENTRY, kind=Kind.X509)
    terms = Terms(require_chain=True)
    assert not judge(entry, VIEW, NOW, terms).answerable
    assert judge(replace(entry, chained=True), VIEW, NOW, terms).answerable
    assert judge(replace(entry, approved=True), VIEW, NOW, terms).answerable
    assert judge(ENTRY, VIEW, NOW, terms).answerable


def test_domain_patterns() -> None:
    assert in_domains("example.org", ["example.org"])
    assert not in_domains("mail.example.org", ["example.org"])
    assert in_domains("mail.example.org", ["*.example.org"])
    assert not in_domains("example.org", ["*.example.org"])
    assert not in_domains("notexample.org", ["*.example.org", "example.org"])


def test_who_hears_an_address() -> None:
    ask = ByAddress("boss", "corp.example")
    terms = Terms(internal_domains=("corp.example",))
    assert "internal" in hears(UpstreamSpec("a"), ask, terms)
    assert "internal" in hears(UpstreamSpec("a"), ByAddress("x", "mail.corp.example"), terms)
    assert not hears(UpstreamSpec("a", domains=("corp.example",)), ask, terms)
    assert not hears(UpstreamSpec("a"), ask, Terms())
    assert hears(UpstreamSpec("a", domains=("other.example",)), ask, Terms())
    assert hears(UpstreamSpec("a", kinds=frozenset({Kind.X509})), ask, Terms())


def test_fingerprints_go_to_all_but_templates() -> None:
    ask = ByFingerprint("AA" * 20)
    assert not hears(UpstreamSpec("a", domains=("corp.example",)), ask, Terms())
    assert hears(UpstreamSpec("a", template=True), ask, Terms())
    assert hears(UpstreamSpec("a", domains=("corp.example",)), ByText("x"), Terms())


def test_an_entry_answers_only_addresses_its_upstream_is_believed_for() -> None:
    ask = ByAddress("ceo", "partner.example")
    terms = Terms(upstreams={"a": UpstreamSpec("a", domains=("other.example",))})
    assert not admits(ENTRY, ask, terms)
    assert admits(LOCAL, ask, terms)
    assert admits(replace(ENTRY, approved=True), ask, terms)
    assert admits(ENTRY, ByFingerprint("AA" * 20), terms)
    assert admits(replace(ENTRY, origin="gone"), ask, terms)


def test_records_are_believed_for_ttl_and_negative_ttl() -> None:
    terms = Terms(ttl=DAY, negative_ttl=900, upstreams={"quick": UpstreamSpec("quick", ttl=600)})
    assert record_until(Record("n", "a", True, NOW), terms) == NOW + DAY
    assert record_until(Record("n", "a", False, NOW), terms) == NOW + 900
    assert record_until(Record("n", "quick", False, NOW), terms) == NOW + 600


def test_a_single_label_is_told_only_to_who_lists_it() -> None:
    query = ByAddress("ann", "corp")
    assert "own network" in hears(UpstreamSpec("a"), query, Terms())
    assert "only told" in hears(UpstreamSpec("a", domains=("*.corp",)), query, Terms())
    assert not hears(UpstreamSpec("a", domains=("corp",)), query, Terms())
    assert not hears(UpstreamSpec("a", domains=("corp",)), query, Terms(internal_domains=("corp",)))
    assert not admits(ENTRY, query, Terms(upstreams={"a": UpstreamSpec("a")}))
    assert admits(LOCAL, query, Terms(upstreams={"a": UpstreamSpec("a")}))
