"""`Administration` in the cache's own SQLite file, on the store's writer and scanner."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

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
from keyserver.store.sqlite.session import Session
from keyserver.store.sqlite.writing import Writing

T = TypeVar("T")

_TIDIED = 64  # acts between two looks at the bounds
_TOKEN = "SELECT id, name, role, digest, made_at, made_by FROM token"  # noqa: S105
_ACT = "SELECT at, who, way, place, act, certificate, facts, refusal, number FROM act"


class Connections(Protocol):
    """The store's way to its connections."""

    async def read(self, function: Callable[[Session], T], *, long: bool = False) -> T:
        """Run a function on the reader, or, where it may take longer, on the scanner. Raises StoreError."""

    async def write(self, work: Callable[[Writing], T], durable: bool = True) -> T:
        """One transaction on the writer, carried to its end. Raises StoreError."""


class SqliteAdministration:
    """Promises: see `Administration`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def add_token(self, token: StoredToken) -> bool:
        """As `Administration.add_token`."""
        row = (token.id, token.name, token.role, token.digest, token.made_at, token.made_by)
        sql = "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return await self._changed(sql, row) > 0

    async def tokens(self) -> Sequence[StoredToken]:
        """As `Administration.tokens`."""
        rows = await self._connections.read(lambda db: db.execute(f"{_TOKEN} ORDER BY name").fetchall())
        return tuple(StoredToken(*row) for row in rows)

    async def token(self, id_: str) -> StoredToken | None:
        """As `Administration.token`."""
        row = await self._connections.read(lambda db: db.execute(f"{_TOKEN} WHERE id = ?", (id_,)).fetchone())
        return StoredToken(*row) if row else None

    async def revoke_token(self, name: str) -> bool:
        """As `Administration.revoke_token`."""

        def revoke(writing: Writing) -> bool:
            rows = writing.db.execute("DELETE FROM token WHERE name = ? RETURNING id", (name,)).fetchall()
            writing.db.executemany("DELETE FROM session WHERE token = ?", rows)
            return bool(rows)

        return await self._connections.write(revoke)

    async def begin_session(self, session: StoredSession) -> None:
        """As `Administration.begin_session`."""
        row = (session.digest, session.token, session.begun_at, session.used_at, session.place)
        older = "SELECT digest FROM session WHERE token = ? ORDER BY begun_at DESC, digest LIMIT -1 OFFSET ?"

        def begin(writing: Writing) -> None:
            writing.db.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?)", row)
            values = (session.token, MAX_SESSIONS)
            writing.db.execute(f"DELETE FROM session WHERE digest IN ({older})", values)  # noqa: S608

        await self._connections.write(begin, durable=False)

    async def session(self, digest: bytes) -> StoredSession | None:
        """As `Administration.session`."""
        sql = "SELECT digest, token, begun_at, used_at, place FROM session WHERE digest = ?"
        row = await self._connections.read(lambda db: db.execute(sql, (digest,)).fetchone())
        return StoredSession(*row) if row else None

    async def use_session(self, digest: bytes, at: int) -> None:
        """As `Administration.use_session`."""
        sql = "UPDATE session SET used_at = max(used_at, ?) WHERE digest = ?"
        await self._changed(sql, (at, digest), durable=False)

    async def end_session(self, digest: bytes) -> bool:
        """As `Administration.end_session`."""
        return await self._changed("DELETE FROM session WHERE digest = ?", (digest,)) > 0

    async def end_sessions(self, token: str) -> int:
        """As `Administration.end_sessions`."""
        return await self._changed("DELETE FROM session WHERE token = ?", (token,))

    async def sessions(self) -> Mapping[str, int]:
        """As `Administration.sessions`."""
        sql = "SELECT token, count(*) FROM session GROUP BY token"
        return await self._connections.read(lambda db: dict(db.execute(sql).fetchall()))

    async def tidy_sessions(self, begun_before: int, used_before: int) -> int:
        """As `Administration.tidy_sessions`."""
        sql = "DELETE FROM session WHERE begun_at < ? OR used_at < ?"
        return await self._changed(sql, (begun_before, used_before), durable=False)

    async def note(self, act: StoredAct) -> int:
        """As `Administration.note`."""

        def append(writing: Writing) -> int:
            facts = json.dumps(act.facts, ensure_ascii=True)
            row = (act.at, act.who, act.way, act.place, act.act, act.certificate, facts, act.refusal)
            columns = "(at, who, way, place, act, certificate, facts, refusal)"
            sql = f"INSERT INTO act {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING number"  # noqa: S608
            number: int = writing.db.execute(sql, row).fetchall()[0][0]
            if number % _TIDIED == 0:
                _tidy(writing.db, act.at)
            return number

        return await self._connections.write(append)

    async def acts(self, what: ActFilter, limit: int, before: int | None = None) -> Sequence[StoredAct]:
        """As `Administration.acts`."""
        given: dict[str, Any] = {
            "who = ?": what.who,
            "act = ?": what.act,
            "certificate = ?": what.certificate,
            "at >= ?": what.since,
            "at < ?": what.until,
            "number < ?": before,
        }
        conditions = {condition: value for condition, value in given.items() if value is not None}
        where = " AND ".join(conditions) or "1"
        sql = f"{_ACT} WHERE {where} ORDER BY number DESC LIMIT ?"
        values = (*conditions.values(), limit)
        rows = await self._connections.read(lambda db: db.execute(sql, values).fetchall(), long=True)
        return tuple(_act(row) for row in rows)

    async def forget(self, fact: str) -> int:
        """As `Administration.forget`."""
        sql = "UPDATE act SET facts = replace(facts, ?1, ?2) WHERE instr(facts, ?1)"

        def erase(writing: Writing) -> int:
            writing.db.set("secure_delete", "ON")
            return writing.db.execute(sql, (json.dumps(fact), json.dumps(FORGOTTEN))).rowcount

        return await self._connections.write(erase)

    async def _changed(self, sql: str, values: Sequence[object], *, durable: bool = True) -> int:
        """How many rows one statement changes."""
        return await self._connections.write(lambda w: w.db.execute(sql, values).rowcount, durable)


def _act(row: tuple[Any, ...]) -> StoredAct:
    at, who, way, place, act, certificate, facts, refusal, number = row
    return StoredAct(at, who, way, place, act, certificate, json.loads(facts), bool(refusal), number)


def _tidy(db: sqlite3.Connection, now: int) -> None:
    """Keep the bounds: by number within each sort, and by age. Numbers grow with time, so the oldest have the least.

    By age go no more than have come: what a wrong clock takes for old must not go all at once."""
    for refusal, most in ((0, MAX_ACTS), (1, MAX_REFUSALS)):
        last = "SELECT number FROM act WHERE refusal = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2"
        db.execute(f"DELETE FROM act WHERE refusal = ?1 AND number <= ({last})", (refusal, most))  # noqa: S608
    oldest = "SELECT number FROM act ORDER BY number LIMIT ?"
    db.execute(f"DELETE FROM act WHERE number IN ({oldest}) AND at < ?", (_TIDIED, now - KEEP_ACTS))  # noqa: S608
