"""Values kept for as long as they are true: bounded in octets, forgotten by name, by instant, and least recently used.

The rule is that of hot answers over HTTP: what was made from the store holds until the first instant at which anything
behind it turns, unless a change touches one of its names; what was made while such a change went by is not taken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from keyserver.changes import Changes
from keyserver.model import Change, Name

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_OBJECTS = 500  # octets that a row takes beside its value
_PER_NAME = 200  # octets for each name it is indexed under


@dataclass(frozen=True, slots=True)
class Ground:
    """What a value stands on."""

    names: frozenset[Name]  # a change of any of them takes it away
    until: int  # Unix seconds: from then on it is not given
    number: int  # `Changes.number` before the store was read


def both(one: Ground, other: Ground) -> Ground:
    """What a value made of two others stands on."""
    return Ground(one.names | other.names, min(one.until, other.until), min(one.number, other.number))


@dataclass(slots=True)
class Row(Generic[V]):
    """One value kept."""

    value: V
    ground: Ground
    octets: int


class Kept(Generic[K, V]):
    """A table of such values."""

    def __init__(self, limit: int, changes: Changes, clock: Callable[[], int]) -> None:
        self._limit = limit
        self._changes = changes
        self._clock = clock
        self._rows: OrderedDict[K, Row[V]] = OrderedDict()
        self._by_name: dict[Name, set[K]] = {}
        self.octets = 0
        """Octets in use, the table's own included."""
        changes.listen(self._changed)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: K) -> Row[V] | None:
        """The value and what it stands on, while it holds."""
        row = self._rows.get(key)
        if row is None:
            return None
        if self._clock() >= row.ground.until:
            self.drop(key)
            return None
        self._rows.move_to_end(key)
        return row

    def put(self, key: K, value: V, octets: int, ground: Ground) -> bool:
        """Keep a value of so many octets; False where it is no longer true, or too large to be worth it."""
        cost = octets + _OBJECTS + _PER_NAME * len(ground.names)
        if cost > self._limit // 8 or self._clock() >= ground.until:
            return False
        if self._changes.touched(ground.number, ground.names):
            return False
        self.drop(key)
        self._rows[key] = Row(value, ground, cost)
        self.octets += cost
        for name in ground.names:
            self._by_name.setdefault(name, set()).add(key)
        while self.octets > self._limit:
            self.drop(next(iter(self._rows)))
        return True

    def drop(self, key: K) -> None:
        """Forget one, if it is there."""
        row = self._rows.pop(key, None)
        if row is None:
            return
        self.octets -= row.octets
        for name in row.ground.names:
            keys = self._by_name[name]
            keys.discard(key)
            if not keys:
                del self._by_name[name]

    def _changed(self, change: Change) -> None:
        if change.everything:
            self._rows.clear()
            self._by_name.clear()
            self.octets = 0
            return
        for name in change.names:
            for key in tuple(self._by_name.get(name, ())):
                self.drop(key)
