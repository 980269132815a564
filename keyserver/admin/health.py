"""How well an upstream does, in a word that never says more than is known. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from keyserver.resolver.circuit import UpstreamStatus
from keyserver.traffic import Traffic

HOUR, DAY, WEEK = 3600, 86400, 7 * 86400
POINTS = 48  # of a sparkline: half an hour each in a day
OUTCOMES = ("found", "absent", "failed")


class Health(StrEnum):
    """The worst word that fits; configured is not reachable."""

    PAUSED = "paused"
    OPEN = "circuit open"
    PROBED = "being tried again"
    FAILING = "failing"
    UNKNOWN = "not asked yet"
    QUIET = "not asked lately"
    GOOD = "answers"

    @property
    def tone(self) -> str:
        """bad, warn, good, or empty for what nobody knows."""
        return _TONES[self]


_TONES = {
    Health.PAUSED: "bad",
    Health.OPEN: "bad",
    Health.PROBED: "warn",
    Health.FAILING: "warn",
    Health.UNKNOWN: "",
    Health.QUIET: "",
    Health.GOOD: "good",
}


@dataclass(frozen=True, slots=True)
class Pulse:
    """One upstream: its health, and what it was asked lately."""

    status: UpstreamStatus
    health: Health
    tone: str
    asked: tuple[int, ...]  # questions in each half hour of the last day, oldest first
    failed: tuple[int, ...]  # those of them that failed
    day: dict[str, int]  # outcome -> how many in the last day


def pulse_of(status: UpstreamStatus, traffic: Traffic) -> Pulse:
    """What is known of it."""
    series = {word: traffic.series(f"upstream {status.name} {word}", DAY, POINTS) for word in OUTCOMES}
    hour = {word: traffic.total(f"upstream {status.name} {word}", HOUR) for word in OUTCOMES}
    health = _health(status, hour)
    return Pulse(
        status=status,
        health=health,
        tone=health.tone,
        asked=tuple(map(sum, zip(*series.values(), strict=True))),
        failed=tuple(series["failed"]),
        day={word: sum(counts) for word, counts in series.items()},
    )


def _health(status: UpstreamStatus, hour: dict[str, int]) -> Health:
    if status.paused_at is not None:
        return Health.PAUSED
    if status.state == "open":
        return Health.OPEN
    if status.state == "half-open":
        return Health.PROBED
    if not status.found + status.absent + status.failed:
        return Health.UNKNOWN
    asked = sum(hour.values())
    if not asked:
        return Health.QUIET
    return Health.FAILING if 2 * hour["failed"] >= asked else Health.GOOD
