"""`Cluster` in the cache's own PostgreSQL database, which all nodes share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from keyserver.changes import Changes
from keyserver.model import Name
from keyserver.store.cluster import KEPT, NOBODY_ELSE, TERM, Beat, Member, Node, Turn
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.bell import Bell
from keyserver.store.postgres.text import text
from keyserver.store.postgres.turns import Turns

_AT = "SELECT extract(epoch FROM clock_timestamp())::float8"

# One instant for all of it. What a statement writes, its own reads do not see: our own row comes from `mine`, the
# leader from `led` where that is us. ON CONFLICT waits for rivals and judges the row that they leave.
_BEAT = """
WITH instant AS MATERIALIZED (SELECT extract(epoch FROM clock_timestamp())::float8 AS at),
mine AS (
    INSERT INTO node AS n (id, name, version, settings, lag, since, seen)
    SELECT $1, $2, $3, $4::jsonb, $5, at, at FROM instant
    ON CONFLICT (id) DO UPDATE SET settings = excluded.settings, lag = excluded.lag, seen = excluded.seen
    RETURNING n.id, n.name, n.version, n.settings, n.lag, n.since, n.seen
),
gone AS (
    DELETE FROM node AS n USING instant
    WHERE n.id <> $1 AND (n.seen < at - $8::float8 OR n.name = $2 AND n.seen < at - $7::float8)
    RETURNING n.id
),
resigned AS (DELETE FROM leader WHERE id = $1 AND NOT $6),
led AS (
    INSERT INTO leader AS l (one, id, until) SELECT true, $1, at + $7::float8 FROM instant WHERE $6
    ON CONFLICT (one) DO UPDATE SET id = excluded.id, until = excluded.until
    WHERE l.id = $1 OR l.until < (SELECT at FROM instant)
    RETURNING l.id
)
SELECT at, m.*,
    coalesce((SELECT id FROM led), (SELECT id FROM leader WHERE until >= at AND id <> $1), '') AS leader
FROM instant, (
    SELECT * FROM mine
    UNION ALL
    SELECT id, name, version, settings, lag, since, seen FROM node
    WHERE id <> $1 AND id NOT IN (SELECT id FROM gone)
) AS m
ORDER BY m.name, m.since, m.id
"""


class PostgresCluster:
    """Promises: see `Cluster`."""

    shared = True

    def __init__(self, connections: Connections, bell: Bell, changes: Changes) -> None:
        self._connections = connections
        self._bell = bell
        self._turns = Turns(connections, changes)
        self.alone = False
        """Did the last beat say that no other node lives?"""

    async def at(self) -> float | None:
        """As `Cluster.at`."""
        return await self._connections.read(lambda db: db.fetchval(_AT))

    async def beat(self, node: Node, *, willing: bool) -> Beat:
        """As `Cluster.beat`."""
        settings = json.dumps({text(key): text(value) for key, value in node.settings.items()})
        row = (text(node.id), text(node.name), text(node.version), settings, node.lag, willing, TERM, KEPT)
        rows = await self._connections.write(lambda w: w.db.fetch(_BEAT, *row), durable=False)
        beat = Beat(rows[0]["at"], rows[0]["leader"], tuple(map(_member, rows)))
        self.alone = not any(beat.living(member) and member.node.id != node.id for member in beat.members)
        return beat

    async def listen(self, caught_up: Callable[[float], None]) -> None:
        """As `Cluster.listen`."""
        await self._bell.listen(caught_up)

    async def turn(self, name: Name, asks: str, begun: int, seconds: float) -> Turn:
        """As `Cluster.turn`."""
        return NOBODY_ELSE if self.alone else await self._turns.turn(name, asks, begun, seconds)

    async def leave(self, id_: str) -> None:
        """As `Cluster.leave`."""
        sql = "WITH gone AS (DELETE FROM node WHERE id = $1) DELETE FROM leader WHERE id = $1"
        await self._connections.write(lambda w: w.db.execute(sql, text(id_)), durable=False)


def _member(row: Any) -> Member:
    node = Node(row["id"], row["name"], row["version"], json.loads(row["settings"]), row["lag"])
    return Member(node, row["since"], row["seen"])
