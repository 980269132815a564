"""The resolver over an open cache and the upstreams."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.disclosures import Disclosures
from keyserver.resolver.inflight import InFlight
from keyserver.resolver.paused import Paused
from keyserver.resolver.ratelimit import SearchRateLimit
from keyserver.resolver.resolver import Resolver, Settings
from keyserver.resolver.search import Searcher
from keyserver.store.base import StoreError
from keyserver.upstreams.base import Upstream


@dataclass(frozen=True, slots=True)
class Lookups:
    """Who answers queries, and who cleans what comes in, be it by mail or from an administrator."""

    resolver: Resolver
    cleaner: Cleaner
    paused: Paused
    disclosures: Disclosures


@contextlib.asynccontextmanager
async def open_resolver(context: Context, cache: Cache, upstreams: Mapping[str, Upstream]) -> AsyncIterator[Lookups]:
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
    searcher = Searcher(
        store=cache.store,
        upstreams=upstreams,
        circuit=CircuitBreaker(
            clocks.monotonic, random.random, context.observer.upstream, paused.since, disclosures.note
        ),
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
        disclosures=disclosures,
    )
    try:
        yield Lookups(resolver, cleaner, paused, disclosures)
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
