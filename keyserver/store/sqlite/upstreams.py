"""`AboutUpstreams` in the cache's own SQLite file: pauses, and counts of what upstreams were told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keyserver.store import upstreams
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

    async def resume(self, upstream: str, now: int | None = None) -> bool:
        """As `AboutUpstreams.resume`."""
        sql = "DELETE FROM pause WHERE upstream = ? RETURNING 1"

        def work(writing: Writing) -> bool:
            writing.tell(now)
            return bool(writing.db.execute(sql, (upstream,)).fetchall())

        return await self._connections.write(work)

    async def told(self) -> Mapping[str, bytes]:
        """As `AboutUpstreams.told`."""
        return await self._connections.read(lambda db: dict(db.execute("SELECT upstream, counts FROM told")), long=True)

    async def keep_told(self, upstream: str, before: bytes | None, counts: bytes) -> bool:
        """As `AboutUpstreams.keep_told`."""
        if before is None:
            sql = "INSERT INTO told VALUES (?1, ?3) ON CONFLICT DO NOTHING RETURNING 1"
        else:
            sql = "UPDATE told SET counts = ?3 WHERE upstream = ?1 AND counts = ?2 RETURNING 1"

        def work(writing: Writing) -> bool:
            return bool(writing.db.execute(sql, (upstream, before, counts)).fetchall())

        return await self._connections.write(work, durable=False)

    async def add_pace(self, counts: Mapping[tuple[int, str, int], int]) -> None:
        """As `AboutUpstreams.add_pace`."""
        sql = "INSERT INTO pace VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n"
        old = "DELETE FROM pace WHERE day < (SELECT max(day) FROM pace) - ?"

        def work(writing: Writing) -> None:
            writing.db.executemany(sql, [(*place, n) for place, n in counts.items()])
            writing.db.execute(old, (upstreams.PACE_DAYS,))

        if counts:
            await self._connections.write(work, durable=False)

    async def pace(self, since_day: int) -> Sequence[upstreams.Pace]:
        """As `AboutUpstreams.pace`."""
        sql = "SELECT upstream, day, bucket, n FROM pace WHERE day >= ?"
        rows = await self._connections.read(lambda db: db.execute(sql, (since_day,)).fetchall(), long=True)
        return upstreams.paces(rows)
