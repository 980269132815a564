"""The rules that hold at this moment: one value that never changes, replaced as a whole when the configuration is read
again.

Whoever goes by rules reads them at each use, and again after each wait. What is decided by them and takes time to be
carried out (a write) is done inside `acting`: `replaced` returns when nothing is under way by earlier ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(slots=True)
class _Term(Generic[R]):
    """The time in which some rules hold, and who still acts by them."""

    rules: R
    acting: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody has ended to act by them."""


class InForce(Generic[R]):
    """Call it for the rules of now; two calls without an `await` between them give the same."""

    def __init__(self, rules: R) -> None:
        self._term = _Term(rules)
        self._former: list[_Term[R]] = []

    def __call__(self) -> R:
        return self._term.rules

    @contextlib.contextmanager
    def acting(self) -> Iterator[R]:
        """Do what these rules say before the block ends."""
        term = self._term
        term.acting += 1
        try:
            yield term.rules
        finally:
            term.acting -= 1
            term.over.set()

    def replace(self, rules: R) -> None:
        """Other rules hold from here on."""
        if self._term.acting:
            self._former.append(self._term)
        self._term = _Term(rules)

    async def replaced(self) -> None:
        """Return when nobody acts by earlier rules any more."""
        for term in self._former:
            while term.acting:
                term.over.clear()
                await term.over.wait()
        self._former = [term for term in self._former if term.acting]
