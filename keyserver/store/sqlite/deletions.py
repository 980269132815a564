"""The deletes on record, inside a transaction; what each reaches is `deletion`'s to say."""

from __future__ import annotations

import sqlite3

from keyserver.store.deletion import KEEP, Later


def count(db: sqlite3.Connection) -> int:
    """The deletion counter."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'deletion'").fetchone()
    return row[0] if row else 0


def note(db: sqlite3.Connection, now: int, what: str) -> None:
    """Write down what was deleted, as `deletion` says it."""
    db.execute("DELETE FROM deletion WHERE at < ?", (now - KEEP,))
    db.execute("INSERT INTO deletion (at, what) VALUES (?, ?)", (now, what))


def later_than(db: sqlite3.Connection, begun: int) -> Later:
    """The deletes after `begun`."""
    last = count(db)
    if last <= begun:
        return Later()
    rows = db.execute("SELECT what FROM deletion WHERE id > ?", (begun,)).fetchall()
    return Later.of([text for (text,) in rows], last - begun)
