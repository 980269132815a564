"""The history's rows that come and go by its bounds: `Shelves` on a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from keyserver.store.keeping import Kept, Place, Swept
from keyserver.store.past import BEFORE, COPY, DAY, EVENT, WORD
from keyserver.store.postgres import erasing
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.writing import Writing

_BATCH = 2000  # rows looked at, or taken down, at once
_COUNTED = 20_000  # rows of a table that are counted; more are estimated

_LATER = (
    "EXISTS (SELECT 1 FROM event AS s WHERE s.fingerprint = e.fingerprint AND s.source = e.source"
    " AND s.origin = e.origin AND s.at BETWEEN e.at AND $2 AND (s.at > e.at OR s.number > e.number){})"
)
_OVER = (
    "e.at < $2 AND CASE WHEN e.source > '' THEN e.cached IS NULL OR " + _LATER.format("") + " WHEN e.what IN"
    " ('revoked', 'settings') THEN " + _LATER.format(" AND s.what = e.what") + " WHEN e.what = 'blocked' THEN "
    "" + _LATER.format(" AND s.what IN ('blocked', 'unblocked')") + " ELSE true END"
)
_EVENTS = (
    f"SELECT e.number, e.fingerprint, e.at < $2 AS old, {_OVER} AS over FROM event AS e WHERE e.number > $1"  # noqa: S608
    f" ORDER BY e.number LIMIT {_BATCH}"
)
_SPOKEN = (
    "w.last < $4 AND (w.word = 'failed' OR coalesce(w.gone <= $4, false) OR EXISTS (SELECT 1 FROM word AS s WHERE"
    " s.hash = w.hash AND s.upstream = w.upstream AND s.since > w.since AND s.since <= $4 AND s.word <> 'failed'))"
)
_WORDS = (
    f"SELECT w.hash, w.upstream, w.since, {_SPOKEN} AS over FROM word AS w"  # noqa: S608
    f" WHERE (w.hash, w.upstream, w.since) > ($1, $2, $3) ORDER BY w.hash, w.upstream, w.since LIMIT {_BATCH}"
)
_MEMORY = (
    "SELECT a.name, a.view, NOT EXISTS (SELECT 1 FROM name AS n WHERE n.name = a.name)"  # noqa: S608
    " AND NOT EXISTS (SELECT 1 FROM past_name AS p WHERE p.name = a.name) AS over FROM answering AS a"
    f" WHERE (a.name, a.view) > ($1, $2) ORDER BY a.name, a.view LIMIT {_BATCH}"
)
_NOTES = (
    "SELECT r.hash, r.asked_day < $2 AS old, r.asked_day < $2 OR r.fingerprint <> ''"  # noqa: S608
    " AND NOT EXISTS (SELECT 1 FROM entry AS e WHERE e.fingerprint = r.fingerprint)"
    " AND NOT EXISTS (SELECT 1 FROM event AS e WHERE e.fingerprint = r.fingerprint) AS over FROM recipient AS r"
    f" WHERE r.hash > $1 ORDER BY r.hash LIMIT {_BATCH}"
)
_WHOLE = "UPDATE history SET whole = $1 WHERE whole IS NULL OR whole > 0 AND whole < $1"


class PostgresShelves:
    """Promises: see `Shelves`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def kept(self) -> Kept:
        """As `Shelves.kept`."""
        return await self._connections.read(_kept, long=True)

    async def begin(self) -> None:
        """As `Shelves.begin`."""
        await self._connections.write(lambda w: w.db.execute("UPDATE history SET active = true, whole = 0"))

    async def take_down(self, part: int, after: Place | None) -> Place | None:
        """As `Shelves.take_down`."""
        return await self._connections.write(partial(_TAKE_DOWN[part], after=after), durable=False)

    async def taken(self, now: int) -> None:
        """As `Shelves.taken`."""
        await self._connections.write(lambda w: w.db.execute("UPDATE history SET whole = $1", now))

    async def stop(self, limit: int) -> int:
        """As `Shelves.stop`."""
        if not await self._connections.read(lambda db: db.fetchval(_ANY)):
            return 0
        return await self._connections.write(lambda w: erasing.stop(w.db, limit), durable=False)

    async def sweep(self, part: int, after: Place | None, cutoff: int, limit: int) -> Swept:
        """As `Shelves.sweep`."""
        find, first, drop = _SWEEP[part]
        place = after or first
        rows = await self._connections.read(lambda db: find(db, place, cutoff), long=True)
        over = [row for row in rows if row["over"]][:limit]
        if over:
            await self._connections.write(lambda w: drop(w.db, over, cutoff), durable=False)
        if len(over) == limit:
            return Swept(len(over), tuple(over[-1])[: len(first)])
        return Swept(len(over), tuple(rows[-1])[: len(first)] if len(rows) == _BATCH else None)


_ANY = (
    "SELECT active OR EXISTS (SELECT 1 FROM event) OR EXISTS (SELECT 1 FROM word) OR EXISTS (SELECT 1 FROM answering)"
    " OR EXISTS (SELECT 1 FROM recipient) FROM history"
)


async def sizes(db: Connection) -> tuple[int, int]:
    """Events, words and notes of recipients, and octets, about: what is more than a few thousand is taken from the
    server's statistics."""
    events, words = await _rows(db, "event"), await _rows(db, "word") + await _rows(db, "recipient")
    counted, octets = await db.fetchrow(
        "SELECT count(*), coalesce(sum(octet_length(octets)), 0)::bigint"  # noqa: S608 - our own words
        f" FROM (SELECT octets FROM past_copy LIMIT {_COUNTED}) AS c"
    )
    copies = await _rows(db, "past_copy") if counted == _COUNTED else counted
    of_copies = octets * copies // counted if counted else 0
    return events + words, events * EVENT + words * WORD + of_copies + copies * COPY


async def _rows(db: Connection, table: str) -> int:
    few: int = await db.fetchval(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {_COUNTED}) AS t")  # noqa: S608
    if few < _COUNTED:
        return few
    living: int = await db.fetchval("SELECT pg_stat_get_live_tuples($1::regclass)", table)
    return max(few, living)


async def _kept(db: Connection) -> Kept:
    active, whole = await db.fetchrow("SELECT active, whole FROM history")
    first = await db.fetchval("SELECT at FROM event WHERE number >= 0 ORDER BY number LIMIT 1")
    return Kept(active, whole, first, (await sizes(db))[1])


# --- what is there


async def _take_down_entries(writing: Writing, after: Place | None) -> Place | None:
    start = after[0] if after else -1
    rows = await writing.db.fetch("SELECT id FROM entry WHERE id > $1 ORDER BY id LIMIT $2", start, _BATCH)
    if rows:
        await erasing.take_down(writing.db, "e.id BETWEEN $1 AND $2", rows[0][0], rows[-1][0])
    return tuple(rows[-1]) if len(rows) == _BATCH else None


async def _take_down_facts(writing: Writing, after: Place | None) -> Place | None:
    """Blocks, and a batch of revocations."""
    db = writing.db
    known = "NOT EXISTS (SELECT 1 FROM event AS o WHERE o.fingerprint = t.fingerprint AND o.source = '' AND o.what = "
    if after is None:
        await erasing.take_down_blocks(db, f"{known}'blocked')")
    rows = await db.fetch(
        "SELECT fingerprint FROM revocation WHERE fingerprint > $1 ORDER BY fingerprint LIMIT $2",
        after[0] if after else "",
        _BATCH,
    )
    if rows:
        await db.execute(
            "INSERT INTO event (number, at, last, what, fingerprint, kind)"  # noqa: S608
            f" SELECT t.version - {2 * BEFORE}, coalesce(e.at, 0), coalesce(e.at, 0), 'revoked', t.fingerprint,"
            " coalesce(e.kind, '') FROM revocation AS t LEFT JOIN LATERAL (SELECT min(x.at) AS at, min(x.kind) AS kind"
            " FROM entry AS x WHERE x.fingerprint = t.fingerprint) AS e ON true"
            f" WHERE t.fingerprint BETWEEN $1 AND $2 AND {known}'revoked')",
            rows[0][0],
            rows[-1][0],
        )
    return tuple(rows[-1]) if len(rows) == _BATCH else None


async def _take_down_records(writing: Writing, after: Place | None) -> Place | None:
    rows = await writing.db.fetch(
        f"SELECT name, upstream FROM record WHERE (name, upstream) > ($1, $2) ORDER BY name, upstream LIMIT {_BATCH}",  # noqa: S608
        *(after or ("", "")),
    )
    if rows:
        await writing.db.execute(
            "INSERT INTO word SELECT h.hash, r.upstream, r.at, r.at, CASE WHEN r.found THEN 'found' ELSE 'absent' END,"
            " NULL FROM record AS r CROSS JOIN LATERAL (SELECT history_hash_1(r.name) AS hash) AS h"
            " WHERE (r.name, r.upstream) >= ($1, $2) AND (r.name, r.upstream) <= ($3, $4) AND NOT EXISTS (SELECT 1"
            " FROM word AS w WHERE w.hash = h.hash AND w.upstream = r.upstream AND w.word <> 'failed')"
            " ON CONFLICT DO NOTHING",
            *rows[0],
            *rows[-1],
        )
    return tuple(rows[-1]) if len(rows) == _BATCH else None


_TAKE_DOWN = (_take_down_facts, _take_down_entries, _take_down_records)


# --- what goes


async def _find_events(db: Connection, place: Place, cutoff: int) -> Sequence[Any]:
    rows: Sequence[Any] = await db.fetch(_EVENTS, place[0], cutoff)
    if rows and rows[0]["number"] >= 0 and not any(row["old"] for row in rows):
        return []  # numbers go with time: all behind them are later, too
    return rows


async def _drop_events(db: Connection, rows: Sequence[Any], cutoff: int) -> None:
    await erasing.drop(db, [row["number"] for row in rows], {row["fingerprint"] for row in rows})
    await db.execute(_WHOLE, cutoff)


async def _find_words(db: Connection, place: Place, cutoff: int) -> Sequence[Any]:
    rows: Sequence[Any] = await db.fetch(_WORDS, *place, cutoff)
    return rows


async def _drop_words(db: Connection, rows: Sequence[Any], cutoff: int) -> None:
    sql = "DELETE FROM word WHERE hash = $1 AND upstream = $2 AND since = $3"
    await db.executemany(sql, [tuple(row)[:3] for row in rows])
    await db.execute(_WHOLE, cutoff)


async def _find_memory(db: Connection, place: Place, _cutoff: int) -> Sequence[Any]:
    rows: Sequence[Any] = await db.fetch(_MEMORY, *place)
    return rows


async def _drop_memory(db: Connection, rows: Sequence[Any], _cutoff: int) -> None:
    await db.executemany("DELETE FROM answering WHERE name = $1 AND view = $2", [tuple(row)[:2] for row in rows])


async def _find_notes(db: Connection, place: Place, cutoff: int) -> Sequence[Any]:
    rows: Sequence[Any] = await db.fetch(_NOTES, place[0], cutoff // DAY)
    return rows


async def _drop_notes(db: Connection, rows: Sequence[Any], _cutoff: int) -> None:
    """Notes that are too old; of others, certificates that nobody knows any more."""
    for old, sql in (
        (True, "DELETE FROM recipient WHERE hash = ANY($1)"),
        (False, "UPDATE recipient SET fingerprint = '' WHERE hash = ANY($1)"),
    ):
        await db.execute(sql, [row["hash"] for row in rows if row["old"] is old])


_FIRST_EVENT: Place = (-(1 << 62),)
_FIRST_WORD: Place = (b"", "", -1)
_FIRST_NAME: Place = ("", "")
_FIRST_NOTE: Place = (b"",)

_SWEEP = (
    (_find_events, _FIRST_EVENT, _drop_events),
    (_find_words, _FIRST_WORD, _drop_words),
    (_find_memory, _FIRST_NAME, _drop_memory),
    (_find_notes, _FIRST_NOTE, _drop_notes),
)
