"""What changed and when, what was answered at an earlier time, and forgetting an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keyserver.admin.acts import Acts
from keyserver.admin.finding import of_kind
from keyserver.admin.problems import Candidate, Unusable
from keyserver.admin.resources import (
    AnsweredCertificate,
    EntryResource,
    answered_of,
    keeps_back,
    row_of,
    step_of,
    verdict_of,
)
from keyserver.admin.telling import EventResource, WordResource, event_of, word_of
from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Change, Entry, Kind, Selection, State, Step, View
from keyserver.policy import Terms
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, Query, name_of, parse
from keyserver.resolver.past import Stood, Then
from keyserver.resolver.then import answered_then
from keyserver.store import listing
from keyserver.store.base import Store

MAX_LISTED = 1000  # events in one page
MOST_WORDS = 100  # of upstreams, of one question
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_WANTED = "a fingerprint, a key ID of 16 digits or an address"
_BEST = (Stood.FOUND, Stood.FAILED, Stood.ABSENT, Stood.UNSEARCHED, Stood.UNKNOWN)
_STATES = {Stood.FOUND: State.FOUND, Stood.ABSENT: State.ABSENT}


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Events, latest first, and what upstreams said to the question itself; `next` continues, None at the end."""

    query: str  # empty: all events
    events: tuple[EventResource, ...]
    next: str | None
    words: tuple[WordResource, ...]  # on the first page


@dataclass(frozen=True, slots=True)
class Standing:
    """How the question stood for certificates of one kind."""

    kind: str
    state: str  # found, absent, failed, not on record, unknown
    reason: str


@dataclass(frozen=True, slots=True)
class LookupThen:
    """What a lookup of the default view would have been answered at an earlier time. Times are Unix seconds."""

    query: str
    at: int
    state: str  # of the kind that says most
    reason: str
    kinds: tuple[Standing, ...]
    certificates: tuple[AnsweredCertificate, ...]  # as they were, judged at that instant
    cached: tuple[str, ...]  # not on record: what was cached, and answered where upstreams failed
    passed_over: tuple[tuple[str, str], ...]  # (fingerprint, why it was not answered)
    said: tuple[WordResource, ...]  # the last word of each upstream before
    later: tuple[WordResource, ...]  # its next one
    known_since: int  # before it the history says nothing; 0: it says nothing at all
    steps: tuple[Step, ...]
    verdict: str  # usable, unusable, absent, unknown


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased of an address."""

    history: int  # rows
    invitations: int
    acts: int  # of administrators, in which it stood
    deleted: int  # entries, where that was asked for
    cached: tuple[Candidate, ...]  # certificates that name it and are still cached


class Histories:
    """The operations; they raise as those of `Service` do."""

    def __init__(
        self,
        *,
        store: Store,
        hygiene: Mapping[Kind, Hygiene],
        matching: Callable[[Selection], listing.Listing],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        changes: Changes,
        acts: Acts,
    ) -> None:
        """matching: a listing of what is meant, as of now."""
        self._store = store
        self._hygiene = hygiene
        self._matching = matching
        self._clock = clock
        self._monotonic = monotonic
        self._changes = changes
        self._note = acts.note

    async def events(self, term: str = "", limit: int = 100, cursor: str | None = None) -> HistoryPage:
        """One page of what changed: of certificates that are or were cached under the term, else of all."""
        if not 1 <= limit <= MAX_LISTED:
            raise Unusable(f"limit is {limit}; 1 to {MAX_LISTED} are accepted")
        if cursor is not None and not _NUMBER.fullmatch(cursor):
            raise Unusable("cursor is none that a listing gave")
        before = int(cursor) if cursor is not None else None
        history, query = self._store.history, _read(term) if term else None
        asked = [of_kind(query, kind) for kind in Kind] if query is not None else []
        fingerprint = query.fingerprint if isinstance(query, ByFingerprint) else None
        chosen = await history.events(limit + 1, before, fingerprint, [one.name for one in asked])
        words = [
            word_of(one.kind, said)
            for one in (asked if cursor is None else ())
            for said in await history.words(one.name, MOST_WORDS)
        ]
        return HistoryPage(
            query=str(query or ""),
            events=tuple(map(event_of, chosen[:limit])),
            next=str(chosen[limit - 1].number) if len(chosen) > limit else None,
            words=tuple(sorted(words, key=lambda word: -word.last)[:MOST_WORDS]),
        )

    async def then(self, term: str, at: int, *, trace: bool = False) -> LookupThen:
        """What a client of the default view would have been answered at that instant, of both kinds."""
        query, now = _read(term), self._clock()
        stood = {}
        for kind in Kind:
            asked = of_kind(query, kind)
            stood[kind] = await answered_then(asked, View(), at, now, self._hygiene, self._store.history.past)
        # Where nothing is known of a kind it says nothing, least of all that the other one were absent.
        known = {kind: then for kind, then in stood.items() if then.entries or then.said}
        stood = known or {query.kind: stood[query.kind]}
        best = min(stood.values(), key=lambda then: _BEST.index(then.state))
        answers = {kind: then.answer for kind, then in stood.items() if then.answer is not None}
        certificates = answered_of(answers, lambda entry: _row(entry, at, best))
        state = _STATES.get(best.state, State.FAILED)
        steps = [step_of(kind, step) for kind, then in stood.items() for step in then.steps]
        return LookupThen(
            query=str(query),
            at=at,
            state=str(best.state),
            reason=best.reason,
            kinds=tuple(Standing(str(kind), str(then.state), then.reason) for kind, then in stood.items()),
            certificates=certificates,
            cached=tuple(dict.fromkeys(fingerprint for then in stood.values() for fingerprint in then.cached)),
            passed_over=tuple(dict.fromkeys(line for then in stood.values() for line in then.passed_over)),
            said=tuple(word_of(kind, said) for kind, then in stood.items() for said in then.said),
            later=tuple(word_of(kind, said) for kind, then in stood.items() for said in then.later),
            known_since=best.whole_since,
            steps=tuple(steps) if trace else (),
            verdict=verdict_of(state, certificates, withheld=any(_kept_back(then) for then in stood.values())),
        )

    async def forget(self, term: str, *, with_cache: bool = False) -> Forgotten:
        """Erase an address: from the history, the audit, invitations, and what is held in memory of it.

        with_cache: certificates that name it are deleted first, for good; else they stay, and what the history says of
        how they are."""
        query = _read(term)
        if not isinstance(query, ByAddress):
            raise Unusable(f"address is {term[:80]!r}; accepted is an address such as alice@example.org")
        cached, deleted = await self._cached(query), 0
        if with_cache:
            for one in cached:
                deleted += await self._store.delete(one.fingerprint, self._clock())
        address = query.address
        done = Forgotten(
            invitations=await self._store.invitations.forget(address),
            acts=await self._store.administration.forget(address),
            history=await self._store.history.forget(address),
            deleted=deleted,
            cached=() if with_cache else cached,
        )
        self._changes.publish(Change(0, frozenset(name_of(kind, "addr", address) for kind in Kind)))
        self._note("forget", history=done.history, invitations=done.invitations, acts=done.acts, entries=deleted)
        return done

    async def _cached(self, query: ByAddress) -> tuple[Candidate, ...]:
        """Certificates that name it, blocked ones too."""
        found = {e.fingerprint: e.identities for e in await self._named(query)}
        return tuple(Candidate(*item) for item in sorted(found.items()))

    async def _named(self, query: ByAddress) -> Sequence[Entry]:
        entries = [e for kind in Kind for e in (await self._store.look(of_kind(query, kind).name)).entries]
        wanted, place = self._matching(Selection(text=query.address)), None
        while True:
            page = await self._store.list(wanted, place, listing.Budget(self._monotonic))
            entries += page.entries
            place = page.next
            if place is None:
                return entries


def _read(term: str) -> ByFingerprint | ByKeyId | ByAddress:
    try:
        query: Query = parse(term)
    except BadQuery as problem:
        raise Unusable(str(problem)) from None
    if not isinstance(query, ByFingerprint | ByKeyId | ByAddress):
        raise Unusable(f"{term[:80]!r} is not {_WANTED}: the history knows no other terms")
    return query


def _row(entry: Entry, at: int, then: Then) -> EntryResource:
    """An entry as it was."""
    terms = then.rules.terms if then.rules is not None else Terms()
    view = then.rules.view(View()) if then.rules is not None else View()
    return row_of(entry, at, terms, view, frozenset())


def _kept_back(then: Then) -> bool:
    if then.rules is None or then.state is not Stood.ABSENT:
        return False
    return keeps_back(then.entries, then.query, then.rules.view(View()), then.at, then.rules.terms)
