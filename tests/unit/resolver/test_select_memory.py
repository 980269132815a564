"""Selection where another certificate answered before, where several are kept back, and from several entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyserver.app import hygiene_of
from keyserver.domains import DomainRule, DomainRules
from keyserver.hygiene import Hygiene
from keyserver.model import Entry, Kind, OnChange, Proof, Record, Source, UpstreamSpec, Validity, View, Voucher
from keyserver.policy import FOREVER, OnRecord, Terms, on_record
from keyserver.query import parse
from keyserver.resolver.select import Selected, merged_all, proves, select
from keyserver.store.snapshot import Snapshot
from keyserver.tripwire import HELD
from keyserver.usable import withheld
from support.openpgp import CREATED, Made, make
from support.resolving import NOW
from support.x509 import authority, issue, name, person

BOB = "bob@partner.example"
OLD = make([f"Bob <{BOB}>"], seed="old")
NEW = make([f"Bob <{BOB}>"], seed="new", created=CREATED + 1000)
TERMS = Terms(upstreams={"a": UpstreamSpec("a", priority=1), "b": UpstreamSpec("b", priority=2)})
HOLDING = replace(TERMS, on_change=OnChange.HOLD)
HYGIENE = hygiene_of()
KIT = HYGIENE[Kind.OPENPGP]
UNFOUND = "it claims the address, but no search for this query has found it"


def entry(made: Made, origin: str = "a", **more: Any) -> Entry:
    octets = KIT.merge([made.octets], b"")
    given = {"source": Source.KEYSERVER, "cached_at": NOW, "seen_at": NOW, **more}
    return Entry(made.fingerprint, Kind.OPENPGP, octets, origin=origin, **given)


def found(*upstreams: str) -> OnRecord:
    return on_record([Record("n", u, True, NOW) for u in upstreams], list(TERMS.upstreams), NOW, TERMS)


def chosen(
    *entries: Entry,
    term: str = BOB,
    on: OnRecord | None = None,
    terms: Terms = HOLDING,
    before: Made | None = None,
    view: View | None = None,
    hygiene: Mapping[Kind, Hygiene] = HYGIENE,
    stale: bool = False,
    kind: Kind = Kind.OPENPGP,
) -> Selected:
    view = view or View()
    answering = {view.memory: before.fingerprint} if before else {}
    known = Snapshot(entries, answering=answering)
    return select(known, parse(term, kind), view, NOW, terms, hygiene, on, stale=stale)


def fingerprints(selected: Selected) -> list[str]:
    return [a.certificate.fingerprint for a in selected.certificates]


def test_while_another_is_held_the_one_of_before_answers_on_though_no_search_has_found_it() -> None:
    both = entry(OLD, cached_at=NOW - 200), entry(NEW, "b")
    selected = chosen(*both, on=found("b"), before=OLD)
    assert fingerprints(selected) == [OLD.fingerprint]
    assert (selected.first, selected.held) == (OLD.fingerprint, (NEW.fingerprint,))
    assert selected.passed_over == ((NEW.fingerprint, HELD),)
    assert selected.withheld == (f"{NEW.fingerprint}: {HELD}",)
    assert (selected.alone, selected.until) == (False, NOW - 200 + TERMS.ttl), "it turns with the one of before"
    soon = entry(NEW, "b", cached_at=NOW - 500)
    assert chosen(soon, both[0], on=found("b"), before=OLD).until == NOW - 500 + TERMS.ttl, "or when what is held does"
    ending = entry(make([f"Bob <{BOB}>"], seed="old", expires=NOW - CREATED + 60))
    assert chosen(ending, both[1], on=found("b"), before=OLD).until == NOW + 60, "or its certificate"
    reported = chosen(*both, on=found("b"), before=OLD, terms=TERMS)
    assert fingerprints(reported) == [NEW.fingerprint]
    assert (reported.first, reported.held) == (NEW.fingerprint, ())
    assert reported.passed_over == ((OLD.fingerprint, UNFOUND),)


def test_one_that_is_approved_takes_the_place_of_the_one_of_before() -> None:
    approved = replace(entry(NEW, "b"), vouchers=(Voucher(BOB, approved=True),))
    third = make([f"Bob <{BOB}>"], seed="third")
    selected = chosen(approved, entry(third, "b"), entry(OLD), on=found("b"), before=OLD)
    assert (selected.first, selected.held) == (NEW.fingerprint, (third.fingerprint,))
    assert fingerprints(selected) == [NEW.fingerprint]
    assert (OLD.fingerprint, UNFOUND) in selected.passed_over, "another one has taken its place"


def test_nothing_is_remembered_or_held_for_a_question_without_an_address() -> None:
    for term in (NEW.fingerprint, "bob"):
        selected = chosen(entry(NEW), term=term, before=OLD)
        assert (fingerprints(selected), selected.first, selected.held) == ([NEW.fingerprint], "", ())


def test_where_none_was_remembered_the_first_one_is() -> None:
    selected = chosen(entry(OLD), entry(NEW, "b"), on=found("a", "b"))
    assert (fingerprints(selected), selected.first) == ([OLD.fingerprint], OLD.fingerprint)
    assert selected.held == (NEW.fingerprint,)
    nothing = chosen(on=found("a"))
    assert (nothing.first, nothing.held, nothing.until, nothing.stale, nothing.alone) == ("", (), FOREVER, False, False)


def test_one_that_a_view_is_not_told_answers_on_for_nobody() -> None:
    revoked = make([f"Bob <{BOB}>"], seed="old", revoked=2)
    both = entry(revoked), entry(NEW, "b")
    gateway = View("gateway", usable_only=True)
    selected = chosen(*both, on=found("b"), before=revoked, view=gateway)
    assert (fingerprints(selected), selected.held) == ([], (NEW.fingerprint,))
    assert fingerprints(chosen(*both, on=found("b"), before=revoked)) == [revoked.fingerprint]


def test_a_hit_by_itself_among_others_is_said() -> None:
    local = entry(OLD, "admin", source=Source.LOCAL)
    for both in ((local, entry(NEW)), (entry(NEW), local)):
        selected = chosen(*both, on=found("a"), terms=TERMS)
        assert (len(selected.certificates), selected.alone) == (2, True)
    assert not chosen(entry(NEW), on=found("a"), terms=TERMS).alone


def test_an_answer_is_stale_where_any_entry_of_it_is() -> None:
    terms = replace(TERMS, serve_stale=600)
    late = entry(OLD, cached_at=NOW - TERMS.ttl)
    for both in ((late, entry(NEW)), (entry(NEW), late), (entry(OLD, "b"), late), (late, entry(OLD, "b"))):
        assert chosen(*both, terms=terms, stale=True).stale
        assert not chosen(*both, terms=terms).stale
    unasked = select(Snapshot((late,)), parse(BOB), View(), NOW, terms, HYGIENE, None)
    assert (unasked.certificates, unasked.stale) == ((), False)


def test_every_certificate_is_judged_and_each_that_is_not_answered_says_why() -> None:
    over, carol = entry(OLD, cached_at=NOW - TERMS.ttl - 7), make(["Carol <carol@x.example>"], seed="carol")
    expired = make([f"Bob <{BOB}>"], seed="expired", expires=100)
    others = entry(expired), entry(NEW, "b"), entry(carol)
    selected = chosen(over, *others, on=found("a"), view=View(usable_only=True))
    assert [why for _, why in selected.passed_over] == [
        "expired 7 s ago",
        withheld(KIT.prove(others[0].octets, NOW), View(usable_only=True)),
        UNFOUND,
        "it does not prove the query now",
    ]
    assert len(selected.withheld) == 1
    assert fingerprints(selected) == []
    fresh = make([f"Bob <{BOB}>"], seed="fresh")
    assert fingerprints(chosen(over, *others, entry(fresh), on=found("a"), view=View(usable_only=True))) == [
        fresh.fingerprint
    ]


def test_entries_are_judged_for_the_address_that_is_asked_for() -> None:
    elsewhere = replace(TERMS, upstreams={"a": UpstreamSpec("a", domains=("x.example",))})
    selected = chosen(entry(OLD), on=found("a"), terms=elsewhere)
    ((_, why),) = selected.passed_over
    assert (fingerprints(selected), "not believed for this address" in why) == ([], True)
    short = replace(TERMS, domains=DomainRules([DomainRule("partner.example", ttl=100)]))
    assert fingerprints(chosen(entry(OLD, cached_at=NOW - 99), terms=short)) == [OLD.fingerprint]
    assert fingerprints(chosen(entry(OLD, cached_at=NOW - 100), terms=short)) == []
    assert fingerprints(chosen(entry(OLD, cached_at=NOW - 100), term=OLD.fingerprint, terms=short))


def test_an_approval_for_the_address_answers_by_whatever_search_has_finished() -> None:
    for address, answers in ((BOB, True), ("bobby@partner.example", False)):
        approved = replace(entry(OLD), vouchers=(Voucher(address, approved=True),))
        assert bool(chosen(approved, on=found("b")).certificates) is answers
        assert not chosen(approved, on=OnRecord({}, False, FOREVER)).certificates


def test_an_approval_for_another_address_puts_nothing_first() -> None:
    other = Voucher("bobby@partner.example", approved=True)
    for address, first in ((BOB, NEW), (other.address, OLD)):
        approved = replace(entry(NEW, "b"), vouchers=(replace(other, address=address),))
        selected = chosen(entry(OLD), approved, on=found("a", "b"), terms=TERMS)
        assert (len(selected.certificates), fingerprints(selected)[0]) == (2, first.fingerprint)


def test_a_directory_is_told_the_user_id_of_the_address_alone() -> None:
    both = make([f"Bob <{BOB}>", "Bob <bobby@partner.example>", "Bob"], seed="old")
    terms = replace(TERMS, upstreams={"a": UpstreamSpec("a", by_owner=True)})
    (answered,) = chosen(entry(both), on=found("a"), terms=terms, view=View(directory=True)).certificates
    assert [u.address for u in answered.certificate.proof.user_ids] == [BOB]
    (answered,) = chosen(entry(both), on=found("a"), terms=terms).certificates
    assert len(answered.certificate.proof.user_ids) == 3


def test_what_is_on_a_revocation_list_answers_its_own_name_and_is_kept_back_from_others() -> None:
    def barring(octets: bytes, now: int) -> Proof:
        return replace(KIT.prove(octets, now), barred="it is on the list", validity=Validity.REVOKED)

    listed = {Kind.OPENPGP: replace(KIT, prove=barring)}
    selected = chosen(entry(OLD), on=found("a"), hygiene=listed)
    assert (selected.certificates, selected.withheld) == ((), (f"{OLD.fingerprint}: it is on the list",))
    assert selected.passed_over == ((OLD.fingerprint, "it is on the list"),)
    assert fingerprints(chosen(entry(OLD), term=OLD.fingerprint, hygiene=listed)) == [OLD.fingerprint]
    over = replace(entry(OLD, "b"), cached_at=NOW - TERMS.ttl - 7)
    assert chosen(entry(OLD), over, on=found("a"), hygiene=listed).passed_over == (
        (OLD.fingerprint, "expired 7 s ago"),
    )


def test_x509_certificates_from_mail_that_name_others_answer_no_text_for_they_cannot_be_cut() -> None:
    issued, kit = person(BOB), HYGIENE[Kind.X509]
    issued_too = person(BOB, emails=[BOB, "ceo@here.example"])
    for one, answers in ((issued, True), (issued_too, False)):
        voucher = Voucher(BOB, authenticated=True, seen_at=NOW)
        mail = Entry(
            one.fingerprint, Kind.X509, one.der, Source.MAILFLOW, "partner.example", NOW, NOW, vouchers=(voucher,)
        )
        wants = View(answer_mailflow=True)
        proof = kit.prove(one.der, NOW)
        assert proof.x509 is not None
        by_text = chosen(mail, term=proof.x509.common_name, kind=Kind.X509, view=wants)
        assert bool(by_text.certificates) is answers
        if not answers:
            assert by_text.passed_over == (
                (one.fingerprint, "it names addresses that its origin may not speak for, and cannot be cut"),
            )
        by_key = chosen(mail, term=one.fingerprint, kind=Kind.X509, view=wants)
        assert fingerprints(by_key) == [one.fingerprint], "whole"


def test_a_text_is_looked_for_in_any_case_and_in_a_common_name() -> None:
    proof = HYGIENE[Kind.X509].prove(issue(name("Bob of the gateway"), issuer=authority(), emails=[BOB]).der, NOW)
    assert proves(proof, parse("OF THE Gateway"))
    assert proves(proof, parse("bob"))
    assert not proves(proof, parse("carol"))
    assert proves(KIT.prove(entry(OLD).octets, NOW), parse("BOB <bob"))
    assert not proves(KIT.prove(entry(OLD).octets, NOW), parse("carol"))


def test_all_that_is_known_of_a_certificate_is_merged_whoever_may_be_told() -> None:
    more = make([f"Bob <{BOB}>", "Bob <bob@work.example>"], seed="old")
    over = entry(more, "b", cached_at=0)
    merged = merged_all(Snapshot((entry(OLD), over)), OLD.fingerprint, HYGIENE, NOW)
    assert merged is not None and len(merged.proof.user_ids) == 2
    revoked = KIT.revocations(KIT.merge([make([f"Bob <{BOB}>"], seed="old", revoked=2).octets], b""))
    known = Snapshot((entry(OLD),), {OLD.fingerprint: revoked, NEW.fingerprint: b""})
    merged = merged_all(known, OLD.fingerprint, HYGIENE, NOW)
    assert merged is not None and merged.proof.validity is Validity.REVOKED
    merged = merged_all(known, NEW.fingerprint, HYGIENE, NOW)
    assert merged is not None and merged.proof.validity is Validity.VALID
    assert merged_all(Snapshot(), OLD.fingerprint, HYGIENE, NOW) is None
