"""A node among others: when it leads, whose clock it goes by, what it says of settings that differ and of pauses."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import pytest

from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.model import Change, Source
from keyserver.resolver.clockwatch import APART, NEAR
from keyserver.resolver.membership import MARGIN, QUICK, Detached, Membership
from keyserver.resolver.paused import Paused
from keyserver.resolver.upkeep import Upkeep
from keyserver.store.base import StoreError
from keyserver.store.cluster import TERM, Beat, Member, Node
from support.openpgp import make
from support.resolving import NOW, Ground, renewing

ME, OTHER = Node("1", "here", "1.0", {"cache.ttl": "1d"}), Node("2", "there", "1.1", {"cache.ttl": "1d"})


@dataclass
class Scripted:
    """A cluster whose database's clock, leader and other nodes are the test's."""

    at: float = NOW + 0.5
    leader: str = "1"
    others: tuple[Node, ...] = ()
    seen: float = 0.0  # seconds ago
    took: float = 0.0
    shared: bool = True
    willing: list[bool] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    heard: list[Node] = field(default_factory=list)
    counting: float = 0.0
    down: bool = False

    async def beat(self, node: Node, *, willing: bool) -> Beat:
        self.willing.append(willing)
        self.heard.append(node)
        if self.down:
            raise StoreError("nobody answers")
        self.counting += self.took
        others = tuple(Member(other, self.at - 60, self.at - self.seen) for other in self.others)
        return Beat(self.at, self.leader if willing or self.leader != "1" else "", (Member(node, 1, self.at), *others))

    async def leave(self, id_: str) -> None:
        self.gone.append(id_)


@dataclass
class Kept:
    ground: Ground
    cluster: Scripted = field(default_factory=Scripted)
    changes: Changes = field(default_factory=Changes)
    forgotten: list[float] = field(default_factory=list)
    made_again: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.paused = Paused(self.ground.store.upstreams, lambda: self.ground.now)
        self.clocks = Clocks(lambda: self.ground.now, self.ground.monotonic, lambda: self.cluster.counting)
        self.membership = Membership(
            self.cluster,
            ME,
            self.paused,
            self.clocks,
            self.changes,
        )
        self.membership.max_detached = 60
        self.changes.subscribe(self._heard)

    def _heard(self, change: Change) -> None:
        (self.forgotten if change.everything else self.made_again).append(self.cluster.counting)

    async def beat(self, *, times: int = 1) -> Membership:
        for _ in range(times):
            await self.membership.beat()
        return self.membership


@pytest.fixture
def kept(ground: Ground) -> Kept:
    return Kept(ground)


async def test_the_lead_is_taken_only_once_clocks_are_compared(kept: Kept) -> None:
    assert not kept.membership.leads
    assert not (await kept.beat()).leads
    assert (await kept.beat()).leads
    assert kept.cluster.willing == [False, True]
    await kept.membership.leave()
    assert kept.cluster.gone == ["1"]
    assert not kept.membership.leads


async def test_a_leader_that_hears_nothing_stops_before_another_begins(kept: Kept) -> None:
    await kept.beat(times=2)
    kept.cluster.down = True
    with pytest.raises(StoreError):
        await kept.beat()
    kept.cluster.counting += TERM - MARGIN - 0.1
    assert kept.membership.leads
    kept.cluster.counting += 0.1
    assert not kept.membership.leads


async def test_the_time_a_beat_took_counts_against_it(kept: Kept) -> None:
    kept.cluster.took = TERM
    assert not (await kept.beat(times=2)).leads


async def test_another_leads(kept: Kept) -> None:
    kept.cluster.leader, kept.cluster.others = "2", (OTHER,)
    assert not (await kept.beat(times=2)).leads
    assert [(node.name, node.leads, node.here) for node in kept.membership.nodes()] == [
        ("here", False, True),
        ("there", True, False),
    ]


@pytest.mark.parametrize("ahead", [3, -3, 7200, -7200])
async def test_a_clock_that_is_far_from_the_databases_leads_nothing(
    kept: Kept, ahead: int, caplog: pytest.LogCaptureFixture
) -> None:
    await kept.beat(times=2)
    kept.ground.now += ahead
    assert not (await kept.beat(times=2)).leads
    assert kept.cluster.willing[-1] is False
    assert not kept.membership.clockwatch.near
    side = "ahead of" if ahead > 0 else "behind"
    assert f"{side} the database's" in kept.membership.clockwatch.complaint
    assert caplog.text.count("the database's") == 1, "said once"
    kept.ground.now -= ahead
    assert (await kept.beat(times=2)).leads
    assert "goes with the database's again" in caplog.text


async def test_clocks_are_not_compared_by_a_slow_answer(kept: Kept) -> None:
    kept.cluster.took = QUICK + 0.1
    kept.ground.now += 100
    await kept.beat()
    assert kept.membership.clockwatch.near


async def test_the_node_goes_by_the_databases_clock_and_watches_its_own(kept: Kept) -> None:
    await kept.beat()
    kept.ground.now += 7200
    kept.cluster.counting += 1.0
    assert kept.clocks.now() == NOW + 1
    assert not kept.membership.clockwatch.look(kept.clocks.own(), kept.clocks.counting()), "it has jumped"
    kept.cluster.at += 50.0
    kept.cluster.took = QUICK + 0.1
    await kept.beat()
    assert kept.clocks.now() < NOW + 10, "a slow answer says nothing"
    kept.cluster.took = 0.0
    await kept.beat()
    assert kept.clocks.now() == NOW + 50


async def test_between_far_and_near_nothing_changes(kept: Kept) -> None:
    watch = kept.membership.clockwatch
    watch.compared(APART - 0.1)
    assert watch.near
    watch.compared(APART + 0.1)
    watch.compared(NEAR + 0.1)
    assert not watch.near
    assert not watch.look(kept.ground.now, 0.0), "nothing is deleted"
    watch.compared(NEAR - 0.1)
    assert watch.look(kept.ground.now, 0.0)


async def test_other_settings_are_said_once_for_each_change(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    kept.cluster.others = (replace(OTHER, settings={"cache.ttl": "2d", "view[x].answer_mailflow": "true"}),)
    await kept.beat(times=3)
    assert caplog.text.count("node there has another cache.ttl: 2d there, 1d here") == 1
    (differing,) = kept.membership.differences()
    assert [(d.key, d.here, d.there) for d in differing.differences] == [("cache.ttl", "1d", "2d")]
    kept.membership.settings({"cache.ttl": "3d"})
    await kept.beat(times=2)
    assert caplog.text.count("2d there, 3d here") == 1
    caplog.set_level(logging.INFO)
    kept.membership.settings({"cache.ttl": "2d"})
    await kept.beat(times=2)
    assert caplog.text.count("node there agrees with this one again") == 1


async def test_a_node_that_is_gone_differs_no_more(kept: Kept) -> None:
    kept.cluster.others, kept.cluster.seen = (replace(OTHER, settings={}),), TERM
    await kept.beat()
    assert [(node.name, node.living) for node in kept.membership.nodes()] == [("here", True), ("there", False)]
    assert kept.membership.differences() == ()


async def test_pauses_of_other_nodes_hold_here(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    await kept.ground.store.upstreams.pause("a", 7)
    await kept.beat()
    assert kept.paused.since("a") == 7
    await kept.ground.store.upstreams.resume("a")
    await kept.beat()
    assert "a" not in kept.paused
    assert "a was paused on another node" in caplog.text
    assert "a was resumed on another node" in caplog.text


async def test_a_pause_of_ours_is_not_taken_back_by_what_was_read_before_it(ground: Ground) -> None:
    store = ground.store.upstreams
    paused = Paused(store, lambda: ground.now)
    pauses = store.pauses

    async def slowly() -> dict[str, int]:
        found = dict(await pauses())
        await paused.pause("a")
        return found

    store.pauses = slowly  # type: ignore[method-assign]
    await paused.look()
    assert "a" in paused


class Unasked:
    """In the place of a resolver that nobody asked anything."""

    async def remember(self) -> None:
        pass


async def test_what_one_node_does_is_done_where_it_leads(kept: Kept) -> None:
    ground = kept.ground
    upkeep = Upkeep(
        ground.store,
        Unasked(),  # type: ignore[arg-type]  # nothing is searched
        ground.rules,
        kept.membership,
        kept.clocks,
        renewing(ground),
    )
    await ground.put(make(["a@x.example"], seed="a"), Source.KEYSERVER, "a")
    kept.cluster.leader = "2"
    await kept.beat(times=2)
    past = ground.terms.ttl + 1
    ground.now += past
    kept.cluster.counting += past
    kept.cluster.at += past
    await kept.beat()
    assert await upkeep.purge() == 0
    assert await upkeep.erase_undos() == 0
    assert await upkeep.prefetch() == 0
    assert await upkeep.purge_now() >= 1, "an administrator's word holds everywhere"


async def test_lag_is_the_time_since_all_changes_were_known(kept: Kept) -> None:
    kept.membership.caught_up()
    kept.cluster.counting += 2.5
    await kept.beat()
    assert kept.cluster.heard[-1].lag == 2.5


async def test_what_a_poll_brings_is_as_old_as_its_question(kept: Kept) -> None:
    kept.cluster.counting = 2.0
    kept.membership.caught_up(1.25)
    assert kept.membership.lag == 0.75
    kept.membership.caught_up(1.0)
    assert kept.membership.lag == 0.75, "it is not forgotten again"


async def test_cut_off_for_too_long_nothing_held_is_answered(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    membership, cluster = kept.membership, kept.cluster
    cluster.counting = 0.9
    await membership.watch()
    assert membership.detached is None
    cluster.counting = 60.0
    await membership.watch()
    assert membership.detached == Detached(60.0, over=False, bound=60)
    assert kept.changes.detached[0], "what is held says so"
    assert membership.detached.text == "detached from the cache database for 60 s of 60 s"
    assert kept.forgotten == []
    for cluster.counting in (60.1, 60.35):
        await membership.watch()
    assert membership.detached.over
    assert kept.forgotten == [60.1, 60.35], "what was answered since falls as well"
    assert caplog.text.count("nothing is answered from memory") == 1
    membership.caught_up()
    await membership.watch()
    assert membership.detached is None
    assert not kept.changes.detached[0]
    assert "the cache database answers again, after 60 s" in caplog.text
    assert kept.made_again == [60.0, 60.35], "what is held says so from that moment on, and no longer"


async def test_where_a_block_must_hold_at_once_nothing_is_answered_beyond_a_second(kept: Kept) -> None:
    kept.membership.max_detached = 0
    for kept.cluster.counting in (0.9, 0.91):
        await kept.membership.watch()
    assert kept.forgotten == [0.91], "seen within a tenth of a second"


async def test_who_has_the_cache_alone_is_never_detached(kept: Kept) -> None:
    kept.cluster.shared = False
    kept.cluster.counting = 1e6
    await kept.membership.watch()
    assert kept.membership.detached is None
