"""What the resolver's parts are tried with: real store and cleaning, upstreams and clocks that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from keyserver import openpgp
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.listen.trust import Trust
from keyserver.model import Certificate, Find, Found, Kind, Raw, Record, Source, UpstreamSpec, View, Voucher
from keyserver.policy import Terms
from keyserver.query import parse
from keyserver.resolver.aside import Aside
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.inflight import InFlight, Search
from keyserver.resolver.lookup import Lookup, Shared
from keyserver.resolver.missing import Missing
from keyserver.resolver.paused import Paused
from keyserver.resolver.ratelimit import SearchRateLimit
from keyserver.resolver.remembering import Remembering
from keyserver.resolver.renewing import Renewing
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.resolver.search import Searcher
from keyserver.rules import InForce
from keyserver.store.base import Store
from keyserver.store.postgres import PostgresStore
from keyserver.store.sqlite import SqliteStore
from support.openpgp import CREATED, Made
from support.upstreams import Told

NOW = CREATED + 100_000_000


def sends(*made: Made) -> Found:
    """Says that it has found these."""
    return Found(tuple(Raw(Kind.OPENPGP, m.octets) for m in made))


class Ground:
    """One store, its clock, the upstreams around it."""

    def __init__(self, directory: Path, url: str = "") -> None:
        """url: of a PostgreSQL database with the store, instead of a file in `directory`."""
        self.now = NOW
        self.rules = InForce(Rules(searches=10))
        self.peers: dict[str, Told] = {}
        self.hygiene = hygiene_of()
        self.changes = Changes()
        self.store: Store
        if url:
            self.store = PostgresStore(url, self.hygiene, self.changes, max_size=1 << 30)
        else:
            self.store = SqliteStore(directory / "keyserver.db", self.hygiene, self.changes, max_size=1 << 30)
        self.paused = Paused(self.store.upstreams, lambda: self.now)
        self.cleaner = Cleaner({kind: own.clean for kind, own in self.hygiene.items()}, monotonic=self.monotonic)

    def peer(self, name: str, **spec: Any) -> Told:
        self.peers[name] = Told(UpstreamSpec(name, **spec))
        terms = replace(self.terms, upstreams={n: p.spec for n, p in self.peers.items()})
        self.change(terms=terms, upstreams=dict(self.peers))
        return self.peers[name]

    @property
    def terms(self) -> Terms:
        return self.rules().terms

    def change(self, **rules: Any) -> None:
        """Other rules hold."""
        self.rules.replace(replace(self.rules(), **rules))

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def parts(self) -> Shared:
        clock = lambda: self.now  # noqa: E731
        aside, missing = Aside(self.monotonic), Missing(clock)
        remembering = Remembering(self.store, self.hygiene, clock)
        return Shared(self.store, self.rules, self.hygiene, clock, self.monotonic, aside, missing, remembering)

    def searcher(self) -> Searcher:
        return Searcher(
            store=self.store,
            rules=self.rules,
            circuit=CircuitBreaker(self.monotonic, lambda: 0.5, paused=self.paused.since),
            cleaner=self.cleaner,
            hygiene=self.hygiene,
            clock=lambda: self.now,
            monotonic=self.monotonic,
            via="here",
        )

    def resolver(self, misses: int = 100) -> Resolver:
        return Resolver(
            store=self.store,
            searcher=self.searcher(),
            rules=self.rules,
            hygiene=self.hygiene,
            asked=InFlight(lambda: self.rules().searches),
            misses=SearchRateLimit(misses, Trust([ip_network("127.0.0.0/8")]), self.monotonic),
            clock=lambda: self.now,
            monotonic=self.monotonic,
        )

    def lookup(self, term: str, view: View | None = None) -> Lookup:
        query = parse(term)
        return Lookup(self.parts, query, view or View())

    async def search(self, term: str, **options: Any) -> Search:
        """A search that nobody has started yet."""
        query, rules = parse(term), self.rules()
        asks = rules.asks(rules.tiers(query))
        return Search(query, await self.store.begin(), asks, started=self.monotonic(), **options)

    def clean(self, made: Made) -> Certificate:
        (certificate,) = openpgp.clean(made.octets, self.now)
        assert isinstance(certificate, Certificate), certificate
        return certificate

    async def put(self, made: Made, source: Source, origin: str, **options: Any) -> None:
        find = Find(self.clean(made), source, origin, **options)
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def put_mail(self, made: Made, sender: str) -> None:
        """Seen in a mail of this sender, who was authenticated."""
        vouchers = (Voucher(sender, authenticated=True, seen_at=self.now),)
        await self.put(made, Source.MAILFLOW, sender.rpartition("@")[2], vouchers=vouchers)

    async def said(self, term: str, upstream: str, *, found: bool) -> None:
        record = Record(parse(term).name, upstream, found, self.now)
        await self.store.put([], [record], await self.store.begin(), self.now)

    async def records(self, term: str) -> dict[str, bool]:
        return {r.upstream: r.found for r in (await self.store.look(parse(term).name)).records}


def renewing(ground: Ground) -> Renewing:
    """Goes round for the store of this ground."""
    circuit = CircuitBreaker(ground.monotonic, lambda: 0.5)
    return Renewing(ground.store, ground.rules, circuit, ground.cleaner, ground.hygiene, lambda: ground.now, "here")


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def steps(of: Lookup | Search) -> Sequence[tuple[str, str]]:
    """Who did what."""
    return [(s.who, s.what) for s in of.steps]
