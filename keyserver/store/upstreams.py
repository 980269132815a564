"""What is kept about upstreams, beside what they said."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

PACE_BOUNDS = (
    *(5, 8, 12, 18, 27, 40, 60, 90, 130, 200),
    *(300, 450, 700, 1000, 1500, 2300, 3500, 5000, 7500, 10_000),
)
"""Milliseconds, rising: answers are counted by the first of these that they took at most."""

PACE_DAYS = 35
"""For how many days paces are kept."""

FAILED = -1
"""Stands for the bucket of answers that failed."""


def pace_bucket(seconds: float) -> int:
    """Where an answer that took so long is counted; len(PACE_BOUNDS): it took longer than all of them."""
    return bisect_left(PACE_BOUNDS, seconds * 1000)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the answers of one upstream took on one day (UTC, days since the epoch)."""

    upstream: str
    day: int
    buckets: tuple[int, ...]  # one for each of PACE_BOUNDS, and one for what took longer; what failed is in none
    failed: int


def paces(rows: Iterable[tuple[str, int, int, int]]) -> list[Pace]:
    """From what a store has: upstream, day, bucket, how many."""
    found: dict[tuple[str, int], dict[int, int]] = {}
    for upstream, day, bucket, n in rows:
        found.setdefault((upstream, day), {})[bucket] = n
    every = range(len(PACE_BOUNDS) + 1)
    return [
        Pace(upstream, day, tuple(counts.get(bucket, 0) for bucket in every), counts.get(FAILED, 0))
        for (upstream, day), counts in sorted(found.items())
    ]


class AboutUpstreams(Protocol):
    """Kept by the upstream's name, whether it is configured or not. Raises StoreError."""

    async def pauses(self) -> Mapping[str, int]:
        """The upstreams that are paused: name -> since when, Unix seconds."""

    async def pause(self, upstream: str, now: int) -> int:
        """Note that it is paused; since when. A second call changes nothing."""

    async def resume(self, upstream: str, now: int | None = None) -> bool:
        """Take the pause away; was there one? now: for the history (None: the database's clock)."""

    async def told(self) -> Mapping[str, bytes]:
        """What was kept last of each upstream's disclosures, as `keep_told` got it."""

    async def keep_told(self, upstream: str, before: bytes | None, counts: bytes) -> bool:
        """Keep an upstream's counts if those kept so far are still these (None: there are none); were they?

        So nodes that count at the same time lose nothing: who comes too late reads, adds its own, and tries again."""

    async def add_pace(self, counts: Mapping[tuple[int, str, int], int]) -> None:
        """So many more answers: (day, upstream, `pace_bucket` or FAILED) -> how many. Not durable. What is more than
        PACE_DAYS older than the latest of these days goes."""

    async def pace(self, since_day: int) -> Sequence[Pace]:
        """Of that day and later, by upstream and day."""
