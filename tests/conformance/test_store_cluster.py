"""What the store promises about the nodes that share its database."""

from __future__ import annotations

from keyserver.store.base import Store
from keyserver.store.cluster import Node

ONE = Node("1", "one", "0.1", {"cache.ttl": "1d"})


async def test_a_node_alone_leads(store: Store) -> None:
    cluster = store.cluster
    beat = await cluster.beat(ONE, willing=True)
    assert beat.leader == "1"
    (member,) = beat.members
    assert member.node == ONE
    assert beat.living(member)
    assert cluster.shared == (beat.at is not None)
    await cluster.leave("1")
