"""alice@ is asked for when nobody has a certificate for alice+tag@: never after a failure, nor past what was found."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from keyserver.model import Absent, Answer, Failed, How, Kind, Source, State, View
from keyserver.query import parse
from keyserver.resolver import subaddress
from keyserver.resolver.further import together
from keyserver.resolver.rules import Rules
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Policy, Word
from support.openpgp import make
from support.resolving import NOW, Ground, sends

ALICE, TAGGED = "alice@example.org", "alice+tag@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")
BY_TAGGED = make([f"Alice <{TAGGED}>"], seed="tagged")
DOWN = Failed("it is down")


@pytest.fixture
def tagging(ground: Ground) -> Ground:
    """Tags count in this domain; one upstream."""
    ground.change(subaddress="+", subaddress_domains=("example.org",))
    ground.peer("a")
    return ground


def found(answer: Answer) -> list[str]:
    return [a.certificate.fingerprint for a in answer.certificates]


async def test_the_address_without_its_tag_answers_and_the_trace_says_so(tagging: Ground) -> None:
    peer = tagging.peers["a"]
    peer.answers[ALICE] = sends(BY_ALICE)
    resolver, query = tagging.resolver(), parse(TAGGED)
    first = await resolver.lookup(query, View())
    assert (first.state, first.how, found(first)) == (State.FOUND, How.MISS, [BY_ALICE.fingerprint])
    assert peer.asked == [TAGGED, ALICE]
    assert [s.what for s in first.steps if s.who == "subaddress"] == ["asked"]
    assert [s.at for s in first.steps] == sorted(s.at for s in first.steps)
    assert first.query == query.name
    again = await resolver.lookup(query, View())
    assert (again.how, found(again), len(peer.asked)) == (How.HIT, found(first), 2)


async def test_it_depends_on_both_and_holds_no_longer_than_either(tagging: Ground) -> None:
    tagging.peers["a"].answers[ALICE] = sends(BY_ALICE)
    resolver, query = tagging.resolver(), parse(TAGGED)
    await resolver.lookup(query, View())
    tagging.now += 10
    answer = await resolver.lookup(query, View())
    assert answer.names >= {query.name, parse(ALICE).name, parse(BY_ALICE.fingerprint).name}
    assert (answer.until, answer.keep) == (NOW + tagging.terms.negative_ttl, True), "the absence is the shorter of both"
    soon = make([f"Alice <{ALICE}>"], seed="alice", expires=None, subkey_expires=tagging.now - 1_600_000_000 + 60)
    await tagging.put(soon, Source.LOCAL, "admin")
    assert (await resolver.lookup(query, View())).until == tagging.now + 60


async def test_nothing_is_stored_under_the_other_name(tagging: Ground) -> None:
    tagging.peers["a"].answers[ALICE] = sends(BY_ALICE)
    await tagging.resolver().lookup(parse(TAGGED), View())
    assert await tagging.records(TAGGED) == {"a": False}
    assert await tagging.records(ALICE) == {"a": True}
    assert not (await tagging.store.look(parse(TAGGED).name)).entries
    assert (await tagging.resolver().lookup(parse("alice+other@example.org"), View())).state is State.FOUND


async def test_never_after_a_failure(tagging: Ground) -> None:
    peer = tagging.peers["a"]
    peer.answers |= {TAGGED: DOWN, ALICE: sends(BY_ALICE)}
    answer = await tagging.resolver().lookup(parse(TAGGED), View())
    assert (answer.state, peer.asked) == (State.FAILED, [TAGGED])


async def test_a_second_question_that_fails_is_no_absence(tagging: Ground) -> None:
    peer = tagging.peers["a"]
    peer.answers[ALICE] = DOWN
    answer = await tagging.resolver().lookup(parse(TAGGED), View())
    assert (answer.state, answer.final, answer.keep, answer.missing) == (State.FAILED, False, False, ("a",))
    peer.answers[ALICE] = Absent("no")
    answer = await tagging.resolver().lookup(parse(TAGGED), View())
    assert (answer.state, answer.final) == (State.ABSENT, True)


async def test_never_when_it_was_found(tagging: Ground) -> None:
    """Whether it is answered, or nothing of it may be."""
    peer = tagging.peers["a"]
    peer.answers |= {TAGGED: sends(BY_TAGGED), ALICE: sends(BY_ALICE)}
    resolver, query = tagging.resolver(), parse(TAGGED)
    assert found(await resolver.lookup(query, View())) == [BY_TAGGED.fingerprint]
    await tagging.store.block(BY_TAGGED.fingerprint, NOW)
    for _ in range(2):
        assert (await resolver.lookup(query, View())).state is State.ABSENT
    assert ALICE not in peer.asked


async def test_never_past_what_cannot_be_encrypted_to(tagging: Ground) -> None:
    """Its own certificate is there; that this view keeps it back makes nobody else's of it."""
    signer = make([f"Alice <{TAGGED}>"], seed="tagged", encryption=None)
    tagging.peers["a"].answers[ALICE] = sends(BY_ALICE)
    await tagging.put(signer, Source.LOCAL, "admin")
    gateway = View("gateway", usable_only=True)
    for _ in range(2):
        answer = await tagging.resolver().lookup(parse(TAGGED), gateway)
        assert (answer.state, answer.in_vain) == (State.ABSENT, True)
    assert ALICE not in tagging.peers["a"].asked


@pytest.mark.parametrize("approved", [False, True])
async def test_mail_speaks_for_no_subaddress(tagging: Ground, approved: bool) -> None:
    view = View(answer_mailflow=True)
    await tagging.put_mail(BY_ALICE, ALICE)
    if approved:
        await tagging.store.approve(BY_ALICE.fingerprint, Source.MAILFLOW, "example.org", ALICE)
    resolver = tagging.resolver()
    assert (await resolver.lookup(parse(ALICE), view)).state is State.FOUND
    answer = await resolver.lookup(parse(TAGGED), view)
    assert answer.state is State.ABSENT
    assert any("which speaks for no subaddress" in s.why for s in answer.steps)


async def test_a_strangers_mail_keeps_nobody_from_it(tagging: Ground) -> None:
    """A forged mail from the subaddress is nobody's word, so the address behind it still answers."""
    tagging.peers["a"].answers[ALICE] = sends(BY_ALICE)
    await tagging.put_mail(BY_TAGGED, TAGGED)
    answer = await tagging.resolver().lookup(parse(TAGGED), View())
    assert found(answer) == [BY_ALICE.fingerprint]


async def test_a_strangers_certificate_beside_it_answers_for_neither(tagging: Ground) -> None:
    """Who claims alice@ where nobody believes it gets nothing by alice+tag@; nor does the owner lose anything."""
    stranger = make([f"Alice <{ALICE}>"], seed="stranger")
    peer = tagging.peer("directory", domains=("example.org",))
    tagging.change(terms=replace(tagging.terms, internal_domains=("example.org",)))
    await tagging.put(stranger, Source.KEYSERVER, "a")
    await tagging.said(ALICE, "a", found=True)
    resolver = tagging.resolver()
    assert (await resolver.lookup(parse(TAGGED), View())).state is State.ABSENT, "it lists no internal domain"
    assert peer.asked == [TAGGED, ALICE]
    peer.answers[TAGGED] = sends(BY_TAGGED)
    tagging.now += tagging.terms.negative_ttl
    assert found(await resolver.lookup(parse(TAGGED), View())) == [BY_TAGGED.fingerprint]
    assert tagging.peers["a"].asked == [], "an upstream that does not list the domain is told neither"


async def test_local_entries_answer_where_nobody_may_be_asked(ground: Ground) -> None:
    ground.change(subaddress="+", subaddress_domains=("example.org",))
    await ground.put(BY_ALICE, Source.LOCAL, "admin")
    assert found(await ground.resolver().lookup(parse(TAGGED), View())) == [BY_ALICE.fingerprint]


async def test_both_questions_have_one_deadline(tagging: Ground) -> None:
    peer = tagging.peers["a"]
    peer.delay = 0.3
    tagging.change(deadline=0.4)
    began = asyncio.get_running_loop().time()
    answer = await tagging.resolver().lookup(parse(TAGGED), View())
    assert (answer.state, answer.final) == (State.FAILED, False)
    assert asyncio.get_running_loop().time() - began < 0.55


async def test_the_verdict_is_that_of_the_answer(tagging: Ground) -> None:
    tagging.peers["a"].answers[ALICE] = sends(BY_ALICE)
    verdicts = Verdicts(tagging.resolver(), tagging.rules, lambda: tagging.now, tagging.monotonic)
    verdict = await verdicts.of(TAGGED, replace(Policy(), kinds=Policy().kinds.OPENPGP))
    assert (verdict.word, verdict.address) == (Word.YES, TAGGED)
    assert [c.fingerprint for c in verdict.certificates] == [BY_ALICE.fingerprint]


ABSENT = Answer(State.ABSENT, How.MISS, "no")
ON = Rules(subaddress="+", subaddress_domains=("example.org", "*.partner.example"))


@pytest.mark.parametrize(
    ("term", "other"),
    [
        (TAGGED, ALICE),
        ("alice+a+b@example.org", ALICE),
        ("alice+@example.org", ALICE),
        ("alice+tag@mail.partner.example", "alice@mail.partner.example"),
        ("alice+tag@partner.example", None),
        ("alice+tag@elsewhere.example", None),
        ("+tag@example.org", None),
        ("alice@example.org", None),
        ('"alice b+tag"@example.org', None),
        ("0123456789ABCDEF", None),
    ],
)
@pytest.mark.parametrize("kind", Kind)
def test_which_address_is_behind(term: str, other: str | None, kind: Kind) -> None:
    query = parse(term, kind)
    wanted = None if other is None else parse(other, kind)
    assert subaddress.behind(query, ABSENT, View(), ON) == wanted
    for answer in (
        replace(ABSENT, final=False),
        replace(ABSENT, in_vain=True),
        *(replace(ABSENT, state=state) for state in State if state is not State.ABSENT),
    ):
        assert subaddress.behind(query, answer, View(), ON) is None
    assert subaddress.behind(query, ABSENT, View(), Rules()) is None
    assert subaddress.behind(query, ABSENT, View(directory=True), ON) is None, "a directory has the very address"


def test_what_is_stale_stays_marked() -> None:
    stale = Answer(State.FOUND, How.STALE, "stale")
    assert together(ABSENT, stale, subaddress.WHICH).how is How.STALE
