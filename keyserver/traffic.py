"""How much was asked lately, in memory: counts by five minutes for a week. Metrics are for longer and for alarms."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

SLOT = 300  # seconds
KEPT = 7 * 86400 // SLOT  # slots
_KINDS = 2000  # different things counted in one slot; more are not


class Traffic:
    """Counts of named things. clock: Unix seconds; where it goes back, the newest slot goes on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.since = int(clock())
        self._slots: deque[tuple[int, Counter[str]]] = deque([(self.since // SLOT, Counter())], maxlen=KEPT)

    def note(self, what: str, count: int = 1) -> None:
        """So many more of one thing now."""
        number = int(self._clock()) // SLOT
        if number > self._slots[-1][0]:
            self._slots.append((number, Counter()))
        counts = self._slots[-1][1]
        if what in counts or len(counts) < _KINDS:
            counts[what] += count

    def total(self, what: str, seconds: int) -> int:
        """How many in the last so many seconds, to the slot."""
        first = self._first(seconds)
        return sum(counts[what] for number, counts in self._slots if number > first)

    def series(self, what: str, seconds: int, points: int) -> Sequence[int]:
        """The same in so many equal parts, oldest first."""
        first, width = self._first(seconds), seconds // SLOT / points
        sums = [0] * points
        for number, counts in self._slots:
            if number > first:
                sums[min(points - 1, int((number - first - 1) / width))] += counts[what]
        return sums

    def _first(self, seconds: int) -> int:
        return int(self._clock()) // SLOT - seconds // SLOT
