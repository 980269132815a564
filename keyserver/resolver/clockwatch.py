"""May the wall clock be believed? Compared with a clock that only counts, with what the store has seen (rule 5), and
with the clock of a database that several nodes share.

All clocks are handed in. A wrong clock cannot bring back what it made us delete, least of all what only mail has
shown: after a jump nothing is deleted for a day, or until an administrator says so. Expiry is judged at every lookup
anyway, so waiting costs nothing but room.
"""

from __future__ import annotations

import logging

JUMP = 60.0  # seconds; what is slewed stays far below
WAIT = 86400.0  # seconds of the counting clock during which nothing is deleted
APART = 2.0  # seconds between this clock and the database's: beyond, nothing is deleted here
NEAR = 1.0  # seconds: below, they go together again

log = logging.getLogger("keyserver.clock")


class ClockWatch:
    """Hears both clocks from time to time. `wall`: Unix seconds; `counting`: seconds that go on during a suspend."""

    def __init__(self, wall: float, counting: float) -> None:
        self._offset = wall - counting
        self._since: float | None = None  # counting clock: when it last jumped
        self._why = ""
        self._apart = ""

    def newest(self, seen: int | None, wall: float, counting: float) -> None:
        """At start: the latest time in the store. A clock far from it may be right, or set wrong by a dead battery."""
        if seen is None:
            return
        away = wall - seen
        if away > WAIT:
            self._jumped(f"the store was last written {_span(away)} ago by this clock", counting)
        elif away < -JUMP:
            self._jumped(f"the store was written {_span(-away)} in the future of this clock", counting)

    def look(self, wall: float, counting: float) -> bool:
        """Note both clocks; may what has expired be deleted now?"""
        moved = wall - counting - self._offset
        if abs(moved) > JUMP:
            self._jumped(f"the clock jumped {_span(abs(moved))} {'ahead' if moved > 0 else 'back'}", counting)
        self._offset = wall - counting
        if self._since is not None and counting - self._since >= WAIT:
            log.warning("what has expired is deleted again: the clock has been steady for a day")
            self.trust()
        return self._since is None and self.near

    def compared(self, ahead: float) -> None:
        """By how many seconds this clock is ahead of the database's, which all nodes go by (negative: behind)."""
        if abs(ahead) > APART:
            side, before = "ahead of" if ahead > 0 else "behind", self._apart
            self._apart = (
                f"the clock is {_span(abs(ahead))} {side} the database's:"
                " this node deletes nothing that has expired, and searches nothing again ahead of time"
            )
            if not before:
                log.error("%s", self._apart)
        elif abs(ahead) < NEAR and self._apart:
            self._apart = ""
            log.warning("this clock goes with the database's again")

    @property
    def near(self) -> bool:
        """Does it go with the database's clock, as far as anybody has compared them?"""
        return not self._apart

    def trust(self) -> None:
        """An administrator says that the clock is right."""
        self._since, self._why = None, ""

    @property
    def complaint(self) -> str:
        """What is wrong; empty for nothing."""
        return "; ".join(filter(None, (self._why, self._apart)))

    def _jumped(self, why: str, counting: float) -> None:
        self._since = counting
        self._why = f"{why}: nothing that has expired is deleted for a day, or until `cache purge --expired`"
        log.error("%s", self._why)


def _span(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
