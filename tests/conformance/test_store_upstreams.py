"""What the store promises about pauses and counts of what upstreams were told."""

from __future__ import annotations

import pytest

from keyserver.store.base import Store
from keyserver.store.upstreams import FAILED, PACE_BOUNDS, PACE_DAYS, pace_bucket
from tests.conformance.conftest import Backend, Heard


async def test_pauses_stay_until_they_are_taken_away(backend: Backend) -> None:
    async with backend.opened() as (store, heard):
        assert await store.upstreams.pause("two", 7) == 7
        assert await store.upstreams.pause("one", 8) == 8
        assert await store.upstreams.pause("two", 9) == 7
        await store.purge_all(10)
        heard.clear()
    async with backend.opened() as (store, heard):
        assert await store.upstreams.pauses() == {"one": 8, "two": 7}
        assert await store.upstreams.resume("one")
        assert not await store.upstreams.resume("one")
        assert await store.upstreams.pauses() == {"two": 7}
        assert heard == [], "no name changes"


async def test_counts_of_each_upstream_are_kept(backend: Backend, store: Store) -> None:
    assert await store.upstreams.keep_told("one", None, b"1")
    assert await store.upstreams.keep_told("two", None, b"\0")
    assert await store.upstreams.keep_told("two", b"\0", b"22")
    await store.close()
    async with backend.opened() as (again, _):
        assert await again.upstreams.told() == {"one": b"1", "two": b"22"}


async def test_counts_that_another_has_kept_meanwhile_stay(store: Store, other: tuple[Store, Heard]) -> None:
    assert await store.upstreams.keep_told("one", None, b"1")
    for before in (None, b"", b"2"):
        assert not await other[0].upstreams.keep_told("one", before, b"3")
    assert await other[0].upstreams.keep_told("one", b"1", b"3")
    assert not await store.upstreams.keep_told("one", b"1", b"4")
    assert not await store.upstreams.keep_told("none", b"1", b"4")
    assert await store.upstreams.told() == {"one": b"3"}


async def test_paces_add_up_over_processes_and_the_oldest_go(store: Store, other: tuple[Store, Heard]) -> None:
    await store.upstreams.add_pace({(100, "two", 3): 4, (100, "one", 3): 1, (100, "two", FAILED): 2})
    await other[0].upstreams.add_pace({(100, "two", 3): 5, (101, "two", len(PACE_BOUNDS)): 1})
    await other[0].upstreams.add_pace({})
    found = await store.upstreams.pace(100)
    assert [(p.upstream, p.day, p.failed) for p in found] == [("one", 100, 0), ("two", 100, 2), ("two", 101, 0)]
    assert found[1].buckets == tuple(9 if n == 3 else 0 for n in range(len(PACE_BOUNDS) + 1))
    assert found[2].buckets[-1] == 1
    assert [p.day for p in await store.upstreams.pace(101)] == [101]
    await store.upstreams.add_pace({(100 + PACE_DAYS, "two", 0): 1})
    assert [p.day for p in await store.upstreams.pace(0)] == [100, 100, 101, 100 + PACE_DAYS]
    await store.upstreams.add_pace({(101 + PACE_DAYS, "two", 0): 1})
    assert [p.day for p in await store.upstreams.pace(0)] == [101, 100 + PACE_DAYS, 101 + PACE_DAYS]


@pytest.mark.parametrize(("seconds", "bucket"), [(0, 0), (0.005, 0), (0.0051, 1), (0.2, 9), (10, 19), (10.1, 20)])
def test_an_answer_is_counted_by_the_first_bound_that_it_kept(seconds: float, bucket: int) -> None:
    assert pace_bucket(seconds) == bucket
