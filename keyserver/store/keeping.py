"""How a history is kept within its bounds, whatever the store: passes over everything that is too old.

What says how things stood at the bound stays, whatever its age: the last event of each living entry, the last word of
each record. So a pass has to look at all that is old, and is begun again only when a hundredth of the age has gone by.
Where the history is too large, the bound lies later than its age says, and passes are made until it fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from keyserver.store.history import Bounds
from keyserver.store.recipients import DAY, MAX_KEPT

Place: TypeAlias = tuple[int | str | bytes, ...]
"""Where a sweep goes on."""

_LATER = 0.9  # of the largest size is left by a pass that is made for the size's sake, about


@dataclass(frozen=True, slots=True)
class Kept:
    """How it stands."""

    active: bool
    whole: int | None
    """Since when it is whole. None: since its first event; 0: what was there before is still to be taken down."""
    first: int | None
    """When the first event was."""
    octets: int


@dataclass(frozen=True, slots=True)
class Swept:
    """One batch of a sweep."""

    gone: int
    next: Place | None
    """None: it is over."""


class Shelves(Protocol):
    """What a store does with its tables for it: each call a transaction or two of some milliseconds."""

    async def kept(self) -> Kept:
        """How it stands."""

    async def begin(self) -> None:
        """From now on changes are recorded; what is there must still be taken down."""

    async def take_down(self, part: int, after: Place | None) -> Place | None:
        """Take down what is there and not on record, a batch behind `after`, of one of `PARTS`; None at its end."""

    async def taken(self, now: int) -> None:
        """All of it is."""

    async def stop(self, limit: int) -> int:
        """From now on nothing is recorded; erase up to `limit` rows; how many."""

    async def sweep(self, part: int, after: Place | None, cutoff: int, limit: int) -> Swept:
        """Let go of what was over before the cutoff, up to `limit` rows: events with their copies, words, what answered
        for names under which nothing is or was stored any more; notes of recipients, and of others the certificate
        where nobody knows it. The history is whole from the cutoff on."""


PARTS = 3  # what is taken down: revocations and blocks, entries, records
SWEPT = 4
NOTES = 3  # of them: notes of recipients


class Keeping:
    """`History.limit` and `History.tidy`."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self._bounds: Bounds | None = None
        self._pass: tuple[int, int, Place | None] | None = None  # cutoff, part, place
        self._last: int | None = None  # when the last pass began
        self._reached = 0  # the cutoff of the last pass for the size's sake: one that found nothing is not made again

    def limit(self, bounds: Bounds) -> None:
        """As `History.limit`."""
        if bounds != self._bounds:
            self._bounds, self._pass, self._last, self._reached = bounds, None, None, 0

    async def tidy(self, now: int, limit: int) -> int:
        """As `History.tidy`."""
        bounds = self._bounds
        if bounds is None:
            return 0
        if not bounds.keep:
            return await self._shelves.stop(limit)
        await self._take_down(now)
        gone = 0
        while gone < limit:
            if self._pass is None:
                cutoff = await self._due(bounds, now)
                if cutoff is None:
                    break
                self._pass, self._last = (cutoff, 0, None), now
            cutoff, part, place = self._pass
            if part == NOTES:
                cutoff = max(cutoff, now - MAX_KEPT * DAY)
            swept = await self._shelves.sweep(part, place, cutoff, limit - gone)
            gone += swept.gone
            if swept.next is not None:
                self._pass = cutoff, part, swept.next
            else:
                self._pass = (cutoff, part + 1, None) if part + 1 < SWEPT else None
        return gone

    async def _take_down(self, now: int) -> None:
        """What was there before the history began, or was switched on again."""
        kept = await self._shelves.kept()
        if not kept.active:
            await self._shelves.begin()
        elif kept.whole != 0:
            return
        for part in range(PARTS):
            place = await self._shelves.take_down(part, None)
            while place is not None:
                place = await self._shelves.take_down(part, place)
        await self._shelves.taken(now)

    async def _due(self, bounds: Bounds, now: int) -> int | None:
        """The cutoff of the next pass; None where none is due."""
        kept = await self._shelves.kept()
        since = kept.first if kept.whole is None else kept.whole
        oldest = max(now - bounds.keep, since or 0, self._reached)
        if kept.octets > bounds.max_size and oldest < now:
            self._reached = oldest + max(1, int((now - oldest) * (1 - _LATER * bounds.max_size / kept.octets)))
            return self._reached
        again = self._last is None or not 0 <= now - self._last <= bounds.keep // 100
        return now - bounds.keep if again and kept.first is not None else None
