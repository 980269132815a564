"""The deletes on record, inside a transaction; what each reaches is `deletion`'s to say."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from keyserver.model import Name, Selection
from keyserver.store.deletion import KEEP, Later


def count(db: sqlite3.Connection) -> int:
    """The deletion counter."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'deletion'").fetchone()
    return row[0] if row else 0


def note_delete(
    db: sqlite3.Connection, now: int, fingerprint: str, source: str | None, origin: str | None, names: Iterable[Name]
) -> None:
    """Write down that a certificate (of one source and origin, where given) was deleted, and the names it touched."""
    what = {"fingerprint": fingerprint, "source": source, "origin": origin, "names": sorted(names)}
    _note(db, now, what)


def note_purge(db: sqlite3.Connection, now: int, what: Selection | None) -> None:
    """Write down that a selection was purged; None: everything."""
    _note(db, now, {"purge": None if what is None else asdict(what)})


def _note(db: sqlite3.Connection, now: int, what: dict[str, Any]) -> None:
    db.execute("DELETE FROM deletion WHERE at < ?", (now - KEEP,))
    db.execute("INSERT INTO deletion (at, what) VALUES (?, ?)", (now, json.dumps(what)))


def later_than(db: sqlite3.Connection, begun: int) -> Later:
    """The deletes after `begun`; where some of them were tidied away, everything counts as deleted."""
    last = count(db)
    if last <= begun:
        return Later()
    named: list[tuple[str, str | None, str | None]] = []
    names: set[Name] = set()
    purges: list[Selection] = []
    rows = db.execute("SELECT what FROM deletion WHERE id > ?", (begun,)).fetchall()
    everything = len(rows) < last - begun
    for (text,) in rows:
        what = json.loads(text)
        if "fingerprint" in what:
            named.append((what["fingerprint"], what["source"], what["origin"]))
            names.update(what["names"])
        elif what["purge"] is None:
            everything = True
        else:
            purges.append(Selection(**what["purge"]))
    return Later(tuple(named), frozenset(names), tuple(purges), everything)
