"""Rules for recipients of one domain: which one holds, and what it changes in every judgement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Claim, Entry, Kind, Record, Source, UpstreamSpec, View, Voucher
from keyserver.policy import (
    Terms,
    expires_at,
    hears,
    is_believed,
    judge,
    keeps,
    purged_before,
    record_until,
    speaks,
    told,
)
from keyserver.query import ByAddress, ByFingerprint, address_in

NOW = 1_700_000_000
HOUR = 3600
ADDRESS = "a@partner.example"
BOTH = frozenset({Kind.OPENPGP, Kind.X509})
SPECS = {"public": UpstreamSpec("public", kinds=BOTH), "partner": UpstreamSpec("partner", kinds=BOTH)}
ENTRY = Entry("AA" * 20, Kind.OPENPGP, b"", Source.KEYSERVER, "public", NOW, NOW)
X509 = replace(ENTRY, kind=Kind.X509, fingerprint="CC" * 32)
LOCAL = replace(ENTRY, source=Source.LOCAL, origin="administrator")
MAIL = replace(
    ENTRY,
    source=Source.MAILFLOW,
    origin="partner.example",
    vouchers=(Voucher(ADDRESS, authenticated=True, seen_at=NOW),),
)
OPEN = View("mail", answer_mailflow=True)


def under(name: str = "partner.example", **said: object) -> Terms:
    return Terms(upstreams=SPECS, domains=DomainRules([DomainRule(name, **said)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("partner.example", "partner.example"),
        ("sub.partner.example", "*.partner.example"),
        ("a.b.sub.partner.example", "*.sub.partner.example"),
        ("other.example", "*.example"),
        ("example", None),
        ("notpartner.example", "*.example"),
        ("partner.example.org", None),
    ],
)
def test_the_most_specific_rule_holds(domain: str, name: str | None) -> None:
    rules = DomainRules(map(DomainRule, ["*.example", "*.partner.example", "partner.example", "*.sub.partner.example"]))
    found = rules.of(domain)
    assert (found and found.name) == name


def test_only_its_upstreams_are_told_and_believed() -> None:
    terms = under(upstreams=("partner",))
    assert not told(SPECS["partner"], "partner.example", terms)
    assert told(SPECS["public"], "partner.example", terms) == "the rule for partner.example names partner alone"
    assert not told(SPECS["public"], "other.example", terms)
    assert hears(SPECS["public"], ByAddress("a", "partner.example"), terms)
    assert not hears(SPECS["public"], ByFingerprint("AA" * 20), terms)
    assert "not believed for this address" in speaks(ENTRY, ADDRESS, View(), terms)
    assert not speaks(replace(ENTRY, origin="partner"), ADDRESS, View(), terms)
    assert not speaks(LOCAL, ADDRESS, View(), terms)
    assert speaks(MAIL, ADDRESS, OPEN, terms) and not speaks(MAIL, ADDRESS, OPEN, Terms())
    approved = replace(MAIL, vouchers=(Voucher(ADDRESS, approved=True),))
    assert not speaks(approved, ADDRESS, View(), terms), "an administrator has approved it since"
    assert judge(ENTRY, View(), NOW, terms).answerable, "a fingerprint is of no domain"


def test_an_exclusive_rule_lifts_no_other() -> None:
    """Internal domains are told only where they are listed, whatever a rule names."""
    terms = replace(under(upstreams=("partner",)), internal_domains=("partner.example",))
    assert "internal" in told(SPECS["partner"], "partner.example", terms)


def test_kinds_are_neither_asked_for_nor_answered() -> None:
    terms = under(kinds=frozenset({Kind.OPENPGP}))
    query = ByAddress("a", "partner.example", Kind.X509)
    assert hears(SPECS["public"], query, terms) == "the rule for partner.example takes no x509 certificates"
    assert not hears(SPECS["public"], replace(query, kind=Kind.OPENPGP), terms)
    assert not hears(SPECS["public"], replace(query, domain="other.example"), terms)
    for entry in (X509, replace(X509, source=Source.LOCAL)):
        assert speaks(entry, ADDRESS, View(), terms) == "the rule for partner.example takes no x509 certificates"


def test_a_chain_is_required_unless_approved_or_local() -> None:
    terms = under(require_chain=True)
    assert "chain does not verify" in judge(X509, View(), NOW, terms, ADDRESS).reason
    assert judge(X509, View(), NOW, terms, "a@other.example").answerable
    assert judge(replace(X509, chained=True), View(), NOW, terms, ADDRESS).answerable
    assert judge(replace(X509, source=Source.LOCAL), View(), NOW, terms, ADDRESS).answerable
    assert judge(replace(X509, vouchers=(Voucher(ADDRESS, approved=True),)), View(), NOW, terms, ADDRESS).answerable
    assert judge(ENTRY, View(), NOW, terms, ADDRESS).answerable, "OpenPGP certificates have none"


def test_nothing_answers_but_what_is_pinned_whoever_brings_it() -> None:
    terms = under(pinned=frozenset({"BB" * 20}))
    approved = replace(ENTRY, vouchers=(Voucher(ADDRESS, approved=True),))
    for entry in (ENTRY, LOCAL, approved, MAIL):
        assert speaks(entry, ADDRESS, OPEN, terms) == "the rule for partner.example pins other certificates"
        assert not speaks(replace(entry, fingerprint="BB" * 20), ADDRESS, OPEN, terms)
    # nor is its user ID handed out with an answer to another address
    claim = Claim(f"A <{ADDRESS}>", ADDRESS)
    assert not keeps(LOCAL, claim, View(), terms, "a@other.example")
    assert keeps(LOCAL, Claim("no address", None), View(), terms)
    assert keeps(LOCAL, claim, View(), Terms())


def test_its_time_to_live_holds_for_its_addresses() -> None:
    terms = under(ttl=2 * HOUR)
    assert expires_at(ENTRY, NOW, terms, ADDRESS) == NOW + 2 * HOUR
    assert expires_at(ENTRY, NOW, terms, "a@other.example") == NOW + 86400
    assert expires_at(ENTRY, NOW, terms) == NOW + 86400
    found = Record(f"openpgp:addr:{ADDRESS}", "public", True, NOW)
    assert record_until(found, terms) == NOW + 2 * HOUR
    assert not is_believed(found, NOW + 2 * HOUR, terms)
    assert record_until(replace(found, found=False), terms) == NOW + 900
    assert record_until(replace(found, name="openpgp:addr:a@other.example"), terms) == NOW + 86400
    assert judge(ENTRY, View(), NOW + 2 * HOUR, terms, ADDRESS).answerable is False


def test_what_a_longer_time_to_live_keeps_is_not_purged() -> None:
    longer = under(ttl=10 * 86400)
    assert set(purged_before(NOW, longer).values()) == {NOW - 10 * 86400, NOW - 180 * 86400}
    shorter = under(ttl=HOUR)
    assert purged_before(NOW, shorter) == purged_before(NOW, Terms(upstreams=SPECS))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("openpgp:addr:a@b.example", "a@b.example"),
        ("x509:addr:a:b@c.example", "a:b@c.example"),
        ("openpgp:fpr:AA", None),
    ],
)
def test_the_address_in_a_name(name: str, address: str | None) -> None:
    assert address_in(name) == address
