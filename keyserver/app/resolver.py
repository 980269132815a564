"""The resolver over an open cache and the upstreams."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.disclosures import Disclosures
from keyserver.resolver.inflight import InFlight
from keyserver.resolver.paces import Paces
from keyserver.resolver.paused import Paused
from keyserver.resolver.ratelimit import SearchRateLimit
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.resolver.search import Searcher
from keyserver.rules import InForce
from keyserver.store.base import StoreError


@dataclass(frozen=True, slots=True)
class Lookups:
    """Who answers queries, and who cleans what comes in, be it by mail or from an administrator."""

    resolver: Resolver
    cleaner: Cleaner
    paused: Paused
    disclosures: Disclosures
    rules: InForce[Rules]
    circuit: CircuitBreaker
    misses: SearchRateLimit
    paces: Paces


@contextlib.asynccontextmanager
async def open_resolver(context: Context, cache: Cache, rules: InForce[Rules]) -> AsyncIterator[Lookups]:
    """The resolver, until the block ends: then no search is under way any more."""
    config, clocks = context.config, context.clocks
    cleaner = Cleaner(
        {kind: own.clean for kind, own in cache.hygiene.items()},
        brief={kind: own.clean_brief for kind, own in cache.hygiene.items() if own.clean_brief},
        monotonic=clocks.monotonic,
    )
    paused = Paused(cache.store.upstreams, clocks.now)
    await paused.load()
    disclosures = Disclosures(cache.store.upstreams, _hashed(context.installation.log_secret), clocks.now)
    with contextlib.suppress(StoreError):  # its state is told
        await disclosures.load()
    paces = Paces(clocks.now)
    circuit = CircuitBreaker(
        clocks.monotonic,
        random.random,
        context.observer.upstream,
        paused.since,
        disclosures.note,
        paces.note,
    )
    misses = SearchRateLimit(config.limits.misses_per_minute, context.trust, clocks.monotonic)
    searcher = Searcher(
        store=cache.store,
        rules=rules,
        circuit=circuit,
        cleaner=cleaner,
        hygiene=cache.hygiene,
        clock=clocks.now,
        monotonic=clocks.monotonic,
        via=context.installation.instance,
    )
    resolver = Resolver(
        store=cache.store,
        searcher=searcher,
        rules=rules,
        hygiene=cache.hygiene,
        asked=InFlight(lambda: rules().searches),
        misses=misses,
        clock=clocks.now,
        monotonic=clocks.monotonic,
        disclosures=disclosures,
    )
    try:
        yield Lookups(resolver, cleaner, paused, disclosures, rules, circuit, misses, paces)
    finally:
        await resolver.close()
        await cleaner.close()
        with contextlib.suppress(StoreError):
            await disclosures.keep()


def _hashed(secret: bytes) -> Callable[[str], int]:
    """64 bits of a text that nobody can test a guess by."""
    keyed = hashlib.blake2b(key=secret[:64], digest_size=8, person=b"told")

    def hashed(text: str) -> int:
        mine = keyed.copy()
        mine.update(text.encode(errors="replace"))
        return int.from_bytes(mine.digest(), "big")

    return hashed
