"""Puts that wait for the writer go together: one transaction, one change, one wake-up of the loop for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from keyserver.store.arriving import Put
from keyserver.store.base import Stored

Verdict: TypeAlias = tuple[Stored, ...]

_TOGETHER = 64  # finds in one transaction of several puts


class Puts:
    """The puts that nobody has written yet, in order."""

    def __init__(
        self,
        write: Callable[[Sequence[Put]], Awaitable[Sequence[Verdict]]],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """write: all of them in one transaction, or none; their changes are published when it returns.

        start: makes a task of it."""
        self._write = write
        self._start = start
        self._waiting: deque[tuple[Put, asyncio.Future[Verdict]]] = deque()
        self._at_work = False

    def add(self, put: Put) -> asyncio.Future[Verdict]:
        """Its verdict, or what went wrong."""
        done: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((put, done))
        if not self._at_work:
            self._at_work = True
            self._start(self._work())
        return done

    async def _work(self) -> None:
        """Write until none waits, and give each caller its own verdict."""
        try:
            while self._waiting:
                taken = self._take()
                verdicts = await self._written([put for put, _ in taken])
                for (_, done), verdict in zip(taken, verdicts, strict=True):
                    if isinstance(verdict, Exception):
                        done.set_exception(verdict)
                    else:
                        done.set_result(verdict)
        finally:
            self._at_work = False

    def _take(self) -> list[tuple[Put, asyncio.Future[Verdict]]]:
        """The next puts of one hand: as many as stay below `_TOGETHER` finds, at least one; records alone count as one
        find."""
        taken = [self._waiting.popleft()]
        first = taken[0][0]
        size = _size(first)
        while self._waiting and self._waiting[0][0].who == first.who:
            size += _size(self._waiting[0][0])
            if size >= _TOGETHER:
                break
            taken.append(self._waiting.popleft())
        return taken

    async def _written(self, puts: Sequence[Put]) -> Sequence[Verdict | Exception]:
        """Together; where that fails, each by itself, so that no put fails for another's fault."""
        try:
            return await self._write(puts)
        except Exception as error:
            if len(puts) == 1:
                return [error]
            return [verdict for put in puts for verdict in await self._written([put])]


def _size(put: Put) -> int:
    return max(1, len(put.finds))
