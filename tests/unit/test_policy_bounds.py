"""Numbers and places of policy that no other test holds: what mutation testing could change unnoticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Answered, Certificate, Claim, Entry, Kind, Record, Source, UpstreamSpec, View, Voucher
from keyserver.openpgp import prove
from keyserver.policy import (
    FOREVER,
    Freshness,
    OnRecord,
    Terms,
    absent_before,
    backed,
    due_before,
    expires_at,
    in_vain_until,
    is_believed,
    is_due,
    is_expired,
    judge,
    keeps,
    knows,
    on_record,
    order_key,
    prefetch_interval,
    purged_before,
    shown_by,
    speaks,
    uncounted,
    without_effect,
)
from keyserver.query import name_of
from support.openpgp import CREATED, make

NOW = 1_700_000_000
DAY = 86400
ADDRESS = "a@short.example"
ENTRY = Entry("AA" * 20, Kind.OPENPGP, b"", Source.KEYSERVER, "a", NOW, NOW)
APPROVED = (Voucher(ADDRESS, approved=True),)
SHORT = DomainRules([DomainRule("short.example", ttl=3600)])
NAME = name_of(Kind.OPENPGP, "addr", ADDRESS)


def test_a_domains_ttl_ends_what_answers_its_addresses_and_nothing_else() -> None:
    terms = Terms(ttl=DAY, domains=SHORT, upstreams={"a": UpstreamSpec("a")})
    assert is_expired(ENTRY, NOW + 3600, terms, ADDRESS)
    assert not is_expired(ENTRY, NOW + 3600, terms, "a@other.example")
    found = [Record(NAME, "a", True, NOW + 3000)]
    assert knows(ENTRY, ADDRESS, found, NOW + 3599, terms)
    assert not knows(ENTRY, ADDRESS, found, NOW + 3600, terms)
    record = Record(NAME, "a", True, NOW)
    assert is_due(record, 0, NOW + 3599, terms)
    assert not is_due(record, 0, NOW + 3600, terms)


def test_absence_is_believed_backwards_from_now() -> None:
    assert absent_before(NOW, Terms(negative_ttl=900)) == NOW - 900


@pytest.mark.parametrize(("ttl", "pause"), [(DAY, 2880), (86390, 2879)])
def test_what_is_due_is_tried_three_times_in_the_last_tenth(ttl: int, pause: int) -> None:
    record = Record("n", "a", True, NOW)
    assert is_due(record, NOW, NOW + pause, Terms(ttl=ttl))
    assert not is_due(record, NOW, NOW + pause - 1, Terms(ttl=ttl))


def test_an_approval_backs_its_own_address_alone() -> None:
    approved = replace(ENTRY, vouchers=APPROVED)
    by_another = OnRecord({"b": Record(NAME, "b", True, NOW)}, False, NOW)
    assert backed(approved, by_another, ADDRESS)
    assert not backed(approved, by_another, "b@short.example")
    assert not backed(approved, by_another, None)


def test_an_approval_makes_its_own_address_known_and_no_other() -> None:
    terms = Terms(upstreams={"a": UpstreamSpec("a")})
    approved = replace(ENTRY, vouchers=APPROVED)
    assert knows(approved, ADDRESS, [], NOW, terms)
    assert not knows(approved, "b@short.example", [], NOW, terms)


def test_what_waits_for_an_administrator_makes_nothing_known() -> None:
    terms = Terms(upstreams={"a": UpstreamSpec("a")})
    waiting = replace(ENTRY, vouchers=(Voucher(ADDRESS, held=True),))
    found = [Record(NAME, "a", True, NOW)]
    assert not knows(waiting, ADDRESS, found, NOW, terms)
    assert knows(waiting, "b@short.example", found, NOW, terms), "it waits for one address only"


def test_mail_of_before_senders_were_kept_is_of_a_domain_whatever_the_local_part() -> None:
    old = replace(ENTRY, source=Source.MAILFLOW, origin="short.example")
    assert knows(old, '"x@y"@short.example', [], NOW, Terms())
    assert not knows(old, "a@other.example", [], NOW, Terms())


def test_a_user_id_shows_its_own_address_and_every_word_like_one() -> None:
    assert shown_by(Claim("Eve (ceo@x.example) <m@y.example>", "m@y.example")) == {"m@y.example", "ceo@x.example"}
    assert shown_by(Claim("'ceo@x.example'. @ Work", None)) == {"ceo@x.example"}
    assert shown_by(Claim("nobody", "hidden@y.example")) == {"hidden@y.example"}


def test_a_local_entry_shows_what_no_rule_bars() -> None:
    local = replace(ENTRY, source=Source.LOCAL, origin="admin")
    pinned = Terms(domains=DomainRules([DomainRule("short.example", pinned=frozenset({"BB" * 20}))]))
    assert keeps(local, Claim("A <a@short.example>", ADDRESS), View(), Terms())
    assert not keeps(local, Claim("A <a@short.example>", ADDRESS), View(), pinned)
    assert keeps(local, Claim("A <not an address@>", None), View(), pinned)


def test_the_word_of_mail_alone_keeps_no_user_id_without_an_address() -> None:
    """Whatever an upstream is called: an origin of mail that has the same name is none."""
    terms = Terms(upstreams={"a": UpstreamSpec("a")})
    mail = replace(ENTRY, source=Source.MAILFLOW, vouchers=APPROVED)
    assert keeps(ENTRY, Claim("Alice", None), View(), terms)
    assert not keeps(mail, Claim("Alice", None), View(answer_mailflow=True), terms)


def test_order_local_then_approved_then_by_priority_and_who_left_is_last() -> None:
    octets = make(seed="order").octets
    certificate = Certificate(octets, prove(octets, CREATED))
    terms = Terms(upstreams={"a": UpstreamSpec("a", 10), "b": UpstreamSpec("b", 2_000_000_000)})

    def key(*entries: Entry) -> tuple[int, int, int]:
        return order_key(Answered(certificate, entries), terms, ADDRESS)[:3]

    local, gone = replace(ENTRY, source=Source.LOCAL, origin="admin"), replace(ENTRY, origin="gone")
    assert key(local) == (0, 1, 1 << 30)
    assert key(ENTRY) == (1, 1, 10)
    assert key(replace(gone, vouchers=APPROVED)) == (1, 0, 1 << 30)
    assert key(gone, ENTRY) == (1, 1, 10)
    assert key(gone) == (1, 1, 1 << 30)


def test_an_approval_is_said_to_change_nothing_where_it_would_not() -> None:
    terms = Terms(internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a")})
    mail = replace(ENTRY, source=Source.MAILFLOW, origin="short.example", vouchers=(Voucher(ADDRESS, held=True),))
    assert speaks(mail, ADDRESS, View(), terms)
    assert not without_effect(mail, ADDRESS, View(), terms)
    assert not without_effect(replace(mail, vouchers=()), ADDRESS, View(), terms)
    assert "internal" in without_effect(mail, "ceo@here.example", View(), terms)
    others = replace(mail, vouchers=(Voucher("b@short.example", approved=True), *mail.vouchers))
    assert not without_effect(others, ADDRESS, View(), terms)
    assert "subaddress" in without_effect(mail, ADDRESS, View(no_mailflow=True), terms)
    pinned = replace(terms, domains=DomainRules([DomainRule("short.example", pinned=frozenset({"BB" * 20}))]))
    assert "pins" in without_effect(mail, ADDRESS, View(), pinned)


def test_an_address_is_of_the_domain_behind_its_last_at() -> None:
    quoted = '"x@here.example"@short.example'
    terms = Terms(ttl=DAY, domains=SHORT, internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a")})
    assert terms.rule(quoted) is SHORT.of("short.example")
    assert terms.rule(None) is None
    assert not speaks(ENTRY, quoted, View(), terms)
    assert speaks(ENTRY, '"x@short.example"@here.example', View(), terms)


def test_a_chain_is_required_of_no_local_entry_and_of_no_openpgp_certificate() -> None:
    strict = Terms(require_chain=True, upstreams={"a": UpstreamSpec("a")})
    unchained = replace(ENTRY, kind=Kind.X509)
    verdict = judge(unchained, View(), NOW, strict)
    assert (verdict.answerable, verdict.freshness, verdict.until) == (False, Freshness.FRESH, NOW + strict.ttl)
    assert "smime.require_chain" in verdict.reason
    assert judge(replace(unchained, source=Source.LOCAL), View(), NOW, strict).answerable
    assert judge(unchained, View(), NOW, replace(strict, require_chain=False)).answerable


def test_a_verdict_says_when_it_turns() -> None:
    terms = Terms(ttl=3600, serve_stale=600, upstreams={"a": UpstreamSpec("a")})
    stale = judge(ENTRY, View(), NOW + 3600, terms)
    assert (stale.answerable, stale.freshness, stale.until) == (True, Freshness.STALE, NOW + 4200)
    assert judge(ENTRY, View(), NOW + 4199, terms).answerable
    over = judge(ENTRY, View(), NOW + 4200, terms)
    assert (over.answerable, over.freshness, over.until, over.reason) == (
        False, Freshness.EXPIRED, FOREVER, "expired 600 s ago",
    )  # fmt: skip
    mail = replace(ENTRY, source=Source.MAILFLOW, vouchers=APPROVED)
    silent = judge(replace(mail, vouchers=()), View(), NOW, terms)
    assert (silent.answerable, silent.freshness, silent.until) == (False, Freshness.FRESH, NOW + 180 * DAY)
    assert judge(ENTRY, View(), NOW, terms).until == NOW + 3600


def test_a_verdict_on_what_no_upstream_sends_any_more_says_so_where_no_address_was_asked() -> None:
    terms = Terms(upstreams={"a": UpstreamSpec("a")})
    gone = replace(ENTRY, origin="gone")
    assert "no upstream any more" in judge(gone, View(), NOW, terms).reason
    assert judge(ENTRY, View(), NOW, terms).reason == "keyserver entry of a, fresh"
    assert judge(replace(gone, source=Source.LOCAL), View(), NOW, terms).reason == "local entry of gone, fresh"


def test_what_was_cached_in_the_future_counts_as_cached_now_beyond_a_minute() -> None:
    terms = Terms(ttl=3600)
    mail = replace(ENTRY, source=Source.MAILFLOW)
    for one, ttl in ((ENTRY, 3600), (mail, 180 * DAY)):
        near, far = (replace(one, cached_at=NOW + ahead, seen_at=NOW + ahead) for ahead in (60, 61))
        assert expires_at(near, NOW, terms) == NOW + 60 + ttl
        assert expires_at(far, NOW, terms) == NOW + ttl
    assert is_believed(Record("n", "a", True, NOW + 60), NOW, terms)
    assert not is_believed(Record("n", "a", True, NOW + 61), NOW, terms)


def test_looks_for_what_is_due_follow_the_shortest_time_to_live() -> None:
    upstreams = {"a": UpstreamSpec("a", ttl=43200), "b": UpstreamSpec("b"), "c": UpstreamSpec("c", ttl=2 * DAY)}
    assert prefetch_interval(Terms(ttl=DAY, upstreams=upstreams)) == 432.0
    assert prefetch_interval(Terms(ttl=50)) == 1.0
    assert due_before(NOW, Terms(ttl=5)) == {None: NOW - 4}, "a second at least"
    assert purged_before(NOW, Terms(ttl=5, serve_stale=3))[Source.KEYSERVER, None] == NOW - 8


def test_a_record_is_due_by_the_ttl_of_its_upstream_and_of_its_addresss_domain() -> None:
    terms = Terms(ttl=DAY, domains=SHORT, upstreams={"a": UpstreamSpec("a", ttl=7200)})
    other = Record(name_of(Kind.OPENPGP, "addr", "a@other.example"), "a", True, NOW)
    assert is_due(other, 0, NOW + 7199, terms) and not is_due(other, 0, NOW + 7200, terms)
    assert is_due(replace(other, upstream="b"), 0, NOW + DAY - 1, terms)
    assert is_due(other, NOW, NOW + 240, terms) and not is_due(other, NOW, NOW + 239, terms)
    assert is_due(replace(other, name=NAME), NOW, NOW + 120, terms)


def test_negative_is_what_everybody_asked_has_said_absent_to() -> None:
    terms = Terms(ttl=DAY, negative_ttl=900)

    def of(*records: Record, asked: tuple[str, ...] = ("a", "b"), missing: dict[str, int] | None = None) -> OnRecord:
        return on_record(records, asked, NOW, terms, missing)

    a, b = Record(NAME, "a", False, NOW - 100), Record(NAME, "b", False, NOW - 200)
    found = Record(NAME, "b", True, NOW - 300)
    assert of() == OnRecord({}, False, FOREVER)
    assert of(asked=()) == OnRecord({}, False, FOREVER), "nobody may be asked"
    assert of(a) == OnRecord({"a": a}, False, NOW + 800)
    assert of(a, b) == OnRecord({"a": a, "b": b}, True, NOW + 700)
    assert of(a, found) == OnRecord({"a": a, "b": found}, False, NOW + 800)
    assert of(a, found).finished and of(a, b).finished and not of(a).finished
    assert of(a, found, asked=("a",)) == OnRecord({"a": a, "b": found}, True, NOW + 800), "b is not asked any more"
    assert of(a, replace(b, at=NOW - 900)) == OnRecord({"a": a}, False, NOW + 800), "believed no more"
    assert of(a, missing={"b": NOW + 60}) == OnRecord({"a": a}, True, NOW + 60, ("b",)), "it need not speak"
    assert of(a, missing={"c": NOW + 60}) == OnRecord({"a": a}, False, NOW + 800)
    assert of(missing={"a": NOW + 60, "b": NOW + 60}) == OnRecord({}, False, FOREVER), "nobody has spoken"


def test_a_search_that_found_nothing_to_be_answered_is_repeated_after_the_negative_ttl() -> None:
    terms = Terms(negative_ttl=900)
    at = {"a": 5, "b": 9, "c": 20}
    living = {name: Record(NAME, name, name != "absent", NOW - back) for name, back in (*at.items(), ("absent", 1))}
    record = OnRecord(living, False, FOREVER)
    assert in_vain_until(record, ["b", "c", "absent"], terms) == NOW - 9 + 900
    assert in_vain_until(record, ["absent", "other"], terms) is None


def test_what_is_on_record_backs_an_entry() -> None:
    by_a = OnRecord({"a": Record(NAME, "a", True, NOW)}, False, NOW)
    absent = OnRecord({"a": Record(NAME, "a", False, NOW)}, True, NOW)
    nothing = OnRecord({"b": Record(NAME, "b", False, NOW)}, False, NOW)
    for one, backs in ((ENTRY, (True, False, False)), (replace(ENTRY, source=Source.MAILFLOW), (True, True, False))):
        assert tuple(backed(one, record, ADDRESS) for record in (by_a, absent, nothing)) == backs
    assert not backed(replace(ENTRY, origin="b"), by_a, None)


def test_nobody_but_who_lists_it_speaks_for_a_domain_and_the_first_reason_is_said() -> None:
    spec = UpstreamSpec("a", by_owner=True, domains=("*.list.example",))
    assert not uncounted(spec, "x.list.example", View(by_domain=True, directory=True))
    assert "authority" in uncounted(spec, "x.example", View(by_domain=True, directory=True))
    assert not uncounted(spec, "x.example", View(directory=True))
    assert "directory" in uncounted(replace(spec, by_owner=False), "x.example", View(directory=True))
    assert not uncounted(replace(spec, by_owner=False), "x.example", View())


def test_order_last_by_validity_then_the_newest_signature_then_the_fingerprint() -> None:
    made = make(seed="order", expires=DAY)
    keys = [
        order_key(Answered(Certificate(made.octets, prove(made.octets, at)), (ENTRY,)), Terms())
        for at in (CREATED, CREATED + DAY)
    ]
    assert [key[3] for key in keys] == [0, 1], "valid before expired"
    assert {key[4:] for key in keys} == {(-CREATED, made.fingerprint)}
    assert {key[2] for key in keys} == {1 << 30}, "no upstream any more"


def test_a_user_id_with_one_at_shows_its_own_address_as_it_is() -> None:
    assert shown_by(Claim("<'a@x.example>", "'a@x.example")) == {"'a@x.example"}
    assert shown_by(Claim("Xaver@x.example, <m@y.exampleX>", None)) == {"xaver@x.example", "m@y.examplex"}


@pytest.mark.parametrize(
    ("source", "address", "view", "why"),
    [
        (Source.LOCAL, "a@x.example", View(by_domain=True), "only where the configuration names it"),
        (Source.LOCAL, "a@x.example", View(directory=True, no_mailflow=True), ""),
        (Source.KEYSERVER, "a@x.example", View(by_domain=True), "does not list x.example"),
        (Source.KEYSERVER, "a@x.example", View(no_mailflow=True), ""),
        (Source.MAILFLOW, "a@here.example", View(), "is internal, and no mail speaks for it"),
        (Source.MAILFLOW, "a@x.here.example", View(), "is internal, and no mail speaks for it"),
        (Source.MAILFLOW, "a@corp", View(), "corp is no public domain"),
        (Source.MAILFLOW, "a@x.example", View(directory=True), "not the word of its domain's owner"),
        (Source.MAILFLOW, "a@x.example", View(by_domain=True), "speaks for no domain"),
        (Source.MAILFLOW, "a@x.example", View(no_mailflow=True), "speaks for no subaddress"),
        (Source.MAILFLOW, "a@x.example", View(), ""),
    ],
)
def test_who_speaks_for_an_address_in_which_view(source: Source, address: str, view: View, why: str) -> None:
    """All of them approved: an approval lifts none of these."""
    terms = Terms(internal_domains=("here.example",), upstreams={"a": UpstreamSpec("a")})
    entry = replace(ENTRY, source=source, vouchers=(Voucher(address, approved=True),))
    said = speaks(entry, address, view, terms)
    assert why in said and bool(why) is bool(said)
    verdict = judge(entry, view, NOW, terms, address)
    assert (verdict.answerable, said or verdict.reason) == (not said, verdict.reason)


def test_a_domain_without_an_address_has_local_entries_alone() -> None:
    terms, domain = Terms(upstreams={"a": UpstreamSpec("a")}), View(by_domain=True, answer_mailflow=True)
    assert judge(replace(ENTRY, source=Source.LOCAL), domain, NOW, terms).answerable
    mail = replace(ENTRY, source=Source.MAILFLOW, origin="short.example", vouchers=APPROVED)
    for one in (ENTRY, mail):
        verdict = judge(one, domain, NOW, terms)
        assert (verdict.answerable, verdict.reason) == (False, "it is no local entry, and stands for no domain")


def test_mail_speaks_without_an_address_where_it_speaks_for_one_of_its_senders() -> None:
    held = Voucher("b@short.example", held=True)
    mail = replace(ENTRY, source=Source.MAILFLOW, origin="short.example", vouchers=(held, *APPROVED))
    assert judge(mail, View(), NOW, Terms()).answerable
    assert "held" in judge(replace(mail, vouchers=(held,)), View(), NOW, Terms()).reason


def test_an_approval_for_one_address_counts_for_no_other_under_a_domains_rule_or_in_the_order() -> None:
    strict = Terms(domains=DomainRules([DomainRule("short.example", require_chain=True, upstreams=("b",))]))
    for entry in (
        replace(ENTRY, kind=Kind.X509, source=Source.MAILFLOW, vouchers=APPROVED),
        replace(ENTRY, source=Source.MAILFLOW, vouchers=APPROVED),
    ):
        assert not speaks(entry, ADDRESS, View(), strict)
        authenticated = Voucher("b@short.example", authenticated=True)
        other = replace(entry, vouchers=(authenticated, *APPROVED))
        assert "the rule for short.example" in speaks(other, "b@short.example", View(answer_mailflow=True), strict)
    made = make(seed="order")
    certificate = Certificate(made.octets, prove(made.octets, CREATED))
    answered = Answered(certificate, (replace(ENTRY, vouchers=APPROVED),))
    orders = [order_key(answered, strict, address)[1] for address in (ADDRESS, "b@short.example", None)]
    assert orders == [0, 1, 0], "for any, where none is asked for"
