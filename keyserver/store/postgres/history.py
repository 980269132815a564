"""`History` in the cache's PostgreSQL database: what `recording` wrote, read; and what no trigger can know, written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from keyserver.hygiene import Hygiene
from keyserver.model import Kind, Name, Source
from keyserver.store import past
from keyserver.store.history import NOTHING, Bounds, Event, Past, Said
from keyserver.store.keeping import Keeping
from keyserver.store.names import fits
from keyserver.store.past import CANDIDATES, EVENT_COLUMNS, FIRST_SETTINGS, REVOKED, Spoken, State
from keyserver.store.postgres import erasing
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.reading import MAX_CLAIMS
from keyserver.store.postgres.recording import WHOLE
from keyserver.store.postgres.shelves import PostgresShelves, sizes
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing

ANSWERING = 0x4B736177  # first half of advisory locks: who changes what answers for a name
_SETTINGS = 0x4B737365  # advisory lock: settings come one after the other
_MOST_WORDS = 20_000  # of one query

_EVENTS = f"SELECT {EVENT_COLUMNS} FROM event"  # noqa: S608 - our own words
_LATEST = f"{_EVENTS} WHERE number < $1 AND number <> {FIRST_SETTINGS} ORDER BY number DESC LIMIT $2"
_NEWS = f"{_EVENTS} WHERE what <> 'renewed' AND number > $1 AND number < {WHOLE} ORDER BY number LIMIT $2"
_NEWEST = f"SELECT max(number) FROM event WHERE what <> 'renewed' AND number >= 0 AND number < {WHOLE}"  # noqa: S608
_COUNT = f"SELECT count(*) FROM event WHERE what <> 'renewed' AND number > $1 AND number <= $2 AND number < {WHOLE}"  # noqa: S608
_WORDS = (
    "SELECT upstream, since, last, word, gone FROM word WHERE hash = history_hash_1($1) ORDER BY since DESC LIMIT $2"
)
_STORED = f"""
SELECT fingerprint FROM (SELECT fingerprint FROM past_name WHERE name = $1 LIMIT {CANDIDATES}) AS was
UNION
SELECT fingerprint FROM (
    SELECT fingerprint, row_number() OVER (ORDER BY min(place)) AS place FROM (
        SELECT n.fingerprint, row_number() OVER (ORDER BY n.rank, n.at DESC, n.entry) AS place FROM name AS n
        WHERE n.name = $1 ORDER BY n.rank, n.at DESC, n.entry LIMIT {MAX_CLAIMS}
    ) AS claims GROUP BY fingerprint ORDER BY min(place) LIMIT {CANDIDATES}
) AS now
"""  # noqa: S608
# The sum keeps the planner from going backwards over all numbers.
_NUMBERS = "SELECT number FROM event WHERE fingerprint = ANY($1) AND number < $2 ORDER BY number + 0 DESC LIMIT $3"
_OF_CERTIFICATES = f"{_EVENTS} WHERE number = ANY(ARRAY({_NUMBERS})) ORDER BY number DESC"
_OF_ADDRESS = (
    f"{_EVENTS} WHERE address = $1 AND address <> '' AND number < $2 AND kind = $4 ORDER BY number DESC LIMIT $3"
)
_STATES = """
WITH RECURSIVE place AS (
    SELECT f.fingerprint, p.source, p.origin FROM unnest($1::text[]) AS f (fingerprint) CROSS JOIN LATERAL (
        SELECT e.source, e.origin FROM event AS e WHERE e.fingerprint = f.fingerprint AND e.source > ''
        ORDER BY e.source, e.origin LIMIT 1
    ) AS p
    UNION ALL
    SELECT q.fingerprint, p.source, p.origin FROM place AS q CROSS JOIN LATERAL (
        SELECT e.source, e.origin FROM event AS e
        WHERE e.fingerprint = q.fingerprint AND (e.source, e.origin) > (q.source, q.origin)
        ORDER BY e.source, e.origin LIMIT 1
    ) AS p
)
SELECT p.fingerprint, s.kind, p.source, p.origin, s.cached, s.last, s.vouchers, s.chained, s.detail,
    coalesce(a.octets, x.octets) AS octets
FROM place AS p
CROSS JOIN LATERAL (
    SELECT e.* FROM event AS e WHERE e.fingerprint = p.fingerprint AND e.source = p.source AND e.origin = p.origin
        AND e.at <= $2 ORDER BY e.at DESC, e.number DESC LIMIT 1
) AS s
LEFT JOIN LATERAL (
    SELECT c.octets FROM past_span AS t JOIN past_copy AS c ON c.digest = t.copy WHERE t.fingerprint = p.fingerprint
        AND t.source = p.source AND t.origin = p.origin AND t.upto >= s.number ORDER BY t.upto LIMIT 1
) AS a ON true
LEFT JOIN entry AS x ON x.fingerprint = p.fingerprint AND x.source || '' = p.source AND x.origin || '' = p.origin
WHERE s.cached IS NOT NULL
"""
_STANDING = """
SELECT f.fingerprint, b.what = 'blocked' AS blocked, r.number IS NOT NULL AS revoked,
    coalesce(a.octets, v.octets) AS octets
FROM unnest($1::text[]) AS f (fingerprint)
LEFT JOIN LATERAL (
    SELECT e.what FROM event AS e WHERE e.fingerprint = f.fingerprint AND e.source = '' AND e.origin = ''
        AND e.at <= $2 AND e.what IN ('blocked', 'unblocked') ORDER BY e.at DESC, e.number DESC LIMIT 1
) AS b ON true
LEFT JOIN LATERAL (
    SELECT e.number FROM event AS e WHERE e.fingerprint = f.fingerprint AND e.source = '' AND e.origin = ''
        AND e.at <= $2 AND e.what = 'revoked' ORDER BY e.at DESC, e.number DESC LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT c.octets FROM past_span AS t JOIN past_copy AS c ON c.digest = t.copy WHERE t.fingerprint = f.fingerprint
        AND t.source = $3 AND t.origin = '' AND t.upto >= r.number ORDER BY t.upto LIMIT 1
) AS a ON true
LEFT JOIN revocation AS v ON v.fingerprint = f.fingerprint
"""
_CACHED = "SELECT EXISTS (SELECT 1 FROM entry WHERE fingerprint = $1)"
_FIRST = (
    "INSERT INTO answering SELECT $1::text, $2::text, $3::text, $4::bigint"
    " WHERE EXISTS (SELECT 1 FROM entry WHERE fingerprint = $3::text) ON CONFLICT DO NOTHING"
)
_SETTINGS_AT = "SELECT settings FROM past_settings WHERE at <= $1 ORDER BY at DESC, number DESC LIMIT 1"
_REPLACED = (
    f"{_EVENTS} WHERE address = $1 AND address <> '' AND what IN ('replaced', 'deleted') AND kind = $2 AND at > $3"
)
_PLANS = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off"


class PostgresHistory:
    """Promises: see `History`."""

    def __init__(self, connections: Connections, hygiene: Mapping[Kind, Hygiene]) -> None:
        self._connections = connections
        self._hygiene = hygiene
        self._keeping = Keeping(PostgresShelves(connections))

    def limit(self, bounds: Bounds) -> None:
        """As `History.limit`."""
        self._keeping.limit(bounds)

    async def tidy(self, now: int, limit: int) -> int:
        """As `History.tidy`."""
        return await self._keeping.tidy(now, limit)

    async def events(
        self, limit: int, before: int | None = None, fingerprint: str | None = None, names: Sequence[Name] = ()
    ) -> Sequence[Event]:
        """As `History.events`."""
        end = before if before is not None else 1 << 62

        async def read(db: Connection) -> list[Event]:
            if fingerprint is None and not names:
                rows = await db.fetch(_LATEST, end, limit)
                return [past.event(row) for row in rows]
            async with db.transaction(isolation="repeatable_read", readonly=True):
                await db.execute(_PLANS)
                found = {} if fingerprint is None else {text(fingerprint): None}
                for name in names:
                    found |= dict.fromkeys(await _stored(db, name))
                rows = await db.fetch(_OF_CERTIFICATES, list(found), end, limit)
                for kind, address in map(past.address_of, names):
                    if address:
                        rows += await db.fetch(_OF_ADDRESS, text(address), end, limit, kind)
            chosen = {row["number"]: row for row in rows}
            return [past.event(chosen[number]) for number in sorted(chosen, reverse=True)[:limit]]

        return await self._connections.read(read, long=True)

    async def since(self, number: int, limit: int) -> Sequence[Event]:
        """As `History.since`."""
        rows = await self._connections.read(lambda db: db.fetch(_NEWS, max(number, 0), limit))
        return [past.event(row) for row in rows]

    async def newest(self) -> int:
        """As `History.newest`."""
        return await self._connections.read(lambda db: db.fetchval(_NEWEST)) or 0

    async def count(self, after: int, upto: int) -> int:
        """As `History.count`."""
        found: int = await self._connections.read(lambda db: db.fetchval(_COUNT, max(after, 0), upto), long=True)
        return found

    async def words(self, name: Name, limit: int) -> Sequence[Said]:
        """As `History.words`."""
        rows = await self._connections.read(lambda db: _words(db, name, limit))
        return [row.said() for row in rows]

    async def past(self, name: Name, at: int) -> Past:
        """As `History.past`."""

        async def read(db: Connection) -> Past:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                await db.execute(_PLANS)
                return await _past(db, name, at, self._hygiene)

        return await self._connections.read(read, long=True)

    async def failed(self, words: Mapping[tuple[Name, str], int]) -> None:
        """As `History.failed`. In the order in which puts write them."""
        rows = sorted((name, text(upstream), at) for (name, upstream), at in words.items() if fits(name))

        async def write(writing: Writing) -> None:
            if await writing.db.fetchval("SELECT active FROM history"):
                await writing.db.executemany("SELECT say_1($1, $2, 'failed', $3, $3)", rows)

        await self._connections.write(write, durable=False)

    async def answers(
        self,
        view: str,
        name: Name,
        fingerprint: str,
        at: int,
        before: str | None = None,
        facts: Mapping[str, object] = NOTHING,
    ) -> str:
        """As `History.answers`."""
        if not fits(name):
            return ""
        return await self._connections.write(
            lambda w: _answers(w, text(view), name, text(fingerprint), at, before, facts)
        )

    async def answer_first(self, seen: Mapping[tuple[str, Name], tuple[str, int]]) -> None:
        """As `History.answer_first`. In the order of the table's key, so that nodes do not wait for each other in a
        circle."""
        rows = sorted((name, text(view), text(one), at) for (view, name), (one, at) in seen.items() if fits(name))

        async def write(writing: Writing) -> None:
            await writing.lock(())  # no delete meanwhile
            if await writing.db.fetchval("SELECT active FROM history"):
                await writing.db.executemany(_FIRST, rows)

        await self._connections.write(write, durable=False)

    async def settings(self, settings: Mapping[str, object], at: int) -> bool:
        """As `History.settings`."""
        return await self._connections.write(lambda w: _settings(w, past.canonical(settings), at))

    async def copy(self, fingerprint: str, source: Source, origin: str) -> bytes | None:
        """As `History.copy`."""
        sql = (
            "SELECT coalesce((SELECT octets FROM entry WHERE fingerprint = $1 AND source || '' = $2"
            " AND origin || '' = $3), (SELECT c.octets FROM past_span AS s JOIN past_copy AS c ON c.digest = s.copy"
            " WHERE s.fingerprint = $1 AND s.source = $2 AND s.origin = $3 ORDER BY s.upto DESC LIMIT 1))"
        )
        key = (text(fingerprint), str(source), text(origin))
        octets: bytes | None = await self._connections.read(lambda db: db.fetchval(sql, *key))
        return octets

    async def cursor(self, receiver: str) -> int | None:
        """As `History.cursor`."""
        sql = "SELECT number FROM delivery WHERE receiver = $1"
        number: int | None = await self._connections.read(lambda db: db.fetchval(sql, text(receiver)))
        return number

    async def move(self, receiver: str, number: int) -> None:
        """As `History.move`."""
        sql = (
            "INSERT INTO delivery AS d VALUES ($1, $2)"
            " ON CONFLICT (receiver) DO UPDATE SET number = greatest(d.number, excluded.number)"
        )
        await self._connections.write(lambda w: w.db.execute(sql, text(receiver), number))

    async def forget(self, address: str) -> int:
        """As `History.forget`. Dead rows keep it until the server's VACUUM."""
        found = await self._connections.read(lambda db: erasing.bearing(db, address), long=True)
        return await self._connections.write(lambda w: erasing.forget(w, address, found), exclusive=True)

    async def forget_all(self) -> None:
        """As `History.forget_all`."""
        await self._connections.write(lambda w: erasing.erase(w.db, 0), exclusive=True)

    async def size(self) -> tuple[int, int]:
        """As `History.size`."""
        return await self._connections.read(sizes, long=True)


async def _stored(db: Connection, name: Name) -> list[str]:
    """Certificates that are or were stored under a name."""
    return [row[0] for row in await db.fetch(_STORED, name)] if fits(name) else []


async def _words(db: Connection, name: Name, limit: int) -> list[Spoken]:
    """Latest first."""
    return [Spoken(*row) for row in await db.fetch(_WORDS, name, limit)] if fits(name) else []


async def _past(db: Connection, name: Name, at: int, hygiene: Mapping[Kind, Hygiene]) -> Past:
    revocations: dict[str, bytes] = {}
    open_: list[str] = []
    for row in await db.fetch(_STANDING, await _stored(db, name), at, REVOKED):
        if not row["blocked"]:
            open_.append(row["fingerprint"])
        if row["revoked"] and row["octets"] is not None:
            revocations[row["fingerprint"]] = row["octets"]
    rows = await db.fetch(_STATES, open_, at)
    states = [State(*row) for row in rows if row["octets"] is not None]
    words = list(reversed(await _words(db, name, _MOST_WORDS)))
    kind, address = past.address_of(text(name))
    events = [past.event(row) for row in await db.fetch(f"{_REPLACED} ORDER BY number", address, kind, at)]
    now = await db.fetch("SELECT view, fingerprint, at FROM answering WHERE name = $1", text(name))
    settings = await db.fetchval(_SETTINGS_AT, at)
    turned = await db.fetch(past.TURNED.format("", "$1"), at)
    pauses = await db.fetch("SELECT upstream, at FROM pause")
    paused = past.paused([(row[0], row[1]) for row in pauses], [(row[0], row[1]) for row in turned], at)
    whole = await db.fetchval("SELECT whole FROM history")
    if whole is None:
        whole = await db.fetchval("SELECT at FROM event ORDER BY number LIMIT 1") or 0
    known = past.records(name, words, at)
    said, later = past.said(words, at)
    answering = past.answering([(row[0], row[1], row[2]) for row in now], events, at)
    return Past(
        past.snapshot(name, at, states, revocations, known, answering, hygiene),
        said,
        later,
        answering,
        json.loads(settings) if settings is not None else None,
        whole,
        paused,
    )


async def _answers(
    writing: Writing,
    view: str,
    name: Name,
    fingerprint: str,
    at: int,
    before: str | None,
    told: Mapping[str, object],
) -> str:
    db = writing.db
    await writing.lock(())  # no delete meanwhile
    await db.execute("SELECT pg_advisory_xact_lock($1::int, hashtext($2))", ANSWERING, name)
    if not await db.fetchval("SELECT active FROM history"):
        return ""
    row = await db.fetchrow("SELECT fingerprint, at FROM answering WHERE name = $1 AND view = $2", name, view)
    there = str(row["fingerprint"]) if row is not None else ""
    if there == fingerprint or before not in (None, there):
        return there
    if before is not None and not await db.fetchval(_CACHED, fingerprint):
        return there
    await db.execute(
        "INSERT INTO answering VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (name, view) DO UPDATE SET fingerprint = excluded.fingerprint, at = excluded.at",
        name,
        view,
        fingerprint,
        at,
    )
    writing.names.add(name)
    if row is None:
        return ""
    kind, address = past.address_of(name)
    await _event(
        db,
        at,
        "replaced",
        {"fingerprint": fingerprint, "kind": kind, "address": address},
        json.dumps({**told, "view": view, "old": row["fingerprint"], "since": row["at"]}),
    )
    return str(row["fingerprint"])


async def _settings(writing: Writing, settings: str, at: int) -> bool:
    db = writing.db
    await db.execute("SELECT pg_advisory_xact_lock($1)", _SETTINGS)
    last = await db.fetchval("SELECT settings FROM past_settings ORDER BY at DESC, number DESC LIMIT 1")
    if settings == last or not await db.fetchval("SELECT active FROM history"):
        return False
    first = FIRST_SETTINGS if last is None else None
    number = await _event(db, at, "settings", {}, past.differing(last, settings), first)
    await db.execute("INSERT INTO past_settings VALUES ($1, $2, $3)", number, at, settings)
    return True


async def _event(
    db: Connection, at: int, what: str, columns: Mapping[str, str], facts: str, number: int | None = None
) -> Any:
    """Its number: this one, or one of its own."""
    names = ["fingerprint", "kind", "address"]
    return await db.fetchval(
        "INSERT INTO event (number, at, last, what, facts, who, fingerprint, kind, address) VALUES"
        " (coalesce($7, event_number_1()), $1, $1, $2, $3, coalesce(current_setting('keyserver.who', true), ''),"
        " $4, $5, $6) RETURNING number",
        at,
        what,
        facts,
        *(columns.get(name, "") for name in names),
        number,
    )
