"""The clocks, handed in: only who starts a process makes them from the system's, so that years pass in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clocks:
    """Three functions without arguments."""

    now: Callable[[], int]
    """Unix seconds: what is stored, answered and judged. Somebody may set it."""
    monotonic: Callable[[], float]
    """Seconds for durations and deadlines; never goes back."""
    counting: Callable[[], float]
    """Seconds since the machine started, its sleep included: what sleeps through a night has not seen a jump."""

    @classmethod
    def system(cls) -> Clocks:
        """The machine's own."""
        return cls(_now, time.monotonic, _counting)


def _now() -> int:
    return int(time.time())


def _counting() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
