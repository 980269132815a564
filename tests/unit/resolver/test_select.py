"""Selection: from what the store knows to what one view may be told. Pure; rules 4, 6, 8, 9, 10 and 12."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keyserver.app import hygiene_of
from keyserver.model import Entry, Kind, Record, Source, UpstreamSpec, Validity, View, Voucher
from keyserver.policy import FOREVER, MAX_ANSWER, OnRecord, Terms, on_record
from keyserver.query import parse
from keyserver.resolver.select import Selected, merged_of, names_behind, proves, select
from keyserver.store.snapshot import Snapshot
from support.openpgp import CREATED, SUBKEY, Made, bind, make, new_key
from support.resolving import NOW

ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")
TERMS = Terms(upstreams={"a": UpstreamSpec("a", priority=1), "b": UpstreamSpec("b", priority=2)})
HYGIENE = hygiene_of()
KIT = HYGIENE[Kind.OPENPGP]
NOTHING = OnRecord({}, False, FOREVER)


def entry(made: Made = BY_ALICE, source: Source = Source.KEYSERVER, origin: str = "a", **more: Any) -> Entry:
    at = more.pop("at", NOW)
    return Entry(made.fingerprint, Kind.OPENPGP, clean(made), source, origin, at, at, **more)


def clean(made: Made) -> bytes:
    return KIT.merge([made.octets], b"")


def mail(made: Made = BY_ALICE, address: str = ALICE) -> Entry:
    voucher = Voucher(address, authenticated=True, seen_at=NOW)
    return entry(made, Source.MAILFLOW, address.rpartition("@")[2], vouchers=(voucher,))


def found(*upstreams: str, at: int = NOW) -> OnRecord:
    return on_record([Record("n", u, True, at) for u in upstreams], list(TERMS.upstreams), NOW, TERMS)


def selected(
    *entries: Entry,
    term: str = ALICE,
    on: OnRecord | None = NOTHING,
    view: View | None = None,
    now: int = NOW,
    terms: Terms = TERMS,
    stale: bool = False,
    **revocations: bytes,
) -> Selected:
    return select(Snapshot(entries, revocations), parse(term), view or View(), now, terms, HYGIENE, on, stale=stale)


def fingerprints(sifted: Selected) -> list[str]:
    return [a.certificate.fingerprint for a in sifted.certificates]


def test_an_address_needs_a_search_that_found_it_and_a_fingerprint_needs_none() -> None:
    claimed = selected(entry())
    assert fingerprints(claimed) == []
    assert claimed.passed_over == (
        (BY_ALICE.fingerprint, "it claims the address, but no search for this query has found it"),
    )
    assert fingerprints(selected(entry(), on=found("b"))) == [], "another upstream's word"
    assert fingerprints(selected(entry(), on=found("a"))) == [BY_ALICE.fingerprint]
    assert fingerprints(selected(entry(), on=None)) == [BY_ALICE.fingerprint], "nobody could be asked"
    by_key = selected(entry(), term=BY_ALICE.fingerprint)
    assert (fingerprints(by_key), by_key.alone) == ([BY_ALICE.fingerprint], True)


def test_a_local_entry_answers_an_address_by_itself() -> None:
    sifted = selected(entry(source=Source.LOCAL, origin="admin"))
    assert (fingerprints(sifted), sifted.alone, sifted.until) == ([BY_ALICE.fingerprint], True, FOREVER)


def test_only_entries_that_a_record_backs_go_into_the_merge() -> None:
    more = make([f"Alice <{ALICE}>", "Alice <alice@work.example>"], seed="alice")
    sifted = selected(entry(), entry(more, origin="b"), on=found("a"))
    (answered,) = sifted.certificates
    assert [e.origin for e in answered.entries] == ["a"]
    assert len(answered.certificate.proof.user_ids) == 1
    (answered,) = selected(entry(), entry(more, origin="b"), on=found("a", "b")).certificates
    assert len(answered.certificate.proof.user_ids) == 2


def test_mail_answers_a_view_that_wants_it_once_a_search_has_finished() -> None:
    wants = View(answer_mailflow=True)
    assert fingerprints(selected(mail(), on=found("a"))) == []
    assert fingerprints(selected(mail(), view=wants)) == []
    assert fingerprints(selected(mail(), view=wants, on=found("a"))) == [BY_ALICE.fingerprint]
    assert fingerprints(selected(mail(), view=wants, on=replace(NOTHING, negative=True))) == [BY_ALICE.fingerprint]


def test_an_answer_turns_when_the_first_thing_behind_it_does() -> None:
    assert selected(entry(), on=found("a", at=NOW - 100)).until == NOW - 100 + TERMS.ttl, "the record"
    assert selected(entry(at=NOW - 200), on=found("a")).until == NOW - 200 + TERMS.ttl, "the entry"
    assert selected(entry(at=NOW - 200), term=BY_ALICE.fingerprint).until == NOW - 200 + TERMS.ttl
    expiring = make([f"Alice <{ALICE}>"], seed="alice", expires=NOW - CREATED + 60)
    assert selected(entry(expiring), on=found("a")).until == NOW + 60, "the certificate"


def test_what_is_past_its_time_answers_only_where_stale_is_admitted() -> None:
    terms = replace(TERMS, serve_stale=3600)
    late = NOW + TERMS.ttl
    assert fingerprints(selected(entry(), on=None, now=late, terms=terms)) == []
    sifted = selected(entry(), on=None, now=late, terms=terms, stale=True)
    assert (fingerprints(sifted), sifted.stale, sifted.until) == ([BY_ALICE.fingerprint], True, late + 3600)
    assert fingerprints(selected(entry(), on=None, now=late + 3600, terms=terms, stale=True)) == []
    assert not selected(entry(), on=None, terms=terms, stale=True).stale


def test_revocations_kept_apart_are_merged_into_every_answer() -> None:
    revoked = KIT.revocations(clean(make([f"Alice <{ALICE}>"], seed="alice", revoked=2)))
    assert revoked
    sifted = selected(entry(), term=BY_ALICE.fingerprint, **{BY_ALICE.fingerprint: revoked})
    assert [a.certificate.proof.validity for a in sifted.certificates] == [Validity.REVOKED]
    merged = merged_of([entry()], revoked, KIT, NOW)
    assert merged is not None
    assert merged.proof.validity is Validity.REVOKED
    assert merged_of([], revoked, KIT, NOW) is None


def test_user_ids_that_no_origin_may_speak_for_are_cut_from_answers_to_an_address() -> None:
    both = make([f"Alice <{ALICE}>", "Ceo <ceo@internal.example>"], seed="both")
    terms = replace(TERMS, internal_domains=("internal.example",))
    (answered,) = selected(entry(both), on=found("a"), terms=terms).certificates
    assert [u.text for u in answered.certificate.proof.user_ids] == [f"Alice <{ALICE}>"]
    (answered,) = selected(entry(both), term=both.fingerprint, terms=terms).certificates
    assert len(answered.certificate.proof.user_ids) == 2, "whole to a fingerprint"


def test_twenty_at_most_and_the_better_upstream_first() -> None:
    many = [make([f"Alice <{ALICE}>"], seed=f"n{n}") for n in range(MAX_ANSWER + 2)]
    entries = [entry(made, origin="b" if n else "a") for n, made in enumerate(reversed(many))]
    sifted = selected(*reversed(entries), on=found("a", "b"))
    assert len(sifted.certificates) == MAX_ANSWER
    assert fingerprints(sifted)[0] == many[-1].fingerprint


def test_all_expired_means_every_one() -> None:
    expired = make([f"Alice <{ALICE}>"], seed="old", expires=100)
    assert selected(entry(expired), on=found("a")).all_expired
    assert not selected(entry(expired), entry(), on=found("a")).all_expired
    assert not selected().all_expired


def test_what_is_passed_over_says_why() -> None:
    ((_, why),) = selected(entry(at=NOW - TERMS.ttl - 7), on=found("a")).passed_over
    assert why == "expired 7 s ago"
    bob = make(["Bob <bob@example.org>"], seed="bob")
    ((_, why),) = selected(entry(bob), on=found("a")).passed_over
    assert why == "it does not prove the query now"


def test_a_text_is_proved_by_any_part_of_a_user_id() -> None:
    proof = KIT.prove(clean(BY_ALICE), NOW)
    assert proves(proof, parse("alice"))
    assert not proves(proof, parse("bob"))
    assert proves(proof, parse(ALICE))
    assert not proves(proof, parse("bob@example.org"))


def test_an_answer_depends_on_every_name_that_its_certificates_prove() -> None:
    query = parse(ALICE)
    names = names_behind(query, selected(entry(), on=found("a")).certificates)
    assert names >= {query.name, parse(BY_ALICE.fingerprint).name, parse(BY_ALICE.key_id).name}
    assert names_behind(query, ()) == {query.name}


GATEWAY = View("gateway", usable_only=True)


def test_a_view_may_be_told_only_what_can_be_encrypted_to() -> None:
    makes: dict[str, dict[str, Any]] = {
        "it has no key for encryption that is valid now": {"encryption": None},
        "it is expired": {"expires": 100},
        "it is revoked": {"revoked": 2},
    }
    for why, options in makes.items():
        one = make([f"Alice <{ALICE}>"], seed=why, **options)
        sifted = selected(entry(one), entry(), on=found("a"), view=GATEWAY)
        assert fingerprints(sifted) == [BY_ALICE.fingerprint]
        ((fingerprint, said),) = sifted.passed_over
        assert (fingerprint, f"nobody can encrypt with it ({why})" in said) == (one.fingerprint, True)
        assert sifted.withheld == (f"{fingerprint}: {said}",)
        assert set(fingerprints(selected(entry(one), entry(), on=found("a")))) == {
            one.fingerprint,
            BY_ALICE.fingerprint,
        }
        assert fingerprints(selected(entry(one), term=one.fingerprint, view=GATEWAY)) == []


def test_what_is_kept_back_turns_with_its_certificate() -> None:
    """Soon it expires, and soon another can be used."""
    expiring = make([f"Alice <{ALICE}>"], seed="alice", subkey_expires=NOW - CREATED + 60)
    assert selected(entry(expiring), on=found("a"), view=GATEWAY).until == NOW + 60
    assert fingerprints(selected(entry(expiring), on=found("a"), view=GATEWAY, now=NOW + 60)) == []
    signer, later = make([f"Alice <{ALICE}>"], seed="signer", encryption=None), new_key("cv25519", NOW + 30)
    more = later.packet(SUBKEY) + bind(signer.primary, later, created=NOW + 30)
    local = entry(replace(signer, octets=signer.octets + more), Source.LOCAL, "admin")
    early = selected(local, view=GATEWAY)
    assert (fingerprints(early), early.until) == ([], NOW + 30)
    assert len(fingerprints(selected(local, view=GATEWAY, now=NOW + 30))) == 1


def test_what_is_kept_back_is_judged_as_it_would_be_answered() -> None:
    """A subkey that only an origin without a say has sent does not count; one that another origin sent does."""
    signer = make([f"Alice <{ALICE}>"], seed="alice", encryption=None)
    assert fingerprints(selected(entry(signer), entry(origin="b"), on=found("a"), view=GATEWAY)) == []
    assert len(fingerprints(selected(entry(signer), entry(origin="b"), on=found("a", "b"), view=GATEWAY))) == 1
