"""What the store promises about pauses and counts of what upstreams were told."""

from __future__ import annotations

from keyserver.store.base import Store
from tests.conformance.conftest import Backend


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
    await store.upstreams.keep_told({"one": b"1", "two": b"\0"})
    await store.upstreams.keep_told({"two": b"22"})
    await store.close()
    async with backend.opened() as (again, _):
        assert await again.upstreams.told() == {"one": b"1", "two": b"22"}
