"""What was asked for and answered from memory: prefetch hears of it later, and memory stays bounded until then."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.model import Name

MOST = 100_000
"""Names remembered; others are not counted until these have been taken."""


class AskedNames:
    """Names with how often each was asked for since they were taken last."""

    def __init__(self) -> None:
        self._counts: dict[Name, int] = {}

    def note(self, name: Name, times: int = 1) -> None:
        """It was asked for so often."""
        if name in self._counts or len(self._counts) < MOST:
            self._counts[name] = self._counts.get(name, 0) + times

    def add(self, counts: Mapping[Name, int]) -> None:
        """What somebody else has taken."""
        for name, times in counts.items():
            self.note(name, times)

    def take(self) -> dict[Name, int]:
        """What was noted since the last call."""
        counts, self._counts = self._counts, {}
        return counts
