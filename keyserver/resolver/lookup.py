"""One lookup: what was asked, its trace so far, and the one way of asking what is known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from keyserver.hygiene import Hygiene
from keyserver.model import (
    PASSED_OVER,
    Absent,
    Answer,
    Entry,
    Failed,
    Found,
    How,
    Kind,
    State,
    Step,
    View,
    joined,
)
from keyserver.policy import FOREVER, SKEW, OnRecord, in_vain_until, on_record
from keyserver.query import ByAddress, ByText, Query
from keyserver.resolver.aside import Aside
from keyserver.resolver.inflight import Search
from keyserver.resolver.later import without_later
from keyserver.resolver.missing import Missing
from keyserver.resolver.plan import combine
from keyserver.resolver.remembering import UNKNOWN, Remembering
from keyserver.resolver.reported import Reported
from keyserver.resolver.rules import Rules
from keyserver.resolver.select import Selected, names_behind, select
from keyserver.rules import InForce
from keyserver.store.base import Store, StoreError
from keyserver.store.snapshot import Snapshot

MOST_BY_TEXT = 20  # certificates that a text finds
NEVER_ANSWERED = Failed("no answer by the deadline")
CLOCK_SET = "the clock was set during the search"
NOT_TOLD = "found, but nothing that this view may be told"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all lookups share."""

    store: Store
    rules: InForce[Rules]
    hygiene: Mapping[Kind, Hygiene]
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    aside: Aside
    missing: Missing
    remembering: Remembering
    paused: Callable[[str], bool] = lambda upstream: False
    watch: Reported = field(default_factory=Reported)  # over reading


@dataclass(frozen=True, slots=True)
class Known:
    """What was known at one instant, and what of it the view may be told."""

    at: int
    snapshot: Snapshot
    record: OnRecord
    selected: Selected
    unasked: bool = False  # nobody could be asked: whatever is cached is believed


class Lookup:
    """One question of one client on its way to an answer. Its methods say what they do in the trace."""

    def __init__(
        self,
        parts: Shared,
        query: Query,
        view: View,
        *,
        client: str | None = None,
        via: str = "",
        hear: Callable[[Step], None] | None = None,
        began: float | None = None,
    ) -> None:
        """`client`, `via`, `hear`: as in `Resolver.lookup`. `began`: when the question that this is part of did."""
        self._parts = parts
        self.query = query
        self.view = view
        self.rules = parts.rules()
        """By which the latest look was judged; what follows it without a wait goes by the same."""
        self.tiers = self.rules.tiers(query, view)
        """The upstreams that may be asked."""
        self.client = client
        self.via = via
        self._hear = hear
        self.began = parts.monotonic() if began is None else began
        self.steps: list[Step] = []
        self._passed_over: set[str] = set()
        self._told_held: set[str] = set()
        self._snapshot = Snapshot()  # of the latest look
        self._empty: Snapshot | None = None  # what the store had under the name, if it was nothing

    def further(self, query: Query, view: View) -> Lookup:
        """A further question of the same client, within the same time."""
        return Lookup(self._parts, query, view, client=self.client, via=self.via, hear=self._hear, began=self.began)

    def tell(self, who: str, what: str, why: str = "") -> Step:
        """One step more, now."""
        step = Step((self._parts.monotonic() - self.began) * 1000, who, what, why)
        self.steps.append(step)
        if self._hear is not None:
            self._hear(step)
        return step

    def tell_rule(self) -> None:
        """Say which rule of a domain holds, if one does."""
        rule = self.rules.terms.rule(self.query.address) if isinstance(self.query, ByAddress) else None
        if rule is not None:
            self.tell("rule", rule.name, "; ".join(rule.describe()) or "it says nothing")

    def tell_left_out(self) -> None:
        """Say which upstreams are not asked, and why."""
        for name, why in self.tiers.left_out.items():
            self.tell(name, "not asked", why)

    async def look(self, search: Search | None = None) -> Known:
        """What is known now: read, put on record, selected for this view. Never raises: without the store nothing is.

        `search`: it has been waited for; what the store could not take of it counts as well. Where nothing was known
        before and it has brought no certificate, the store is not read again: no delete can take anything from that.
        """
        if search is not None and (search.wrote or search.overtaken):  # an overtaken one goes on and may write later
            self._empty = None
        if search is not None and not search.overtaken:
            optional = {name: search.outcomes.get(name) for name in self.tiers.optional}
            self._parts.missing.note(self.query.name, optional)
        snapshot = self._empty
        if snapshot is None:
            snapshot = await self._read(aloud=search is None)
        if search is None:
            self._empty = None if snapshot.begun < 0 or snapshot.entries or snapshot.records else snapshot
        else:
            snapshot = replace(
                snapshot,
                entries=snapshot.entries + tuple(search.uncached),
                revocations={**search.revocations, **snapshot.revocations},
                records=snapshot.records + tuple(search.records),
            )
        known = await self._select(self._parts.clock(), snapshot)
        for line in (f"{fingerprint}: {why}" for fingerprint, why in known.selected.passed_over):
            if line not in self._passed_over:
                self._passed_over.add(line)
                self.tell("cache", PASSED_OVER, line)
        return known

    async def remember(self, answer: Answer) -> None:
        """Note which certificate answers first for the address. Where the store cannot, the next answer does."""
        if answer.certificates and isinstance(self.query, ByAddress):
            with contextlib.suppress(StoreError):
                await self._parts.remembering.answers(self.query, self.view, self._snapshot, answer.certificates[0])

    async def wait(self, search: Search, deadline: float) -> None:
        """Until it has settled, but no longer than `deadline` seconds after this lookup began."""
        with search.heard(self._hear and (lambda step: self._hear_of(search, step))):
            try:
                async with asyncio.timeout(max(0.0, self.began + deadline - self._parts.monotonic())):
                    await search.settled.wait()
            except TimeoutError:
                self.tell("search", "deadline", "it goes on behind the answer")
        self.steps += [self._own(search, step) for step in search.steps]

    def _own(self, search: Search, step: Step) -> Step:
        """A search's step as one of this lookup's, which may have joined later."""
        return replace(step, at=max(0.0, step.at + (search.started - self.began) * 1000))

    def _hear_of(self, search: Search, step: Step) -> None:
        assert self._hear is not None
        self._hear(self._own(search, step))

    @property
    def is_late(self) -> bool:
        """Has its time run out?"""
        return self._parts.monotonic() - self.began >= self.rules.deadline

    def is_misdated(self, known: Known, search: Search) -> bool:
        """Is nothing of what this search found answered, and was the clock set since it began? What is dated by another
        clock has expired, or comes from the future, and neither is a reason to say that nobody has anything."""
        found = any(isinstance(outcome, Found) for outcome in search.outcomes.values())
        counted = self._parts.monotonic() - search.started
        return found and not known.selected.certificates and abs(known.at - search.dated - counted) > SKEW

    def is_answered(self, known: Known) -> bool:
        """Does the cache answer: with a hit (rule 10), unless rule 11 or 12 wants another search, or as absent?"""
        if known.selected.certificates:
            return known.at < self._again(known) and not self._bare(known)
        return known.record.negative or self._found_in_vain(known)

    def cached(self, known: Known) -> Answer:
        """By what is cached, or what upstreams said before."""
        if not known.selected.certificates and not known.record.negative:
            self.tell("records", "found in vain", "what a search found lately is not answered")
            reason = self._nothing_told(known, NOT_TOLD)
        elif not known.selected.certificates:
            without = known.record.without
            rest = f", without the word of {joined(without)}, which need not speak" if without else ""
            self.tell("records", "negative", f"every upstream that may be asked has said absent{rest}")
            reason = self._nothing_told(known, f"every upstream said absent{rest}")
        else:
            on_record = "a finished search for this query is on record"
            self.tell("cache", "hit", "proves the query by itself" if known.selected.alone else on_record)
            reason = "cached"
        return self._answer(known, How.HIT, reason, keep=True)

    def looped(self) -> Answer:
        """Not cached, and the question has been here before."""
        self.tell("cache", "not found", "this question has been here before: no search")
        return replace(self._nothing(State.ABSENT, "asked in a loop and not cached"), final=False)

    async def alone(self, known: Known) -> Answer:
        """Nobody may be asked: what is known is all there is."""
        self.tell_left_out()
        if known.snapshot.begun < 0 and not known.selected.certificates:
            return await self.unsearched(known, State.FAILED, "the cache cannot be read, and no upstream may be asked")
        known = await self._select(known.at, known.snapshot, unasked=True)
        cached = "cached" if known.selected.certificates else self._nothing_told(known, "not cached")
        return self._answer(known, How.HIT, f"{cached}, and no upstream may be asked", keep=True)

    async def unsearched(self, known: Known, state: State, reason: str, missing: Sequence[str] = ()) -> Answer:
        """The upstreams failed or could not be asked: what is known, then what is stale, then the truth.

        `missing`: those whose word is."""
        snapshot = without_later(known.snapshot, self.query, self.tiers, known.record, self._parts.paused)
        for stale in (False, True):
            known = await self._select(known.at, snapshot, unasked=True, stale=stale)
            if known.selected.certificates:
                how = How.STALE if known.selected.stale else How.HIT
                answer = self._answer(known, how, f"known already; {reason}", keep=False)
                return replace(answer, final=False, missing=tuple(missing))
        return replace(self._nothing(state, reason), final=False, missing=tuple(missing))

    async def searched(self, known: Known, search: Search) -> Answer:
        """By what is known after the search, or by what its upstreams said."""
        asked = {name: search.outcomes[name] for name in self.tiers.names if name in search.outcomes}
        missing = tuple(name for name, outcome in asked.items() if outcome is None or isinstance(outcome, Failed))
        final = all(name in self.tiers.optional for name in missing)
        if known.selected.certificates:
            answer = self._answer(known, How.MISS, "searched", keep=not search.uncached and not self._bare(known))
            return replace(answer, final=final, missing=missing)
        if known.selected.held and known.snapshot.begun < 0:
            return await self.unsearched(known, State.FAILED, "nobody knows what answered before", missing)
        said = {name: search.outcomes.get(name) or NEVER_ANSWERED for name in self.tiers.names}
        outcome = combine(said or {"": NEVER_ANSWERED}, self.tiers.optional)
        if isinstance(outcome, Absent):
            reason = self._nothing_told(known, outcome.reason)
            answer = self._answer(known, How.MISS, reason, keep=known.record.negative)
            return replace(answer, missing=missing)
        if isinstance(outcome, Failed):
            return await self.unsearched(known, State.FAILED, outcome.reason, missing)
        # The search did not fail: what only claims the address stays untold, whatever the finds were refused for.
        nothing = self._nothing(State.ABSENT, self._nothing_told(known, NOT_TOLD))
        return replace(nothing, final=final, missing=missing, in_vain=True)

    async def _read(self, *, aloud: bool) -> Snapshot:
        """One look at the store; only the first is part of the trace."""
        try:
            snapshot = await self._parts.store.look(self.query.name)
            if isinstance(self.query, ByText):
                snapshot = await self._read_by_text(self.query, snapshot)
            snapshot = self._parts.remembering.with_noted(self.query.name, snapshot)
        except StoreError as problem:
            self._parts.watch.trouble(f"the cache cannot be read: {problem}")
            if aloud:
                self.tell("cache", "unavailable", str(problem))
            return Snapshot(answering={self.view.memory: UNKNOWN})
        self._parts.watch.well()
        if aloud:
            entries = "1 entry" if len(snapshot.entries) == 1 else f"{len(snapshot.entries)} entries"
            records = "1 record" if len(snapshot.records) == 1 else f"{len(snapshot.records)} records"
            self.tell("cache", "looked", f"{entries}, {records}")
        return snapshot

    async def _read_by_text(self, query: ByText, snapshot: Snapshot) -> Snapshot:
        entries: list[Entry] = []
        revocations: dict[str, bytes] = {}
        for fingerprint in await self._parts.store.search(query.text, query.kind, MOST_BY_TEXT):
            one = await self._parts.store.certificate(fingerprint)
            entries += one.entries
            revocations.update(one.revocations)
        return replace(snapshot, entries=tuple(entries), revocations=revocations)

    async def _select(self, now: int, snapshot: Snapshot, *, unasked: bool = False, stale: bool = False) -> Known:
        """What of this may be told. Where others than the remembered certificate are held, that one is kept."""
        known = await self._judge(now, snapshot, unasked=unasked, stale=stale)
        held = known.selected.held
        if held and isinstance(self.query, ByAddress):
            self._tell_held(held, before := known.selected.first)
            if not any(one.certificate.fingerprint == before for one in known.selected.certificates):
                kept = await self._keep(self.query, snapshot)
                if kept is not snapshot:
                    known = await self._judge(now, kept, unasked=unasked, stale=stale)
        self._snapshot = known.snapshot
        return known

    async def _keep(self, query: ByAddress, snapshot: Snapshot) -> Snapshot:
        try:
            view = self.rules.view(self.view)
            return await self._parts.remembering.keep(query, view, snapshot, self.rules.terms)
        except StoreError as problem:
            self._parts.watch.trouble(f"the certificate that answered before cannot be kept: {problem}")
            return snapshot

    def _tell_held(self, held: Sequence[str], before: str) -> None:
        """Once for each."""
        for fingerprint in held:
            if fingerprint not in self._told_held:
                self._told_held.add(fingerprint)
                first = "what answered before is unknown" if before == UNKNOWN else f"{before} answered before"
                self.tell("held", fingerprint, f"{first}; an approval for the address lets it through")

    async def _judge(self, now: int, snapshot: Snapshot, *, unasked: bool, stale: bool) -> Known:
        """By the rules of the moment at which it is done."""
        while True:
            if (rules := self._parts.rules()) is not self.rules:
                self.rules, self.tiers = rules, rules.tiers(self.query, self.view)
            view, terms = rules.view(self.view), rules.terms
            missing = self._parts.missing.of(self.query.name, now) if self.tiers.optional else None
            record = on_record(snapshot.records, self.tiers.names, now, terms, missing)
            believed = None if unasked else record
            judge = partial(select, snapshot, self.query, view, now, terms, self._parts.hygiene, believed, stale=stale)
            selected = await self._parts.aside.run(sum(len(e.octets) for e in snapshot.entries), judge)
            if rules is self._parts.rules():
                return Known(now, snapshot, record, selected, unasked)

    def _found_in_vain(self, known: Known) -> bool:
        """Has a search lately left nothing to be answered (blocked, revoked)? It is not repeated at every lookup."""
        until = self._in_vain_until(known)
        return until is not None and known.at < until

    def _in_vain_until(self, known: Known) -> int | None:
        """When that search is repeated; None where there was none."""
        return in_vain_until(known.record, self.tiers.names, self.rules.terms)

    def _nothing_told(self, known: Known, otherwise: str) -> str:
        """The reason for an answer without certificates: what this view keeps back, or `otherwise`."""
        kept_back = known.selected.withheld
        return f"{NOT_TOLD}: {joined(kept_back)}" if kept_back else otherwise

    def _again(self, known: Known) -> int:
        """Rule 12: when the query is searched again, as all that is known of it has expired by itself; else never."""
        if known.unasked or not known.selected.all_expired:
            return FOREVER
        cached = [e.cached_at for a in known.selected.certificates for e in a.entries]
        said = [r.at for r in known.record.living.values()]
        return min(known.at, max(cached + said)) + self.rules.terms.negative_ttl

    def _bare(self, known: Known) -> bool:
        """Rule 11, last sentence: all that is known has no user ID, and somebody may still be asked for more."""
        proofs = [a.certificate.proof for a in known.selected.certificates]
        bare = bool(proofs) and not any(p.names_somebody or p.kind is not Kind.OPENPGP for p in proofs)
        return bare and any(name not in known.record.living for name in self.tiers.names)

    def _answer(self, known: Known, how: How, reason: str, *, keep: bool) -> Answer:
        """Found or absent, by what is known."""
        selected = known.selected
        if selected.certificates:
            times = [e.cached_at for e in selected.certificates[0].entries]
            until = min(selected.until, self._again(known))
        elif known.unasked:
            times, until = [], min(selected.until, known.at + self.rules.terms.negative_ttl)
        else:
            times = [r.at for r in known.record.living.values()]
            until = min(selected.until, known.record.until, self._in_vain_until(known) or FOREVER)
        return Answer(
            state=State.FOUND if selected.certificates else State.ABSENT,
            how=how,
            reason=reason,
            certificates=selected.certificates,
            names=names_behind(self.query, selected.certificates),
            since=min(known.at, *times) if times else known.at,
            until=until,
            keep=keep and not selected.stale,
            steps=tuple(self.steps),
            query=self.query.name,
            missing=known.record.without,
            in_vain=not selected.certificates and (bool(selected.withheld) or self._in_vain_until(known) is not None),
        )

    def _nothing(self, state: State, reason: str) -> Answer:
        """For this client and this moment only."""
        names = frozenset({self.query.name})
        return Answer(state, How.MISS, reason, names=names, steps=tuple(self.steps), query=self.query.name)
