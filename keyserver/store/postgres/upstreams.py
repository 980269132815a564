"""`AboutUpstreams` in the cache's own PostgreSQL database: pauses, and counts of what upstreams were told."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.text import text


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

    async def resume(self, upstream: str) -> bool:
        """As `AboutUpstreams.resume`."""
        sql = "DELETE FROM pause WHERE upstream = $1 RETURNING true"
        return await self._connections.write(lambda w: w.db.fetchval(sql, text(upstream))) is True

    async def told(self) -> Mapping[str, bytes]:
        """As `AboutUpstreams.told`."""
        rows = await self._connections.read(lambda db: db.fetch("SELECT upstream, counts FROM told"), long=True)
        return dict(rows)

    async def keep_told(self, told: Mapping[str, bytes]) -> None:
        """As `AboutUpstreams.keep_told`; always in the same order, so that no two nodes wait for each other."""
        sql = (
            "INSERT INTO told (upstream, counts) SELECT * FROM unnest($1::text[], $2::bytea[])"
            " ON CONFLICT (upstream) DO UPDATE SET counts = excluded.counts"
        )
        names = sorted(told)
        counts = [told[name] for name in names]
        await self._connections.write(lambda w: w.db.execute(sql, list(map(text, names)), counts), durable=False)
