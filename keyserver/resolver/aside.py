"""Work that is short as a rule, and long where somebody made a certificate for it: the loop does what is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SMALL = 16 << 10
"""Octets of certificates that are proved and judged on the loop: 6 ms for the slowest of them."""

AT_ONCE = 0.002
"""Seconds: after so much of it in one turn of the loop, the rest waits for the next turn."""


class Aside:
    """`monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held = 0.0  # seconds of this turn of the loop
        self._one = asyncio.Lock()  # several threads at once would keep the loop from the interpreter
        self._next = asyncio.Lock()  # in the order of coming; a thread for each would take longer than the work

    async def run(self, octets: int, work: Callable[[], T]) -> T:
        """The result of `work`, which is over so many octets: where they are many, it runs in a thread."""
        if octets > SMALL:
            async with self._one:
                return await asyncio.to_thread(work)
        async with self._next:
            if self._held >= AT_ONCE:
                await asyncio.sleep(0)
            if not self._held:
                asyncio.get_running_loop().call_soon(self._turned)
            began = self._monotonic()
            try:
                return work()
            finally:
                self._held += self._monotonic() - began

    def _turned(self) -> None:
        self._held = 0.0
