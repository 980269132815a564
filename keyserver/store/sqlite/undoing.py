"""Bringing back what a delete took and what still waits, inside a write transaction."""

from __future__ import annotations

import json

from keyserver.model import Source
from keyserver.store.sqlite.put import insert, order_names
from keyserver.store.sqlite.reading import entry_of
from keyserver.store.sqlite.writing import Writing
from keyserver.store.standing import Standing
from keyserver.store.undoing import Cutoffs, Step, expired

_BATCH = 100  # certificates in one transaction: some 20 ms in which other writers wait


def restore(writing: Writing, id_: str, now: int, cutoffs: Cutoffs) -> Step | None:
    """The next batch of `Store.undo`; None where nothing of that id waits."""
    db = writing.db
    writing.tell(now, "undone")
    found = db.execute("SELECT number, entries FROM undo WHERE id = ? AND until > ?", (id_, now)).fetchone()
    if found is None:
        return None
    number, deleted = found
    rows = db.execute(
        "SELECT fingerprint FROM undo_entry WHERE undo = ?1"
        " UNION SELECT fingerprint FROM undo_record WHERE undo = ?1 LIMIT ?2",
        (number, _BATCH),
    ).fetchall()
    restored = sum(_restore_certificate(writing, number, fingerprint, cutoffs) for (fingerprint,) in rows)
    done = len(rows) < _BATCH
    if done:
        db.execute("DELETE FROM undo WHERE number = ?", (number,))
    return Step(restored, deleted, done)


def _restore_certificate(writing: Writing, undo: int, fingerprint: str, cutoffs: Cutoffs) -> int:
    db, chosen = writing.db, (undo, fingerprint)
    rows = db.execute(
        "SELECT u.fingerprint, u.kind, c.octets, u.source, u.origin, u.at, u.vouchers, u.chained, u.message_id,"
        " u.identities, u.names FROM undo_entry AS u JOIN undo_copy AS c ON c.entry = u.id"
        " WHERE u.undo = ? AND u.fingerprint = ?",
        chosen,
    ).fetchall()
    found = [(entry_of(columns), names) for *columns, names in rows]
    living = [(e, names) for e, names in found if not expired(e.source, e.origin, e.cached_at, cutoffs)]
    known = db.execute("SELECT 1 FROM entry WHERE fingerprint = ? LIMIT 1", (fingerprint,)).fetchone() is not None
    if living or known:  # else a record would only hide that nothing is here
        _restore_records(writing, undo, fingerprint, cutoffs)
    for entry, names in living:
        stand = Standing.of(entry.source, entry.vouchers, chained=entry.chained)
        row = insert(writing, entry, stand, dict(json.loads(names)))
        order_names(writing, row, entry.kind, entry.cached_at, stand)
    db.execute("DELETE FROM undo_entry WHERE undo = ? AND fingerprint = ?", chosen)
    db.execute("DELETE FROM undo_record WHERE undo = ? AND fingerprint = ?", chosen)
    return len(living)


def _restore_records(writing: Writing, undo: int, fingerprint: str, cutoffs: Cutoffs) -> None:
    rows = writing.db.execute(
        "SELECT name, upstream, at, asked_at FROM undo_record WHERE undo = ? AND fingerprint = ?", (undo, fingerprint)
    ).fetchall()
    for name, upstream, at, asked_at in rows:
        if not expired(Source.KEYSERVER, upstream, at, cutoffs):
            writing.db.execute("INSERT INTO record VALUES (?, ?, 1, ?, ?)", (name, upstream, at, asked_at))
            writing.tally["found"] += 1
            writing.names.add(name)
