"""A year of searches, mails, acts and settings, with a log of every real answer: `--at` says what the log says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Answer, Failed, Find, Kind, Outcome, Source, State, View, Voucher
from keyserver.policy import absent_before, purged_before
from keyserver.query import parse
from keyserver.resolver.past import Stood, Then
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.settings import settings_document
from keyserver.resolver.then import answered_then
from keyserver.store.base import Undo
from keyserver.store.history import Bounds
from support import postgres
from support.openpgp import CREATED, Made, make
from support.resolving import NOW, Ground, sends

DAY = 86400
YEAR = 365 * DAY
DEFAULT, MAILFLOW = View(), View("mailflow", answer_mailflow=True, usable_only=True)
ADDRESSES = (
    "alice@example.org",
    "alice+lists@example.org",
    "paul@partner.example",
    "nobody@example.org",
    "in@us.example",
)


def people() -> dict[str, Made]:
    """Of one address several: some expire, some are revoked later, some name two addresses."""
    since = NOW - CREATED
    alice = make(["Alice <alice@example.org>"], seed="alice")
    return {
        "alice": alice,
        "alice, revoked": make(
            ["Alice <alice@example.org>"], seed="alice", primary=alice.primary, revoked=1, revoked_at=NOW + 5 * DAY
        ),
        "other": make(["Alice <alice@example.org>"], seed="other", expires=since + 100 * DAY),
        "paul": make(["Paul <paul@partner.example>"], seed="paul", subkey_expires=since + 200 * DAY),
        "both": make(["Alice <alice@example.org>", "Paul <paul@partner.example>"], seed="both"),
        "inside": make(["In <in@us.example>"], seed="inside"),
    }


@dataclass(frozen=True)
class Logged:
    """One real answer."""

    at: int
    term: str
    view: View
    state: State
    fingerprints: tuple[str, ...]
    story: str


class Year(Ground):
    """Ground whose clocks go together, and what happens there in a year."""

    def __init__(self, directory: Path, url: str, seed: int) -> None:
        super().__init__(directory, url)
        self.random = random.Random(seed)
        self.people = people()
        self.log: list[Logged] = []
        self.acts = 0

    def monotonic(self) -> float:
        return super().monotonic() + self.now - NOW

    async def begin(self) -> None:
        self.peer("first", priority=1, domains=("partner.example",))
        self.peer("second")
        self.peer("third", required=False)
        views = {view.name: view for view in (DEFAULT, MAILFLOW)}
        self.change(views=views, terms=replace(self.terms, internal_domains=("us.example",)))
        await self.store.open()
        await self.settle()

    async def settle(self) -> None:
        """The settings of now are on record."""
        await self.store.history.settings(settings_document(self.rules()), self.now)

    def any_of(self, *names: str) -> str:
        return self.random.choice(names or tuple(self.people))

    async def live(self, steps: int) -> None:
        """Mostly questions; now and then something else happens."""
        resolver = self.resolver()
        spans = (1, 5, 45, 600, 3600, 6 * 3600, DAY, 3 * DAY)
        for _ in range(steps):
            self.now += 1 + self.random.randrange(self.random.choice(spans))
            if self.random.random() < 0.6:
                await self.ask(resolver)
            else:
                acts = (self.says, self.says, self.comes, self.acts_on, self.deletes, self.reloads, self.pauses)
                await self.random.choice(acts)()
                self.acts += 1
            if self.random.random() < 0.1:
                await self.store.history.tidy(self.now, 100)
        await resolver.close()

    async def ask(self, resolver: Resolver) -> None:
        made = self.people[self.any_of()]
        term = self.random.choice((*ADDRESSES, *ADDRESSES, made.fingerprint, made.key_id))
        view = self.random.choice((DEFAULT, DEFAULT, MAILFLOW))
        answer = await resolver.lookup(parse(term), view)
        await resolver.keep_failures()
        self.log.append(Logged(self.now, term, view, answer.state, fingerprints(answer), story(answer)))

    async def then(self, logged: Logged) -> Then:
        """What the history says of it."""
        past_of = self.store.history.past
        return await answered_then(parse(logged.term), logged.view, logged.at, self.now, self.hygiene, past_of)

    async def says(self) -> None:
        """An upstream says something else from now on."""
        peer = self.peers[self.any_of("first", "second", "third")]
        made = [self.people[self.any_of()] for _ in range(self.random.choice((1, 1, 2)))]
        outcomes: list[Outcome] = [sends(*made), sends(*made), Failed("no answer")]
        terms = [*ADDRESSES, *(m.fingerprint for m in made), *(m.key_id for m in made)]
        for term in self.random.sample(terms, 3):
            peer.answers.pop(term, None)
            if self.random.random() < 0.7:
                peer.answers[term] = self.random.choice(outcomes)

    async def comes(self) -> None:
        """By mail or by an import."""
        made = self.people[self.any_of()]
        if self.random.random() < 0.3:
            await self.put(made, Source.LOCAL, "administrator", replace=False)
            return
        sender = self.any_of(*ADDRESSES)
        kind = self.random.choice(({"authenticated": True}, {"authenticated": True, "held": True}, {}))
        vouchers = (Voucher(sender, seen_at=self.now, **kind),)
        find = Find(self.clean(made), Source.MAILFLOW, sender.rpartition("@")[2], replace=False, vouchers=vouchers)
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def acts_on(self) -> None:
        """An administrator approves, blocks, unblocks."""
        fingerprint = self.people[self.any_of()].fingerprint
        act = self.any_of("approve", "block", "unblock", "unblock")
        if act == "block" and self.random.random() < 0.5:
            await self.store.block(fingerprint, self.now)
        elif act == "unblock":
            await self.store.unblock(fingerprint, self.now)
        for entry in (await self.store.certificate(fingerprint)).entries if act == "approve" else ():
            await self.store.approve(fingerprint, entry.source, entry.origin, self.any_of(*ADDRESSES), self.now)

    async def deletes(self) -> None:
        """Deletes, for good or not; undone; what has expired is tidied away."""
        act = self.any_of("delete", "undoable", "undo", "purge")
        fingerprint = self.people[self.any_of()].fingerprint
        if act == "purge":
            terms = self.terms
            await self.store.purge_expired(
                purged_before(self.now, terms), absent_before(self.now, terms), 100, self.now
            )
        elif act == "undo":
            for waiting in (await self.store.undos(self.now))[:1]:
                await self.store.undo(waiting.id, self.now, purged_before(self.now, self.terms))
        else:
            undo = Undo(str(self.now), self.now + 2 * DAY) if act == "undoable" else None
            await self.store.delete(fingerprint, self.now, undo=undo)

    async def pauses(self) -> None:
        """An upstream is paused, or asked again."""
        name = self.any_of(*self.peers)
        await (self.paused.resume(name) if name in self.paused else self.paused.pause(name))

    def strict(self) -> tuple[DomainRule, ...]:
        """Rules for a domain, of which one holds at a time."""
        return (
            DomainRule("example.org", pinned=frozenset({self.people["other"].fingerprint})),
            DomainRule("example.org", upstreams=("third",), ttl=2 * DAY),
            DomainRule("partner.example", kinds=frozenset({Kind.X509})),
        )

    async def reloads(self) -> None:
        """Other settings."""
        changed: tuple[dict[str, object], ...] = (
            {"ttl": self.random.choice((3600, DAY, 10 * DAY))},
            {"negative_ttl": self.random.choice((60, 900))},
            {"serve_stale": self.random.choice((0, 2 * DAY))},
            {"domains": DomainRules(self.random.sample(self.strict(), 1))},
            {"domains": DomainRules()},
            {"internal_domains": self.random.choice(((), ("us.example",), ("us.example", "partner.example")))},
        )
        one = self.random.choice(changed)
        self.change(terms=replace(self.terms, **one))  # type: ignore[arg-type]
        subaddress = self.random.choice(("", "+"))
        self.change(subaddress=subaddress, subaddress_domains=("example.org",) if subaddress else ())
        await self.settle()


def says(then: Then) -> tuple[str, tuple[str, ...]]:
    return str(then.state), fingerprints(then.answer) if then.answer is not None else ()


def fingerprints(answer: Answer) -> tuple[str, ...]:
    return tuple(one.certificate.fingerprint for one in answer.certificates)


def story(answer: Answer) -> str:
    return "\n".join(f"  {s.who} {s.what} {s.why}" for s in answer.steps) + f"\n  {answer.reason}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with ExitStack() as stack:
        yield postgres.shared().url(stack.enter_context(postgres.fresh())) if request.param == "postgres" else ""


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak), pytest.param(3, marks=pytest.mark.soak)])
async def test_a_year(url: str, tmp_path: Path, seed: int) -> None:
    year = Year(tmp_path, url, seed)
    await year.begin()
    try:
        await year.live(700)
        wrong = []
        for logged in year.log:
            then = await year.then(logged)
            if says(then) != (str(logged.state), logged.fingerprints):
                told = "\n".join(f"  {s.who} {s.what} {s.why}" for s in then.steps)
                wrong.append(f"{logged}\n{logged.story}\n--- said to be {says(then)}: {then.reason}\n{told}")
        counts = Counter(logged.state for logged in year.log)
        assert not wrong, f"{len(wrong)} of {len(year.log)} ({counts}):\n\n{wrong[0]}"
        assert min(counts[state] for state in (State.FOUND, State.ABSENT, State.FAILED)) > 10, counts
        year.store.history.limit(Bounds(100 * DAY, 1 << 30))
        while await year.store.history.tidy(year.now, 1000):
            pass
        kept = [await year.then(logged) for logged in year.log]
        whole = kept[-1].whole_since
        assert NOW < year.now - 101 * DAY <= whole <= year.now - 99 * DAY
        for logged, then in zip(year.log, kept, strict=True):
            if logged.at < whole:
                assert then.state is Stood.UNKNOWN
            else:
                assert says(then) == (str(logged.state), logged.fingerprints), logged
    finally:
        await year.store.close()
