"""What would have been answered at an earlier time, from what the history knows of it. Pure.

The rules are those of lookups (`select`, `on_record`, and in `then` the questions behind); only terms, view,
certificates, words of upstreams and the instant are those of then. What nobody can know is said, not guessed: a
question that nobody had asked lately would have been searched for, and what would have come of it is on no record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from keyserver.hygiene import Hygiene
from keyserver.model import PASSED_OVER, Answer, Entry, How, Kind, State, Step, View, joined
from keyserver.policy import OnRecord, in_vain_until, on_record
from keyserver.query import ByText, Query
from keyserver.resolver import further
from keyserver.resolver.later import without_later
from keyserver.resolver.missing import BELIEVED
from keyserver.resolver.plan import Tiers, lists
from keyserver.resolver.rules import Rules
from keyserver.resolver.select import Selected, names_behind, select
from keyserver.resolver.settings import rules_from
from keyserver.store.history import Past, Said, Word
from keyserver.store.snapshot import Snapshot


class Stood(StrEnum):
    """How a question stood at that time."""

    FOUND = "found"
    ABSENT = "absent"
    FAILED = "failed"  # nothing was known, and an upstream failed
    UNSEARCHED = "not on record"  # it would have been searched for, and nobody knows what would have come of it
    UNKNOWN = "unknown"  # the history does not say how things stood then


@dataclass(frozen=True, slots=True)
class Then:
    """The answer of then, and what is known about it.

    answer: of FOUND, ABSENT and FAILED. cached: what was known then and would have been answered where upstreams failed
    (UNSEARCHED alone). failed: upstreams whose word was a failure then, paused ones too. rules: of then; None: they
    are on no record."""

    query: Query
    at: int
    state: Stood
    reason: str
    answer: Answer | None = None
    cached: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    entries: tuple[Entry, ...] = ()
    failed: tuple[str, ...] = ()
    said: tuple[Said, ...] = ()
    later: tuple[Said, ...] = ()
    whole_since: int = 0
    rules: Rules | None = None
    steps: tuple[Step, ...] = ()


def stood(query: Query, view: View, past: Past, at: int, now: int, hygiene: Mapping[Kind, Hygiene]) -> Then:
    """How this very question stood at that instant, by what was on record up to it. `now`: the clock."""
    if why := _unknown(query, past, at, now):
        return Then(query, at, Stood.UNKNOWN, why, whole_since=past.whole_since)
    rules = rules_from(past.settings or {})
    return _Instant(query, rules.view(view), rules, past, at, hygiene).then()


def stands(
    query: Query, view: View, snapshot: Snapshot, at: int, rules: Rules, hygiene: Mapping[Kind, Hygiene]
) -> Then:
    """How this very question stands now, by what is cached: upstreams that failed lately have said nothing."""
    past = Past(snapshot, (), (), snapshot.answering, None, at)
    return _Instant(query, rules.view(view), rules, past, at, hygiene).then()


def together(first: Then, second: Then, who: str, asked: str, which: str) -> Then:
    """The answer to a question by that to a further one."""
    both = None
    if first.answer is not None and second.answer is not None:
        both = further.together(first.answer, second.answer, which)
    return replace(
        second,
        query=first.query,
        reason=f"{first.reason}; {which}: {second.reason}",
        answer=both,
        passed_over=first.passed_over + second.passed_over,
        entries=first.entries + second.entries,
        said=first.said,
        later=first.later,
        rules=first.rules,
        steps=(*first.steps, Step(0, who, "asked", asked), *second.steps),
    )


def _unknown(query: Query, past: Past, at: int, now: int) -> str:
    """Why the history cannot say how things stood; empty where it can."""
    if at > now:
        return "this time has not come yet"
    if isinstance(query, ByText):
        return "the history knows addresses, fingerprints and key IDs, and no text"
    if not past.whole_since:
        return "no history is kept, or it is only beginning"
    if at < past.whole_since:
        return "the history does not go back so far"
    if past.settings is None:
        return "the settings of then are not in the history"
    return ""


@dataclass(frozen=True, slots=True)
class _Instant:
    """One question at one instant."""

    query: Query
    view: View
    rules: Rules
    past: Past
    at: int
    hygiene: Mapping[Kind, Hygiene]

    def then(self) -> Then:
        """As `Lookup` goes about it: what was cached, what was on record, who had failed."""
        tiers = self.rules.tiers(self.query, self.view)
        failed, paused = self._failed(tiers), self._paused(tiers)
        missing = {name: until for name, until in {**paused, **failed}.items() if name in tiers.optional}
        believed = record = on_record(self.past.snapshot.records, tiers.names, self.at, self.rules.terms, missing)
        selected = self._select(record if tiers.tiers else None)
        if selected.certificates:
            reason = "cached" if tiers.tiers else "cached, and no upstream might be asked"
            return self._then(Stood.FOUND, reason, tiers, failed, selected)
        in_vain = in_vain_until(record, tiers.names, self.rules.terms)
        kept_back = f": {joined(selected.withheld)}" if selected.withheld else ""
        if in_vain is not None and self.at < in_vain:
            reason = f"an upstream had found it, but nothing that might be answered{kept_back}"
            return self._then(Stood.ABSENT, reason, tiers, failed, selected, in_vain=True)
        # A search in which one failed that has found it before goes by what the others said in it.
        others = [r for r in self.past.snapshot.records if r.upstream not in failed]
        others = [r for r in others if not (r.found and r.upstream in paused)]
        record = on_record(others, tiers.names, self.at, self.rules.terms, missing)
        if record.negative or not tiers.tiers:
            why = "every upstream had said absent" if tiers.tiers else "not cached, and no upstream might be asked"
            rest = f", without the word of {joined(record.without)}, which need not speak" if record.without else ""
            return self._then(
                Stood.ABSENT, f"{why}{rest}{kept_back}", tiers, failed, selected, in_vain=bool(selected.withheld)
            )
        without = without_later(self.past.snapshot, self.query, tiers, believed, self.past.paused.__contains__)
        if failed or self._nobody_to_ask(tiers, believed):
            return self._unsearched(tiers, {**paused, **failed}, selected, without)
        known = self._select(None, without)
        return replace(
            self._then(Stood.UNSEARCHED, "nobody had asked lately: upstreams would have been", tiers, failed, known),
            answer=None,
            cached=tuple(one.certificate.fingerprint for one in known.certificates),
        )

    def _failed(self, tiers: Tiers) -> dict[str, int]:
        """Upstreams whose last word was a failure, which counts for as long as a search stood, each with its end."""
        said = [s for s in self.past.said if s.word is Word.FAILED and s.upstream in tiers.names]
        return {s.upstream: s.last + BELIEVED for s in said if self.at < s.last + BELIEVED}

    def _paused(self, tiers: Tiers) -> dict[str, int]:
        """Upstreams that an administrator had paused: each question to one failed, until a minute later at least."""
        return {name: self.at + BELIEVED for name in tiers.names if name in self.past.paused}

    def _nobody_to_ask(self, tiers: Tiers, record: OnRecord) -> bool:
        """Would a search have reached paused upstreams alone? What comes of it is known then, though nobody asked."""
        for tier in tiers.tiers:
            asked = [spec for spec in tier if spec.name not in record.living or record.found_by(spec.name)]
            if any(spec.name not in self.past.paused for spec in asked):
                return False
            if any(lists(spec, self.query) for spec in asked):
                return True
        return any(name in self.past.paused for name in tiers.names)

    def _select(self, believed: OnRecord | None, snapshot: Snapshot | None = None, *, stale: bool = False) -> Selected:
        snapshot, terms = self.past.snapshot if snapshot is None else snapshot, self.rules.terms
        return select(snapshot, self.query, self.view, self.at, terms, self.hygiene, believed, stale=stale)

    def _unsearched(self, tiers: Tiers, failed: Mapping[str, int], searched: Selected, without: Snapshot) -> Then:
        """Upstreams had failed: what was known, then what was stale, then the truth."""
        who = f"no usable answer from {joined(list(failed))}"
        for stale in (False, True):
            known = self._select(None, without, stale=stale)
            if known.certificates:
                old = "known, though past its time to live" if known.stale else "known already"
                return self._then(Stood.FOUND, f"{old}; {who}", tiers, failed, known, final=False)
        return self._then(Stood.FAILED, who, tiers, failed, searched, final=False)

    def _then(
        self,
        state: Stood,
        reason: str,
        tiers: Tiers,
        failed: Mapping[str, int],
        selected: Selected,
        *,
        final: bool = True,
        in_vain: bool = False,
    ) -> Then:
        words = {Stood.FOUND: State.FOUND, Stood.ABSENT: State.ABSENT}
        answer = Answer(
            state=words.get(state, State.FAILED),
            how=How.STALE if selected.stale and selected.certificates else How.HIT,
            reason=reason,
            certificates=selected.certificates,
            names=names_behind(self.query, selected.certificates),
            query=self.query.name,
            final=final,
            missing=tuple(failed),
            in_vain=in_vain,
        )
        return Then(
            query=self.query,
            at=self.at,
            state=state,
            reason=reason,
            answer=answer,
            passed_over=selected.passed_over,
            entries=self.past.snapshot.entries,
            failed=tuple(failed),
            said=self.past.said,
            later=self.past.later,
            whole_since=self.past.whole_since,
            rules=self.rules,
            steps=tuple(self._steps(state, reason, tiers, selected)),
        )

    def _steps(self, state: Stood, reason: str, tiers: Tiers, selected: Selected) -> list[Step]:
        """What decided it, as a lookup's trace says it."""
        snapshot = self.past.snapshot
        entries = "1 entry" if len(snapshot.entries) == 1 else f"{len(snapshot.entries)} entries"
        steps = [Step(0, "cache", "looked", f"{entries} then, by the settings of then")]
        steps += [Step(0, "cache", PASSED_OVER, f"{fingerprint}: {why}") for fingerprint, why in selected.passed_over]
        steps += [Step(0, name, "not asked", why) for name, why in tiers.left_out.items()]
        steps += [Step(0, name, "paused", "by an administrator: it counted as failed") for name in self._paused(tiers)]
        steps += [
            Step(0, said.upstream, str(said.word), f"its last word, {_ago(self.at - min(said.last, self.at))} before")
            for said in self.past.said
        ]
        return [*steps, Step(0, "answer", str(state), reason)]


def _ago(seconds: int) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
