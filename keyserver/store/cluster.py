"""What the nodes that share a cache's database know of each other, and which of them leads.

Every line of these docstrings has its test in tests/conformance. It lies in the cache's database; `Store.purge_all`
leaves it alone. Times are Unix seconds by the database's clock, so that all nodes mean the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from keyserver.model import Name

TERM = 10.0
"""Seconds for which a node counts as living, and leads, after its last beat."""

KEPT = 86400.0
"""Seconds for which a node that does not beat any more is still told of."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node says of itself."""

    id: str
    """Made at its start: a node that starts again is another one."""
    name: str
    version: str
    settings: Mapping[str, str] = field(default_factory=dict)
    """Those that must agree among all nodes, by their keys, as one would write them in the file."""
    lag: float = 0.0
    """Seconds since it last knew of all changes."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the others see it."""

    node: Node
    since: float
    seen: float


@dataclass(frozen=True, slots=True)
class Beat:
    """What a beat brings home, all of one instant."""

    at: float | None
    """That instant; None where no clock but our own counts."""
    leader: str
    """The id of the node that leads; empty: none does now."""
    members: tuple[Member, ...]
    """Every node that has beaten lately, by name, then since when."""

    def living(self, member: Member) -> bool:
        """Has it beaten within TERM?"""
        return self.at is None or member.seen > self.at - TERM


class Turn:
    """A node's turn to search for something."""

    def __init__(self, *, waited: bool) -> None:
        self.waited = waited
        """Another node has searched before: what is known may have changed."""

    async def over(self) -> None:
        """The search is over. Raises nothing."""


NOBODY_ELSE: Final = Turn(waited=False)
"""Where no other node lives, it is always one's turn."""


class Cluster(Protocol):
    """Raises StoreError as `Store` does."""

    shared: bool
    """May other nodes work on the same database at the same time?"""

    async def at(self) -> float | None:
        """Unix seconds by the clock that all nodes go by; None where no clock but our own counts."""

    async def beat(self, node: Node, *, willing: bool) -> Beat:
        """Say that this node lives, and learn who else does; one round trip.

        willing: it takes the lead where nobody has it, and keeps it. Only one node leads at a time; who leads stays so
        for TERM after its last beat, unless it leaves or is not willing any more. Nodes that have not beaten for KEPT
        are forgotten, those of our own name after TERM."""

    async def listen(self, caught_up: Callable[[float], None]) -> None:
        """Until cancelled: notice and publish what other nodes change as soon as they have, and call `caught_up` each
        time that all of it is known, with how many seconds ago that was asked for. Raises nothing: where nothing can be
        heard, it goes on when it can. Returns at once where there can be no other node."""

    async def turn(self, name: Name, asks: str, begun: int, seconds: float) -> Turn:
        """Wait until no other node searches for `name` by the same upstreams (`asks`), then have the turn.

        begun: as in `Store.put`. Whoever began before a delete is not waited for by who began after it. A node that
        does not go on (dead, paused, cut off) loses its turn after `seconds` at the latest; one that does keeps it
        until `Turn.over`. No other node lives: at once and at no cost. Raises StoreError: nobody can say."""

    async def leave(self, id_: str) -> None:
        """The node ends: it is forgotten, and leads no more."""
