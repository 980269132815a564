"""How long upstreams take to answer, counted here until the store has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from keyserver.model import Failed, Fault, Outcome
from keyserver.store.recipients import DAY
from keyserver.store.upstreams import FAILED, pace_bucket


class Paces:
    """`clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._counts: Counter[tuple[int, str, int]] = Counter()

    def note(self, upstream: str, outcome: Outcome, seconds: float) -> None:
        """An upstream has answered, or failed. Where it is we that could not ask, that says nothing of it."""
        bucket = pace_bucket(seconds)
        if isinstance(outcome, Failed):
            if outcome.fault is Fault.LOCAL:
                return
            bucket = FAILED
        self._counts[self._clock() // DAY, upstream, bucket] += 1

    def take(self) -> Mapping[tuple[int, str, int], int]:
        """What was counted since the last call, as `AboutUpstreams.add_pace` takes it."""
        taken, self._counts = self._counts, Counter()
        return taken
