"""Changes of all nodes, as one node reads them: by the difference of two snapshots.

Neither numbers nor times say what is new: transactions commit in another order than they began. What was in progress at
the last look, or began after it, is new when it is visible.
https://www.postgresql.org/docs/15/functions-info.html#FUNCTIONS-PG-SNAPSHOT
"""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.model import Name
from keyserver.store.postgres.connections import Connection

MAX_PUBLISHED = 10_000  # names; beyond that it is "everything"
KEEP = 3600  # seconds

_FIRST = (
    "SELECT pg_current_snapshot()::text AS snapshot, pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,"
    " generation_1() >> 40 AS timeline, (SELECT mark FROM life)::text AS life"
)
_LIFE = "INSERT INTO life (mark) VALUES (gen_random_uuid()) ON CONFLICT DO NOTHING"
_NEWS = """
SELECT pg_current_snapshot()::text AS snapshot, pg_snapshot_xmin(pg_current_snapshot())::text AS xmin,
    generation_1() >> 40 AS timeline, (SELECT xid FROM tidied)::text AS tidied, (SELECT mark FROM life)::text AS life,
    NULL::text AS xid, NULL::boolean AS everything, NULL::text[] AS names
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, c.xid::text, c.everything, c.names FROM (
    SELECT x.* FROM change AS x WHERE x.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
    UNION ALL
    SELECT x.* FROM pg_snapshot_xip($1::text::pg_snapshot) AS y JOIN change AS x ON x.xid = y
    LIMIT {most}
) AS c
"""
_MOST = 5000  # changes


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where changes are known."""

    snapshot: str
    xmin: int
    timeline: int
    life: str
    """Of the server, from one crash to the next: numbers of transactions mean something within it only."""


@dataclass(frozen=True, slots=True)
class News:
    """What is new since a position: the changes with their transactions, or None where that cannot be said."""

    position: Position
    changes: tuple[tuple[str, bool, frozenset[Name]], ...] | None


async def forget_foreign(db: Connection) -> None:
    """Forget what another server numbered, whose dump this database was made from. Nothing that a snapshot shows is
    beyond its end; numbers that are would be new to every node at every poll."""
    await db.execute("DELETE FROM change WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())")
    await db.execute("UPDATE tidied SET xid = '0' WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())")


async def position(db: Connection) -> Position:
    """Now."""
    while True:
        row = await db.fetchrow(_FIRST)
        assert row is not None
        if row["life"] is not None:
            return Position(row["snapshot"], int(row["xmin"]), row["timeline"], row["life"])
        await db.execute(_LIFE)


async def news(db: Connection, since: Position) -> News:
    """What is new since then, in one statement."""
    head, *rows = await db.fetch(_NEWS.format(most=_MOST + 1), since.snapshot)
    if head["life"] is None:
        return News(await position(db), None)
    now = Position(head["snapshot"], int(head["xmin"]), head["timeline"], head["life"])
    missed = int(head["tidied"]) >= since.xmin or (now.timeline, now.life) != (since.timeline, since.life)
    if missed or len(rows) > _MOST or sum(len(row["names"]) for row in rows) > MAX_PUBLISHED:
        return News(now, None)
    return News(now, tuple((row["xid"], row["everything"], frozenset(row["names"])) for row in rows))


async def tidy(db: Connection) -> None:
    """Forget old changes and leases, and fold counts together; nothing where another node is at it."""
    async with db.transaction():
        if not await db.fetchval("SELECT pg_try_advisory_xact_lock($1)", _TIDYING):
            return
        await db.execute(
            "WITH gone AS (DELETE FROM change WHERE at < clock_timestamp() - make_interval(secs => $1) RETURNING xid)"
            " UPDATE tidied SET xid = greatest(tidied.xid, last.xid)"
            " FROM (SELECT xid FROM gone ORDER BY xid DESC LIMIT 1) AS last",
            float(KEEP),
        )
        await db.execute("DELETE FROM lease WHERE until < clock_timestamp() - interval '1 minute'")
        await db.execute(
            "WITH gone AS (DELETE FROM delta RETURNING what, n)"
            " INSERT INTO tally AS t SELECT what, sum(n) FROM gone GROUP BY what"
            " ON CONFLICT (what) DO UPDATE SET n = t.n + excluded.n"
        )


_TIDYING = 0x4B735464  # advisory lock
