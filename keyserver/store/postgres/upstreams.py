"""`AboutUpstreams` in the cache's own PostgreSQL database: pauses, and counts of what upstreams were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keyserver.store import upstreams
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing


class PostgresUpstreams:
    """Promises: see `AboutUpstreams`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def pauses(self) -> Mapping[str, int]:
        """As `AboutUpstreams.pauses`."""
        rows = await self._connections.read(lambda db: db.fetch("SELECT upstream, at FROM pause"))
        return dict(rows)

    async def pause(self, upstream: str, now: int) -> int:
        """As `AboutUpstreams.pause`."""
        sql = (
            "INSERT INTO pause (upstream, at) VALUES ($1, $2)"
            " ON CONFLICT (upstream) DO UPDATE SET at = pause.at RETURNING at"  # as it was, but RETURNING says it
        )
        return await self._connections.write(lambda w: w.db.fetchval(sql, text(upstream), now))

    async def resume(self, upstream: str, now: int | None = None) -> bool:
        """As `AboutUpstreams.resume`."""
        sql = "DELETE FROM pause WHERE upstream = $1 RETURNING true"

        async def work(writing: Writing) -> bool:
            await writing.tell(now)
            return await writing.db.fetchval(sql, text(upstream)) is True

        return await self._connections.write(work)

    async def told(self) -> Mapping[str, bytes]:
        """As `AboutUpstreams.told`."""
        rows = await self._connections.read(lambda db: db.fetch("SELECT upstream, counts FROM told"), long=True)
        return dict(rows)

    async def keep_told(self, upstream: str, before: bytes | None, counts: bytes) -> bool:
        """As `AboutUpstreams.keep_told`."""
        if before is None:
            sql = "INSERT INTO told (upstream, counts) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"
            row: tuple[object, ...] = (text(upstream), counts)
        else:
            sql = "UPDATE told SET counts = $2 WHERE upstream = $1 AND counts = $3 RETURNING true"
            row = (text(upstream), counts, before)
        return await self._connections.write(lambda w: w.db.fetchval(sql, *row), durable=False) is True

    async def add_pace(self, counts: Mapping[tuple[int, str, int], int]) -> None:
        """As `AboutUpstreams.add_pace`. In the order of the table's key, so that nodes do not wait in a circle."""
        sql = (
            "INSERT INTO pace AS p VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (day, upstream, bucket) DO UPDATE SET n = p.n + excluded.n"
        )
        old = "DELETE FROM pace WHERE day < (SELECT max(day) FROM pace) - $1::bigint"
        rows = sorted((day, text(upstream), bucket, n) for (day, upstream, bucket), n in counts.items())

        async def work(writing: Writing) -> None:
            await writing.db.executemany(sql, rows)
            await writing.db.execute(old, upstreams.PACE_DAYS)

        if rows:
            await self._connections.write(work, durable=False)

    async def pace(self, since_day: int) -> Sequence[upstreams.Pace]:
        """As `AboutUpstreams.pace`."""
        sql = "SELECT upstream, day, bucket, n FROM pace WHERE day >= $1"
        rows = await self._connections.read(lambda db: db.fetch(sql, since_day), long=True)
        return upstreams.paces(tuple(row) for row in rows)
