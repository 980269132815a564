"""What the store promises about the nodes that share its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyserver.store.base import Store
from keyserver.store.cluster import KEPT, TERM, Beat, Cluster, Node
from support import postgres
from tests.conformance.conftest import KINDS, Backend

ONE = Node("1", "one", "0.1", {"cache.ttl": "1d"})
TWO = Node("2", "two", "0.2", {"cache.ttl": "2d", "upstream[\U0001f511].url": "hkp://x"}, 0.25)

SHARED = [kind for kind in KINDS if kind != "sqlite"]
"""The stores that several nodes can have."""


@pytest.fixture(params=SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return Backend(request.param, tmp_path)


@pytest.fixture
async def pair(shared: Backend) -> AsyncIterator[tuple[Cluster, Cluster]]:
    """Two nodes' view of one database."""
    async with shared.opened() as (one, _), shared.opened() as (two, _):
        yield one.cluster, two.cluster
    shared.close()


def pass_(backend: Backend, seconds: float) -> None:
    """Time passes for what the nodes have written."""
    postgres.shared().sql(
        f"UPDATE node SET seen = seen - {seconds}, since = since - {seconds}",
        f"UPDATE leader SET until = until - {seconds}",
        database=backend.database,
    )


def names(beat: Beat) -> list[tuple[str, bool]]:
    return [(member.node.id, beat.living(member)) for member in beat.members]


async def test_a_node_alone_leads(store: Store) -> None:
    cluster = store.cluster
    beat = await cluster.beat(ONE, willing=True)
    assert beat.leader == "1"
    (member,) = beat.members
    assert member.node == ONE
    assert beat.living(member)
    assert cluster.shared == (beat.at is not None)
    await cluster.leave("1")


async def test_the_clock_of_all_is_that_of_the_beats(store: Store) -> None:
    at = await store.cluster.at()
    beat = await store.cluster.beat(ONE, willing=False)
    assert (at is None) == (beat.at is None)
    if at is not None and beat.at is not None:
        assert at <= beat.at < at + 30


async def test_each_hears_what_the_others_say_of_themselves(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    await one.beat(ONE, willing=False)
    first = await two.beat(TWO, willing=False)
    assert [member.node for member in first.members] == [ONE, TWO]
    other = replace(ONE, settings={"cache.ttl": "3d"}, lag=1.5)
    again = await one.beat(other, willing=False)
    assert [member.node for member in again.members] == [other, TWO]
    assert first.at is not None
    assert again.at is not None
    mine, hers = again.members
    assert mine.since == first.members[0].since < hers.since == hers.seen == first.at < mine.seen == again.at
    assert [member.node for member in (await two.beat(TWO, willing=False)).members] == [other, TWO]


async def test_hostile_words_of_a_node_are_kept_as_text(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    await one.beat(Node("1\0", "\ud800", "'; --", {"a\0b": "\udfff\\u0000"}), willing=False)
    beat = await two.beat(TWO, willing=False)
    assert len(beat.members) == 2
    await one.leave("1\0")
    assert len((await two.beat(TWO, willing=False)).members) == 1


async def test_only_who_is_willing_leads_and_only_one(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    assert (await one.beat(ONE, willing=False)).leader == ""
    assert (await two.beat(TWO, willing=True)).leader == "2"
    assert (await one.beat(ONE, willing=True)).leader == "2"
    assert (await two.beat(TWO, willing=False)).leader == "", "it gives the lead up"
    assert (await one.beat(ONE, willing=True)).leader == "1"
    assert (await two.beat(TWO, willing=True)).leader == "1"


async def test_who_does_not_beat_leads_for_a_term_more(shared: Backend, pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    await one.beat(ONE, willing=True)
    pass_(shared, TERM - 2)
    beat = await two.beat(TWO, willing=True)
    assert (beat.leader, names(beat)) == ("1", [("1", True), ("2", True)])
    pass_(shared, 2)
    beat = await two.beat(TWO, willing=True)
    assert (beat.leader, names(beat)) == ("2", [("1", False), ("2", True)])
    assert (await one.beat(ONE, willing=True)).leader == "2", "who comes back finds another in its place"


async def test_who_leaves_is_forgotten_and_leads_no_more(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    await one.beat(ONE, willing=True)
    await two.beat(TWO, willing=True)
    await one.leave("1")
    beat = await two.beat(TWO, willing=True)
    assert (beat.leader, names(beat)) == ("2", [("2", True)])


async def test_who_is_gone_is_told_of_for_a_day_or_until_it_is_back(
    shared: Backend, pair: tuple[Cluster, Cluster]
) -> None:
    one, two = pair
    await one.beat(ONE, willing=True)
    pass_(shared, KEPT - 100)
    assert names(await two.beat(TWO, willing=True)) == [("1", False), ("2", True)]
    pass_(shared, TERM)
    again = replace(TWO, id="3")
    assert names(await two.beat(again, willing=True)) == [("1", False), ("3", True)], "started again"
    pass_(shared, 100)
    assert names(await two.beat(again, willing=True)) == [("3", True)]


async def test_of_many_that_come_at_once_one_leads(shared: Backend) -> None:
    nodes = [Node(str(n), f"n{n}", "1") for n in range(12)]
    async with shared.opened() as (store, _):
        for _ in range(5):
            pass_(shared, TERM)  # nobody leads any more
            beats = await asyncio.gather(*(store.cluster.beat(node, willing=True) for node in nodes))
            assert sum(beat.leader == node.id for beat, node in zip(beats, nodes, strict=True)) == 1
    shared.close()


async def test_the_nodes_are_no_part_of_what_is_purged(pair: tuple[Cluster, Cluster], shared: Backend) -> None:
    await pair[0].beat(ONE, willing=True)
    async with shared.opened() as (store, heard):
        await store.purge_all(1)
        heard.clear()
        assert names(await store.cluster.beat(TWO, willing=True)) == [("1", True), ("2", True)]
        assert heard == [], "no name changes"


# --- whose turn it is to search


async def test_a_node_alone_has_every_turn_at_once(store: Store) -> None:
    cluster = store.cluster
    await cluster.beat(ONE, willing=True)
    turns = [await cluster.turn("openpgp:addr:a@x.example", "a", 0, 10.0) for _ in range(3)]
    assert [turn.waited for turn in turns] == [False] * 3
    for turn in turns:
        await turn.over()


async def test_one_has_the_turn_and_the_other_waits_for_its_end(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    turn = await one.turn("name", "a", 5, 30.0)
    assert not turn.waited
    for name, asks in (("name", "b"), ("other", "a"), ("odd\0\ud800" * 1000, "a")):
        async with asyncio.timeout(1):
            await (await two.turn(name, asks, 5, 30.0)).over()
    waiting = asyncio.create_task(two.turn("name", "a", 5, 30.0))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await turn.over()
    async with asyncio.timeout(1):
        taken = await waiting
    assert taken.waited
    await turn.over()  # it is not its own any more
    again = asyncio.create_task(one.turn("name", "a", 4, 30.0))
    await asyncio.sleep(0.3)
    assert not again.done()
    await taken.over()
    await (await again).over()


async def test_who_began_after_a_delete_waits_for_nobody_who_began_before(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    old = await one.turn("name", "a", 5, 30.0)
    async with asyncio.timeout(1):
        new = await two.turn("name", "a", 6, 30.0)
    assert not new.waited
    await old.over()
    third = asyncio.create_task(one.turn("name", "a", 6, 30.0))
    await asyncio.sleep(0.3)
    assert not third.done()
    await new.over()
    await (await third).over()


async def test_a_turn_lasts_for_as_long_as_its_node_goes_on(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    turn = await one.turn("name", "a", 5, 0.6)
    waiting = asyncio.create_task(two.turn("name", "a", 5, 0.6))
    await asyncio.sleep(1.5)
    assert not waiting.done()
    await turn.over()
    await (await waiting).over()


async def test_of_many_that_want_it_at_once_one_has_the_turn(pair: tuple[Cluster, Cluster]) -> None:
    have: list[int] = []

    async def search(number: int) -> None:
        turn = await pair[number % 2].turn("name", "a", 5, 30.0)
        have.append(number)
        assert len(have) == 1
        await asyncio.sleep(0.02)
        have.remove(number)
        await turn.over()

    async with asyncio.timeout(30):
        await asyncio.gather(*(search(number) for number in range(10)))
