"""Work that is short as a rule, and long where somebody made a certificate for it: the loop does what is short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SMALL = 16 << 10
"""Octets of certificates that are proved and judged on the loop: 6 ms for the slowest of them."""

AT_ONCE = 0.002
"""Seconds: after so much of it in one turn of the loop, the rest of the turn's work goes to a thread."""


class Aside:
    """`monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._held = 0.0  # seconds of this turn of the loop
        self._one = asyncio.Lock()  # several threads at once would keep the loop from the interpreter

    async def run(self, octets: int, work: Callable[[], T]) -> T:
        """The result of `work`, which is over so many octets and may run in a thread."""
        if octets > SMALL or self._held >= AT_ONCE:
            async with self._one:
                return await asyncio.to_thread(work)
        if not self._held:
            asyncio.get_running_loop().call_soon(self._turned)
        began = self._monotonic()
        try:
            return work()
        finally:
            self._held += self._monotonic() - began

    def _turned(self) -> None:
        self._held = 0.0
