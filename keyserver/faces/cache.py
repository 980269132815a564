"""What can be answered again from memory: one rule of validity and one memory limit for all views and faces.

What was made from the store holds until the first instant at which anything behind it turns, unless a change touches
one of its names; what was made while such a change went by is not taken. When memory runs out, what was used longest
ago leaves, whichever cache holds it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from keyserver.changes import Changes
from keyserver.model import Change, Name
from keyserver.policy import SKEW

NEGATIVE_SHARE = 10
"""Negative answers may take one tenth of the memory: anybody can ask for what does not exist."""

MEANING_SHARE = 32
"""What requests mean may take so small a part: anybody can write another one."""

LARGEST_SHARE = 8
"""One entry may take an eighth of what entries of its sort may take together."""

MOST_KEYS = 8
"""Keys that may lead to one entry: nobody fills memory with other spellings."""

_PER_NAME = 22  # octets of memory for each name (measured)


@dataclass(frozen=True, slots=True)
class Ground:
    """What an entry stands on."""

    names: frozenset[Name]  # a change of any of them takes it away
    until: int  # Unix seconds: from then on it is not given
    number: int  # `Changes.published` before the store was read


def both(one: Ground, other: Ground) -> Ground:
    """What an entry made of two others stands on."""
    return Ground(one.names | other.names, min(one.until, other.until), min(one.number, other.number))


class CachedAnswer:
    """What a cache holds under one key or several. Entries that are equal are held once."""

    __slots__ = ("at", "body", "cache", "keys", "marks", "octets", "segment", "until")

    def __init__(
        self, cache: Cache[Any, Any], segment: Segment, ground: Ground, octets: int, body: bytes = b""
    ) -> None:
        self.cache = cache
        self.segment = segment
        self.until = ground.until
        self.marks = b"".join(sorted(map(_mark, ground.names)))  # 8 octets each
        self.octets = octets + _PER_NAME * len(ground.names)
        """Of memory, the body not counted."""
        self.body = body
        """The large part, which is held once for all entries of one sort that have the same."""
        self.keys: tuple[Any, ...] = ()
        self.at = -1
        """The second in which it was used last."""


class Segment:
    """Entries of one sort, least recently used first, with their own count of memory."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.order: OrderedDict[CachedAnswer, CachedAnswer] = OrderedDict()
        self.octets = 0
        self._bodies: dict[bytes, tuple[bytes, int]] = {}  # each with how many entries share it

    def __len__(self) -> int:
        return len(self.order)

    def put(self, entry: CachedAnswer) -> None:
        """Count an entry."""
        self.order[entry] = entry
        self.octets += entry.octets
        if entry.body:
            entry.body, sharing = self._bodies.get(entry.body, (entry.body, 0))
            self._bodies[entry.body] = entry.body, sharing + 1
            self.octets += 0 if sharing else len(entry.body)

    def take(self, entry: CachedAnswer) -> None:
        """Count it no more."""
        del self.order[entry]
        self.octets -= entry.octets
        if entry.body:
            body, sharing = self._bodies.pop(entry.body)
            if sharing > 1:
                self._bodies[body] = body, sharing - 1
            self.octets -= 0 if sharing > 1 else len(body)


class MemoryLimit:
    """The memory that all caches of a process take together: `limit` octets. `clock` gives Unix seconds."""

    def __init__(self, limit: int, changes: Changes, clock: Callable[[], int]) -> None:
        self.limit = limit
        self.clock = clock
        self.found = Segment(limit)
        self.absent = Segment(limit // NEGATIVE_SHARE)
        self.meanings = Segment(limit // MEANING_SHARE)
        """What requests mean, which is always true."""
        self.evicted = 0
        """Entries that left because memory ran out, since the start."""
        self.forgotten = 0
        """Entries that left because one of their names changed."""
        self.expired = 0
        """Entries whose time was over when they were asked for."""
        self.changes = changes
        self._latest = 0
        # Names are kept as hashes in buckets: a table of strings would take a kilobyte for each entry.
        self._mask = (1 << max(8, (limit >> 16).bit_length())) - 1
        self._buckets: list[tuple[CachedAnswer, ...]] = [()] * (self._mask + 1)
        changes.subscribe(self._changed)

    @property
    def octets(self) -> int:
        """Memory in use."""
        return self.found.octets + self.absent.octets + self.meanings.octets

    @property
    def number(self) -> int:
        """`Changes.published`, for what is true as of now."""
        return self.changes.published

    def steady(self, now: int) -> bool:
        """Is nothing kept from the future of `now`? Where the clock was set back, everything is forgotten."""
        if now + SKEW < self._latest:
            self._latest = now
            self.clear()
            return False
        self._latest = max(self._latest, now)
        return True

    def takes(self, segment: Segment, octets: int, ground: Ground) -> bool:
        """May something of so many octets be kept: is it still true, and small enough to be worth it?"""
        now = self.clock()
        self.steady(now)
        return (
            octets <= segment.limit // LARGEST_SHARE
            and ground.until > now
            and not self.changes.touched(ground.number, ground.names)
        )

    def clear(self) -> None:
        """Forget everything."""
        for segment in (self.found, self.absent, self.meanings):
            for entry in list(segment.order):
                entry.cache.drop(entry)

    # for caches

    def add(self, entry: CachedAnswer) -> None:
        """Count an entry, and find it by its names."""
        entry.segment.put(entry)
        for bucket in self._places(entry):
            self._buckets[bucket] += (entry,)

    def remove(self, entry: CachedAnswer) -> None:
        """The opposite."""
        entry.segment.take(entry)
        for bucket in self._places(entry):
            self._buckets[bucket] = tuple(other for other in self._buckets[bucket] if other is not entry)

    def evict(self) -> None:
        """Drop until every limit holds: of negative answers and meanings first, then of all."""
        for segment in (self.meanings, self.absent):
            while segment.octets > segment.limit:
                self._drop_oldest(segment)
        while self.octets > self.limit:
            self._drop_oldest(self.found if self.found.order else self.absent)

    def _drop_oldest(self, segment: Segment) -> None:
        self.evicted += 1
        oldest = next(iter(segment.order))
        oldest.cache.drop(oldest)

    def _changed(self, change: Change) -> None:
        if change.everything:
            self.forgotten += len(self.found) + len(self.absent)
            self.clear()
            return
        if not change.names:
            self._make_again()
        for name in change.names:
            mark = _mark(name)
            for entry in self._buckets[int.from_bytes(mark, "little") & self._mask]:
                if mark in entry.marks:  # a match across two marks forgets one entry too many, about never
                    self.forgotten += 1
                    entry.cache.drop(entry)

    def _make_again(self) -> None:
        """Let what was made for this second be made once more: what it says of itself has changed."""
        for segment in (self.found, self.absent):
            for entry in reversed(segment.order):  # those of this second are the last, beside new ones
                if -1 < entry.at < self._latest:
                    break
                entry.at = -1

    def _places(self, entry: CachedAnswer) -> set[int]:
        """The buckets that an entry stands in."""
        marks = entry.marks
        return {int.from_bytes(marks[i : i + 8], "little") & self._mask for i in range(0, len(marks), 8)}


K = TypeVar("K", bound=Hashable)
E = TypeVar("E", bound=CachedAnswer)
V = TypeVar("V")


class Cache(Generic[K, E]):
    """Entries by key, within a budget that it shares with others."""

    def __init__(self, budget: MemoryLimit) -> None:
        self.budget = budget
        self.clock = budget.clock
        self.changes = budget.changes
        self.table: dict[K, E] = {}
        """Every key known; whoever takes an entry from here calls `fresh` before giving it away."""

    def get(self, key: K) -> E | None:
        """The entry under a key, while it holds."""
        if self.changes.told[0] > self.changes.published:
            self.changes.catch_up()
        entry = self.table.get(key)
        if entry is None:
            return None
        now = self.clock()
        return entry if entry.at == now or self.fresh(entry, now) else None

    def fresh(self, entry: E, now: int) -> bool:
        """Note that an entry is used in the second `now`; False: its time is over, it is gone."""
        if entry.at == now:
            return True
        if not self.budget.steady(now):
            return False
        if now >= entry.until:
            self.budget.expired += 1
            self.drop(entry)
            return False
        entry.at = now
        entry.segment.order.move_to_end(entry)
        return True

    def put(self, key: K, entry: E) -> None:
        """Keep an entry that the budget takes, in place of what the key leads to."""
        self.forget(key)
        known: Any = entry.segment.order.get(entry)  # of this very cache: others' entries are never equal
        if known is None:
            known = entry
            self.budget.add(known)
        elif len(known.keys) >= MOST_KEYS:
            self.forget(known.keys[0])
        known.keys += (key,)
        self._grow(known, self.key_octets(key))
        self.table[key] = known
        self.budget.evict()

    def forget(self, key: K) -> None:
        """Forget a key, and the entry if no other leads to it."""
        entry = self.table.get(key)
        if entry is None:
            return
        if len(entry.keys) == 1:
            self.drop(entry)
            return
        del self.table[key]
        entry.keys = tuple(other for other in entry.keys if other != key)
        self._grow(entry, -self.key_octets(key))

    def drop(self, entry: E) -> None:
        """Forget an entry that is there."""
        for key in entry.keys:
            del self.table[key]
        self.budget.remove(entry)

    def key_octets(self, key: K) -> int:
        """Memory that a key takes, where entries do not count it themselves."""
        return 0

    def _grow(self, entry: E, octets: int) -> None:
        entry.octets += octets
        entry.segment.octets += octets


class CachedValue(CachedAnswer, Generic[V]):
    """One value, with what it stands on so that others can be made of it."""

    __slots__ = ("ground", "value")

    def __init__(self, cache: Cache[Any, Any], segment: Segment, ground: Ground, octets: int, value: V) -> None:
        super().__init__(cache, segment, ground, octets)
        self.value = value
        self.ground = ground


class Values(Cache[K, CachedValue[V]]):
    """Values by key."""

    _OBJECTS = 500  # octets that a row takes beside its value
    _NAMED = 180  # octets of each name in its ground

    def keep(self, key: K, value: V, octets: int, ground: Ground, segment: Segment) -> bool:
        """Keep a value of so many octets, its key's included; False where the budget does not take it."""
        if not self.budget.takes(segment, octets, ground):
            return False
        self.put(
            key, CachedValue(self, segment, ground, octets + self._OBJECTS + self._NAMED * len(ground.names), value)
        )
        return True


def _mark(name: Name) -> bytes:
    """Eight octets for a name, another choice in every process."""
    return (hash(name) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
