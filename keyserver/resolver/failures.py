"""Failures of upstreams on their way into the history: which upstream, to which query, and when last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keyserver.model import Name

MOST = 10_000  # failures that wait; further ones are let go


class Failures:
    """They are in no transaction of their own, and are written in batches; upkeep takes them every few seconds."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Name, str], int] = {}

    def note(self, name: Name, upstreams: Iterable[str], now: int) -> None:
        """These gave no usable answer to the query of that name."""
        for upstream in upstreams:
            if (name, upstream) in self._waiting or len(self._waiting) < MOST:
                self._waiting[name, upstream] = now

    def take(self) -> Mapping[tuple[Name, str], int]:
        """What has been noted since the last call, as `History.failed` wants it."""
        taken, self._waiting = self._waiting, {}
        return taken
