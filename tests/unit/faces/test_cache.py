"""Several caches within one memory limit: what was used longest ago leaves, and a change is heard by all of them."""

from __future__ import annotations

import pytest

from keyserver.changes import Changes
from keyserver.faces.cache import LARGEST_SHARE, Ground, MemoryLimit, Segment, Values, both
from keyserver.model import Change

START = 1_800_000_000
LIMIT = 100_000


class Process:
    """Two caches of one process."""

    def __init__(self) -> None:
        self.now = START
        self.changes = Changes()
        self.budget = MemoryLimit(LIMIT, self.changes, lambda: self.now)
        self.one: Values[str, str] = Values(self.budget)
        self.other: Values[str, str] = Values(self.budget)

    def ground(self, *names: str, until: int = START + 1000) -> Ground:
        return Ground(frozenset(names), until, self.changes.published)

    def keep(self, cache: Values[str, str], key: str, octets: int = 5000, segment: Segment | None = None) -> bool:
        self.now += 1
        return cache.keep(key, key, octets, self.ground(key), self.budget.found if segment is None else segment)

    def change(self, *names: str, everything: bool = False) -> None:
        self.changes.publish(Change(self.changes.published + 1, frozenset(names), everything))


@pytest.fixture
def process() -> Process:
    return Process()


def test_caches_share_one_limit_and_the_least_recently_used_leaves(process: Process) -> None:
    for n in range(15):
        assert process.keep(process.one, f"old{n}")
    assert process.one.get("old0") is not None  # used since
    for n in range(12):
        assert process.keep(process.other, f"new{n}")
        assert process.budget.octets <= LIMIT
    assert process.one.get("old0") is not None
    assert process.one.get("old1") is None
    assert all(process.other.get(f"new{n}") for n in range(12))
    assert process.budget.evicted == 27 - len(process.budget.found) > 5


def test_equal_keys_of_two_caches_are_two_entries(process: Process) -> None:
    process.keep(process.one, "key")
    process.keep(process.other, "key")
    process.one.forget("key")
    assert process.one.get("key") is None
    assert process.other.get("key") is not None


def test_a_change_is_heard_by_every_cache(process: Process) -> None:
    for cache in (process.one, process.other):
        process.keep(cache, "alice")
        process.keep(cache, "bob")
    process.change("alice")
    assert [cache.get(key) is None for cache in (process.one, process.other) for key in ("alice", "bob")] == [
        True,
        False,
        True,
        False,
    ]
    assert process.budget.forgotten == 2
    process.change(everything=True)
    assert process.budget.octets == 0
    assert not process.one.table and not process.other.table


def test_what_anybody_can_make_never_pushes_answers_out(process: Process) -> None:
    for n in range(10):
        process.keep(process.one, f"found{n}")
    for n in range(300):
        process.keep(process.one, f"absent{n}", 100, process.budget.absent)
        process.keep(process.other, f"meaning{n}", 100, process.budget.meanings)
    assert len(process.budget.found) == 10
    assert 0 < process.budget.absent.octets <= process.budget.absent.limit == LIMIT // 10
    assert 0 < process.budget.meanings.octets <= process.budget.meanings.limit == LIMIT // 32
    assert process.one.get("absent299") is not None
    assert process.one.get("absent0") is None


def test_what_is_too_large_or_no_longer_true_is_not_taken(process: Process) -> None:
    assert process.keep(process.one, "large", LIMIT // LARGEST_SHARE)
    assert not process.keep(process.one, "larger", LIMIT // LARGEST_SHARE + 1)
    assert not process.one.keep("late", "late", 1, process.ground(until=process.now), process.budget.found)
    ground = process.ground("alice")
    process.change("alice")
    assert not process.one.keep("raced", "raced", 1, ground, process.budget.found)


def test_nothing_is_given_past_its_instant(process: Process) -> None:
    process.keep(process.one, "key")
    process.now = START + 999
    assert process.one.get("key") is not None
    process.now = START + 1000
    assert process.one.get("key") is None
    assert (process.budget.expired, process.budget.octets) == (1, 0)


def test_what_is_made_of_two_stands_on_both(process: Process) -> None:
    one, other = Ground(frozenset({"a"}), 10, 7), Ground(frozenset({"b"}), 20, 5)
    assert both(one, other) == Ground(frozenset({"a", "b"}), 10, 5)
