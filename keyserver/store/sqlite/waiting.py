"""Deleted entries and found records that wait to be undone, inside a write transaction.

Whatever would take a living entry away takes away what waits, at the same moment: so an undo brings back all that is
still there, and need not ask what happened meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from keyserver.model import Name, Record, Selection, Source
from keyserver.store.base import Undo, Waiting
from keyserver.store.deletion import KEEP
from keyserver.store.sifting import Value, selected
from keyserver.store.sqlite.dialect import DIALECT, WAITING_NAMED
from keyserver.store.sqlite.writing import Writing

TABLES = ("undo_copy", "undo_entry", "undo_record", "undo")

_MOST = 1000  # undos in a list
_OVER = "(until <= ?1 OR at > ?1 + ?2)"


def keep(
    writing: Writing, undo: Undo | None, now: int, fingerprint: str, ids: Sequence[int], names: Collection[Name]
) -> int:
    """Set the entries `ids` of a certificate aside, with the found records of its names; the undo's number, 0 where
    nothing waits. They are deleted by the caller."""
    if undo is None or not ids:
        return 0
    db, chosen = writing.db, json.dumps(ids)
    number: int = db.execute(
        "INSERT INTO undo (id, at, until, entries) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE"
        " SET at = ?2, until = max(until, ?3), entries = entries + ?4 RETURNING number",
        (undo.id, now, undo.until, len(ids)),
    ).fetchall()[0][0]
    writing.undoable = True
    db.execute(
        "INSERT INTO undo_entry (undo, fingerprint, kind, source, origin, at, vouchers, chained, message_id,"
        " identities, folded, names) SELECT ?, e.fingerprint, e.kind, e.source, e.origin, e.at, e.vouchers, e.chained,"
        " e.message_id, e.identities, e.folded,"
        " (SELECT json_group_array(json_array(n.name, n.rank)) FROM name AS n WHERE n.entry = e.id)"
        " FROM entry AS e WHERE e.id IN (SELECT value FROM json_each(?))",
        (number, chosen),
    )
    db.execute(
        "INSERT INTO undo_copy SELECT u.id, c.octets FROM entry AS e JOIN copy AS c ON c.entry = e.id"
        " JOIN undo_entry AS u ON (u.fingerprint, u.source, u.origin) = (e.fingerprint, e.source, e.origin)"
        " WHERE e.id IN (SELECT value FROM json_each(?))",
        (chosen,),
    )
    db.execute(
        "INSERT INTO undo_record SELECT name, upstream, at, asked_at, ?, ? FROM record"
        " WHERE found AND name IN (SELECT value FROM json_each(?))",
        (fingerprint, number, json.dumps(list(names))),
    )
    return number


def superseded(writing: Writing, fingerprint: str, source: Source, origin: str) -> None:
    """A newer copy has come from the same origin: that one counts."""
    if writing.undoable:
        writing.db.execute(
            "DELETE FROM undo_entry WHERE fingerprint = ? AND source = ? AND origin = ?",
            (fingerprint, str(source), origin),
        )


def said(writing: Writing, record: Record) -> None:
    """An upstream has said something newer."""
    if writing.undoable:
        writing.db.execute("DELETE FROM undo_record WHERE name = ? AND upstream = ?", (record.name, record.upstream))


def drop_certificate(
    writing: Writing, fingerprint: str, source: Source | None = None, origin: str | None = None
) -> None:
    """Erase what waits of a certificate (of one source and origin, where given)."""
    _drop(
        writing,
        "e.fingerprint = :fingerprint AND (:source IS NULL OR e.source = :source)"
        " AND (:origin IS NULL OR e.origin = :origin)",
        {"fingerprint": fingerprint, "source": source and str(source), "origin": origin},
    )


def drop_selected(writing: Writing, what: Selection) -> None:
    """Erase every waiting entry that a purge would take if it were not deleted already."""
    values: dict[str, Value] = {}
    parts = [f"({part})" for part in selected(DIALECT, what, "w", values, WAITING_NAMED)]
    _drop(writing, " AND ".join(parts) or "1", values)


def _drop(writing: Writing, where: str, values: Mapping[str, Value | None]) -> None:
    """Erase waiting entries `e`, and the records of their names: as for a delete, the next lookup asks again."""
    if not writing.undoable:
        return
    writing.db.execute(
        "DELETE FROM undo_record WHERE name IN (SELECT json_extract(n.value, '$[0]')"  # noqa: S608 - our own words
        f" FROM undo_entry AS e, json_each(e.names) AS n WHERE {where})",
        values,
    )
    writing.db.execute(f"DELETE FROM undo_entry AS e WHERE {where}", values)  # noqa: S608 - our own words


def undos(db: sqlite3.Connection, now: int) -> tuple[Waiting, ...]:
    """`Store.undos`."""
    rows = db.execute(
        "SELECT id, at, until, entries FROM undo WHERE until > ? ORDER BY at DESC, number DESC LIMIT ?", (now, _MOST)
    )
    return tuple(Waiting(*row) for row in rows)


def is_over(db: sqlite3.Connection, now: int) -> bool:
    """Is there anything to erase?"""
    return db.execute(f"SELECT 1 FROM undo WHERE {_OVER}", (now, KEEP)).fetchone() is not None  # noqa: S608


def erase(writing: Writing, now: int, limit: int) -> int:
    """Erase up to `limit` entries whose time is over, the undos when none is left; how many entries."""
    over = f"(SELECT number FROM undo WHERE {_OVER})"  # noqa: S608
    gone = writing.db.execute(
        f"DELETE FROM undo_entry WHERE id IN (SELECT id FROM undo_entry WHERE undo IN {over} LIMIT ?3) RETURNING 1",  # noqa: S608
        (now, KEEP, limit),
    ).fetchall()
    if len(gone) < limit:
        writing.db.execute(f"DELETE FROM undo WHERE number IN {over}", (now, KEEP))  # noqa: S608
    return len(gone)
