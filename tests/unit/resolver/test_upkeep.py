"""Upkeep: what is purged and when, what is searched again, and what is written down of who asked."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

import pytest

from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.model import Source, Voucher
from keyserver.policy import MAILFLOW_TTL
from keyserver.query import Query, parse
from keyserver.resolver.membership import Membership
from keyserver.resolver.paused import Paused
from keyserver.resolver.upkeep import PREFETCH_AT_ONCE, PURGE_BATCH, Upkeep
from keyserver.store.alone import Alone
from keyserver.store.base import StoreError
from keyserver.store.cluster import Cluster, Node
from keyserver.store.history import Bounds, What
from support.openpgp import make
from support.resolving import NOW, Ground, renewing

DAY = 86400


@dataclass
class Searching:
    """Stands for the resolver: notes what is to be searched again."""

    again: list[str] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    at_once: int = 0
    most: int = 0

    async def keep_told(self) -> None:
        pass

    async def keep_failures(self) -> None:
        pass

    async def remember(self) -> None:
        pass

    async def refresh(self, query: Query) -> None:
        self.again.append(str(query))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1

    async def know_blocks(self) -> None:
        """Nothing is blocked."""

    def take_asked(self) -> dict[str, int]:
        taken, self.names = self.names, {}
        return taken


@dataclass
class Kept:
    ground: Ground
    searching: Searching = field(default_factory=Searching)
    counting: float = 0.0
    cluster: Cluster = field(default_factory=Alone)

    def __post_init__(self) -> None:
        clocks = Clocks(lambda: self.ground.now, self.ground.monotonic, lambda: self.counting)
        self.membership = Membership(
            self.cluster,
            Node("1", "here", "1.0"),
            Paused(self.ground.store.upstreams, lambda: self.ground.now),
            clocks,
            Changes(),
        )
        self.upkeep = Upkeep(
            self.ground.store,
            self.searching,  # type: ignore[arg-type]
            self.ground.rules,
            self.membership,
            clocks,
            renewing(self.ground),
        )

    def pass_(self, seconds: int) -> None:
        self.ground.now += seconds
        self.counting += seconds

    async def left(self) -> int:
        return sum((await self.ground.store.stats()).entries.values())


async def test_intervals_that_have_begun_go_by_the_rules_of_now(ground: Ground) -> None:
    ground.change(purge_interval=86400, prefetch=False)
    upkeep, purges = Kept(ground).upkeep, asyncio.Event()

    async def purge(*_: object) -> int:
        purges.set()
        return 0

    ground.store.purge_expired = purge  # type: ignore[method-assign, assignment]
    task = asyncio.ensure_future(upkeep.run())
    await asyncio.sleep(0.1)
    assert not purges.is_set()
    ground.change(purge_interval=0.2)
    upkeep.rules_replaced()
    await asyncio.wait_for(purges.wait(), 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_has_expired_goes_by_its_own_sources_time(ground: Ground) -> None:
    ground.peer("long", ttl=3 * DAY)
    ground.peer("a")
    upkeep = Kept(ground)
    await ground.put(make(["a@x.example"], seed="a"), Source.KEYSERVER, "a")
    await ground.put(make(["b@x.example"], seed="b"), Source.KEYSERVER, "long")
    await ground.put(make(["c@x.example"], seed="c"), Source.KEYSERVER, "no upstream any more")
    vouchers = (Voucher("d@x.example", authenticated=True, seen_at=NOW),)
    await ground.put(make(["d@x.example"], seed="d"), Source.MAILFLOW, "x.example", vouchers=vouchers)
    await ground.put(make(["e@x.example"], seed="e"), Source.LOCAL, "admin")
    await ground.said("a@x.example", "a", found=True)
    await ground.said("a@x.example", "long", found=False)
    upkeep.pass_(901)
    assert await upkeep.upkeep.purge() == 1, "the absent record"
    assert await ground.records("a@x.example") == {"a": True}
    upkeep.pass_(DAY - 901)
    assert await upkeep.upkeep.purge() == 0, "a moment too early"
    upkeep.pass_(1)
    assert await upkeep.upkeep.purge() == 3, "two entries and the found record"
    upkeep.pass_(2 * DAY)
    assert await upkeep.upkeep.purge() == 1
    upkeep.pass_(MAILFLOW_TTL - 3 * DAY)
    assert await upkeep.upkeep.purge() == 1
    upkeep.pass_(10 * MAILFLOW_TTL)
    assert await upkeep.upkeep.purge() == 0, "local entries stay"


async def test_what_may_be_answered_stale_stays(ground: Ground) -> None:
    ground.change(terms=replace(ground.terms, serve_stale=3600))
    upkeep = Kept(ground)
    await ground.put(make(["a@x.example"], seed="a"), Source.KEYSERVER, "a")
    upkeep.pass_(DAY + 3600)
    assert await upkeep.upkeep.purge() == 0
    upkeep.pass_(1)
    assert await upkeep.upkeep.purge() == 1


async def test_more_than_one_batch_goes_in_one_purge(ground: Ground) -> None:
    upkeep = Kept(ground)
    for number in range(PURGE_BATCH + 3):
        await ground.said(f"n{number}@x.example", "a", found=False)
    upkeep.pass_(901)
    assert await upkeep.upkeep.purge() == PURGE_BATCH + 3


async def test_a_clock_that_jumps_purges_nothing_until_an_administrator_says_so(ground: Ground) -> None:
    upkeep = Kept(ground)
    await ground.said("a@x.example", "a", found=False)
    ground.now += 10 * DAY
    await upkeep.upkeep.poll()
    assert "jumped" in upkeep.upkeep.clockwatch.complaint
    assert await upkeep.upkeep.purge() == 0
    assert await upkeep.upkeep.purge_now() == 1
    assert not upkeep.upkeep.clockwatch.complaint


async def test_only_what_was_asked_for_and_is_about_to_expire_is_searched_again(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("quick", ttl=1000)
    upkeep = Kept(ground)
    for term, upstream in (("a@x.example", "a"), ("idle@x.example", "a"), ("q@x.example", "quick")):
        await ground.said(term, upstream, found=True)
    upkeep.searching.names = {parse(t).name: NOW + 10 for t in ("a@x.example", "q@x.example")}
    upkeep.pass_(900)
    assert await upkeep.upkeep.prefetch() == 0, "not before the last tenth"
    upkeep.pass_(1)
    assert await upkeep.upkeep.prefetch() == 1
    assert upkeep.searching.again == ["q@x.example"]
    upkeep.pass_(29)
    assert await upkeep.upkeep.prefetch() == 0, "tried a moment ago"
    upkeep.pass_(4)
    assert await upkeep.upkeep.prefetch() == 1
    upkeep.pass_(DAY - 1000)
    assert await upkeep.upkeep.prefetch() == 1
    assert upkeep.searching.again[2:] == ["a@x.example"], "the other has expired by now"


async def test_a_name_that_two_upstreams_found_is_searched_once_and_few_at_once(ground: Ground) -> None:
    ground.peer("a")
    ground.peer("b")
    upkeep = Kept(ground)
    terms = [f"n{number}@x.example" for number in range(3 * PREFETCH_AT_ONCE)]
    for term in terms:
        await ground.said(term, "a", found=True)
        await ground.said(term, "b", found=True)
    upkeep.searching.names = {parse(t).name: NOW + 10 for t in terms}
    upkeep.pass_(DAY - 100)
    assert await upkeep.upkeep.prefetch() == len(terms)
    assert sorted(upkeep.searching.again) == sorted(terms)
    assert upkeep.searching.most == PREFETCH_AT_ONCE


async def test_the_loops_go_on_after_trouble_that_is_told_once(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    ground.change(purge_interval=0, prefetch=False)
    upkeep = Kept(ground)
    purge, calls = ground.store.purge_expired, 0

    async def sometimes(*arguments: object) -> int:
        nonlocal calls
        calls += 1
        if 2 <= calls < 5:
            raise StoreError("disk on fire")
        return await purge(*arguments)  # type: ignore[arg-type]

    ground.store.purge_expired = sometimes  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING):
        task = asyncio.ensure_future(upkeep.upkeep.run())
        while calls < 7:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [r.message for r in caplog.records] == ["purge: disk on fire", "over: purge: disk on fire"]


# --- the history


async def settings_written(ground: Ground) -> int:
    """How often they were; with the first the history begins."""
    changes = sum(event.what is What.SETTINGS for event in await ground.store.history.events(100))
    return changes + bool((await ground.store.history.past(parse("a@example.org").name, ground.now)).settings)


async def test_the_node_that_leads_says_by_which_settings_it_goes_once(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.peer("a")
    kept = Kept(ground)
    monkeypatch.setattr(Membership, "leads", property(lambda _: False))
    await kept.upkeep.note_settings()
    assert await settings_written(ground) == 0
    monkeypatch.undo()
    for _ in range(2):
        await kept.upkeep.note_settings()
        assert await settings_written(ground) == 1
    ground.change(deadline=9.0)
    await kept.upkeep.note_settings()
    assert await settings_written(ground) == 1, "it decides no answer"
    ground.change(subaddress="+")
    await kept.upkeep.note_settings()
    assert await settings_written(ground) == 2


async def test_a_history_that_is_switched_off_goes_in_batches(ground: Ground) -> None:
    kept = Kept(ground)
    for number in range(3):
        kept.pass_(10)
        await ground.put(make([f"a{number}@x.example"], seed=str(number)), Source.LOCAL, "admin")
    ground.store.history.limit(Bounds(0, 1 << 30))
    assert await kept.upkeep.tidy() >= 3
    assert await ground.store.history.events(10) == []
    assert await kept.upkeep.tidy() == 0
