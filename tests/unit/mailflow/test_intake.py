"""From mail to entry: policy, changes, forged mail, load; over the real store and hygiene, with a clock by hand."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry, generate_latest

from keyserver import openpgp, smime
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import ArrivingMail, MailMemory
from keyserver.mailflow.values import Envelope, Report, Rules, Way, Why
from keyserver.model import Certificate, Entry, Find, OnChange, Record, Source, UpstreamSpec, View
from keyserver.policy import Terms, judge
from keyserver.resolver.cleaner import Cleaner
from keyserver.rules import InForce
from keyserver.store.base import StoreError
from keyserver.store.sqlite import SqliteStore
from support.listed import listed
from support.mails import attached_key, crlf, head, multipart, signed, text
from support.openpgp import Made, make
from support.x509 import BEGINS, YEAR, authority, name, person, rsa_key

DAY = 86400
CA = authority()
ALICE = person("alice@partner.example", CA)
RENEWED = person("alice@partner.example", CA, key=rsa_key(2048, 1))
UNKNOWN_CA = authority("Nobody's CA")
FORGED = person("alice@partner.example", UNKNOWN_CA, key=rsa_key(2048, 2))
PASSED = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
RULES = Rules(authserv_id="mx.here.example")
MILTER = Envelope(Way.MILTER, queue_id="4ABC")
NEVER, ALWAYS = View(), View(answer_mailflow=True)


class World:
    """An intake with everything real behind it."""

    def __init__(self, path: Path, rules: Rules, memory: MailMemory) -> None:
        self.now = BEGINS + YEAR
        self.terms = Terms(ttl=3600, upstreams={"directory": UpstreamSpec("directory")})
        hygiene = hygiene_of(smime.Anchors([CA.certificate]))
        self.store = SqliteStore(path / "keyserver.db", hygiene, Changes(), max_size=1 << 30)
        self.cleaner = Cleaner({kind: own.clean for kind, own in hygiene.items()}, monotonic=time.monotonic)
        self.registry = CollectorRegistry()
        self.rules = InForce(replace(rules, terms=self.terms))
        self.intake = Intake(
            store=self.store,
            cleaner=self.cleaner,
            hygiene=hygiene,
            rules=self.rules,
            clock=lambda: self.now,
            counts=Counts(self.registry),
            identity=lambda identity: "#hash",
            memory=memory,
        )

    async def mail(self, octets: bytes, **options: bool) -> Report:
        return await self.intake.harvest(crlf(octets), **options)

    async def entries(self) -> dict[str, Entry]:
        return {entry.fingerprint: entry for entry in await listed(self.store)}

    async def approve(self, fingerprint: str, address: str = "alice@partner.example") -> None:
        assert await self.store.approve(fingerprint, Source.MAILFLOW, "partner.example", address)

    def answered(self, entry: Entry, view: View = NEVER) -> bool:
        return judge(entry, view, self.now, self.terms).answerable

    def metric(self, line: str) -> bool:
        return line in generate_latest(self.registry).decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path, RULES, MailMemory()) as made:
        yield made


@asynccontextmanager
async def opened(path: Path, rules: Rules, memory: MailMemory) -> AsyncIterator[World]:
    made = World(path, rules, memory)
    await made.store.open()
    try:
        yield made
    finally:
        made.intake.close()
        await made.cleaner.close()
        await made.store.close()


def from_alice(signer: object = ALICE, **more: str) -> bytes:
    return signed(text(), signer, sender="alice@partner.example", **more)  # type: ignore[arg-type]


async def test_a_good_chain_is_cached_and_answered_by_policy_only(world: World) -> None:
    report = await world.mail(from_alice())
    assert (report.verdict, report.certificates[0].chained) == (Why.CACHED, True)
    entry = (await world.entries())[ALICE.fingerprint]
    assert (entry.source, entry.origin, entry.detail) == (Source.MAILFLOW, "partner.example", "<1@mail.example>")
    assert entry.chained and not entry.held
    assert not world.answered(entry)
    assert world.answered(entry, ALWAYS)
    await world.approve(ALICE.fingerprint)
    assert world.answered((await world.entries())[ALICE.fingerprint])


async def test_a_mail_that_was_read_by_other_rules_is_read_again(world: World) -> None:
    """Its sender has become one of our own, who are never harvested; or is none any more."""
    clean, reading, go = world.cleaner.clean, asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: object) -> object:
        reading.set()
        await go.wait()
        return await clean(*arguments)  # type: ignore[arg-type]

    world.cleaner.clean = slowly  # type: ignore[method-assign, assignment]
    mail = head("alice@partner.example", **PASSED) + multipart(
        text(), attached_key(make(["<alice@partner.example>"]).octets)
    )
    waiting = asyncio.ensure_future(world.mail(mail))
    await reading.wait()
    outside = world.rules()
    world.rules.replace(replace(outside, internal_domains=("partner.example",)))
    await asyncio.wait_for(world.rules.replaced(), 1)
    go.set()
    assert (await waiting).verdict is Why.INTERNAL
    assert await world.entries() == {}
    world.rules.replace(outside)
    assert (await world.mail(mail)).verdict is Why.CACHED


async def test_faq_2_keys_from_mail_live_180_days_from_the_last_mail(world: World) -> None:
    await world.mail(from_alice())
    world.now += 100 * DAY
    assert (await world.mail(from_alice(message_id="2@mail.example"))).certificates[0].new is False
    entry = (await world.entries())[ALICE.fingerprint]
    assert (entry.seen_at, entry.detail) == (world.now, "<2@mail.example>")
    for days, answered in ((179, True), (180, False), (181, False)):
        now = entry.seen_at + days * DAY
        assert judge(entry, ALWAYS, now, world.terms).answerable is answered


async def test_faq_7_cached_but_not_encrypted_until_approved_or_allowed(world: World) -> None:
    """FAQ: keys observed in the mail flow are not used unless the rule allows them."""
    report = await world.mail(from_alice(**PASSED))
    assert report.verdict is Why.CACHED
    entry = (await world.entries())[ALICE.fingerprint]
    assert judge(entry, NEVER, world.now, world.terms).reason.startswith("seen in mail")
    assert world.answered(entry, ALWAYS)


async def test_a_forged_mail_is_stored_held_not_answered_and_visible(world: World) -> None:
    report = await world.mail(from_alice(FORGED))
    assert report.verdict is Why.HELD
    assert "not authenticated" in report.text
    entry = (await world.entries())[FORGED.fingerprint]
    assert entry.held and not entry.chained
    assert not world.answered(entry, ALWAYS)
    await world.approve(FORGED.fingerprint)
    assert world.answered((await world.entries())[FORGED.fingerprint])
    assert (await world.mail(from_alice(FORGED))).verdict is Why.CACHED, "approval lasts"


async def test_an_authenticated_sender_needs_no_chain(world: World) -> None:
    report = await world.mail(from_alice(FORGED, **PASSED))
    assert (report.verdict, report.authenticated) == (Why.CACHED, True)
    key = make(["Alice <alice@partner.example>"])
    mail = head("alice@partner.example", **PASSED) + multipart(text(), attached_key(key.octets))
    assert (await world.mail(mail)).verdict is Why.CACHED
    unauthenticated = head("bob@partner.example") + multipart(attached_key(make(["<bob@partner.example>"]).octets))
    report = await world.mail(unauthenticated)
    assert (report.verdict, report.certificates[0].reasons) == (Why.HELD, ("its sender was not authenticated",))


async def test_a_later_mail_takes_nothing_away(world: World) -> None:
    """Nor does a better one approve what an administrator is to look at."""
    await world.mail(from_alice(FORGED, **PASSED))
    assert (await world.mail(from_alice(FORGED))).verdict is Why.CACHED
    assert not (await world.entries())[FORGED.fingerprint].held
    bob = head("bob@partner.example") + multipart(attached_key(make(["<bob@partner.example>"]).octets))
    assert (await world.mail(bob)).verdict is Why.HELD
    report = await world.mail(
        bob.replace(b"To:", b"Authentication-Results: " + PASSED["Authentication_Results"].encode() + b"\nTo:")
    )
    assert (report.authenticated, report.verdict) == (True, Why.HELD)
    assert "since an earlier mail" in report.text


async def test_another_certificate_is_held_the_older_stays_preferred(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await world.mail(from_alice(**PASSED))
    world.now += DAY
    report = await world.mail(from_alice(RENEWED, **PASSED))
    (caught,) = report.certificates
    assert (caught.result, caught.changed) == (Why.HELD, (ALICE.fingerprint,))
    entries = await world.entries()
    assert world.answered(entries[ALICE.fingerprint], ALWAYS)
    assert not world.answered(entries[RENEWED.fingerprint], ALWAYS)
    (change,) = world.intake.status().changes
    assert (change.address, change.fingerprint, change.held) == ("alice@partner.example", RENEWED.fingerprint, True)
    assert "another certificate than before" in caplog.text
    assert world.metric("keyserver_mailflow_changed_total 1.0")
    again = await world.mail(from_alice(RENEWED, **PASSED))
    assert again.verdict is Why.HELD and not again.certificates[0].changed, "told once"
    assert (await world.mail(from_alice(**PASSED))).verdict is Why.CACHED, "the older one is as welcome as ever"


async def test_hold_changed_off_still_tells(tmp_path: Path) -> None:
    async with opened(tmp_path, replace(RULES, hold_changed=False), MailMemory()) as world:
        await world.mail(from_alice(**PASSED))
        report = await world.mail(from_alice(RENEWED, **PASSED))
        assert (report.verdict, report.certificates[0].changed) == (Why.CACHED, (ALICE.fingerprint,))
        assert not world.intake.status().changes[0].held


@pytest.mark.parametrize("on_change", OnChange)
async def test_what_a_view_would_hold_waits_as_what_mail_holds(tmp_path: Path, on_change: OnChange) -> None:
    """Also where mail itself would hold nothing, and what answered has been gone for long."""
    views = (View(answer_mailflow=True),)
    async with opened(tmp_path, replace(RULES, hold_changed=False, views=views), MailMemory()) as world:
        world.rules.replace(replace(world.rules(), terms=replace(world.terms, on_change=on_change)))
        name = "x509:addr:alice@partner.example"
        await world.store.history.answers(views[0].memory, name, ALICE.fingerprint, world.now)
        report = await world.mail(from_alice(RENEWED, **PASSED))
        held = on_change is OnChange.HOLD
        assert report.verdict is (Why.HELD if held else Why.CACHED)
        assert (await world.entries())[RENEWED.fingerprint].held is held
        assert (await world.mail(from_alice(ALICE, **PASSED))).verdict is Why.CACHED, "the same one is no change"


async def test_what_counts_as_known_before(world: World) -> None:
    """A forged mail's held entry does not lock out the real one; other sources count; expired ones do not."""
    await world.mail(from_alice(FORGED))
    assert (await world.mail(from_alice(**PASSED))).verdict is Why.CACHED
    await world.store.delete(ALICE.fingerprint, world.now)
    (renewed,) = smime.clean(RENEWED.der, world.now)
    assert isinstance(renewed, Certificate)
    find = Find(renewed, Source.KEYSERVER, "directory")
    await world.store.put([find], [], await world.store.begin(), world.now)
    known = (await world.mail(from_alice(**PASSED), explain=True)).certificates[0].changed
    assert not known, "sent for another question: it only claims the address (rule 10)"
    asked = Record("x509:addr:alice@partner.example", "directory", True, world.now)
    await world.store.put([], [asked], await world.store.begin(), world.now)
    assert (await world.mail(from_alice(**PASSED), explain=True)).certificates[0].changed == (RENEWED.fingerprint,)
    world.now += 3600
    assert not (await world.mail(from_alice(**PASSED))).certificates[0].changed, "past its ttl"


async def test_a_split_pair_of_one_mail_does_not_hold_itself(world: World) -> None:
    sign = person("alice@partner.example", CA, usage="digital_signature")
    encrypt = person("alice@partner.example", CA, key=rsa_key(2048, 3), usage="key_encipherment")
    mail = signed(text(), sign, sender="alice@partner.example", extra=[encrypt])
    for _ in range(2):
        assert {c.result for c in (await world.mail(mail)).certificates} == {Why.CACHED}


async def test_only_what_proves_the_from_address(world: World) -> None:
    mail = head("alice@partner.example", **PASSED) + multipart(
        attached_key(make(["Eve <eve@evil.example>"]).octets),
        attached_key(b"\x99garbage"),
        attached_key(make(["Alice <alice@partner.example>"], expires=10).octets),
    )
    report = await world.mail(mail)
    assert report.verdict is Why.MISMATCH
    assert [r.why for r in report.remarks].count(Why.REFUSED) == 2
    assert not await world.entries()


async def test_a_revocation_spreads_by_mail(world: World) -> None:
    key = make(["Alice <alice@partner.example>"], seed="alice")
    revoked = make(["Alice <alice@partner.example>"], seed="alice", revoked=2)
    assert key.fingerprint == revoked.fingerprint
    for octets in (key.octets, revoked.octets):
        await world.mail(head("alice@partner.example", **PASSED) + multipart(attached_key(octets)))
    shelf = await world.store.certificate(key.fingerprint)
    assert shelf.revocations.get(key.fingerprint)
    assert len(shelf.entries) == 1


async def test_explain_stores_nothing_and_counts_nothing(world: World) -> None:
    report = await world.mail(from_alice(), explain=True)
    assert (report.verdict, report.explained) == (Why.CACHED, True)
    assert not await world.entries()
    assert not world.intake.status().recent


async def test_blocked_certificates_are_not_cached(world: World) -> None:
    await world.store.block(ALICE.fingerprint, world.now)
    report = await world.mail(from_alice())
    assert (report.verdict, report.text) == (Why.BLOCKED, "an administrator has blocked the certificate")


async def test_old_mail_from_files_counts_from_its_own_day(world: World) -> None:
    def received(days: int) -> bytes:
        return b"Received: by x; " + email.utils.formatdate(world.now - days * DAY).encode() + b"\n"

    await world.mail(received(100) + from_alice())
    entry = (await world.entries())[ALICE.fingerprint]
    assert entry.seen_at == world.now - 100 * DAY
    await world.mail(received(150) + from_alice())
    assert (await world.entries())[ALICE.fingerprint].seen_at == world.now - 100 * DAY, "older mail shortens nothing"
    assert (await world.mail(received(180) + from_alice(RENEWED))).verdict is Why.TOO_OLD
    await world.mail(received(-5) + from_alice())
    assert (await world.entries())[ALICE.fingerprint].seen_at == world.now


async def test_a_store_in_trouble_is_said_and_nothing_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(world.store, "put", full)
    report = await world.mail(from_alice())
    assert (report.verdict, report.text) == (Why.FAILED, "the store cannot keep it: disk full")


async def test_the_log_names_nobody_and_says_why(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await world.mail(signed(text(), ALICE, sender="bob@partner.example"))
    (record,) = [r for r in caplog.records if r.getMessage() == "mail"]
    facts = record.facts  # type: ignore[attr-defined]
    assert facts["verdict"] == "address mismatch"
    assert facts["reason"] == "the signer's certificate does not name the From address"
    assert "partner.example" not in str(facts)


def offered(world: World, octets: bytes) -> bool:
    holding = ArrivingMail(world.intake.memory, 16 << 20)
    holding.add(octets)
    return world.intake.offer(MILTER, holding)


async def test_the_queue_reads_what_is_offered(world: World) -> None:
    reader = asyncio.create_task(world.intake.run())
    for octets in (crlf(from_alice()), b"", b"\0" * 1000, crlf(head("x"))):
        assert offered(world, octets)
    await world.intake.drain(10)
    assert world.intake.status().verdicts == {"cached": 1, "no usable From": 3}
    assert world.intake.memory.used == 0
    assert world.intake.status().recent[-1].queue_id == "4ABC"
    assert world.metric('keyserver_mailflow_mails_total{verdict="cached",way="milter"} 1.0')
    reader.cancel()


async def test_a_fault_of_ours_costs_one_mail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = world.store.begin
    calls = []

    async def once() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a fault of ours")
        return await begin()

    monkeypatch.setattr(world.store, "begin", once)
    reader = asyncio.create_task(world.intake.run())
    assert offered(world, crlf(from_alice()))
    assert offered(world, crlf(from_alice()))
    await world.intake.drain(10)
    assert ALICE.fingerprint in await world.entries()
    assert world.intake.memory.used == 0
    reader.cancel()


async def test_load_is_shed_with_a_counter(tmp_path: Path) -> None:
    async with opened(tmp_path, RULES, MailMemory(100_000)) as world:
        mail = crlf(from_alice()).ljust(30_000, b"\n")
        taken = [offered(world, mail) for _ in range(5)]
        assert taken == [True, True, True, False, False]
        assert world.intake.memory.used <= 100_000
        assert world.intake.status().shed == 2
        assert world.metric('keyserver_mailflow_shed_total{way="milter"} 2.0')
        reader = asyncio.create_task(world.intake.run())
        await world.intake.drain(10)
        assert world.intake.status().verdicts == {"cached": 3}
        assert offered(world, mail)
        await world.intake.drain(10)
        reader.cancel()


def test_a_holding_forgets_what_is_too_large_and_gives_its_room_back() -> None:
    memory = MailMemory(1 << 20)
    holding = ArrivingMail(memory, 5000)
    holding.add(b"x" * 4000)
    holding.add(b"x" * 4000)
    assert holding.cut and holding.size == 8000 and holding.take() == b""
    holding.free()
    holding.free()
    assert memory.used == 0


@pytest.mark.parametrize(
    "subject", [name("M", email="ceo@here.example"), name("ceo@here.example"), name("M (ceo@here.example)")]
)
async def test_an_x509_certificate_that_shows_another_address_anywhere_is_held(
    world: World, subject: x509.Name
) -> None:
    """gpgsm finds a certificate by the emailAddress in its subject, whatever the alternative names say."""
    other = person("m@partner.example", CA, subject=subject)
    report = await world.mail(signed(text(), other, sender="m@partner.example", **PASSED))
    assert (report.verdict, report.certificates[0].chained) == (Why.HELD, True)
    assert "other addresses" in report.text
    same = person("m@partner.example", CA, subject=name("M (m@partner.example)", email="M@Partner.example"))
    assert (await world.mail(signed(text(), same, sender="m@partner.example", **PASSED), explain=True)).verdict is (
        Why.CACHED
    )


async def test_a_key_first_shown_by_a_stranger_is_still_another_key(world: World) -> None:
    """Whoever may write in the name of Bob's domain has sent his key as somebody else before, or had it fetched."""
    bob, other = make(["Bob <bob@partner.example>"]), make(["Bob <bob@partner.example>", "M <m@attacker.example>"])
    passed = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=attacker.example"}
    assert (await world.mail(carrying(bob, "bob@partner.example"))).verdict is Why.CACHED
    assert (await world.mail(carrying(other, "m@attacker.example", **passed))).verdict is Why.CACHED
    (clean,) = openpgp.clean(other.octets, world.now)
    assert isinstance(clean, Certificate)
    await world.store.put([Find(clean, Source.KEYSERVER, "directory")], [], await world.store.begin(), world.now)
    report = await world.mail(carrying(other, "bob@partner.example"))
    assert (report.verdict, report.certificates[0].changed) == (Why.HELD, (bob.fingerprint,))
    again = await world.mail(carrying(other, "bob@partner.example"))
    assert again.verdict is Why.HELD and not again.certificates[0].changed, "told once"


async def test_entries_from_before_senders_were_kept_still_count_as_shown(world: World) -> None:
    bob, other = make(["Bob <bob@partner.example>"]), make(["Bob <bob@partner.example>"])
    (clean,) = openpgp.clean(bob.octets, world.now)
    assert isinstance(clean, Certificate)
    await world.store.put([Find(clean, Source.MAILFLOW, "partner.example")], [], await world.store.begin(), world.now)
    assert (await world.mail(carrying(other, "bob@partner.example"))).verdict is Why.HELD
    assert (await world.mail(carrying(bob, "bob@partner.example"))).verdict is Why.CACHED, "seen again"


def carrying(made: Made, sender: str, **more: str) -> bytes:
    return head(sender, **(more or PASSED)) + multipart(text(), attached_key(made.octets))
