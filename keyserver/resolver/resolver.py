"""What happens on a lookup, from top to bottom.

cache -> what is remembered of earlier searches -> join a search under way -> upstreams. Speaks no protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import is_not

from keyserver.hygiene import Hygiene
from keyserver.model import PASSED_OVER, Answer, Kind, Name, Outcome, State, Step, View
from keyserver.policy import OnRecord, on_record
from keyserver.query import ByAddress, ByFingerprint, Query
from keyserver.resolver import by_domain, further, subaddress
from keyserver.resolver.aside import Aside
from keyserver.resolver.circuit import UpstreamStatus
from keyserver.resolver.disclosures import Disclosures
from keyserver.resolver.gateways import Gateways
from keyserver.resolver.inflight import InFlight, Search
from keyserver.resolver.lookup import CLOCK_SET, Known, Lookup, Shared
from keyserver.resolver.missing import Missing
from keyserver.resolver.ratelimit import SearchRateLimit, network_of
from keyserver.resolver.remembering import Remembering
from keyserver.resolver.rules import Rules
from keyserver.resolver.search import Searcher
from keyserver.resolver.turns import InTurn
from keyserver.rules import InForce
from keyserver.store.base import Store
from keyserver.store.past import address_of
from keyserver.store.snapshot import Snapshot

OTHER_RULES = "the configuration was read again, and others are asked now"
ASKED_NAMES = 100_000  # names whose last question waits to be written


class Resolver:
    """Answers queries for every face. Hand in everything; it starts no task but searches."""

    def __init__(
        self,
        *,
        store: Store,
        searcher: Searcher,
        rules: InForce[Rules],
        hygiene: Mapping[Kind, Hygiene],
        asked: InFlight,
        misses: SearchRateLimit,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        disclosures: Disclosures | None = None,
    ) -> None:
        self._remembering = Remembering(store, hygiene, clock)
        self._parts = Shared(
            store,
            rules,
            hygiene,
            clock,
            monotonic,
            Aside(monotonic),
            Missing(clock),
            self._remembering,
            searcher.circuit.paused,
        )
        self._rules = rules
        self._searcher = searcher
        self._in_turn = InTurn(store, rules, clock, monotonic, searcher.run)
        self._asked = asked
        self._misses = misses
        self._disclosures = disclosures
        self._asked_names: dict[Name, int] = {}
        self._wanted: dict[Name, None] = {}
        self._gateways = Gateways(store)

    async def lookup(
        self,
        query: Query,
        view: View,
        *,
        client: str | None = None,
        looped: bool = False,
        via: str = "",
        hear: Callable[[Step], None] | None = None,
    ) -> Answer:
        """One lookup, answered by the deadline.

        `client`: its address, for the limit on misses; None is trusted. `looped`: the request has been here before
        (it bears our name): answered from the cache only, neither joining nor starting a search. `via`: the names that
        it bears, separated by commas; they go on to the upstreams, so that a longer circle is noticed too.
        `hear` is told each step as it happens.
        """
        if isinstance(query, ByAddress) and not looped:
            self._want(query.name)
        lookup = Lookup(self._parts, query, view, client=client, via=via, hear=hear)
        answer = await self._answer(lookup, looped=looped)
        if other := subaddress.behind(query, answer, view, lookup.rules):
            lookup.tell("subaddress", "asked", subaddress.ASKED)
            answer = replace(answer, steps=tuple(lookup.steps))
            alone = subaddress.without_mail(view)
            second = await self._answer(lookup.further(other, alone), looped=looped)
            answer = further.together(answer, second, subaddress.WHICH)
        if isinstance(query, ByAddress) and (behind := by_domain.behind(query, answer, view, lookup.rules)):
            return await self._by_domain(lookup, answer, query, behind, looped=looped)
        return answer

    async def _by_domain(
        self,
        lookup: Lookup,
        answer: Answer,
        query: ByAddress,
        behind: Sequence[ByFingerprint | ByAddress],
        *,
        looped: bool,
    ) -> Answer:
        """The answer for an address that nobody has anything for, by the certificate of its domain's gateway."""
        if not by_domain.is_answered(lookup.view, lookup.rules):
            return _with_step(answer, lookup.tell("domain", "not answered", by_domain.NOT_HERE))
        for other in behind:
            asked = f"absent: a certificate of the gateway of {query.domain} is asked for"
            answer = _with_step(answer, lookup.tell("domain", "asked", asked))
            second = await self._answer(lookup.further(other, by_domain.asking(lookup.view)), looped=looped)
            answer = by_domain.by_domain(query, answer, second)
            if isinstance(other, ByFingerprint) and (why := await self._gateways.why_not(query, other, second)):
                answer = _with_step(answer, lookup.tell("domain", PASSED_OVER, f"{other}: {why}"))
            if second.state is not State.ABSENT:
                break
        return answer

    async def _answer(self, lookup: Lookup, *, looped: bool) -> Answer:
        """The answer to its very question; what answers first is remembered."""
        answer = await self._found(lookup, looped=looped)
        await lookup.remember(answer)
        return answer

    async def _found(self, lookup: Lookup, *, looped: bool) -> Answer:
        lookup.tell_rule()
        known, search = await lookup.look(), None
        while True:
            if lookup.is_answered(known):
                if known.selected.certificates and not lookup.view.by_domain:  # prefetch asks whoever may be told
                    self.note_asked((lookup.query.name,), known.at)
                return lookup.cached(known)
            if looped:
                return lookup.looped()
            if not lookup.tiers.tiers:
                return await lookup.alone(known)
            searching = self._search(lookup, known, again=search is not None)
            if isinstance(searching, str):
                return await lookup.unsearched(known, State.BUSY, searching)
            search = searching
            await lookup.wait(search, lookup.rules.deadline)
            known = await lookup.look(search)
            overtaken = "" if search.asks == lookup.rules.asks(lookup.tiers) and not search.overtaken else OTHER_RULES
            if lookup.is_misdated(known, search):
                overtaken = CLOCK_SET
                self._asked.overtake(partial(is_not, search))
            if not overtaken or lookup.is_late:
                if overtaken is CLOCK_SET:
                    return await lookup.unsearched(known, State.FAILED, CLOCK_SET)
                answer = await lookup.searched(known, search)
                if not answer.final:  # those that are still being asked have not spoken in time
                    late = [name for name, outcome in search.outcomes.items() if outcome is None]
                    self._searcher.failures.note(lookup.query.name, late, known.at)
                return answer
            lookup.tell("search", "overtaken", overtaken)

    async def refresh(self, query: Query) -> Search | None:
        """Search again whatever is cached; what is cached stays unless an upstream has news. None: nobody to ask."""
        parts = self._parts
        while True:
            known, rules = await self._before(query), self._rules()
            asks = rules.asks(rules.tiers(query))
            if not asks or self._asked.full:
                return None
            search = Search(query, known.begun, asks, known=known, refresh=True, started=parts.monotonic())
            nothing = on_record((), (), parts.clock(), rules.terms)
            search = self._asked.under_way(search.key) or self._start(search, nothing)
            await search.settled.wait()
            if not search.overtaken:
                return search

    async def _before(self, query: Query) -> Snapshot:
        """What is known as a search begins, as far as that needs it."""
        store = self._parts.store
        if self._rules().holds and isinstance(query, ByAddress):
            return self._remembering.with_noted(query.name, await store.look(query.name))
        return Snapshot(begun=await store.begin())

    async def test(self, upstream: str, query: Query) -> Outcome:
        """Ask one upstream once, past its circuit breaker, and keep nothing; for certificates of the other kind where
        it has none of this. Raises KeyError for an unknown name."""
        searcher = self._searcher
        peer = self._rules().upstreams[upstream]
        if query.kind not in peer.spec.kinds:
            query = replace(query, kind=min(peer.spec.kinds))
        return await searcher.circuit.ask(peer, query, peer.spec.timeout, searcher.via, force=True)

    def statuses(self) -> list[UpstreamStatus]:
        """Every upstream's health and counts, by priority."""
        ordered = sorted(self._rules().upstreams.values(), key=lambda u: (u.spec.priority, u.spec.name))
        return [self._searcher.circuit.status(upstream) for upstream in ordered]

    def note_asked(self, names: Iterable[Name], now: int) -> None:
        """These names were asked for and answered from the cache (hot answers report theirs here)."""
        for name in names:
            self._want(name)
            if name in self._asked_names or len(self._asked_names) < ASKED_NAMES:
                self._asked_names[name] = now

    def take_asked(self) -> dict[Name, int]:
        """What `note_asked` has gathered since the last call."""
        taken, self._asked_names = self._asked_names, {}
        return taken

    def take_wanted(self) -> set[str]:
        """The addresses that somebody asked for since the last call, whatever the answer."""
        taken, self._wanted = self._wanted, {}
        return {address for name in taken if (address := address_of(name)[1])}

    def _want(self, name: Name) -> None:
        if len(self._wanted) < ASKED_NAMES:
            self._wanted[name] = None

    async def keep_failures(self) -> None:
        """Hand the failures of upstreams since the last call to the history. Raises StoreError, and then they are lost:
        whoever asks again notes them again."""
        if failed := self._searcher.failures.take():
            await self._searcher.store.history.failed(failed)

    async def remember(self) -> None:
        """Write down what answered where nothing was remembered. Raises StoreError."""
        await self._remembering.flush()

    async def know_blocks(self) -> None:
        """Remember what is blocked, for when the store cannot say it. Raises StoreError."""
        await self._searcher.blocks.renew(self._searcher.store)

    async def keep_told(self) -> None:
        """Keep the counts of what upstreams were told. Raises StoreError."""
        if self._disclosures is not None:
            await self._disclosures.keep()

    @property
    def searches(self) -> int:
        """Searches under way."""
        return len(self._asked)

    async def close(self) -> None:
        """End the searches under way."""
        await self._asked.close()

    def rules_replaced(self) -> None:
        """Other rules hold from now on: nobody waits for a search that asks others than they say."""
        rules = self._rules()
        self._asked.overtake(lambda search: search.asks == rules.asks(rules.tiers(search.query, search.view)))

    def _search(self, lookup: Lookup, known: Known, *, again: bool) -> Search | str:
        """The search for this that is under way, else a new one; why not, where none may start. `again`: this lookup
        has started one already, which the rules of now have overtaken."""
        client, started = network_of(lookup.client), self._parts.monotonic()
        asks = lookup.rules.asks(lookup.tiers)
        search = Search(
            lookup.query,
            known.snapshot.begun,
            asks,
            known=known.snapshot,
            view=lookup.view,
            via=lookup.via,
            client=client,
            started=started,
        )
        if under_way := self._asked.under_way(search.key):
            lookup.tell("search", "joined", "a search for it is under way")
            return under_way
        refused = "too many searches under way" if self._asked.full else ""
        if not refused and not again and not self._misses.take(lookup.client):
            refused = "this network has started too many searches this minute"
        if refused:
            lookup.tell("search", "refused", refused)
            return refused
        lookup.tell_left_out()
        return self._start(search, known.record)

    def _start(self, search: Search, record: OnRecord) -> Search:
        search.dated = self._parts.clock()
        return self._asked.start(search.key, search, lambda s: self._in_turn.run(s, record))


def _with_step(answer: Answer, step: Step) -> Answer:
    return replace(answer, steps=(*answer.steps, step))
