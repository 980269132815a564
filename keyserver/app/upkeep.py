"""What only one process of several may do: purge, prefetch, watch the clock, note what hot answers were asked for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.faces.http.hot import HotCounts
from keyserver.model import Name
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.resolver.upkeep import Upkeep
from keyserver.rules import InForce

LINES_AT_ONCE = 50  # of the log, between which the loop goes on


class Remembers(Protocol):
    """Who answers over HTTP from memory, here or in another process."""

    def asked(self) -> dict[Name, int]:
        """What was asked for and answered since the last call, and how often."""

    def counts(self) -> HotCounts:
        """What was answered in this process."""


@contextlib.asynccontextmanager
async def open_upkeep(
    context: Context, cache: Cache, resolver: Resolver, rules: InForce[Rules], hot: Iterable[Remembers]
) -> AsyncIterator[Upkeep]:
    """Upkeep; its `run` is the caller's to start. `hot`: of all faces, those that open later too."""
    clocks = context.clocks

    async def gather() -> None:
        for answers in hot:
            for number, (name, hits) in enumerate(answers.asked().items(), 1):
                resolver.note_asked((name,), clocks.now())
                context.observer.hits("hkp", name, hits)
                if number % LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # ten thousand log lines must not hold up a lookup

    upkeep = Upkeep(
        cache.store,
        resolver,
        rules,
        clock=clocks.now,
        counting=clocks.counting,
        asked=gather,
    )
    try:
        yield upkeep
    finally:
        with contextlib.suppress(Exception):
            await upkeep.flush()
