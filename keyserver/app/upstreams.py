"""The upstreams that the configuration names, by their URL's scheme."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from keyserver.app.context import CannotStart, Context
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.register import BY_SCHEME

BLOCKING_THREADS = 4  # for upstreams whose library blocks


@contextlib.asynccontextmanager
async def open_upstreams(context: Context) -> AsyncIterator[Mapping[str, Upstream]]:
    """Each upstream by its name, until the block ends; none is asked yet. Raises CannotStart."""
    threads = ThreadPoolExecutor(BLOCKING_THREADS, "upstreams")
    specs = context.terms.upstreams
    try:
        upstreams = {
            s.name: BY_SCHEME[s.scheme].make(s, specs[s.name], context.clocks, threads) for s in context.config.upstream
        }
    except (OSError, ValueError) as problem:
        raise CannotStart(f"upstream: {problem}") from None
    try:
        yield upstreams
    finally:
        await asyncio.gather(*(u.close() for u in upstreams.values()))
        threads.shutdown(wait=False, cancel_futures=True)
