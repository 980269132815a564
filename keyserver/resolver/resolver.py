"""What happens on a lookup, from top to bottom.

cache -> what is remembered of earlier searches -> join a search under way -> upstreams. Speaks no protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from keyserver.hygiene import Hygiene
from keyserver.model import (
    Absent,
    Answer,
    Entry,
    Failed,
    How,
    Kind,
    Name,
    Outcome,
    State,
    Step,
    View,
)
from keyserver.policy import FOREVER, OnRecord, Terms, on_record
from keyserver.query import ByText, Query
from keyserver.resolver.asked import Asked, MissLimit, Search, network_of
from keyserver.resolver.gate import UpstreamStatus
from keyserver.resolver.plan import Tiers, combine, tiers_of
from keyserver.resolver.search import Searcher
from keyserver.resolver.sift import Sifted, names_behind, sift
from keyserver.resolver.watch import Watch
from keyserver.store.base import Shelf, Store, StoreError

ASKED_NAMES = 100_000  # names whose last question waits to be written
NEVER_ANSWERED = Failed("no answer by the deadline")
PASSED_OVER = "passed over"
"""The step that says what is cached and why it is not answered."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a resolver goes by, beside policy's terms."""

    text_search: str = "off"  # "off", "cache", "upstream"


class Resolver:
    """Answers queries for every face. Hand in everything; it starts no task but searches."""

    def __init__(
        self,
        *,
        store: Store,
        searcher: Searcher,
        terms: Terms,
        hygiene: Mapping[Kind, Hygiene],
        asked: Asked,
        misses: MissLimit,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        settings: Settings,
    ) -> None:
        self._store = store
        self._searcher = searcher
        self._terms = terms
        self._hygiene = hygiene
        self._asked = asked
        self._misses = misses
        self._clock = clock
        self._monotonic = monotonic
        self._settings = settings
        self._asked_names: dict[Name, int] = {}
        self._watch = Watch()  # over reading

    async def lookup(
        self, query: Query, view: View, *, client: str | None = None, looped: bool = False, via: str = ""
    ) -> Answer:
        """One lookup, answered by the deadline.

        `client`: its address, for the limit on misses; None is trusted. `looped`: the request has been here before
        (it bears our name): answered from the cache only, neither joining nor starting a search. `via`: the names that
        it bears, separated by commas; they go on to the upstreams, so that a longer circle is noticed too.
        """
        began = self._monotonic()
        steps: list[Step] = []

        def tell(who: str, what: str, why: str = "") -> None:
            steps.append(Step((self._monotonic() - began) * 1000, who, what, why))

        tiers = self._tiers(query)
        shelf = await self._look(query, tell)
        now = self._clock()
        known = on_record(shelf.records, _names(tiers), now, self._terms)
        sifted = sift(shelf, query, view, now, self._terms, self._hygiene, known)
        _tell_passed_over(sifted, tell)
        if (
            sifted.certificates
            and not self._worth_another_search(sifted, known, now)
            and not _bare(sifted, known, tiers)
        ):
            tell("cache", "hit", _why_hit(sifted))
            self.note_asked((query.name,), now)
            return self._found(query, sifted, How.HIT, "cached", keep=True, steps=steps, known=known)
        if known.negative or (not sifted.certificates and self._lately_found_nothing(known, _names(tiers), now)):
            tell("records", "negative", "every upstream that may be asked has said absent")
            return self._absent(query, known, "every upstream said absent", keep=True, steps=steps)
        if looped:
            tell("cache", "not found", "this question has been here before: no search")
            return Answer(State.ABSENT, How.MISS, "asked in a loop and not cached", steps=tuple(steps))
        if not tiers.tiers:
            for name, why in tiers.left_out.items():
                tell(name, "not asked", why)
            return self._vacuous(query, shelf, view, now, steps)
        begun = shelf.begun
        search = self._asked.under_way(_key(query, begun, via))
        if search is None:
            if self._asked.full:
                tell("search", "refused", "too many searches under way")
                return self._without_search(query, shelf, view, now, State.BUSY, "too many searches under way", steps)
            if not self._misses.take(client):
                tell("search", "refused", "this network has started too many searches this minute")
                return self._without_search(query, shelf, view, now, State.BUSY, "too many searches", steps)
            search = self._start(query, begun, tiers, known, via=via, client=network_of(client))
            for name, why in tiers.left_out.items():
                tell(name, "not asked", why)
        else:
            tell("search", "joined", "a search for it is under way")
        return await self._searched(query, view, tiers, search, began, steps)

    async def refresh(self, query: Query) -> Search | None:
        """Search again whatever is cached; what is cached stays unless an upstream has news. None: nobody to ask."""
        tiers = self._tiers(query)
        if not tiers.tiers or self._asked.full:
            return None
        begun = await self._store.begin()
        search = self._asked.under_way(_key(query, begun, "", refresh=True)) or self._start(
            query, begun, tiers, on_record((), (), self._clock(), self._terms), refresh=True
        )
        await search.settled.wait()
        return search

    async def test(self, upstream: str, query: Query) -> Outcome:
        """Ask one upstream once, past its circuit breaker, and keep nothing. Raises KeyError for an unknown name."""
        searcher = self._searcher
        peer = searcher.upstreams[upstream]
        return await searcher.gate.ask(peer, query, peer.spec.timeout, searcher.via, force=True)

    def statuses(self) -> list[UpstreamStatus]:
        """Every upstream's health and counts, by priority."""
        ordered = sorted(self._searcher.upstreams.values(), key=lambda u: (u.spec.priority, u.spec.name))
        return [self._searcher.gate.status(upstream) for upstream in ordered]

    def note_asked(self, names: Iterable[Name], now: int) -> None:
        """These names were asked for and answered from the cache (hot answers report theirs here)."""
        for name in names:
            if name in self._asked_names or len(self._asked_names) < ASKED_NAMES:
                self._asked_names[name] = now

    def take_asked(self) -> dict[Name, int]:
        """What `note_asked` has gathered since the last call."""
        taken, self._asked_names = self._asked_names, {}
        return taken

    @property
    def searches(self) -> int:
        """Searches under way."""
        return len(self._asked)

    async def close(self) -> None:
        """End the searches under way."""
        await self._asked.close()

    def _tiers(self, query: Query) -> Tiers:
        if isinstance(query, ByText) and self._settings.text_search != "upstream":
            return Tiers((), {})
        return tiers_of((u.spec for u in self._searcher.upstreams.values()), query, self._terms)

    async def _look(self, query: Query, tell: Callable[[str, str, str], None]) -> Shelf:
        try:
            shelf = await self._store.look(query.name)
            if isinstance(query, ByText):
                shelf = await self._look_for_text(query, shelf)
        except StoreError as problem:
            self._watch.trouble(f"the cache cannot be read: {problem}")
            tell("cache", "unavailable", str(problem))
            return Shelf()
        self._watch.well()
        entries = "1 entry" if len(shelf.entries) == 1 else f"{len(shelf.entries)} entries"
        records = "1 record" if len(shelf.records) == 1 else f"{len(shelf.records)} records"
        tell("cache", "looked", f"{entries}, {records}")
        return shelf

    async def _look_for_text(self, query: ByText, shelf: Shelf) -> Shelf:
        entries: list[Entry] = []
        revocations: dict[str, bytes] = {}
        for fingerprint in await self._store.search(query.text, query.kind, 20):
            one = await self._store.certificate(fingerprint)
            entries += one.entries
            revocations.update(one.revocations)
        return Shelf(tuple(entries), revocations, shelf.records, shelf.begun)

    def _start(
        self,
        query: Query,
        begun: int,
        tiers: Tiers,
        known: OnRecord,
        *,
        refresh: bool = False,
        via: str = "",
        client: str = "",
    ) -> Search:
        search = Search(query, begun, refresh, via, client, started=self._monotonic())
        return self._asked.start(
            _key(query, begun, via, refresh=refresh), search, lambda s: self._searcher.run(s, tiers, known)
        )

    async def _searched(
        self, query: Query, view: View, tiers: Tiers, search: Search, began: float, steps: list[Step]
    ) -> Answer:
        """Wait for the search within the deadline, then answer by what is known then."""
        left = began + self._searcher.deadline - self._monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                await search.settled.wait()
        except TimeoutError:
            steps.append(Step((self._monotonic() - began) * 1000, "search", "deadline", "it goes on behind the answer"))
        offset = (search.started - began) * 1000
        steps += [replace(s, at=max(0.0, s.at + offset)) for s in search.steps]
        told = {s.why for s in steps if s.what == PASSED_OVER}
        shelf = await self._look(query, _silent)
        shelf = Shelf(
            shelf.entries + tuple(search.uncached),
            {**search.revocations, **shelf.revocations},
            shelf.records + tuple(search.records),
        )
        now = self._clock()
        known = on_record(shelf.records, _names(tiers), now, self._terms)
        sifted = sift(shelf, query, view, now, self._terms, self._hygiene, known)
        at = (self._monotonic() - began) * 1000
        _tell_passed_over(
            sifted, lambda who, what, why: None if why in told else steps.append(Step(at, who, what, why))
        )
        if sifted.certificates:
            keep = not search.uncached and not _bare(sifted, known, tiers)
            return self._found(query, sifted, How.MISS, "searched", keep=keep, steps=steps, known=known)
        outcome = combine([o or NEVER_ANSWERED for o in search.outcomes.values()] or [NEVER_ANSWERED])
        if isinstance(outcome, Absent):
            return self._absent(query, known, outcome.reason, keep=known.negative, steps=steps, how=How.MISS)
        if isinstance(outcome, Failed):
            return self._without_search(query, shelf, view, now, State.FAILED, outcome.reason, steps)
        # The search did not fail: what only claims the address stays untold, whatever the finds were refused for.
        reason, names = "found, but nothing that this view may be told", frozenset({query.name})
        return Answer(State.ABSENT, How.MISS, reason, names=names, steps=tuple(steps))

    def _vacuous(self, query: Query, shelf: Shelf, view: View, now: int, steps: list[Step]) -> Answer:
        """Nobody may be asked: what is known is all there is."""
        sifted = sift(shelf, query, view, now, self._terms, self._hygiene, None)
        if sifted.certificates:
            return self._found(query, sifted, How.HIT, "cached, and no upstream may be asked", keep=True, steps=steps)
        nothing = OnRecord({}, False, now + self._terms.negative_ttl)
        return self._absent(query, nothing, "not cached, and no upstream may be asked", keep=True, steps=steps)

    def _without_search(
        self, query: Query, shelf: Shelf, view: View, now: int, state: State, reason: str, steps: list[Step]
    ) -> Answer:
        """The upstreams failed or could not be asked: what is known, then what is stale, then the truth."""
        for stale in (False, True):
            sifted = sift(shelf, query, view, now, self._terms, self._hygiene, None, stale=stale)
            if sifted.certificates:
                how = How.STALE if sifted.stale else How.HIT
                return self._found(query, sifted, how, f"known already; {reason}", keep=False, steps=steps)
        return Answer(state, How.MISS, reason, names=frozenset({query.name}), steps=tuple(steps))

    def _worth_another_search(self, sifted: Sifted, known: OnRecord, now: int) -> bool:
        """Rule 12: all that is known has expired by itself, and nobody was asked lately."""
        return sifted.all_expired and now >= self._next_search(sifted, known, now)

    def _next_search(self, sifted: Sifted, known: OnRecord, now: int) -> int:
        """When what has expired by itself is searched again."""
        times = [e.cached_at for a in sifted.certificates for e in a.entries] + [r.at for r in known.living.values()]
        return min(now, max(times)) + self._terms.negative_ttl

    def _lately_found_nothing(self, known: OnRecord, asked: Sequence[str], now: int) -> bool:
        """A finished search left nothing that may be answered (blocked, revoked): not asked again at every lookup.

        What an upstream found that is not asked any more is no reason not to ask the others."""
        found = [r.at for r in known.living.values() if r.found and r.upstream in asked]
        return bool(found) and now - max(found) < self._terms.negative_ttl

    def _found(
        self,
        query: Query,
        sifted: Sifted,
        how: How,
        reason: str,
        *,
        keep: bool,
        steps: list[Step],
        known: OnRecord | None = None,
    ) -> Answer:
        now, until = self._clock(), sifted.until
        if sifted.all_expired and known is not None:
            until = min(until, self._next_search(sifted, known, now))
        return Answer(
            state=State.FOUND,
            how=how,
            reason=reason,
            certificates=sifted.certificates,
            names=names_behind(query, sifted.certificates),
            since=min(now, *(e.cached_at for e in sifted.certificates[0].entries)),
            until=until,
            keep=keep and not sifted.stale,
            steps=tuple(steps),
            query=query.name,
        )

    def _absent(
        self, query: Query, known: OnRecord, reason: str, *, keep: bool, steps: Sequence[Step], how: How = How.HIT
    ) -> Answer:
        since = min((r.at for r in known.living.values()), default=self._clock())
        return Answer(
            state=State.ABSENT,
            how=how,
            reason=reason,
            names=frozenset({query.name}),
            since=since,
            until=min(known.until, FOREVER),
            keep=keep,
            steps=tuple(steps),
            query=query.name,
        )


def _key(query: Query, begun: int, via: str, *, refresh: bool = False) -> tuple[str, int, str, bool]:
    """What is one search. Not joined across a delete; nor by a question that came through another frontend, which may
    be the very one that our search is waiting for."""
    return (query.name, begun, via, refresh)


def _bare(sifted: Sifted, known: OnRecord, tiers: Tiers) -> bool:
    """Rule 11, last sentence: all that is known has no user ID, and somebody may still be asked for more."""
    proofs = [a.certificate.proof for a in sifted.certificates]
    if not proofs or any(p.names_somebody or p.kind is not Kind.OPENPGP for p in proofs):
        return False
    return any(name not in known.living for name in _names(tiers))


def _silent(who: str, what: str, why: str) -> None:
    """A story that nobody listens to."""


def _tell_passed_over(sifted: Sifted, tell: Callable[[str, str, str], None]) -> None:
    for fingerprint, why in sifted.passed_over:
        tell("cache", PASSED_OVER, f"{fingerprint}: {why}")


def _names(tiers: Tiers) -> list[str]:
    return [spec.name for tier in tiers.tiers for spec in tier]


def _why_hit(sifted: Sifted) -> str:
    if sifted.alone:
        return "proves the query by itself"
    return "a finished search for this query is on record"
