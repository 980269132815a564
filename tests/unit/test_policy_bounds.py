"""Numbers and places of policy that no other test holds: what mutation testing could change unnoticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Answered, Certificate, Claim, Entry, Kind, Record, Source, UpstreamSpec, View, Voucher
from keyserver.openpgp import prove
from keyserver.policy import (
    OnRecord,
    Terms,
    absent_before,
    backed,
    is_due,
    is_expired,
    keeps,
    knows,
    order_key,
    shown_by,
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
