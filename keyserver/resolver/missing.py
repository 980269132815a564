"""Upstreams without whose word an absence was answered: they need not speak (`required = false`), and had failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cachetools import FIFOCache

from keyserver.model import Failed, Name, Outcome

BELIEVED = 60
"""Seconds for which such an absence holds."""
MOST = 10_000  # queries


class Missing:
    """Which upstreams a finished search for a query did without, and until when (Unix seconds).

    A failure is no word, so none of this is on record: it is this process's own, and gone in a minute."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._without: FIFOCache[Name, Mapping[str, int]] = FIFOCache(MOST)

    def note(self, query: Name, outcomes: Mapping[str, Outcome | None]) -> None:
        """A search for this has ended so, as far as optional upstreams are concerned."""
        until = self._clock() + BELIEVED
        if failed := {name: until for name, outcome in outcomes.items() if isinstance(outcome, Failed)}:
            self._without[query] = failed

    def of(self, query: Name, now: int) -> Mapping[str, int]:
        """Those that it can do without now, each with its end."""
        without = self._without.get(query)
        if without is None:
            return {}
        return {name: until for name, until in without.items() if now < until <= now + BELIEVED}
