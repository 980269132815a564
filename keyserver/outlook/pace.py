"""Which upstreams have become slower, or fail more often, than before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keyserver.store.upstreams import PACE_BOUNDS, PACE_DAYS, Pace

RECENT = 7
"""The last days, today with them; they are compared with those before that are still kept."""

ENOUGH = 50  # answers in either span; fewer say nothing
TIMES = 1.5  # at least so much worse
MORE_MS = 50  # and so many milliseconds more
MORE_SHARE = 0.05  # or so much more of what was asked


@dataclass(frozen=True, slots=True)
class Slower:
    """An upstream that does worse than it did. Milliseconds are medians of its answers, shares are 0 to 1 of what it
    was asked; each for the last days and for those before."""

    upstream: str
    slower: bool
    ms: int
    ms_before: int
    failing: bool
    failed: float
    failed_before: float
    answers: int  # in the last days, failures apart


@dataclass(slots=True)
class _Span:
    """What an upstream did in some days."""

    buckets: list[int]
    failed: int = 0

    @property
    def answers(self) -> int:
        return sum(self.buckets)

    @property
    def share(self) -> float:
        return self.failed / max(1, self.answers + self.failed)

    def median(self) -> float:
        """Milliseconds, as if answers lay evenly between two bounds, and none behind the last one. 0: no answers."""
        half, passed = self.answers / 2, 0
        for number, count in enumerate(self.buckets):
            if count and passed + count >= half:
                low = PACE_BOUNDS[number - 1] if number else 0
                high = PACE_BOUNDS[min(number, len(PACE_BOUNDS) - 1)]
                return low + (high - low) * (half - passed) / count
            passed += count
        return 0.0


def slower(rows: Iterable[Pace], today: int) -> Sequence[Slower]:
    """Those that are worse, by name. today: days since the epoch."""
    spans: dict[str, tuple[_Span, _Span]] = {}
    for row in rows:
        age = today - row.day
        if not 0 <= age < PACE_DAYS:
            continue
        if row.upstream not in spans:
            spans[row.upstream] = _empty(), _empty()
        span = spans[row.upstream][age >= RECENT]
        span.failed += row.failed
        span.buckets = [a + b for a, b in zip(span.buckets, row.buckets, strict=True)]
    compared = [_compared(name, *spans[name]) for name in sorted(spans)]
    return [one for one in compared if one.slower or one.failing]


def _empty() -> _Span:
    return _Span([0] * (len(PACE_BOUNDS) + 1))


def _compared(name: str, recent: _Span, before: _Span) -> Slower:
    now, then = recent.median(), before.median()
    answered = min(recent.answers, before.answers) >= ENOUGH
    asked = min(recent.answers + recent.failed, before.answers + before.failed) >= ENOUGH
    worse = recent.share >= TIMES * before.share and recent.share - before.share >= MORE_SHARE
    return Slower(
        upstream=name,
        slower=answered and now >= TIMES * then and now - then >= MORE_MS,
        ms=round(now),
        ms_before=round(then),
        failing=asked and worse,
        failed=recent.share,
        failed_before=before.share,
        answers=recent.answers,
    )
