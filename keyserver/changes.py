"""The one place of invalidation: every finished change of the store, with the names it touches.

The store publishes after its transaction committed and before the changing call returns; whoever keeps something
derived from the store (hot answers, searches under way) listens here and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from keyserver.model import Change, Name

Subscriber = Callable[[Change], None]


class Changes:
    """Change events of one process, in order, with a short memory for fills that race with a change."""

    def __init__(self, memory: int = 4096) -> None:
        self._subscribers: list[Subscriber] = []
        self._recent: deque[tuple[int, Change]] = deque(maxlen=memory)
        self.published = 0
        """Counts published changes; note it before reading the store, hand it to `touched`."""
        self.told: Sequence[int] = (0,)
        """Its first item above `published`: changes were acknowledged that are not published here yet; before anything
        is given from memory, `catch_up` is called. Never so in the process that changes the store."""
        self.detached: list[int] | memoryview[int] = [0]
        """Its first item not 0: changes of other nodes are not heard now; what is given from memory says so. A change
        without names says that this has changed."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` with every change, on the loop's thread; it must not raise or block."""
        self._subscribers.append(subscriber)

    def publish(self, change: Change) -> None:
        """Tell everybody; to be called on the loop's thread."""
        self.published += 1
        self._recent.append((self.published, change))
        for subscriber in self._subscribers:
            subscriber(change)

    def catch_up(self) -> None:
        """Publish what was acknowledged elsewhere, or else make everybody forget everything."""

    def touched(self, since: int, names: Iterable[Name]) -> bool:
        """Has any of `names` changed after `since`? True also when the memory does not reach back that far."""
        if since == self.published:
            return False
        oldest = self._recent[0][0] if self._recent else self.published + 1
        if oldest > since + 1:
            return True
        wanted = frozenset(names)
        return any(n > since and (c.everything or not wanted.isdisjoint(c.names)) for n, c in self._recent)
