"""Every change once: by the call that made it, or by a poll, whichever comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keyserver.changes import Changes
from keyserver.model import Change, Name
from keyserver.store.postgres.outbox import News as Polled
from keyserver.store.postgres.outbox import Position
from keyserver.store.postgres.writing import Written

MOST = 10_000
"""Transactions that are remembered while writing goes on without a pause."""


class News:
    """What this node has told about. Numbers are its own: transactions of several nodes have no order."""

    def __init__(self, changes: Changes, writes: Callable[[], bool]) -> None:
        """writes: is a transaction of ours under way, which a poll may see before we know that it is over?"""
        self._changes = changes
        self._writes = writes
        self._number = 0
        self._position: Position | None = None
        self._own: set[int] = set()  # transactions that a poll has still to see
        self._seen: set[int] = set()  # and those that one saw while we were writing, perhaps ours

    @property
    def position(self) -> Position:
        """Up to where changes are known."""
        assert self._position is not None, "not open"
        return self._position

    @property
    def remembered(self) -> int:
        """Transactions in memory."""
        return len(self._own) + len(self._seen)

    def begin(self, position: Position) -> None:
        """What was before is known."""
        self._position = position
        self._own.clear()
        self._seen.clear()

    def written(self, change: Written) -> None:
        """A transaction of ours is over."""
        xid = int(change.xid)
        if xid in self._seen:
            self._seen.discard(xid)
            return
        self._own.add(xid)
        self._publish(change.names, change.everything)

    def polled(self, news: Polled) -> None:
        """What others wrote, and what of ours we do not know yet."""
        self._position = news.position
        if not self._writes():
            self._seen.clear()
        for known in (self._seen, self._own):
            if len(known) > MOST:
                known.clear()  # one of ours may be told twice, and none is missed
        if news.changes is None:
            self._own.clear()  # their numbers may be given again
            self._seen.clear()
            self._publish((), everything=True)
            return
        for text, everything, names in news.changes:
            xid = int(text)
            if xid in self._own:
                self._own.discard(xid)
                continue
            if self._writes():
                self._seen.add(xid)
            self._publish(names, everything)

    def _publish(self, names: Iterable[Name], everything: bool) -> None:
        self._number += 1
        self._changes.publish(Change(self._number, frozenset(names), everything))
