"""This node among those that share its cache: it says that it lives, and knows who else does, who leads, what the
database's clock says, and which settings differ.

What only one node may do (purge, prefetch, tidying) is done where it leads. It knows that by its own last beat, and
believes it for less than the others wait: a node that was paused or cut off stops before another begins.

A node that has not known of all changes for a second is detached: what it holds was true then. For a while it still
answers that; afterwards nothing is answered from memory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.config.agreeing import differing
from keyserver.model import EVERYTHING, NO_NAMES
from keyserver.resolver.clockwatch import ClockWatch
from keyserver.resolver.paused import Paused
from keyserver.store.cluster import TERM, Beat, Cluster, Member, Node

BEAT_EVERY = 1.0  # seconds
WATCH_EVERY = 0.1  # seconds
BOUND = 1.0  # seconds within which a delete elsewhere holds everywhere (rule 7)
DETACHED = BOUND - WATCH_EVERY  # seconds without all changes
MARGIN = 2.0  # seconds before the end of its term from which on a node that leads does nothing more
QUICK = 1.0  # seconds: the longest round trip by which clocks are compared
HALF = 0.5  # of a second, which a clock that counts whole ones is behind on average

log = logging.getLogger("keyserver.nodes")


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that another node has otherwise. Values as in the file; empty: it has none."""

    key: str
    here: str
    there: str


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node of the cluster, as this one knows it. Times are Unix seconds by the database's clock."""

    id: str
    name: str
    version: str
    since: int
    seen: int
    lag: float
    """Seconds since it last knew of all changes, as it says itself."""
    living: bool
    leads: bool
    here: bool
    """It is this one."""
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Detached:
    """The database cannot be reached: since when, and is the time over in which what is held is answered?"""

    seconds: float
    over: bool
    bound: int

    @property
    def text(self) -> str:
        """In one line."""
        since = f"detached from the cache database for {self.seconds:.0f} s"
        return f"{since}: nothing is answered from memory" if self.over else f"{since} of {self.bound} s"


class Membership:
    """The node's own. Upkeep calls `beat` every BEAT_EVERY, `watch` every WATCH_EVERY, `caught_up` after each poll."""

    def __init__(
        self,
        cluster: Cluster,
        node: Node,
        paused: Paused,
        clocks: Clocks,
        changes: Changes,
    ) -> None:
        """clocks: go by the database's from the first beat on; changes: heard by all that is held."""
        self._cluster = cluster
        self._node = node
        self._paused = paused
        self._clocks = clocks
        self._counting = counting = clocks.counting
        self._changes = changes
        self.clockwatch = ClockWatch(clocks.own(), counting())
        self.max_detached = 0
        """Seconds; see `server.max_detached`."""
        self.detached: Detached | None = None
        """None: this node knows of all changes."""
        self._beat: Beat | None = None
        self._beaten = 0.0  # counting clock, before the last beat began
        self._caught_up = counting()
        self._said: frozenset[tuple[str, str, str, str]] = frozenset()

    @property
    def shared(self) -> bool:
        """May there be other nodes?"""
        return self._cluster.shared

    @property
    def leads(self) -> bool:
        """Does this node do what only one may?"""
        if not self._cluster.shared:
            return True
        beat = self._beat
        if beat is None or beat.leader != self._node.id or not self.clockwatch.near:
            return False
        return self._counting() - self._beaten < TERM - MARGIN

    def settings(self, settings: Mapping[str, str]) -> None:
        """Other ones hold from here on; see `config.agreeing`."""
        self._node = replace(self._node, settings=settings)

    def caught_up(self, at: float | None = None) -> None:
        """This node knows of all changes that there were at that instant of the counting clock, or now."""
        self._caught_up = max(self._caught_up, self._counting() if at is None else at)

    @property
    def lag(self) -> float:
        """Seconds since then."""
        return self._counting() - self._caught_up

    async def watch(self) -> None:
        """See whether this node is detached, say when that begins and ends, and forget answers when it lasts. Again
        and again then: what is answered meanwhile may be wrong a moment later, too."""
        before, lag = self.detached, self.lag
        if not self._cluster.shared or lag <= DETACHED:
            self.detached = None
            if before is not None:
                self._say_detached(0)
                log.warning("the cache database answers again, after %.0f s", before.seconds)
            return
        self.detached = found = Detached(lag, lag > max(DETACHED, self.max_detached), self.max_detached)
        if before is None:
            self._say_detached(1)
            log.error("detached from the cache database: what is held is answered for %d s", self.max_detached)
        if found.over:
            if before is None or not before.over:
                log.error("%s", found.text)
            self._changes.publish(EVERYTHING)

    def _say_detached(self, detached: int) -> None:
        self._changes.detached[0] = detached
        self._changes.publish(NO_NAMES)

    async def beat(self) -> None:
        """Tell and hear; then go by what was heard. Raises StoreError."""
        node = replace(self._node, lag=round(self.lag, 3))
        began, at = self._counting(), self._clocks.own()
        # who has not yet compared its clock does not take the lead
        beat = await self._cluster.beat(node, willing=self._beat is not None and self.clockwatch.near)
        took = self._counting() - began
        if beat.at is not None and took <= QUICK:
            self.clockwatch.compared(at + HALF + took / 2 - beat.at)
            self._clocks.heard(beat.at, began + took / 2)
        self._beat, self._beaten = beat, began
        self._compare(beat)
        await self._paused.look()

    async def leave(self) -> None:
        """The node ends. Raises StoreError."""
        if self._beat is not None:
            self._beat = None
            await self._cluster.leave(self._node.id)

    def nodes(self) -> tuple[ClusterNode, ...]:
        """All of the cluster, this one too; none where the cache is one node's alone, or nothing was heard yet."""
        beat = self._beat
        if beat is None or not self._cluster.shared:
            return ()
        return tuple(self._seen(beat, member) for member in beat.members)

    def differences(self) -> tuple[ClusterNode, ...]:
        """The living nodes whose settings differ from ours."""
        return tuple(node for node in self.nodes() if node.living and node.differences)

    def _seen(self, beat: Beat, member: Member) -> ClusterNode:
        node = member.node
        return ClusterNode(
            id=node.id,
            name=node.name,
            version=node.version,
            since=int(member.since),
            seen=int(member.seen),
            lag=node.lag,
            living=beat.living(member),
            leads=node.id == beat.leader,
            here=node.id == self._node.id,
            differences=tuple(Difference(*one) for one in differing(self._node.settings, node.settings)),
        )

    def _compare(self, beat: Beat) -> None:
        """Say in the log what differs, once for each change."""
        found = frozenset((n.name, d.key, d.here, d.there) for n in self.differences() for d in n.differences)
        for name, key, here, there in sorted(found - self._said):
            log.warning(
                "node %s has another %s: %s there, %s here; settings that decide what is answered must agree",
                name, key, there or "none", here or "none",
            )  # fmt: skip
        names = {member.node.name for member in beat.members if beat.living(member)}
        for name in sorted({one[0] for one in self._said} - {one[0] for one in found}):
            log.info("node %s %s", name, "agrees with this one again" if name in names else "is gone")
        self._said = found
