"""`AboutUpstreams` in the cache's own SQLite file: pauses, and counts of what upstreams were told."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.writing import Writing


class SqliteUpstreams:
    """Promises: see `AboutUpstreams`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def pauses(self) -> Mapping[str, int]:
        """As `AboutUpstreams.pauses`."""
        return await self._connections.read(lambda db: dict(db.execute("SELECT upstream, at FROM pause")))

    async def pause(self, upstream: str, now: int) -> int:
        """As `AboutUpstreams.pause`."""

        def work(writing: Writing) -> int:
            writing.db.execute("INSERT INTO pause VALUES (?, ?) ON CONFLICT DO NOTHING", (upstream, now))
            at: int = writing.db.execute("SELECT at FROM pause WHERE upstream = ?", (upstream,)).fetchone()[0]
            return at

        return await self._connections.write(work)

    async def resume(self, upstream: str) -> bool:
        """As `AboutUpstreams.resume`."""
        sql = "DELETE FROM pause WHERE upstream = ? RETURNING 1"
        return await self._connections.write(lambda w: bool(w.db.execute(sql, (upstream,)).fetchall()))

    async def told(self) -> Mapping[str, bytes]:
        """As `AboutUpstreams.told`."""
        return await self._connections.read(lambda db: dict(db.execute("SELECT upstream, counts FROM told")), long=True)

    async def keep_told(self, told: Mapping[str, bytes]) -> None:
        """As `AboutUpstreams.keep_told`."""
        sql = "INSERT INTO told VALUES (?1, ?2) ON CONFLICT DO UPDATE SET counts = ?2"

        def work(writing: Writing) -> None:
            writing.db.executemany(sql, list(told.items()))

        await self._connections.write(work, durable=False)
