"""What the resolver's parts are tried with: real store and cleaning, upstreams and clocks that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyserver import openpgp
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.model import Certificate, Find, Found, Kind, Raw, Record, Source, UpstreamSpec, View
from keyserver.policy import Terms
from keyserver.query import parse
from keyserver.resolver.aside import Aside
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.inflight import Search
from keyserver.resolver.lookup import Lookup, Shared
from keyserver.resolver.plan import tiers_of
from keyserver.resolver.search import Searcher
from keyserver.store.sqlite import SqliteStore
from support.openpgp import CREATED, Made
from support.upstreams import Told

NOW = CREATED + 100_000_000


def sends(*made: Made) -> Found:
    """Says that it has found these."""
    return Found(tuple(Raw(Kind.OPENPGP, m.octets) for m in made))


class Ground:
    """One store, its clock, the upstreams around it."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.terms = Terms()
        self.peers: dict[str, Told] = {}
        self.hygiene = hygiene_of()
        self.store = SqliteStore(directory / "keyserver.db", self.hygiene, Changes(), max_size=1 << 30)
        self.cleaner = Cleaner({kind: own.clean for kind, own in self.hygiene.items()}, monotonic=self.monotonic)

    def peer(self, name: str, **spec: Any) -> Told:
        self.peers[name] = Told(UpstreamSpec(name, **spec))
        self.terms = replace(self.terms, upstreams={n: p.spec for n, p in self.peers.items()})
        return self.peers[name]

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def parts(self) -> Shared:
        return Shared(self.store, self.terms, self.hygiene, lambda: self.now, self.monotonic, Aside(self.monotonic))

    def searcher(self, deadline: float = 5.0) -> Searcher:
        return Searcher(
            store=self.store,
            upstreams=dict(self.peers),
            circuit=CircuitBreaker(self.monotonic, lambda: 0.5),
            cleaner=self.cleaner,
            hygiene=self.hygiene,
            terms=self.terms,
            clock=lambda: self.now,
            monotonic=self.monotonic,
            deadline=deadline,
            max_certificate=1 << 20,
            via="here",
        )

    def lookup(self, term: str, view: View | None = None) -> Lookup:
        query = parse(term)
        return Lookup(self.parts, query, view or View(), tiers_of(self.terms.upstreams.values(), query, self.terms))

    async def search(self, term: str, **options: Any) -> Search:
        """A search that nobody has started yet."""
        return Search(parse(term), await self.store.begin(), started=self.monotonic(), **options)

    def clean(self, made: Made) -> Certificate:
        (certificate,) = openpgp.clean(made.octets, self.now)
        assert isinstance(certificate, Certificate), certificate
        return certificate

    async def put(self, made: Made, source: Source, origin: str, **options: Any) -> None:
        find = Find(self.clean(made), source, origin, **options)
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def said(self, term: str, upstream: str, *, found: bool) -> None:
        record = Record(parse(term).name, upstream, found, self.now)
        await self.store.put([], [record], await self.store.begin(), self.now)

    async def records(self, term: str) -> dict[str, bool]:
        return {r.upstream: r.found for r in (await self.store.look(parse(term).name)).records}


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens soon."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def steps(of: Lookup | Search) -> Sequence[tuple[str, str]]:
    """Who did what."""
    return [(s.who, s.what) for s in of.steps]
