"""The answer of then, from what was known then: states that no log of real answers holds, and the questions behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest

from keyserver.app import hygiene_of
from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Entry, Kind, Name, OnChange, Record, Source, UpstreamSpec, View
from keyserver.policy import Terms
from keyserver.query import parse
from keyserver.resolver.past import Stood, Then
from keyserver.resolver.rules import DomainCertificate, Rules
from keyserver.resolver.settings import rules_from, settings_document
from keyserver.resolver.then import answered_then
from keyserver.store.history import Past, Said, Word
from keyserver.store.snapshot import Snapshot
from support.openpgp import CREATED, Made, make

AT = CREATED + 100_000_000
ALICE = make(["Alice <alice@example.org>"])
GATEWAY = make(["Gateway <gateway@partner.example>"], seed="gateway")
HYGIENE = hygiene_of()
ADDRESS = "openpgp:addr:alice@example.org"
UPSTREAMS = {"one": UpstreamSpec("one"), "other": UpstreamSpec("other", required=False)}


def rules(upstreams: Mapping[str, UpstreamSpec] = UPSTREAMS, **more: Any) -> Rules:
    return Rules(terms=Terms(upstreams=upstreams), views={"default": View()}, **more)


def entry(made: Made, source: Source = Source.KEYSERVER, origin: str = "one") -> Entry:
    return Entry(made.fingerprint, Kind.OPENPGP, made.octets, source, origin, AT - 60, AT - 60)


def past(
    entries: Sequence[Entry] = (),
    said: Mapping[str, tuple[Word, int]] | None = None,
    name: Name = ADDRESS,
    by: Rules | None = None,
    **more: Any,
) -> Past:
    """said: upstream -> its word, and how many seconds ago; words but failures are on record."""
    words = tuple(Said(who, word, AT - ago, AT - ago) for who, (word, ago) in (said or {}).items())
    records = tuple(Record(name, w.upstream, w.word is Word.FOUND, w.last) for w in words if w.word is not Word.FAILED)
    settings = json.loads(json.dumps(settings_document(by or rules())))
    given = {"answering": {}, "settings": settings, "whole_since": AT - 1000, "later": (), **more}
    return Past(snapshot=Snapshot(tuple(entries), {}, records), said=words, **given)


async def then(
    *pasts: Past, term: str = "alice@example.org", view: View | None = None, at: int = AT, now: int = AT + 60
) -> Then:
    """pasts: one for each question, in their order."""
    left = list(pasts)

    async def past_of(name: Name, instant: int) -> Past:
        assert instant == at
        return left.pop(0)

    found = await answered_then(parse(term), view or View(), at, now, HYGIENE, past_of)
    assert not left
    return found


def fingerprints(found: Then) -> list[str]:
    return [a.certificate.fingerprint for a in found.answer.certificates] if found.answer else []


FOUND, ABSENT, FAILED = Word.FOUND, Word.ABSENT, Word.FAILED


@pytest.mark.parametrize(
    ("entries", "said", "state"),
    [
        ([ALICE], {"one": (FOUND, 60)}, Stood.FOUND),
        ([ALICE], {}, Stood.UNSEARCHED),
        ([], {"one": (ABSENT, 60), "other": (ABSENT, 60)}, Stood.ABSENT),
        ([], {"one": (ABSENT, 60)}, Stood.UNSEARCHED),
        ([], {"one": (ABSENT, 901), "other": (ABSENT, 60)}, Stood.UNSEARCHED),
        ([], {"one": (ABSENT, 59), "other": (FAILED, 59)}, Stood.ABSENT),  # it need not speak
        ([], {"one": (ABSENT, 61), "other": (FAILED, 60)}, Stood.UNSEARCHED),  # for a minute
        ([], {"one": (FAILED, 59), "other": (ABSENT, 59)}, Stood.FAILED),
        ([], {"one": (FAILED, 60)}, Stood.UNSEARCHED),
        ([ALICE], {"one": (FAILED, 1)}, Stood.FOUND),  # known already
        ([], {"one": (FOUND, 60)}, Stood.ABSENT),  # what it found may not be answered
        ([], {"one": (FOUND, 901)}, Stood.UNSEARCHED),
        ([], {"gone": (FAILED, 1)}, Stood.UNSEARCHED),  # it was no upstream then
    ],
)
async def test_how_it_stood(entries: list[Made], said: dict[str, tuple[Word, int]], state: Stood) -> None:
    found = await then(past([entry(made) for made in entries], said))
    assert found.state is state, found.reason
    assert fingerprints(found) == ([ALICE.fingerprint] if state is Stood.FOUND else [])
    assert (found.answer is None) == (state is Stood.UNSEARCHED)


async def test_who_had_found_it_once_and_failed_then_need_not_speak() -> None:
    known = past((), {"one": (ABSENT, 5), "other": (FAILED, 5)})
    before = Record(ADDRESS, "other", True, AT - 5000)
    known = replace(known, snapshot=replace(known.snapshot, records=(*known.snapshot.records, before)))
    assert (await then(known)).state is Stood.ABSENT


@pytest.mark.parametrize(
    ("entries", "said", "paused", "state"),
    [
        ([], {}, {"one", "other"}, Stood.FAILED),  # nobody would have been asked
        ([], {}, {"one"}, Stood.UNSEARCHED),  # the other one would
        ([], {"other": (ABSENT, 60)}, {"one"}, Stood.FAILED),
        ([], {"one": (ABSENT, 60)}, {"other"}, Stood.ABSENT),  # it need not speak
        ([], {"one": (ABSENT, 901)}, {"other"}, Stood.UNSEARCHED),
        ([], {"one": (ABSENT, 60), "other": (ABSENT, 60)}, {"one"}, Stood.ABSENT),  # what it said before holds
        ([ALICE], {"one": (FOUND, 60)}, {"one"}, Stood.FOUND),
        ([ALICE], {}, {"one", "other"}, Stood.FOUND),  # known already
        ([ALICE], {}, {"other"}, Stood.UNSEARCHED),
        ([], {"one": (FOUND, 901)}, {"one", "other"}, Stood.FAILED),
        ([], {}, {"gone"}, Stood.UNSEARCHED),
    ],
)
async def test_what_was_paused_counted_as_failed(
    entries: list[Made], said: dict[str, tuple[Word, int]], paused: set[str], state: Stood
) -> None:
    found = await then(past([entry(made) for made in entries], said, paused=frozenset(paused)))
    assert found.state is state, found.reason
    told = {step.who for step in found.steps if step.what == "paused"}
    assert told == paused & {"one", "other"}


async def test_nobody_spoke_in_the_place_of_a_paused_directory() -> None:
    """As now: what a later priority brought for another question is no answer, and it is not asked."""
    upstreams = {
        "one": UpstreamSpec("one", priority=1, domains=("example.org",)),
        "other": UpstreamSpec("other", priority=2),
    }
    by = rules(upstreams=upstreams)
    known = [entry(ALICE, origin="other")]
    assert (await then(past(known, by=by, paused=frozenset({"one"})))).state is Stood.FAILED
    found = await then(past(known, by=by, paused=frozenset({"other"})))
    assert (found.state, found.cached) == (Stood.UNSEARCHED, (ALICE.fingerprint,))


async def test_what_would_have_been_searched_tells_what_was_cached_and_said_around_it() -> None:
    later = (Said("one", FOUND, AT + 5, AT + 9),)
    found = await then(past([entry(ALICE)], {"one": (ABSENT, 7000)}, later=later))
    assert found.state is Stood.UNSEARCHED
    assert found.cached == (ALICE.fingerprint,)
    assert [(s.upstream, s.word) for s in (*found.said, *found.later)] == [("one", ABSENT), ("one", FOUND)]


@pytest.mark.parametrize(
    ("more", "at", "reason"),
    [
        ({}, AT + 61, "this time has not come yet"),
        ({"whole_since": AT + 1}, AT, "the history does not go back so far"),
        ({"whole_since": 0}, AT, "no history is kept, or it is only beginning"),
        ({"settings": None}, AT, "the settings of then are not in the history"),
    ],
)
async def test_what_is_not_known_is_said(more: dict[str, Any], at: int, reason: str) -> None:
    found = await then(past([entry(ALICE)], {"one": (FOUND, 60)}, **more), at=at)
    assert (found.state, found.reason, found.answer) == (Stood.UNKNOWN, reason, None)


async def test_text_is_on_no_record() -> None:
    assert (await then(past(), term="Alice")).state is Stood.UNKNOWN


async def test_it_goes_by_the_terms_and_the_view_of_then() -> None:
    kept = past([entry(ALICE)], {"one": (FOUND, 60)}, by=replace(rules(), terms=Terms(ttl=60, upstreams=UPSTREAMS)))
    assert (await then(kept)).state is Stood.UNSEARCHED
    stale = replace(rules(), terms=Terms(ttl=60, serve_stale=60, upstreams=UPSTREAMS))
    failed = past([entry(ALICE)], {"one": (FAILED, 1)}, by=stale)
    assert "past its time to live" in (await then(failed)).reason
    expired = make(["Alice <alice@example.org>"], expires=1000)
    usable = replace(rules(), views={"strict": View("strict", usable_only=True)})
    for name, state in (("strict", Stood.ABSENT), ("default", Stood.FOUND)):
        found = await then(past([entry(expired)], {"one": (FOUND, 60)}, by=usable), view=View(name))
        assert found.state is state


async def test_a_subaddress_was_answered_by_what_stands_before_the_tag() -> None:
    by = rules(subaddress="+", subaddress_domains=("example.org",))
    said = {"one": (ABSENT, 60), "other": (ABSENT, 60)}
    tagged = past((), said, "openpgp:addr:alice+list@example.org", by)
    plain = past([entry(ALICE)], {"one": (FOUND, 60)}, by=by)
    found = await then(tagged, plain, term="alice+list@example.org")
    assert (found.state, fingerprints(found)) == (Stood.FOUND, [ALICE.fingerprint])
    assert "without what stands behind the +" in found.reason
    assert (await then(tagged, past(by=by), term="alice+list@example.org")).state is Stood.UNSEARCHED


async def test_a_domains_gateway_answered_where_the_view_handed_it_out() -> None:
    named = (DomainCertificate("partner.example", GATEWAY.fingerprint),)
    for handed_out in (True, False):
        views = {"default": View(domain_certificates=handed_out)}
        by = replace(rules(domain_certificates=named), views=views)
        said = {"one": (ABSENT, 60), "other": (ABSENT, 60)}
        first = past((), said, "openpgp:addr:paul@partner.example", by)
        second = [past([entry(GATEWAY, Source.LOCAL, "administrator")], by=by)] if handed_out else []
        found = await then(first, *second, term="paul@partner.example")
        assert (found.state is Stood.FOUND) == handed_out
        assert fingerprints(found) == ([GATEWAY.fingerprint] if handed_out else [])


# --- the settings of then


def test_every_setting_that_decides_answers_comes_back() -> None:
    """Also one that is added later: what a lookup does not go by is named here, and nothing else may be missing."""
    spec = UpstreamSpec(
        "one", 3, ("example.org",), 60, 9.0, True, frozenset(Kind), False, by_owner=True, nameless=False,
        on_change=OnChange.HOLD,
    )  # fmt: skip
    rule = DomainRule(
        "*.strict.example",
        ("one",),
        frozenset({Kind.X509}),
        require_chain=True,
        pinned=frozenset({"AB" * 20}),
        on_change=OnChange.REPORT,
        ttl=9,
        must_encrypt=True,
        reject_text="no",
    )
    terms = Terms(60, 61, 62, ("us.example",), True, {"one": spec}, DomainRules([rule]), on_change=OnChange.HOLD)
    views = {"v": View("v", answer_mailflow=True, usable_only=True, domain_certificates=True, on_change=OnChange.HOLD)}
    named = (DomainCertificate("partner.example", "AB" * 20),)
    given = Rules(terms, {}, views, "cache", subaddress="+", subaddress_domains=("example.org",),
                  domain_certificates=named, domain_authority=True)  # fmt: skip
    document = json.loads(json.dumps(settings_document(given)))
    back = rules_from(document)
    assert back.terms == replace(terms, upstreams={"one": replace(spec, timeout=UpstreamSpec("").timeout)})
    assert replace(back, terms=terms, upstreams={}) == given
    assert back.tiers(parse("a@example.org")).names == ["one"]
    assert {f.name for f in fields(Terms)} - set(document) == {"upstreams", "domains"}
    assert {f.name for f in fields(DomainRule)} == set(document["domain *.strict.example"])
    assert {f.name for f in fields(UpstreamSpec)} - set(document["upstream one"]) == {"timeout", "rate", "id_rate"}
    assert {f.name for f in fields(View)} == set(document["view v"])
    assert {f.name for f in fields(Rules)} - set(document) == {
        *("terms", "upstreams", "views", "deadline", "max_certificate", "searches", "prefetch", "purge_interval"),
        "revocation_interval",
    }


def test_a_document_of_another_release_is_read() -> None:
    assert rules_from({"ttl": 5, "what is this": 1, "upstream one": {"name": "one", "new": 2}}).terms == Terms(
        ttl=5, upstreams={"one": UpstreamSpec("one")}
    )
