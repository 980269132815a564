"""A lookup told while it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

from keyserver.admin.resources import LookupResult, step_of
from keyserver.admin.service import WORTH_TELLING
from keyserver.model import Kind, Step


class LooksUp(Protocol):
    """`Service.lookup`."""

    def __call__(
        self, search: str, *, trace: bool = False, hear: Callable[[Kind, Step], None] | None = None
    ) -> Awaitable[LookupResult]:
        """See there."""


async def watched(lookup: LooksUp, search: str) -> AsyncGenerator[Step | LookupResult]:
    """Each step as it happens, and at last the result, with the whole trace in its order.

    Raises as `lookup` does. Closed early, it ends the lookup, but not the search that others may have joined."""
    heard: asyncio.Queue[Step | None] = asyncio.Queue()  # bounded by what a lookup tells
    waiting: list[Step] | None = []  # of X.509, until anybody is asked for that: else it would only be noise

    def hear(kind: Kind, step: Step) -> None:
        nonlocal waiting
        own = step_of(kind, step)
        if kind is Kind.OPENPGP or waiting is None:
            heard.put_nowait(own)
            return
        waiting.append(own)
        if step.what in WORTH_TELLING:
            for one in waiting:
                heard.put_nowait(one)
            waiting = None

    task = asyncio.ensure_future(lookup(search, trace=True, hear=hear))
    task.add_done_callback(lambda _: heard.put_nowait(None))
    try:
        while (step := await heard.get()) is not None:
            yield step
        yield await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
