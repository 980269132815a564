"""Policy: the cache rules that are pure functions of entry, view and now."""

from dataclasses import replace

import pytest

from keyserver.model import Claim, Entry, Kind, Record, Source, UpstreamSpec, View, Voucher
from keyserver.policy import (
    FOREVER,
    MAILFLOW_TTL,
    Freshness,
    Terms,
    absent_before,
    due_before,
    expires_at,
    hears,
    in_domains,
    is_believed,
    is_due,
    is_expired,
    is_old_mail,
    judge,
    keeps,
    knows,
    prefetch_interval,
    purged_before,
    record_until,
    shown_by,
    speaks,
)
from keyserver.query import ByAddress, ByFingerprint, ByText

NOW = 1_700_000_000
DAY = 86400
ENTRY = Entry("AA" * 20, Kind.OPENPGP, b"", Source.KEYSERVER, "a", NOW, NOW)
GOOD = Voucher("a@example.org", authenticated=True, seen_at=NOW)
MAIL = replace(ENTRY, source=Source.MAILFLOW, origin="example.org", vouchers=(GOOD,))
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
    assert expires_at(LOCAL, NOW, Terms()) is None
    assert judge(LOCAL, VIEW, NOW + 5000 * DAY, Terms()).until == FOREVER


def test_an_upstreams_own_ttl_and_one_that_left() -> None:
    terms = Terms(ttl=DAY, upstreams={"a": UpstreamSpec("a", ttl=3600)})
    assert expires_at(ENTRY, NOW, terms) == NOW + 3600
    assert expires_at(replace(ENTRY, origin="gone"), NOW, terms) == NOW + DAY


def test_mailflow_needs_consent() -> None:
    assert not judge(MAIL, VIEW, NOW, Terms()).answerable
    assert judge(MAIL, OPEN, NOW, Terms()).answerable
    approved = replace(MAIL, vouchers=(replace(GOOD, approved=True),))
    assert judge(approved, VIEW, NOW, Terms()).answerable
    held = replace(MAIL, vouchers=(replace(GOOD, held=True),))
    assert not judge(held, OPEN, NOW, Terms()).answerable
    assert "held" in judge(held, OPEN, NOW, Terms()).reason
    both = replace(MAIL, vouchers=(replace(GOOD, held=True, approved=True),))
    assert judge(both, VIEW, NOW, Terms()).answerable
    assert "before senders were kept" in judge(replace(MAIL, vouchers=()), OPEN, NOW, Terms()).reason


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
    approved = replace(entry, vouchers=(Voucher("a@example.org", approved=True),))
    assert judge(approved, VIEW, NOW, terms).answerable
    terms = replace(terms, upstreams={"a": UpstreamSpec("a")})
    assert judge(approved, VIEW, NOW, terms, "a@example.org").answerable
    assert not judge(approved, VIEW, NOW, terms, "b@example.org").answerable, "approved for another address"
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


def test_an_upstreams_entry_speaks_for_addresses_that_it_would_be_told() -> None:
    terms = Terms(internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a", domains=("other.example",))})
    everywhere = replace(terms, upstreams={"a": UpstreamSpec("a")})
    assert "not believed" in speaks(ENTRY, "ceo@partner.example", VIEW, terms)
    assert not speaks(ENTRY, "ceo@other.example", VIEW, terms)
    assert not speaks(ENTRY, "ceo@partner.example", VIEW, everywhere)
    assert "internal" in speaks(ENTRY, "ceo@here.example", VIEW, everywhere)
    assert not speaks(LOCAL, "ceo@here.example", VIEW, terms)
    approved = replace(ENTRY, vouchers=(Voucher("ceo@partner.example", approved=True),))
    assert speaks(approved, "ceo@partner.example", VIEW, terms), "an approval lifts no domains"
    assert "no upstream any more" in speaks(replace(ENTRY, origin="gone"), "ceo@other.example", VIEW, terms)
    assert judge(replace(ENTRY, origin="gone"), VIEW, NOW, terms).answerable, "by fingerprint and key ID"


@pytest.mark.parametrize(
    ("voucher", "view", "chained", "why"),
    [
        (GOOD, OPEN, False, ""),
        (GOOD, VIEW, False, "does not answer mailflow"),
        (replace(GOOD, authenticated=False), OPEN, False, "not authenticated"),
        (replace(GOOD, authenticated=False), OPEN, True, ""),
        (replace(GOOD, held=True), OPEN, True, "held"),
        (replace(GOOD, held=True, approved=True), VIEW, False, ""),
        (replace(GOOD, address="b@example.org"), OPEN, True, "none from this address"),
        (replace(GOOD, address="b@example.org", approved=True), VIEW, False, "none from this address"),
    ],
)
def test_mail_speaks_for_the_address_that_it_came_from(voucher: Voucher, view: View, chained: bool, why: str) -> None:
    entry = replace(MAIL, vouchers=(voucher,), chained=chained)
    said = speaks(entry, "a@example.org", view, Terms())
    assert why in said and bool(why) is bool(said)
    assert speaks(entry, "a@example.org", view, Terms(internal_domains=("example.org",))), "never for our own domains"


@pytest.mark.parametrize(
    ("text", "address", "stays"),
    [
        ("A <a@example.org>", "a@example.org", True),
        ("Ceo <ceo@here.example>", "ceo@here.example", False),
        ("Just a name", None, True),
        ('"Boss <ceo@here.example" x', None, False),
        ("ceo\uff20here.example", None, False),  # a full-width @
        ("ceo\ufe6bhere.example", None, False),
    ],
)
def test_what_could_be_taken_for_an_address_is_cut(text: str, address: str | None, stays: bool) -> None:
    terms = Terms(internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a")})
    claim = Claim(text, address)
    assert keeps(ENTRY, claim, VIEW, terms) is stays
    assert keeps(LOCAL, claim, VIEW, terms)
    assert keeps(MAIL, claim, OPEN, terms) is (address == "a@example.org")


DIRECTORY = View(directory=True)


@pytest.mark.parametrize(
    ("entry", "spec", "speaks_for"),
    [
        (ENTRY, UpstreamSpec("a"), False),
        (ENTRY, UpstreamSpec("a", by_owner=True), True),
        (ENTRY, UpstreamSpec("a", domains=("example.org",)), True),
        (ENTRY, UpstreamSpec("a", domains=("other.example",)), False),
        (ENTRY, UpstreamSpec("a", by_owner=True, template=True), False),  # this address's own host did not send it
        (replace(ENTRY, vouchers=(GOOD,)), UpstreamSpec("a", by_owner=True, template=True), True),
        (replace(ENTRY, origin="gone"), UpstreamSpec("a", by_owner=True), False),
        (LOCAL, UpstreamSpec("a"), True),
        (MAIL, UpstreamSpec("a"), False),
        (replace(MAIL, vouchers=(replace(GOOD, approved=True),)), UpstreamSpec("a"), False),
    ],
)
def test_a_directory_passes_on_its_domains_own_word(entry: Entry, spec: UpstreamSpec, speaks_for: bool) -> None:
    terms = Terms(upstreams={"a": spec})
    view = replace(DIRECTORY, answer_mailflow=True)
    assert (not speaks(entry, "a@example.org", view, terms)) is speaks_for
    assert judge(entry, view, NOW, terms, "a@example.org").answerable is speaks_for


@pytest.mark.parametrize(
    ("text", "address", "stays"),
    [
        ("A <a@example.org>", "a@example.org", True),
        ("a@example.org", "a@example.org", True),
        ("B <b@example.org>", "b@example.org", False),
        ("b@example.org <a@example.org>", "a@example.org", False),
        ("Just a name", None, False),
    ],
)
def test_in_a_directorys_answer_stands_the_address_alone(text: str, address: str | None, stays: bool) -> None:
    terms = Terms(upstreams={"a": UpstreamSpec("a", by_owner=True)})
    for entry in (ENTRY, LOCAL):
        assert keeps(entry, Claim(text, address), DIRECTORY, terms, "a@example.org") is stays


def test_records_are_believed_for_ttl_and_negative_ttl() -> None:
    terms = Terms(ttl=DAY, negative_ttl=900, upstreams={"quick": UpstreamSpec("quick", ttl=600)})
    assert record_until(Record("n", "a", True, NOW), terms) == NOW + DAY
    assert record_until(Record("n", "a", False, NOW), terms) == NOW + 900
    assert record_until(Record("n", "quick", False, NOW), terms) == NOW + 600


@pytest.mark.parametrize(
    ("claim", "shown"),
    [
        (Claim("A <a@example.org>", "a@example.org"), {"a@example.org"}),
        (Claim("a@example.org <a@example.org>", "a@example.org"), {"a@example.org"}),
        (Claim("ceo@here.example <a@example.org>", "a@example.org"), {"a@example.org", "ceo@here.example"}),
        (Claim('"CEO@Here.example." (\'x@y.example\') <a@example.org>', "a@example.org"),
         {"a@example.org", "ceo@here.example", "x@y.example"}),
        (Claim("<a@example.org> ceo\uff20here.example", "a@example.org"), {"a@example.org", "ceo@here.example"}),
        (Claim("A (@work, at@) <a@example.org>", "a@example.org"), {"a@example.org"}),
        (Claim("ceo@here.example/x <a@example.org>", "a@example.org"), {"a@example.org", None}),
        (Claim("mailto:ceo@here.example", None), {"ceo@here.example"}),
        (Claim("Just a name", None), set()),
    ],
)  # fmt: skip
def test_addresses_that_a_user_id_shows(claim: Claim, shown: set[str | None]) -> None:
    assert shown_by(claim) == shown


def test_a_template_speaks_for_what_the_addresss_own_host_has_sent() -> None:
    terms = Terms(internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a", template=True)})
    sent = replace(ENTRY, vouchers=(Voucher("a@example.org", authenticated=True, seen_at=NOW),))
    assert "own did not send it" in speaks(ENTRY, "a@example.org", VIEW, terms)
    assert not speaks(sent, "a@example.org", VIEW, terms)
    assert speaks(sent, "b@example.org", VIEW, terms)
    approved = replace(ENTRY, vouchers=(Voucher("a@example.org", approved=True),))
    assert not speaks(approved, "a@example.org", VIEW, terms)
    boss = replace(ENTRY, vouchers=(Voucher("ceo@here.example", authenticated=True, approved=True),))
    assert "internal" in speaks(boss, "ceo@here.example", VIEW, terms)


def test_a_single_label_is_told_only_to_who_lists_it() -> None:
    query = ByAddress("ann", "corp")
    assert "own network" in hears(UpstreamSpec("a"), query, Terms())
    assert "only told" in hears(UpstreamSpec("a", domains=("*.corp",)), query, Terms())
    assert not hears(UpstreamSpec("a", domains=("corp",)), query, Terms())
    assert not hears(UpstreamSpec("a", domains=("corp",)), query, Terms(internal_domains=("corp",)))
    assert speaks(ENTRY, "ann@corp", VIEW, Terms(upstreams={"a": UpstreamSpec("a")}))
    assert not speaks(LOCAL, "ann@corp", VIEW, Terms())


def test_the_purge_takes_what_judge_calls_expired_and_nothing_before() -> None:
    terms = Terms(ttl=1000, serve_stale=50, upstreams={"quick": UpstreamSpec("quick", ttl=10)})
    cutoffs = purged_before(NOW, terms)
    for source, origin, key in (
        (Source.KEYSERVER, "quick", "quick"),
        (Source.KEYSERVER, "gone", None),
        (Source.MAILFLOW, "x.example", None),
    ):
        last = cutoffs[source, key]
        for at, expired in ((last - 1, True), (last + 1, False)):
            one = replace(ENTRY, source=source, origin=origin, cached_at=at, seen_at=at)
            assert (judge(one, View(), NOW, terms).freshness is Freshness.EXPIRED) == expired, (source, at)
    assert not any(source is Source.LOCAL for source, _ in cutoffs)
    absent = Record("n", "quick", False, absent_before(NOW, terms) - 1)
    assert not is_believed(absent, NOW, terms)


def test_mail_is_old_when_what_it_carries_has_expired() -> None:
    for age, old in ((180 * DAY - 1, False), (180 * DAY, True)):
        assert is_old_mail(NOW - age, NOW) == old
        assert is_expired(replace(ENTRY, source=Source.MAILFLOW, cached_at=NOW, seen_at=NOW - age), NOW, Terms()) == old
    assert not is_old_mail(None, NOW)


def test_what_is_found_is_due_in_the_last_tenth_of_its_ttl() -> None:
    terms = Terms(ttl=1000, upstreams={"quick": UpstreamSpec("quick", ttl=100)})
    assert due_before(NOW, terms) == {None: NOW - 900, "quick": NOW - 90}
    record = Record("n", "quick", True, NOW - 90)
    assert is_due(record, 0, NOW, terms)
    assert not is_due(record, NOW - 29, NOW, terms)
    assert is_due(record, NOW - 30, NOW, terms)
    assert not is_due(record, 0, NOW + 10, terms), "expired"
    assert prefetch_interval(terms) == 1.0
    assert prefetch_interval(Terms(ttl=86400)) == 864.0


def test_an_address_is_known_by_what_its_own_upstream_found() -> None:
    terms = Terms(upstreams={"a": UpstreamSpec("a"), "b": UpstreamSpec("b", domains=("y.example",))})
    address = "m@x.example"
    by_a = [Record("n", "a", True, NOW)]
    assert knows(replace(ENTRY, origin="a"), address, by_a, NOW, terms)
    assert not knows(replace(ENTRY, origin="a"), address, [], NOW, terms)
    assert not knows(replace(ENTRY, origin="a"), address, [Record("n", "b", True, NOW)], NOW, terms)
    assert not knows(replace(ENTRY, origin="a"), address, [Record("n", "a", True, NOW - DAY)], NOW, terms)
    assert not knows(replace(ENTRY, origin="b"), address, [Record("n", "b", True, NOW)], NOW, terms), "it may not speak"
    assert not knows(replace(ENTRY, origin="a", cached_at=NOW - DAY), address, by_a, NOW, terms), "expired"
    assert knows(replace(ENTRY, source=Source.LOCAL, origin="admin"), address, [], NOW, terms)
    assert knows(replace(ENTRY, source=Source.MAILFLOW, origin="x.example"), address, [], NOW, terms), "from before"
    assert not knows(replace(ENTRY, source=Source.MAILFLOW, origin="y.example"), address, [], NOW, terms)
    vouched = replace(
        ENTRY, source=Source.MAILFLOW, origin="x.example", vouchers=(Voucher(address, authenticated=True),)
    )
    assert knows(vouched, address, [], NOW, terms), "whatever a view may be told"
