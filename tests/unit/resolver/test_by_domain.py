"""The certificate of a domain's gateway, where an address has none: who may name it, and when it counts."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from keyserver.model import Answer, Failed, Find, How, Kind, Source, State, View
from keyserver.query import ByAddress, ByFingerprint, parse
from keyserver.resolver.by_domain import AUTHORITY, behind, is_answered
from keyserver.resolver.rules import DomainCertificate, Rules
from keyserver.store.base import StoreError
from keyserver.store.snapshot import Snapshot
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Kinds, Policy, Verdict, Word
from support.openpgp import make
from support.resolving import NOW, Ground, sends
from support.upstreams import Told

DOMAIN = "partner.example"
ALICE, TAGGED, AT = f"alice@{DOMAIN}", f"alice+tag@{DOMAIN}", f"{AUTHORITY}@{DOMAIN}"
GATEWAY = make(["Gateway of the partner <gateway@elsewhere.example>"], seed="gateway")
OWN = make([f"Alice <{ALICE}>"], seed="own")
DCA = make([f"Gateway <{AT}>", "Gateway <gateway@elsewhere.example>"], seed="dca")
STRANGER = make([f"Gateway <{AT}>"], seed="stranger")
HANDS_OUT = View("gateway", domain_certificates=True)
DOWN = Failed("it is down")


def rows(*each: tuple[str, str]) -> tuple[DomainCertificate, ...]:
    return tuple(DomainCertificate(*one) for one in each)


@pytest.fixture
async def named(ground: Ground) -> Ground:
    """A gateway's certificate is named and imported; one public upstream, which has nothing."""
    ground.peer("public")
    ground.change(domain_certificates=rows((DOMAIN, GATEWAY.fingerprint)))
    await ground.put(GATEWAY, Source.LOCAL, "admin")
    return ground


@pytest.fixture
def listing(ground: Ground) -> Ground:
    """An upstream lists the domain, another one is public; authorities count."""
    ground.peer("public")
    ground.peer("partner", domains=(DOMAIN,))
    ground.change(domain_authority=True)
    return ground


def found(answer: Answer) -> list[str]:
    return [a.certificate.fingerprint for a in answer.certificates]


def verdicts(ground: Ground) -> Verdicts:
    return Verdicts(ground.resolver(), ground.rules, lambda: ground.now, ground.monotonic)


async def verdict(ground: Ground, address: str = ALICE, **policy: Any) -> Verdict:
    return await verdicts(ground).of(address, Policy(**{"kinds": Kinds.OPENPGP, **policy}))


async def test_it_is_answered_in_views_that_hand_it_out_and_counts_for_every_verdict(named: Ground) -> None:
    resolver, query = named.resolver(), parse(ALICE)
    handed = await resolver.lookup(query, HANDS_OUT)
    assert (handed.state, found(handed), handed.by_domain) == (State.FOUND, [GATEWAY.fingerprint], DOMAIN)
    assert handed.certificates[0].certificate.octets == GATEWAY.octets, "as to its fingerprint, whole"
    assert handed.query == query.name
    kept = await resolver.lookup(query, View())
    assert (kept.state, found(kept)) == (State.ABSENT, [])
    assert [s.what for s in kept.steps if s.who == "domain"] == ["not answered"]
    yes = await verdict(named)
    assert (yes.word, yes.address) == (Word.YES, ALICE)
    (one,) = yes.certificates
    assert (one.fingerprint, one.by_domain, one.source, one.approved) == (
        GATEWAY.fingerprint,
        DOMAIN,
        Source.LOCAL,
        True,
    )
    assert f"by the gateway of {DOMAIN}" in yes.reason
    assert [s.at for s in handed.steps] == sorted(s.at for s in handed.steps)
    assert await named.records(ALICE) == {"public": False}
    assert named.peers["public"].asked == [ALICE], "a named certificate is searched nowhere"


async def test_an_own_certificate_has_the_first_word(named: Ground) -> None:
    named.peers["public"].answers[ALICE] = sends(OWN)
    assert found(await named.resolver().lookup(parse(ALICE), HANDS_OUT)) == [OWN.fingerprint]
    yes = await verdict(named)
    assert [(c.fingerprint, c.by_domain) for c in yes.certificates] == [(OWN.fingerprint, "")]


@pytest.mark.parametrize("why", ["expired", "revoked", "sign only", "blocked"])
async def test_an_own_certificate_that_may_not_be_used_is_there(named: Ground, why: str) -> None:
    """Mail that Alice alone should read does not go to the gateway because her certificate has ended."""
    made: dict[str, dict[str, Any]] = {"expired": {"expires": 1000}, "revoked": {"revoked": 0}}
    made |= {"sign only": {"encryption": None}, "blocked": {}}
    own = make([f"Alice <{ALICE}>"], seed="own", **made[why])
    named.peers["public"].answers[ALICE] = sends(own)
    if why == "blocked":
        await named.store.block(own.fingerprint, NOW)
    no = await verdict(named)
    assert (no.word, no.certificates) == (Word.NO, ())
    for view in (HANDS_OUT, View("usable", usable_only=True, domain_certificates=True)):
        for _ in range(2):
            assert GATEWAY.fingerprint not in found(await named.resolver().lookup(parse(ALICE), view))


async def test_mail_that_may_not_answer_keeps_nobody_from_it(named: Ground) -> None:
    """A mail in her name is nobody's word in this view, so that none can send hers in clear."""
    await named.put_mail(OWN, ALICE)
    assert (await verdict(named)).certificates[0].fingerprint == GATEWAY.fingerprint


async def test_never_after_a_failure(named: Ground) -> None:
    named.peers["public"].answers[ALICE] = DOWN
    answer = await named.resolver().lookup(parse(ALICE), HANDS_OUT)
    assert (answer.state, answer.final) == (State.FAILED, False)
    assert (await verdict(named)).word is Word.UNKNOWN


@pytest.mark.parametrize("internal", [DOMAIN, "example"])
async def test_never_for_internal_domains(named: Ground, internal: str) -> None:
    named.change(terms=replace(named.terms, internal_domains=(internal,)))
    assert (await verdict(named)).word is Word.NO
    assert (await named.resolver().lookup(parse(ALICE), HANDS_OUT)).state is State.ABSENT


async def test_a_delete_and_a_block_are_felt_and_an_import_too(named: Ground) -> None:
    """The names are those of the certificate, also while there is none."""
    name = parse(GATEWAY.fingerprint).name
    yes = await verdict(named)
    assert {name, parse(ALICE).name} <= yes.names
    assert yes.keep
    await named.store.block(GATEWAY.fingerprint, NOW)
    no = await verdict(named)
    assert (no.word, name in no.names, no.keep) == (Word.NO, True, True)
    assert f"{GATEWAY.fingerprint}: it is blocked" in no.reason
    await named.store.unblock(GATEWAY.fingerprint, NOW)
    assert (await verdict(named)).word is Word.YES
    await named.store.delete(GATEWAY.fingerprint, NOW)
    no = await verdict(named)
    assert (no.word, name in no.names) == (Word.NO, True)
    assert "it is not cached" in no.reason


@pytest.mark.parametrize(
    ("options", "why"),
    [({"expires": 1000}, "expired"), ({"revoked": 0}, "revoked"), ({"encryption": None}, "no key for encryption")],
)
async def test_what_cannot_encrypt_answers_nothing_and_it_is_said(
    ground: Ground, options: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(["Gateway <g@elsewhere.example>"], seed="gateway", **options)
    ground.peer("public")
    ground.change(domain_certificates=rows((DOMAIN, made.fingerprint)))
    await ground.put(made, Source.LOCAL, "admin")
    no = await verdict(ground)
    assert no.word is Word.NO
    assert why in no.reason
    resolver = ground.resolver()
    caplog.clear()
    for _ in range(2):
        assert (await resolver.lookup(parse(ALICE), HANDS_OUT)).state is State.ABSENT
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert DOMAIN in line
    assert why in line
    assert made.fingerprint not in line


@pytest.mark.parametrize("source", [Source.KEYSERVER, Source.MAILFLOW])
async def test_only_a_local_entry_stands_for_a_domain(ground: Ground, source: Source) -> None:
    ground.peer("public").answers[GATEWAY.fingerprint] = sends(GATEWAY)
    ground.change(domain_certificates=rows((DOMAIN, GATEWAY.fingerprint)))
    if source is Source.KEYSERVER:
        await ground.put(GATEWAY, source, "public")
    else:
        await ground.put_mail(GATEWAY, "gateway@elsewhere.example")
    no = await verdict(ground)
    assert no.word is Word.NO
    assert "it is no local entry" in no.reason
    assert GATEWAY.fingerprint not in ground.peers["public"].asked


async def test_only_the_local_copy_is_answered(named: Ground) -> None:
    """What a stranger hung onto the certificate elsewhere is not in it."""
    more = make(["Gateway of the partner <gateway@elsewhere.example>", f"X <ceo@{DOMAIN}>"], seed="gateway")
    assert more.fingerprint == GATEWAY.fingerprint
    await named.put(more, Source.KEYSERVER, "public")
    answer = await named.resolver().lookup(parse(ALICE), HANDS_OUT)
    assert [u.address for u in answer.certificates[0].certificate.proof.user_ids] == ["gateway@elsewhere.example"]


async def test_a_subaddress_before_it(named: Ground) -> None:
    named.change(subaddress="+", subaddress_domains=(DOMAIN,))
    peer = named.peers["public"]
    answer = await named.resolver().lookup(parse(TAGGED), HANDS_OUT)
    assert (found(answer), peer.asked) == ([GATEWAY.fingerprint], [TAGGED, ALICE])
    assert {parse(TAGGED).name, parse(ALICE).name, parse(GATEWAY.fingerprint).name} <= answer.names
    named.now += named.terms.negative_ttl
    peer.answers[ALICE] = sends(OWN)
    answer = await named.resolver().lookup(parse(TAGGED), HANDS_OUT)
    assert (found(answer), answer.by_domain) == ([OWN.fingerprint], "")


async def test_other_rules_act_on_what_is_there(named: Ground) -> None:
    resolver = named.resolver()
    assert found(await resolver.lookup(parse(ALICE), HANDS_OUT)) == [GATEWAY.fingerprint]
    named.change(views={"gateway": View("gateway")})
    assert found(await resolver.lookup(parse(ALICE), HANDS_OUT)) == [], "the policy is what the rules say of the name"
    named.change(views={}, domain_certificates=())
    assert found(await resolver.lookup(parse(ALICE), HANDS_OUT)) == []


async def test_without_the_store_nobody_knows(named: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own is nobody's absence: mail must not leave in clear by it."""
    look, name = named.store.look, parse(GATEWAY.fingerprint).name

    async def failing(asked: str) -> Snapshot:
        if asked == name:
            raise StoreError("the disk is gone")
        return await look(asked)

    monkeypatch.setattr(named.store, "look", failing)
    assert (await verdict(named)).word is Word.UNKNOWN


# ---- RFC 3183's authority


async def test_an_upstream_that_lists_the_domain_names_it(listing: Ground) -> None:
    partner, public = listing.peers["partner"], listing.peers["public"]
    partner.answers[AT] = sends(DCA)
    yes = await verdict(listing)
    assert [(c.fingerprint, c.by_domain, c.origin) for c in yes.certificates] == [(DCA.fingerprint, DOMAIN, "partner")]
    assert {parse(AT).name, parse(ALICE).name, parse(DCA.fingerprint).name} <= yes.names
    assert (public.asked, sorted(partner.asked)) == ([ALICE], sorted([ALICE, AT]))
    answer = await listing.resolver().lookup(parse(ALICE), HANDS_OUT)
    assert found(answer) == [DCA.fingerprint]
    addresses = [u.address for u in answer.certificates[0].certificate.proof.user_ids]
    assert addresses == [AT], "as in every answer to an address, what its origin may speak for"
    assert found(await listing.resolver().lookup(parse(ALICE), View())) == []
    listing.change(domain_authority=False)
    assert (await verdict(listing)).word is Word.NO


async def test_prefetch_asks_nobody_else_for_an_authority(listing: Ground) -> None:
    listing.peers["partner"].answers[AT] = sends(DCA)
    resolver = listing.resolver()
    for _ in range(2):
        assert found(await resolver.lookup(parse(ALICE), HANDS_OUT)) == [DCA.fingerprint]
    assert parse(AT).name not in resolver.take_asked()


async def _by_search(ground: Ground) -> None:
    answer = await ground.resolver().lookup(parse(AT), View())
    assert found(answer) == [STRANGER.fingerprint], "who asks for that very address gets what there is"


async def _by_fingerprint(ground: Ground) -> None:
    ground.peers["public"].answers[STRANGER.fingerprint] = sends(STRANGER)
    assert found(await ground.resolver().lookup(parse(STRANGER.fingerprint), View())) == [STRANGER.fingerprint]


async def _by_mail(ground: Ground) -> None:
    await ground.put_mail(STRANGER, AT)
    await ground.store.approve(STRANGER.fingerprint, Source.MAILFLOW, DOMAIN, AT)


async def _approved(ground: Ground) -> None:
    await _by_search(ground)
    assert await ground.store.approve(STRANGER.fingerprint, Source.KEYSERVER, "public", AT)


async def _imported(ground: Ground) -> None:
    await ground.put(STRANGER, Source.LOCAL, "admin")


async def _by_a_template(ground: Ground) -> None:
    ground.peer("keys.<domain>", template=True, by_owner=True).answers[AT] = sends(STRANGER)
    await _by_search(ground)


@pytest.mark.parametrize("way", [_by_search, _by_fingerprint, _by_mail, _approved, _imported, _by_a_template])
@pytest.mark.parametrize("first", ["absent", "down"])
async def test_a_stranger_is_never_believed(listing: Ground, way: Any, first: str) -> None:
    """Anybody can register such a name: at a public server, in a mail, wherever."""
    listing.peers["public"].answers[AT] = sends(STRANGER)
    await way(listing)
    if first == "down":
        listing.peers["partner"].answers[AT] = DOWN
        listing.now += listing.terms.negative_ttl
    said = await verdict(listing, view="mail")
    assert said.word is (Word.UNKNOWN if first == "down" else Word.NO)
    for view in (HANDS_OUT, replace(HANDS_OUT, answer_mailflow=True)):
        assert found(await listing.resolver().lookup(parse(ALICE), view)) == []


async def test_nobody_is_asked_where_nobody_lists_the_domain(ground: Ground) -> None:
    peer: Told = ground.peer("public")
    peer.answers[AT] = sends(STRANGER)
    ground.change(domain_authority=True)
    assert (await verdict(ground)).word is Word.NO
    assert peer.asked == [ALICE]


async def test_an_authority_that_fails_is_unknown_and_internal_ones_are_not_asked(listing: Ground) -> None:
    partner = listing.peers["partner"]
    partner.answers[AT] = DOWN
    assert (await verdict(listing)).word is Word.UNKNOWN
    answer = await listing.resolver().lookup(parse(ALICE), HANDS_OUT)
    assert (answer.state, answer.final, answer.missing) == (State.FAILED, False, ("partner",))
    partner.answers[AT] = sends(DCA)
    listing.change(terms=replace(listing.terms, internal_domains=(DOMAIN,)))
    asked = len(partner.asked)
    assert (await verdict(listing)).word is Word.NO
    assert partner.asked[asked:] == []


async def test_what_is_named_comes_before_the_authority(listing: Ground) -> None:
    """Also where it answers nothing: what the administrator has said is not gone round."""
    listing.peers["partner"].answers[AT] = sends(DCA)
    listing.change(domain_certificates=rows((DOMAIN, GATEWAY.fingerprint)))
    assert (await verdict(listing)).word is Word.NO
    assert AT not in listing.peers["partner"].asked
    await listing.put(GATEWAY, Source.LOCAL, "admin")
    assert (await verdict(listing)).certificates[0].fingerprint == GATEWAY.fingerprint


async def test_a_policy_judges_it_too(listing: Ground) -> None:
    listing.peers["partner"].answers[AT] = sends(DCA)
    assert (await verdict(listing, approved=True)).word is Word.NO
    assert await listing.store.approve(DCA.fingerprint, Source.KEYSERVER, "partner", AT)
    assert (await verdict(listing, approved=True)).word is Word.YES
    assert (await verdict(listing, chained=True)).word is Word.NO
    find = Find(listing.clean(DCA), Source.KEYSERVER, "partner", chained=True)
    await listing.store.put([find], [], await listing.store.begin(), NOW)
    assert (await verdict(listing, chained=True)).word is Word.YES


# ---- the pure rule

ABSENT = Answer(State.ABSENT, How.MISS, "no")
SHA1, SHA256 = "A" * 40, "B" * 64
ON = Rules(
    domain_certificates=rows(
        (DOMAIN, SHA1),
        (DOMAIN, SHA256),
        ("*.partner.example", "C" * 64),
        ("*.lab.partner.example", "D" * 64),
        ("exact.lab.partner.example", "E" * 40),
    )
)


@pytest.mark.parametrize(
    ("domain", "openpgp", "x509"),
    [
        (DOMAIN, [SHA1, SHA256], [SHA256]),
        ("mail.partner.example", ["C" * 64], ["C" * 64]),
        ("a.lab.partner.example", ["D" * 64], ["D" * 64]),
        ("exact.lab.partner.example", ["E" * 40], []),
        ("lab.partner.example", ["C" * 64], ["C" * 64]),
        ("notpartner.example", [], []),
        ("example", [], []),
    ],
)
def test_which_certificates_are_named(domain: str, openpgp: list[str], x509: list[str]) -> None:
    for kind, expected in ((Kind.OPENPGP, openpgp), (Kind.X509, x509)):
        query = ByAddress("alice", domain, kind)
        assert behind(query, ABSENT, View(), ON) == tuple(ByFingerprint(one, kind) for one in expected)


def test_only_a_finished_absence_has_something_behind_it() -> None:
    query = ByAddress("alice", DOMAIN)
    for answer in (
        replace(ABSENT, final=False),
        replace(ABSENT, in_vain=True),
        *(replace(ABSENT, state=state) for state in State if state is not State.ABSENT),
    ):
        assert behind(query, answer, View(), ON) == ()
    assert behind(query, ABSENT, View(directory=True), ON) == (), "a directory has the very address"
    assert behind(parse("0123456789ABCDEF"), ABSENT, View(), ON) == ()
    assert behind(parse(SHA1), ABSENT, View(), ON) == ()
    assert behind(query, ABSENT, View(), Rules()) == ()


def test_views_and_verdicts() -> None:
    rules = Rules(views={"gateway": HANDS_OUT, "default": View()})
    assert is_answered(View("gateway"), rules)
    assert not is_answered(View(), rules)
    assert is_answered(View(verdict=True), rules)
