"""`Administration` in the cache's own PostgreSQL database, which all nodes share."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import asyncpg

from keyserver.store.administration import (
    FORGOTTEN,
    KEEP_ACTS,
    MAX_ACTS,
    MAX_REFUSALS,
    MAX_SESSIONS,
    ActFilter,
    StoredAct,
    StoredSession,
    StoredToken,
)
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing

T = TypeVar("T")

_TIDIED = 64  # acts between two looks at the bounds
_NOTES = 0x6B73_0001  # advisory lock: acts come in the order of their numbers, so that no page misses one
_TOKEN = "SELECT id, name, role, digest, made_at, made_by FROM token"  # noqa: S105
_ACT = "SELECT at, who, way, place, act, certificate, facts, refusal, number FROM act"


class Connections(Protocol):
    """The store's way to its connections."""

    async def read(self, work: Callable[[asyncpg.Connection], Awaitable[T]], *, long: bool = False) -> T:
        """Read on one connection, or, where it may take longer, on another. Raises StoreError."""

    async def write(
        self, work: Callable[[Writing], Awaitable[T]], durable: bool = True, *, exclusive: bool = False
    ) -> T:
        """One transaction, carried to its end. Raises StoreError."""


class PostgresAdministration:
    """Promises: see `Administration`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def add_token(self, token: StoredToken) -> bool:
        """As `Administration.add_token`."""
        row = (text(token.id), text(token.name), text(token.role), token.digest, token.made_at, text(token.made_by))
        columns = "(id, name, role, digest, made_at, made_by)"
        sql = f"INSERT INTO token {columns} VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"  # noqa: S608
        return await self._changed(sql, *row) > 0

    async def tokens(self) -> Sequence[StoredToken]:
        """As `Administration.tokens`."""
        rows = await self._connections.read(lambda db: db.fetch(f"{_TOKEN} ORDER BY name"))
        return tuple(StoredToken(*row) for row in rows)

    async def token(self, id_: str) -> StoredToken | None:
        """As `Administration.token`."""
        row = await self._connections.read(lambda db: db.fetchrow(f"{_TOKEN} WHERE id = $1", text(id_)))
        return StoredToken(*row) if row else None

    async def revoke_token(self, name: str) -> bool:
        """As `Administration.revoke_token`."""
        sql = (
            "WITH gone AS (DELETE FROM token WHERE name = $1 RETURNING id),"
            " ended AS (DELETE FROM session WHERE token IN (SELECT id FROM gone))"
            " SELECT EXISTS (SELECT 1 FROM gone)"
        )
        return await self._connections.write(lambda w: w.db.fetchval(sql, text(name)))

    async def begin_session(self, session: StoredSession) -> None:
        """As `Administration.begin_session`."""
        row = (session.digest, text(session.token), session.begun_at, session.used_at, text(session.place))
        columns = "(digest, token, begun_at, used_at, place)"
        older = "SELECT digest FROM session WHERE token = $1 ORDER BY begun_at DESC, digest OFFSET $2"

        async def begin(writing: Writing) -> None:
            await writing.db.execute(f"INSERT INTO session {columns} VALUES ($1, $2, $3, $4, $5)", *row)  # noqa: S608
            sql = f"DELETE FROM session WHERE digest IN ({older})"  # noqa: S608
            await writing.db.execute(sql, text(session.token), MAX_SESSIONS)

        await self._connections.write(begin, durable=False)

    async def session(self, digest: bytes) -> StoredSession | None:
        """As `Administration.session`."""
        sql = "SELECT digest, token, begun_at, used_at, place FROM session WHERE digest = $1"
        row = await self._connections.read(lambda db: db.fetchrow(sql, digest))
        return StoredSession(*row) if row else None

    async def use_session(self, digest: bytes, at: int) -> None:
        """As `Administration.use_session`."""
        await self._changed(
            "UPDATE session SET used_at = $2 WHERE digest = $1 AND used_at < $2", digest, at, durable=False
        )

    async def end_session(self, digest: bytes) -> bool:
        """As `Administration.end_session`."""
        return await self._changed("DELETE FROM session WHERE digest = $1", digest) > 0

    async def end_sessions(self, token: str) -> int:
        """As `Administration.end_sessions`."""
        return await self._changed("DELETE FROM session WHERE token = $1", text(token))

    async def sessions(self) -> Mapping[str, int]:
        """As `Administration.sessions`."""
        sql = "SELECT token, count(*) FROM session GROUP BY token"
        rows = await self._connections.read(lambda db: db.fetch(sql))
        return dict(rows)

    async def tidy_sessions(self, begun_before: int, used_before: int) -> int:
        """As `Administration.tidy_sessions`."""
        sql = "DELETE FROM session WHERE begun_at < $1 OR used_at < $2"
        return await self._changed(sql, begun_before, used_before, durable=False)

    async def note(self, act: StoredAct) -> int:
        """As `Administration.note`."""
        facts = json.dumps(act.facts, ensure_ascii=True)
        words = [text(word) for word in (act.who, act.way, act.place, act.act, act.certificate)]
        columns = "(at, who, way, place, act, certificate, facts, refusal)"
        sql = f"INSERT INTO act {columns} VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING number"  # noqa: S608

        async def append(writing: Writing) -> int:
            await writing.db.execute("SELECT pg_advisory_xact_lock($1)", _NOTES)
            number: int = await writing.db.fetchval(sql, act.at, *words, facts, act.refusal)
            if number % _TIDIED == 0:
                await _tidy(writing.db, act.at)
            return number

        return await self._connections.write(append)

    async def acts(self, what: ActFilter, limit: int, before: int | None = None) -> Sequence[StoredAct]:
        """As `Administration.acts`."""
        given = {
            "who =": None if what.who is None else text(what.who),
            "act =": None if what.act is None else text(what.act),
            "certificate =": None if what.certificate is None else text(what.certificate),
            "at >=": what.since,
            "at <": what.until,
            "number <": before,
        }
        chosen = {condition: value for condition, value in given.items() if value is not None}
        where = " AND ".join(f"{condition} ${place}" for place, condition in enumerate(chosen, 1)) or "true"
        sql = f"{_ACT} WHERE {where} ORDER BY number DESC LIMIT ${len(chosen) + 1}"
        rows = await self._connections.read(lambda db: db.fetch(sql, *chosen.values(), limit), long=True)
        return tuple(_act(row) for row in rows)

    async def forget(self, fact: str) -> int:
        """As `Administration.forget`."""
        sql = "UPDATE act SET facts = replace(facts, $1, $2) WHERE strpos(facts, $1) > 0"
        return await self._changed(sql, json.dumps(fact), json.dumps(FORGOTTEN), durable=True)

    async def _changed(self, sql: str, *values: object, durable: bool = True) -> int:
        """How many rows one statement changes."""
        status = await self._connections.write(lambda w: w.db.execute(sql, *values), durable)
        return int(status.rpartition(" ")[2])  # "DELETE 3", "INSERT 0 1"


def _act(row: Sequence[Any]) -> StoredAct:
    at, who, way, place, act, certificate, facts, refusal, number = row
    return StoredAct(at, who, way, place, act, certificate, json.loads(facts), refusal, number)


async def _tidy(db: asyncpg.Connection, now: int) -> None:
    """Keep the bounds: by number within each sort, and by age. Numbers grow with time, so the oldest have the least.

    By age go no more than have come: what a wrong clock takes for old must not go all at once."""
    for refusal, most in ((False, MAX_ACTS), (True, MAX_REFUSALS)):
        last = "SELECT number FROM act WHERE refusal = $1 ORDER BY number DESC LIMIT 1 OFFSET $2"
        await db.execute(f"DELETE FROM act WHERE refusal = $1 AND number <= ({last})", refusal, most)  # noqa: S608
    oldest = "SELECT number FROM act ORDER BY number LIMIT $1"
    await db.execute(f"DELETE FROM act WHERE number IN ({oldest}) AND at < $2", _TIDIED, now - KEEP_ACTS)  # noqa: S608
