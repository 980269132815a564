"""What the store promises about pauses and counts of what upstreams were told."""

from __future__ import annotations

from keyserver.store.base import Store
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
