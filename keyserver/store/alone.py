"""`Cluster` of a store that only one node has."""

from __future__ import annotations

from collections.abc import Callable

from keyserver.model import Name
from keyserver.store.cluster import NOBODY_ELSE, Beat, Member, Node, Turn


class Alone:
    """Promises: see `Cluster`. It always leads, and the only clock is its own."""

    shared = False

    async def at(self) -> float | None:
        """As `Cluster.at`."""
        return None

    async def beat(self, node: Node, *, willing: bool) -> Beat:
        """As `Cluster.beat`."""
        return Beat(None, node.id, (Member(node, 0.0, 0.0),))

    async def listen(self, caught_up: Callable[[float], None]) -> None:
        """As `Cluster.listen`."""

    async def turn(self, name: Name, asks: str, begun: int, seconds: float) -> Turn:
        """As `Cluster.turn`."""
        return NOBODY_ELSE

    async def leave(self, id_: str) -> None:
        """As `Cluster.leave`."""
