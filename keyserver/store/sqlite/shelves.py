"""The history's rows that come and go by its bounds: `Shelves` on an SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from keyserver.store.keeping import Kept, Place, Swept
from keyserver.store.past import BEFORE, DAY
from keyserver.store.sqlite import erasing
from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.reading import history_counts, history_octets, history_words
from keyserver.store.sqlite.session import Session
from keyserver.store.sqlite.writing import Writing

_BATCH = 2000  # rows looked at, or taken down, at once

_LATER = (
    "EXISTS (SELECT 1 FROM event AS s WHERE s.fingerprint = e.fingerprint AND s.source = e.source"
    " AND s.origin = e.origin AND s.at BETWEEN e.at AND :cutoff AND (s.at > e.at OR s.number > e.number){})"
)
_OVER = (
    "e.at < :cutoff AND CASE WHEN e.source > '' THEN e.cached IS NULL OR " + _LATER.format("") + " WHEN e.what IN"
    " ('revoked', 'settings') THEN " + _LATER.format(" AND s.what = e.what") + " WHEN e.what = 'blocked' THEN "
    "" + _LATER.format(" AND s.what IN ('blocked', 'unblocked')") + " ELSE 1 END"
)
_EVENTS = (
    f"SELECT e.number, e.at < :cutoff, {_OVER}, e.fingerprint FROM event AS e WHERE e.number > :after"  # noqa: S608
    f" ORDER BY e.number LIMIT {_BATCH}"
)
_SPOKEN = (
    "w.last < :cutoff AND (w.word = 'failed' OR w.gone <= :cutoff OR EXISTS (SELECT 1 FROM word AS s WHERE"
    " s.hash = w.hash AND s.upstream = w.upstream AND s.since > w.since AND s.since <= :cutoff AND s.word <> 'failed'))"
)
_WORDS = (
    f"SELECT w.hash, w.upstream, w.since, {_SPOKEN} FROM word AS w"  # noqa: S608
    f" WHERE (w.hash, w.upstream, w.since) > (:hash, :upstream, :since)"
    f" ORDER BY w.hash, w.upstream, w.since LIMIT {_BATCH}"
)
_MEMORY = (
    "SELECT a.name, a.view, NOT EXISTS (SELECT 1 FROM name AS n WHERE n.name = a.name)"  # noqa: S608
    " AND NOT EXISTS (SELECT 1 FROM past_name AS p WHERE p.name = a.name) FROM answering AS a"
    f" WHERE (a.name, a.view) > (:name, :view) ORDER BY a.name, a.view LIMIT {_BATCH}"
)
_NOTES = (
    "SELECT r.hash, r.asked_day < :day, r.asked_day < :day OR r.fingerprint <> ''"  # noqa: S608
    " AND NOT EXISTS (SELECT 1 FROM entry AS e WHERE e.fingerprint = r.fingerprint)"
    " AND NOT EXISTS (SELECT 1 FROM event AS e WHERE e.fingerprint = r.fingerprint) FROM recipient AS r"
    f" WHERE r.hash > :hash ORDER BY r.hash LIMIT {_BATCH}"
)
_WHOLE = "UPDATE history SET whole = max(coalesce(whole, 0), ?) WHERE whole IS NOT 0"


class SqliteShelves:
    """Promises: see `Shelves`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def kept(self) -> Kept:
        """As `Shelves.kept`; notes how many words there are, for whoever puts."""
        known, words = await self._connections.read(lambda db: (history_counts(db)[1], history_words(db)), long=True)
        if abs(words - known) > known // 100:
            sql = "UPDATE history SET words = ?"
            await self._connections.write(lambda w: w.db.execute(sql, (words,)), durable=False)
        return await self._connections.read(_kept)

    async def begin(self) -> None:
        """As `Shelves.begin`."""
        sql = "UPDATE history SET active = 1, whole = 0"
        await self._connections.write(lambda w: w.db.execute(sql))

    async def take_down(self, part: int, after: Place | None) -> Place | None:
        """As `Shelves.take_down`."""
        return await self._connections.write(partial(_TAKE_DOWN[part], after=after), durable=False)

    async def taken(self, now: int) -> None:
        """As `Shelves.taken`."""
        await self._connections.write(lambda w: w.db.execute("UPDATE history SET whole = ?", (now,)))

    async def stop(self, limit: int) -> int:
        """As `Shelves.stop`."""
        if not await self._connections.read(lambda db: db.execute(_ANY).fetchone()[0]):
            return 0
        return await self._connections.write(lambda w: erasing.stop(w.db, limit), durable=False)

    async def sweep(self, part: int, after: Place | None, cutoff: int, limit: int) -> Swept:
        """As `Shelves.sweep`."""
        find, first, drop = _SWEEP[part]
        place = after or first
        rows = await self._connections.read(lambda db: find(db, place, cutoff), long=True)
        over = [row for row in rows if row[-1]][:limit]
        if over:
            await self._connections.write(lambda w: drop(w.db, over, cutoff), durable=False)
        if len(over) == limit:
            return Swept(len(over), _place(over[-1], first))
        return Swept(len(over), _place(rows[-1], first) if len(rows) == _BATCH else None)


_ANY = (
    "SELECT active OR EXISTS (SELECT 1 FROM event) OR EXISTS (SELECT 1 FROM word) OR EXISTS (SELECT 1 FROM answering)"
    " OR EXISTS (SELECT 1 FROM recipient) FROM history"
)


def _kept(db: Session) -> Kept:
    active, whole = db.execute("SELECT active, whole FROM history").fetchone()
    first = db.execute("SELECT at FROM event WHERE number >= 0 ORDER BY number LIMIT 1").fetchone()
    return Kept(bool(active), whole, first[0] if first else None, history_octets(db))


def _place(row: Sequence[Any], first: Place) -> Place:
    return tuple(row[: len(first)])


# --- what is there


def _take_down_entries(writing: Writing, after: Place | None) -> Place | None:
    rows = writing.db.execute(
        "SELECT id FROM entry WHERE id > ? ORDER BY id LIMIT ?", (after[0] if after else -1, _BATCH)
    ).fetchall()
    if rows:
        erasing.take_down(writing.db, "e.id BETWEEN ? AND ?", (rows[0][0], rows[-1][0]))
    return rows[-1] if len(rows) == _BATCH else None


def _take_down_facts(writing: Writing, after: Place | None) -> Place | None:
    """Blocks, and a batch of revocations."""
    db = writing.db
    known = "NOT EXISTS (SELECT 1 FROM event AS o WHERE o.fingerprint = t.fingerprint AND o.source = '' AND o.what = "
    if after is None:
        erasing.take_down_blocks(db, f"{known}'blocked')")
    rows = db.execute(
        "SELECT rowid FROM revocation WHERE rowid > ? ORDER BY rowid LIMIT ?", (after[0] if after else -1, _BATCH)
    ).fetchall()
    if rows:
        taken = db.execute(
            "INSERT INTO event (number, at, last, what, fingerprint, kind)"  # noqa: S608
            f" SELECT t.rowid - {2 * BEFORE}, coalesce(min(e.at), 0), coalesce(min(e.at), 0), 'revoked',"
            " t.fingerprint, coalesce(min(e.kind), '') FROM revocation AS t LEFT JOIN entry AS e"
            f" ON e.fingerprint = t.fingerprint WHERE t.rowid BETWEEN ? AND ? AND {known}'revoked')"
            " GROUP BY t.rowid",
            (rows[0][0], rows[-1][0]),
        )
        erasing.counted(db, taken.rowcount)
    return rows[-1] if len(rows) == _BATCH else None


def _take_down_records(writing: Writing, after: Place | None) -> Place | None:
    rows = writing.db.execute(
        f"SELECT name, upstream FROM record WHERE (name, upstream) > (?, ?) ORDER BY name, upstream LIMIT {_BATCH}",  # noqa: S608
        after or ("", ""),
    ).fetchall()
    if rows:
        writing.db.execute(
            "INSERT INTO word SELECT history_hash(h.key, r.name), r.upstream, r.at, r.at,"
            " CASE WHEN r.found THEN 'found' ELSE 'absent' END, NULL FROM record AS r, history AS h"
            " WHERE (r.name, r.upstream) BETWEEN (?, ?) AND (?, ?) AND NOT EXISTS (SELECT 1 FROM word AS w"
            " WHERE w.hash = history_hash(h.key, r.name) AND w.upstream = r.upstream AND w.word <> 'failed')"
            " ON CONFLICT DO NOTHING",
            (*rows[0], *rows[-1]),
        )
    return rows[-1] if len(rows) == _BATCH else None


_TAKE_DOWN = (_take_down_facts, _take_down_entries, _take_down_records)


# --- what goes


def _find_events(db: Session, place: Place, cutoff: int) -> list[Any]:
    rows = db.execute(_EVENTS, {"after": place[0], "cutoff": cutoff}).fetchall()
    if rows and rows[0][0] >= 0 and not any(row[1] for row in rows):
        return []  # numbers go with time: all behind them are later, too
    return [(number, fingerprint, over) for number, _, over, fingerprint in rows]


def _drop_events(db: Session, rows: Sequence[Sequence[Any]], cutoff: int) -> None:
    erasing.drop(db, [row[0] for row in rows], {row[1] for row in rows})
    db.execute(_WHOLE, (cutoff,))


def _find_words(db: Session, place: Place, cutoff: int) -> list[Any]:
    hash_, upstream, since = place
    return db.execute(_WORDS, {"hash": hash_, "upstream": upstream, "since": since, "cutoff": cutoff}).fetchall()


def _drop_words(db: Session, rows: Sequence[Sequence[Any]], cutoff: int) -> None:
    db.executemany("DELETE FROM word WHERE hash = ? AND upstream = ? AND since = ?", [row[:3] for row in rows])
    db.execute(_WHOLE, (cutoff,))


def _find_memory(db: Session, place: Place, _cutoff: int) -> list[Any]:
    return db.execute(_MEMORY, {"name": place[0], "view": place[1]}).fetchall()


def _drop_memory(db: Session, rows: Sequence[Sequence[Any]], _cutoff: int) -> None:
    db.executemany("DELETE FROM answering WHERE name = ? AND view = ?", [row[:2] for row in rows])


def _find_notes(db: Session, place: Place, cutoff: int) -> list[Any]:
    return db.execute(_NOTES, {"hash": place[0], "day": cutoff // DAY}).fetchall()


def _drop_notes(db: Session, rows: Sequence[Sequence[Any]], _cutoff: int) -> None:
    """Notes that are too old; of others, certificates that nobody knows any more."""
    db.executemany("DELETE FROM recipient WHERE hash = ?", [row[:1] for row in rows if row[1]])
    db.executemany("UPDATE recipient SET fingerprint = '' WHERE hash = ?", [row[:1] for row in rows if not row[1]])


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
