"""`Cluster` of a store that only one node has."""

from __future__ import annotations

from collections.abc import Callable

from keyserver.store.cluster import Beat, Member, Node


class Alone:
    """Promises: see `Cluster`. It always leads, and the only clock is its own."""

    shared = False

    async def beat(self, node: Node, *, willing: bool) -> Beat:
        """As `Cluster.beat`."""
        return Beat(None, node.id, (Member(node, 0.0, 0.0),))

    async def listen(self, caught_up: Callable[[], None]) -> None:
        """As `Cluster.listen`."""

    async def leave(self, id_: str) -> None:
        """As `Cluster.leave`."""
