"""What only one process of several may do: purge, prefetch, watch the clock, note what hot answers were asked for."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from keyserver import __version__
from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.resolver import Lookups
from keyserver.config.agreeing import agreeing
from keyserver.faces.http.hot import HotCounts
from keyserver.model import Name
from keyserver.resolver.membership import Membership
from keyserver.resolver.renewing import Renewing
from keyserver.resolver.upkeep import Upkeep
from keyserver.store.base import StoreError
from keyserver.store.cluster import Node
from keyserver.verdict.seeing import Seeing

LINES_AT_ONCE = 50  # of the log, between which the loop goes on


class Remembers(Protocol):
    """Who answers over HTTP from memory, here or in another process."""

    def asked(self) -> dict[Name, int]:
        """What was asked for and answered since the last call, and how often."""

    def counts(self) -> HotCounts:
        """What was answered in this process."""


@contextlib.asynccontextmanager
async def open_upkeep(
    context: Context, cache: Cache, lookups: Lookups, hot: Iterable[Remembers]
) -> AsyncIterator[Upkeep]:
    """Upkeep; its `run` is the caller's to start. `hot`: of all faces, those that open later too."""
    clocks, resolver = context.clocks, lookups.resolver

    async def gather() -> None:
        for answers in hot:
            for number, (name, hits) in enumerate(answers.asked().items(), 1):
                resolver.note_asked((name,), clocks.now())
                context.observer.hits("hkp", name, hits)
                if number % LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # ten thousand log lines must not hold up a lookup

    async def note_pace() -> None:
        await cache.store.upstreams.add_pace(lookups.paces.take())

    seeing = Seeing(cache.store, resolver.take_wanted, lookups.rules, cache.hygiene, clocks.now, clocks.monotonic)
    upkeep = Upkeep(
        cache.store,
        resolver,
        lookups.rules,
        _membership(context, cache, lookups),
        clocks,
        Renewing(
            cache.store,
            lookups.rules,
            lookups.circuit,
            lookups.cleaner,
            cache.hygiene,
            clocks.now,
            context.installation.instance,
        ),
        asked=gather,
        notes=(seeing.note, note_pace),
    )
    try:
        yield upkeep
    finally:
        with contextlib.suppress(Exception):
            await upkeep.flush()
        with contextlib.suppress(StoreError):
            await resolver.keep_failures()
        for note in (seeing.note, note_pace):
            with contextlib.suppress(StoreError):
                await note()
        with contextlib.suppress(StoreError):
            await upkeep.membership.leave()


def _membership(context: Context, cache: Cache, lookups: Lookups) -> Membership:
    config, clocks = context.config, context.clocks
    name = config.server.node or socket.gethostname()
    membership = Membership(
        cache.store.cluster,
        Node(secrets.token_hex(8), name, __version__, agreeing(config)),
        lookups.paused,
        clocks,
        cache.changes,
    )
    membership.max_detached = config.server.max_detached
    return membership
