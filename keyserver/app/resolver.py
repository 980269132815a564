"""The resolver over an open cache and the upstreams."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.inflight import InFlight
from keyserver.resolver.ratelimit import SearchRateLimit
from keyserver.resolver.resolver import Resolver, Settings
from keyserver.resolver.search import Searcher
from keyserver.upstreams.base import Upstream


@dataclass(frozen=True, slots=True)
class Lookups:
    """Who answers queries, and who cleans what comes in, be it by mail or from an administrator."""

    resolver: Resolver
    cleaner: Cleaner


@contextlib.asynccontextmanager
async def open_resolver(context: Context, cache: Cache, upstreams: Mapping[str, Upstream]) -> AsyncIterator[Lookups]:
    """The resolver, until the block ends: then no search is under way any more."""
    config, clocks = context.config, context.clocks
    cleaner = Cleaner(
        {kind: own.clean for kind, own in cache.hygiene.items()},
        brief={kind: own.clean_brief for kind, own in cache.hygiene.items() if own.clean_brief},
        monotonic=clocks.monotonic,
    )
    searcher = Searcher(
        store=cache.store,
        upstreams=upstreams,
        circuit=CircuitBreaker(clocks.monotonic, random.random, context.observer.upstream),
        cleaner=cleaner,
        hygiene=cache.hygiene,
        terms=context.terms,
        clock=clocks.now,
        monotonic=clocks.monotonic,
        deadline=float(config.cache.deadline),
        max_certificate=config.policy.max_certificate_size,
        via=context.installation.instance,
    )
    resolver = Resolver(
        store=cache.store,
        searcher=searcher,
        terms=context.terms,
        hygiene=cache.hygiene,
        asked=InFlight(config.limits.searches),
        misses=SearchRateLimit(config.limits.misses_per_minute, context.trust, clocks.monotonic),
        clock=clocks.now,
        monotonic=clocks.monotonic,
        settings=Settings(config.policy.text_search),
    )
    try:
        yield Lookups(resolver, cleaner)
    finally:
        await resolver.close()
        await cleaner.close()
