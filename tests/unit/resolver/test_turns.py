"""Two nodes on one PostgreSQL database that are asked the same: which of them searches, and what the other does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Answer, Failed, State, View
from keyserver.query import parse
from keyserver.resolver.resolver import Resolver
from keyserver.store.cluster import NOBODY_ELSE, Node
from support.openpgp import make
from support.postgres import fresh, shared
from support.resolving import Ground, sends, until

ALICE = "alice@example.org"
BY_ALICE = make(["Alice <alice@example.org>"], seed="alice")
DEADLINE = 3.0


class Pair:
    """Two nodes that ask the same upstream."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory, self._url = directory, url
        self.grounds = [Ground(directory, url) for _ in range(2)]
        self.one, self.two = self.grounds
        self.upstream = self.one.peer("a", priority=1)
        self.two.peer("a", priority=1)
        for ground in self.grounds:
            ground.change(upstreams={"a": self.upstream}, deadline=DEADLINE, searches=100)
        self.resolvers: list[Resolver] = []

    def another(self) -> Ground:
        """A third node, which asks nobody."""
        return Ground(self._directory, self._url)

    async def open(self) -> None:
        for number, ground in enumerate(self.grounds):
            await ground.store.open()
            self.resolvers.append(ground.resolver())
            await ground.store.cluster.beat(Node(str(number), str(number), "1"), willing=False)
        await self.grounds[0].store.cluster.beat(Node("0", "0", "1"), willing=False)

    async def close(self) -> None:
        for resolver, ground in zip(self.resolvers, self.grounds, strict=True):
            await resolver.close()
            await ground.cleaner.close()
            await ground.store.close()

    async def lookup(self, node: int, term: str = ALICE, via: str = "") -> Answer:
        return await self.resolvers[node].lookup(parse(term), View(), via=via)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    with fresh() as name:
        pair = Pair(tmp_path, shared().url(name))
        await pair.open()
        listening = [asyncio.create_task(g.store.cluster.listen(lambda ago: None)) for g in pair.grounds]
        yield pair
        await pair.close()
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def seconds(lookup: asyncio.Future[Answer]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await lookup
    return loop.time() - began


@pytest.mark.parametrize("found", [True, False])
async def test_twenty_lookups_of_one_name_on_both_are_one_question(pair: Pair, found: bool) -> None:
    pair.upstream.delay = 0.2
    if found:
        pair.upstream.answers[ALICE] = sends(BY_ALICE)
    answers = await asyncio.gather(*(pair.lookup(n % 2) for n in range(20)))
    assert pair.upstream.asked == [ALICE]
    assert {answer.state for answer in answers} == {State.FOUND if found else State.ABSENT}
    assert {len(answer.certificates) for answer in answers} == {int(found)}
    assert any(step.what == "waited" for answer in answers for step in answer.steps)


async def test_who_waits_is_woken_and_does_not_wait_longer(pair: Pair) -> None:
    pair.upstream.delay, pair.upstream.answers[ALICE] = 0.5, sends(BY_ALICE)
    loop = asyncio.get_running_loop()
    ends: list[float] = []

    async def timed(node: int) -> None:
        await pair.lookup(node)
        ends.append(loop.time())

    await asyncio.gather(timed(0), timed(1))
    assert pair.upstream.asked == [ALICE]
    assert ends[1] - ends[0] < 0.3


async def test_other_names_are_searched_at_the_same_time(pair: Pair) -> None:
    pair.upstream.open.clear()
    lookups = [asyncio.create_task(pair.lookup(n, f"n{n}@example.org")) for n in range(2)]
    await until(lambda: pair.upstream.at_once == 2)
    pair.upstream.open.set()
    await asyncio.gather(*lookups)


async def test_after_a_search_that_failed_the_other_tries(pair: Pair) -> None:
    says = iter([Failed("ill"), sends(BY_ALICE)])
    pair.upstream.answers[ALICE] = lambda: next(says)
    pair.upstream.delay = 0.1
    answers = await asyncio.gather(pair.lookup(0), pair.lookup(1))
    assert len(pair.upstream.asked) == 2
    assert pair.upstream.most_at_once == 1
    assert sorted(answer.state for answer in answers) == sorted((State.FAILED, State.FOUND))


async def test_who_began_after_a_delete_does_not_wait_for_who_began_before(pair: Pair) -> None:
    pair.upstream.open.clear()
    pair.upstream.answers[ALICE] = sends(BY_ALICE)
    before = asyncio.create_task(pair.lookup(0))
    await until(lambda: pair.upstream.at_once == 1)
    await pair.one.store.delete(BY_ALICE.fingerprint, pair.one.now)
    after = asyncio.create_task(pair.lookup(1))
    await until(lambda: pair.upstream.at_once == 2)
    pair.upstream.open.set()
    answers = await asyncio.gather(before, after)
    assert answers[1].state is State.FOUND
    assert (await pair.one.store.certificate(BY_ALICE.fingerprint)).entries


async def test_a_holder_that_says_no_more_delays_by_a_third_of_the_deadline(pair: Pair) -> None:
    """A node that has died is one that neither renews its lease nor gives it back."""
    gone = pair.another().store
    await gone.open()
    await gone.cluster.beat(Node("2", "2", "1"), willing=False)
    await gone.cluster.turn(parse(ALICE).name, "a", await gone.begin(), DEADLINE / 3)
    await gone.close()
    pair.upstream.answers[ALICE] = sends(BY_ALICE)
    lookup = asyncio.create_task(pair.lookup(1))
    took = await seconds(lookup)
    assert 0.5 < took < DEADLINE / 3 + 1
    assert lookup.result().state is State.FOUND
    assert pair.upstream.asked == [ALICE]


async def test_a_holder_that_goes_on_is_waited_for_longer(pair: Pair) -> None:
    pair.upstream.delay, pair.upstream.answers[ALICE] = DEADLINE / 2, sends(BY_ALICE)
    answers = await asyncio.gather(pair.lookup(0), pair.lookup(1))
    assert pair.upstream.asked == [ALICE]
    assert {answer.state for answer in answers} == {State.FOUND}


async def test_what_came_through_another_frontend_and_refreshes_wait_for_nobody(pair: Pair) -> None:
    pair.upstream.open.clear()
    first = asyncio.create_task(pair.lookup(0))
    await until(lambda: pair.upstream.at_once == 1)
    others = [asyncio.create_task(pair.lookup(1, via="elsewhere"))]
    await until(lambda: pair.upstream.at_once == 2)
    refresh = asyncio.create_task(pair.resolvers[1].refresh(parse(ALICE)))
    await until(lambda: pair.upstream.at_once == 3)
    pair.upstream.open.set()
    await asyncio.gather(first, refresh, *others)


async def test_turns_are_forgotten_with_their_searches_and_nobody_else_means_none(pair: Pair) -> None:
    pair.upstream.answers[ALICE] = sends(BY_ALICE)
    store = pair.one.store
    await pair.lookup(0)
    async with asyncio.timeout(5):  # who waited for the search does not wait for that
        while await store.read(lambda db: db.fetchval("SELECT count(*) FROM lease")):  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    await pair.two.store.cluster.leave("1")
    await store.cluster.beat(Node("0", "0", "1"), willing=False)
    assert await store.cluster.turn(parse(ALICE).name, "a", 0, 1.0) is NOBODY_ELSE
