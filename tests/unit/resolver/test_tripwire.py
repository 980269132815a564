"""Another certificate than before answers for an address: at each kind of source, reported and held, in both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import (
    Absent,
    Answer,
    Entry,
    Failed,
    Found,
    Kind,
    OnChange,
    Raw,
    Source,
    State,
    View,
)
from keyserver.policy import purged_before
from keyserver.query import ByAddress
from keyserver.resolver.resolver import Resolver
from keyserver.store.base import StoreError
from keyserver.store.history import WHO, Event, What
from keyserver.tripwire import HELD, waits
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Kinds, Policy, Word
from support.openpgp import CREATED, make, new_key
from support.postgres import fresh, shared
from support.resolving import NOW, Ground, sends
from support.x509 import Issued, person

BOB = "bob@partner.example"
OLD = make([f"Bob <{BOB}>"], seed="old")
NEW = make([f"Bob <{BOB}>"], seed="new", created=CREATED + 1000)
THIRD = make([f"Bob <{BOB}>"], seed="third", created=CREATED + 2000)
DAY = 86400
MAIL = View(answer_mailflow=True)


class World(Ground):
    """A ground with one resolver until it is started again."""

    now_asked: Resolver

    def __init__(self, directory: Path, url: str) -> None:
        super().__init__(directory, url)
        self._place = (directory, url)

    async def restart(self) -> None:
        """Another process opens the same cache."""
        await self.stop()
        self.store = Ground(*self._place).store
        await self.start()

    async def start(self) -> None:
        await self.store.open()
        self.now_asked = self.resolver(misses=10_000)

    async def stop(self) -> None:
        await self.now_asked.remember()
        await self.now_asked.close()
        await self.store.close()

    def on_change(self, what: OnChange, **terms: Any) -> None:
        self.change(terms=replace(self.terms, on_change=what, **terms))

    async def get(self, view: View | None = None, kind: Kind = Kind.OPENPGP, address: str = BOB) -> Answer:
        local, _, domain = address.rpartition("@")
        return await self.now_asked.lookup(ByAddress(local, domain, kind), view or View())

    async def got(self, view: View | None = None, kind: Kind = Kind.OPENPGP) -> list[str]:
        return fingerprints(await self.get(view, kind))

    async def word(self, kinds: Kinds = Kinds.OPENPGP) -> tuple[Word, str]:
        verdicts = Verdicts(self.now_asked, self.rules, lambda: self.now, self.monotonic)
        verdict = await verdicts.of(BOB, Policy(kinds=kinds))
        return verdict.word, verdict.reason

    async def expire(self) -> None:
        """Everything that is past its time is tidied away."""
        await self.store.purge_expired(purged_before(self.now, self.terms), self.now, 1000, self.now)

    async def events(self, what: What) -> Sequence[Event]:
        return [event for event in await self.store.history.since(0, 10_000) if event.what is what]

    async def approve(self, fingerprint: str) -> None:
        for entry in (await self.store.certificate(fingerprint)).entries:
            assert await self.store.approve(fingerprint, entry.source, entry.origin, BOB, self.now)


def fingerprints(answer: Answer) -> list[str]:
    return [one.certificate.fingerprint for one in answer.certificates]


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    with ExitStack() as given:
        url = shared().url(given.enter_context(fresh())) if request.param == "postgres" else ""
        made = World(tmp_path, url)
        await made.start()
        yield made
        await made.stop()
        await made.cleaner.close()


def der(*issued: Issued) -> Found:
    return Found(tuple(Raw(Kind.X509, one.der) for one in issued))


async def by_upstream(world: World, which: int) -> str:
    world.peers["a"].otherwise = sends((OLD, NEW)[which])
    return (OLD, NEW)[which].fingerprint


async def by_directory(world: World, which: int) -> str:
    world.peers["x"].otherwise = der(PEOPLE[which])
    return PEOPLE[which].fingerprint


async def by_own_host(world: World, which: int) -> str:
    world.peers["host"].otherwise = sends((OLD, NEW)[which])
    return (OLD, NEW)[which].fingerprint


async def by_mail(world: World, which: int) -> str:
    await world.put_mail((OLD, NEW)[which], BOB)
    if which:  # what came before is not sent any more
        world.now += 181 * DAY
        await world.put_mail(NEW, BOB)
    return (OLD, NEW)[which].fingerprint


PEOPLE = (person(BOB), person(BOB))
SOURCES = {"upstream": by_upstream, "directory": by_directory, "own host": by_own_host, "mail": by_mail}
ORIGINS = {
    "upstream": ("keyserver", "a"),
    "directory": ("keyserver", "x"),
    "own host": ("keyserver", "host"),
    "mail": ("mailflow", "partner.example"),
}


async def replaced_at(world: World, source: str) -> tuple[str, str, list[str]]:
    """The old one, the new one, and what answers after the change."""
    world.peer("a")
    world.peer("x", kinds=frozenset({Kind.X509}))
    world.peer("host", template=True)
    kind = Kind.X509 if source == "directory" else Kind.OPENPGP
    view = MAIL if source == "mail" else View()
    world.change(views={view.name: view})
    old = await SOURCES[source](world, 0)
    assert await world.got(view, kind) == [old]
    new = await SOURCES[source](world, 1)
    world.now += 2 * DAY if source != "mail" else 0
    return old, new, await world.got(view, kind)


@pytest.mark.parametrize("source", SOURCES)
async def test_a_replaced_certificate_is_reported_and_answers(world: World, source: str) -> None:
    world.on_change(OnChange.REPORT)
    old, new, got = await replaced_at(world, source)
    assert got == [new]
    (event,) = await world.events(What.REPLACED)
    origin = dict(zip(("source", "origin"), ORIGINS[source], strict=True))
    before = dict(zip(("old_source", "old_origin"), ORIGINS[source], strict=True))
    assert (event.fingerprint, event.address) == (new, BOB)
    assert {"old": old, "view": "default", **origin, **before}.items() <= event.facts.items()
    assert event.at == world.now


@pytest.mark.parametrize("source", SOURCES)
async def test_a_replaced_certificate_is_held_and_the_old_one_answers(world: World, source: str) -> None:
    world.on_change(OnChange.HOLD)
    old, new, got = await replaced_at(world, source)
    assert got == [old]
    assert not await world.events(What.REPLACED)
    kind = Kind.X509 if source == "directory" else Kind.OPENPGP
    view = MAIL if source == "mail" else View()
    if source != "mail":  # the mail flow marks its own
        assert [event.fingerprint for event in await world.events(What.HELD)] == [new]
        assert (await world.store.stats()).held == 1
    await world.approve(new)
    assert await world.got(view, kind) == [new]
    assert (await world.store.stats()).held == 0
    assert [event.facts["old"] for event in await world.events(What.REPLACED)] == [old]
    assert await world.got(view, kind) == [new]


@pytest.mark.parametrize("what", OnChange)
async def test_what_an_administrator_imports_answers_at_once(world: World, what: OnChange) -> None:
    world.peer("a", on_change=what)
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await world.put(NEW, Source.LOCAL, "administrator")
    assert (await world.got())[0] == NEW.fingerprint
    (event,) = await world.events(What.REPLACED)
    assert (event.facts["source"], event.facts["old_source"]) == ("local", "keyserver")


async def test_an_upstream_that_waits_never_has_its_own_answered(world: World) -> None:
    """It sends another certificate, nothing, or fails, for a year: while the history is kept nobody is told its own."""
    world.on_change(OnChange.HOLD)
    peer = world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    says = [sends(NEW), Absent("it says so"), sends(THIRD), Failed("no answer"), sends(NEW, THIRD), Absent("no")]
    for week in range(52):
        peer.otherwise = says[week % len(says)]
        world.now += 7 * DAY
        if week % 3:
            await world.expire()
        if week % 10 == 9:
            await world.restart()
        answer = await world.get()
        told = fingerprints(answer)
        wanted = [OLD.fingerprint] if isinstance(peer.otherwise, Found) else []
        assert told == wanted, f"week {week}: {answer.reason}"
        assert (await world.word())[0] is not (Word.NO if wanted else Word.YES)
    assert not await world.events(What.REPLACED)


async def test_the_same_certificate_in_another_state_is_no_change(world: World) -> None:
    world.on_change(OnChange.HOLD)
    key = new_key("ed25519", CREATED, 4, "same")
    copies = [
        make([f"Bob <{BOB}>"], primary=key, seed="first"),
        make([f"Bob <{BOB}>", "Robert"], primary=key, signed_at=CREATED + DAY, seed="second", encryption="cv25519"),
    ]
    peer = world.peer("a")
    for copy in copies:
        peer.otherwise = sends(copy)
        assert await world.got() == [copy.fingerprint]
        world.now += 2 * DAY
    assert not await world.events(What.REPLACED)
    assert not await world.events(What.HELD)


async def no_longer_usable(world: World, **made: Any) -> list[str]:
    """What answers when the certificate of before is of no use to anybody and another one comes."""
    world.on_change(OnChange.HOLD)
    key = new_key("ed25519", CREATED, 4, "use")
    peer = world.peer("a")
    peer.otherwise = sends(first := make([f"Bob <{BOB}>"], primary=key, seed="use"))
    assert await world.got() == [first.fingerprint]
    peer.otherwise = sends(make([f"Bob <{BOB}>"], primary=key, seed="use", **made))
    world.now += 2 * DAY
    assert await world.got() == [first.fingerprint]
    peer.otherwise = sends(NEW)
    world.now += 2 * DAY
    return await world.got()


@pytest.mark.parametrize("made", [{"revoked": 0}, {"expires": 1000, "signed_at": CREATED + 1}, {"subkeys_revoked": 0}])
async def test_one_that_cannot_be_used_any_more_holds_the_next_all_the_same(world: World, made: dict[str, Any]) -> None:
    assert await no_longer_usable(world, **made) == []
    word, reason = await world.word()
    assert word is Word.NO
    assert HELD in reason
    await world.approve(NEW.fingerprint)
    assert await world.got() == [NEW.fingerprint]
    assert (await world.word())[0] is Word.YES


async def test_a_held_absence_asks_for_nobody_else(world: World) -> None:
    """Neither what stands before the + nor a gateway takes the place of a certificate that waits."""
    world.on_change(OnChange.HOLD)
    world.change(subaddress="+", subaddress_domains=("partner.example",))
    tagged = "bob+tag@partner.example"
    peer = world.peer("a")
    one, other = (make([f"B <{tagged}>"], seed=seed) for seed in ("tag one", "tag other"))
    peer.answers[tagged] = sends(one)
    assert fingerprints(await world.get(address=tagged)) == [one.fingerprint]
    await world.store.block(one.fingerprint, world.now)
    peer.answers[tagged] = sends(other)
    peer.answers[BOB] = sends(OLD)
    world.now += 2 * DAY
    answer = await world.get(address=tagged)
    assert answer.in_vain
    assert fingerprints(answer) == []
    assert BOB not in peer.asked


async def test_the_trace_names_the_old_one(world: World) -> None:
    world.on_change(OnChange.HOLD)
    await replaced_at(world, "upstream")
    (step,) = [step for step in (await world.get()).steps if step.who == "held"]
    assert step.what == NEW.fingerprint
    assert OLD.fingerprint in step.why


async def test_another_question_that_a_certificate_came_by_does_not_replace_it(world: World) -> None:
    """It is in the cache under the address before anybody has asked for that."""
    world.on_change(OnChange.HOLD)
    peer = world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    peer.otherwise = Absent("it says so")
    peer.answers[NEW.fingerprint] = sends(NEW)
    await world.put(NEW, Source.KEYSERVER, "a")
    assert await world.got() == [OLD.fingerprint]
    peer.otherwise = Failed("no answer")
    world.now += 2 * DAY
    assert await world.got() == []


async def test_a_delete_while_it_is_kept_brings_nothing_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.on_change(OnChange.HOLD)
    world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await by_upstream(world, 1)
    world.now += 2 * DAY
    read = world.store.certificate

    async def deleted(fingerprint: str) -> Any:
        found = await read(fingerprint)
        await world.store.delete(OLD.fingerprint, world.now)
        return found

    monkeypatch.setattr(world.store, "certificate", deleted)
    assert await world.got() == []
    monkeypatch.undo()
    assert not (await world.store.certificate(OLD.fingerprint)).entries
    assert await world.got() == [NEW.fingerprint]
    assert not (await world.store.certificate(OLD.fingerprint)).entries


async def test_what_is_noted_and_deleted_before_it_is_written_is_not_remembered(world: World) -> None:
    world.on_change(OnChange.HOLD)
    world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await world.store.delete(OLD.fingerprint, world.now)
    await by_upstream(world, 1)
    assert await world.got() == [NEW.fingerprint]
    await world.now_asked.remember()
    assert await world.got() == [NEW.fingerprint]
    assert not await world.events(What.REPLACED)


async def test_a_purge_takes_the_memory_of_what_it_takes(world: World) -> None:
    world.on_change(OnChange.HOLD)
    world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await world.now_asked.remember()
    await world.store.purge_all(world.now)
    await by_upstream(world, 1)
    assert await world.got() == [NEW.fingerprint]


async def test_an_approval_during_a_search_counts(world: World) -> None:
    world.on_change(OnChange.HOLD)
    await replaced_at(world, "upstream")
    world.now += 2 * DAY
    peer = world.peers["a"]
    peer.open.clear()
    asking = asyncio.create_task(world.get())
    await asyncio.sleep(0.05)
    await world.approve(NEW.fingerprint)
    peer.open.set()
    assert fingerprints(await asking) == [NEW.fingerprint]
    assert len(await world.events(What.REPLACED)) == 1


async def test_whoever_asks_a_change_is_not_their_doing(world: World) -> None:
    world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await by_upstream(world, 1)
    world.now += 2 * DAY
    token = WHO.set("root")
    assert await world.got() == [NEW.fingerprint]
    WHO.reset(token)
    assert [event.who for event in await world.events(What.REPLACED)] == [""]


async def test_a_hit_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.peer("a")
    await by_upstream(world, 0)
    await world.got()
    await world.now_asked.remember()

    async def written(*_: object, **__: object) -> str:
        raise AssertionError("a hit writes nothing")

    monkeypatch.setattr(world.store.history, "answers", written)
    monkeypatch.setattr(world.store.history, "answer_first", written)
    for _ in range(3):
        assert await world.got() == [OLD.fingerprint]
        await world.now_asked.remember()


async def test_without_the_cache_nobody_knows_what_answered_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.peer("a")
    await by_upstream(world, 1)

    async def broken(*_: object) -> Any:
        raise StoreError("no disk")

    monkeypatch.setattr(world.store, "look", broken)
    monkeypatch.setattr(world.store, "put", broken)
    assert await world.got() == [NEW.fingerprint]
    world.on_change(OnChange.HOLD)
    answer = await world.get()
    assert (answer.state, answer.final) == (State.FAILED, False)


async def test_a_domains_rule_comes_first_and_what_it_pins_passes(world: World) -> None:
    rule = DomainRule("partner.example", on_change=OnChange.REPORT)
    world.on_change(OnChange.HOLD, domains=DomainRules([rule]))
    assert (await replaced_at(world, "upstream"))[2] == [NEW.fingerprint]
    pinned = DomainRule("partner.example", on_change=OnChange.HOLD, pinned=frozenset({OLD.fingerprint}))
    world.on_change(OnChange.HOLD, domains=DomainRules([pinned]))
    world.peers["a"].otherwise = sends(OLD, NEW)
    world.now += 2 * DAY
    assert await world.got() == [OLD.fingerprint]


async def test_an_address_with_a_tag_is_no_way_around_what_is_held(world: World) -> None:
    world.on_change(OnChange.HOLD)
    world.peer("a")
    await by_upstream(world, 0)
    assert await world.got() == [OLD.fingerprint]
    await by_upstream(world, 1)
    world.now += 2 * DAY
    assert await world.got(View(no_mailflow=True)) == [OLD.fingerprint]
    assert not await world.events(What.REPLACED)


async def test_what_the_domains_owner_says_is_remembered_apart(world: World) -> None:
    """Whoever was first to register an address somewhere does not keep its owner's word out of the directory."""
    world.on_change(OnChange.HOLD)
    world.peer("public", priority=1)
    world.peers["public"].otherwise = sends(OLD)
    assert await world.got() == [OLD.fingerprint]
    world.peer("owner", domains=("partner.example",), priority=2)
    world.peers["owner"].otherwise = sends(NEW)
    assert await world.got(View(directory=True)) == [NEW.fingerprint]
    world.peers["owner"].otherwise = sends(THIRD)
    world.now += 2 * DAY
    assert await world.got(View(directory=True)) == [NEW.fingerprint]
    assert await world.got() == [OLD.fingerprint]


async def test_mail_that_would_be_held_anyway(world: World) -> None:
    """The mail flow asks the same function, so that what is held is seen to be."""
    world.on_change(OnChange.HOLD)
    entry = Entry(NEW.fingerprint, Kind.OPENPGP, b"", Source.MAILFLOW, "partner.example", NOW, NOW)
    terms, views = world.terms, (View(), View("mail", answer_mailflow=True))
    assert waits(entry, (), {"mail": OLD.fingerprint}, views, terms, BOB)
    assert not waits(entry, (), {}, views, terms, BOB)
    assert not waits(entry, (), {"mail": NEW.fingerprint}, views, terms, BOB)
    local = replace(entry, source=Source.LOCAL)
    assert not waits(entry, (local,), {"mail": OLD.fingerprint}, views, terms, BOB)
    assert not waits(entry, (), {"mail": OLD.fingerprint}, views, replace(terms, on_change=OnChange.REPORT), BOB)
