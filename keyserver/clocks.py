"""The clocks, handed in: only who starts a process makes them from the system's, so that years pass in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

STEADY = 0.5
"""Seconds by which the hearing of another clock may be off: what differs by less is no news."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """`now` is what is stored, answered and judged; the others are functions without arguments."""

    own: Callable[[], int]
    """Unix seconds by the machine's clock. Somebody may set it."""
    monotonic: Callable[[], float]
    """Seconds for durations and deadlines; never goes back."""
    counting: Callable[[], float]
    """Seconds since the machine started, its sleep included: what sleeps through a night has not seen a jump."""

    base: list[float] | memoryview[float] = field(default_factory=lambda: [0.0])
    """Its first item: what `counting` lacks to the clock of a database that nodes share; 0: there is none. The same
    for all processes of a service."""

    @classmethod
    def system(cls) -> Clocks:
        """The machine's own."""
        counting = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return cls(_now, time.monotonic, partial(time.clock_gettime, counting))

    def now(self) -> int:
        """Unix seconds: by the database's clock where nodes share one, counted on since it was heard last, so that
        nobody moves it who sets the machine's; else by the machine's."""
        base = self.base[0]
        return int(self.counting() + base) if base else self.own()

    def heard(self, at: float, counted: float) -> None:
        """The database's clock said `at`, in Unix seconds, when `counting` said `counted`."""
        base = at - counted
        if abs(base - self.base[0]) > STEADY:
            self.base[0] = base


def _now() -> int:
    return int(time.time())
