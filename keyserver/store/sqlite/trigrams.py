"""The text index: which entries may contain a text of three characters or more.

It is written later, many entries at once: within each put it would cost the slowest of them 50 ms. What it says may be
stale (SQLite before 3.43 cannot take anything out of such an index): whoever asks looks at the entries themselves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing

from keyserver.model import Kind, Source
from keyserver.store.sifting import Asking
from keyserver.store.sqlite.asking import answer
from keyserver.store.sqlite.writing import Writing

BEHIND = "text index"
"""Its row among the counts: the highest id of an entry that is in it."""

_WRITTEN = "text index rows"  # how often an entry was written to it
_SEARCHED = 2_000_000  # entries that a search goes over where the index does not help, the newest ones
_FEW = 5000  # entries that the index names, up to which each is looked at
_STALE = 100_000  # rows beside those of the entries, from which on it is made anew
_TRIGRAMS = 12  # of a long text: enough to be rare, and the entries are looked at anyway

_MARK = "SELECT n FROM tally WHERE what = ?"
_SET = "INSERT INTO tally VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = ?2"


def tail(db: sqlite3.Connection, limit: int) -> list[int]:
    """Up to `limit` ids of entries that the index does not know as they are now."""
    return answer(db, _tail(limit))


def _tail(limit: int) -> Asking[list[int]]:
    marks = yield "SELECT n FROM tally WHERE what = :what", {"what": BEHIND}
    mark = int(marks[0][0]) if marks else 0
    new = yield "SELECT id FROM entry WHERE id > :mark ORDER BY id LIMIT :limit", {"mark": mark, "limit": limit}
    changed = yield "SELECT entry FROM unindexed LIMIT :limit", {"limit": limit - len(new)}
    return [row[0] for row in (*new, *changed)]


def finding(text: str, limit: int) -> Asking[list[int] | None]:
    """Up to `limit` ids of entries that may contain it (case-folded), those that are no more among them.

    None: the index cannot say, for it has no such pieces or is too far behind."""
    pieces = _pieces(text)
    behind = yield from _tail(limit + 1)
    if not pieces or len(behind) > limit:
        return None
    sql = "SELECT rowid FROM trigram WHERE trigram MATCH :pieces LIMIT :limit"
    rows = yield sql, {"pieces": " AND ".join(pieces), "limit": limit}
    return [*behind, *(row[0] for row in rows)]


def search(db: sqlite3.Connection, text: str, kind: Kind, limit: int) -> tuple[str, ...]:
    """`Store.search`, newest entry first; blocked certificates are left out. What the index does not narrow down is
    looked for in the newest entries, where a common text is soon found."""
    ids = answer(db, finding(text, _FEW))
    values: dict[str, str | int] = {"kind": str(kind), "text": text}
    if ids is not None and len(ids) < _FEW:
        pool, order = "json_each(:ids) AS j CROSS JOIN entry AS e ON e.id = j.value", " ORDER BY e.id DESC"
        values["ids"] = json.dumps(ids)
    else:
        pool, order = f"(SELECT * FROM entry ORDER BY id DESC LIMIT {_SEARCHED}) AS e", ""  # noqa: S608
    rows = db.execute(
        f"SELECT e.fingerprint FROM {pool} WHERE e.kind = :kind AND instr(e.folded, :text) > 0"  # noqa: S608
        f" AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint){order}",
        values,
    )
    found: dict[str, None] = {}
    with closing(rows):
        for (fingerprint,) in rows:
            found[fingerprint] = None
            if len(found) >= limit:
                break
    return tuple(found)


def _pieces(text: str) -> Iterable[str]:
    """Trigrams of a text, spread over it, as FTS5 quotes them; NUL ends what it reads."""
    found = sorted({text[n : n + 3] for n in range(len(text) - 2)})
    kept = [piece for piece in found if "\0" not in piece]
    return ['"' + piece.replace('"', '""') + '"' for piece in kept[:: 1 + len(kept) // _TRIGRAMS]]


def write(writing: Writing, limit: int) -> int:
    """Index up to `limit` entries; how many."""
    db = writing.db
    mark = _mark(db)
    new = db.execute("SELECT id, folded FROM entry WHERE id > ? ORDER BY id LIMIT ?", (mark, limit)).fetchall()
    changed = db.execute(
        "SELECT e.id, e.folded FROM (SELECT entry FROM unindexed LIMIT ?) AS u JOIN entry AS e ON e.id = u.entry",
        (limit - len(new),),
    ).fetchall()
    db.execute("DELETE FROM unindexed WHERE entry IN (SELECT entry FROM unindexed LIMIT ?)", (limit - len(new),))
    rows = [(id_, folded.replace("\0", " ")) for id_, folded in (*new, *changed)]
    db.executemany("INSERT INTO trigram (rowid, folded) VALUES (?, ?)", rows)
    if new:
        db.execute(_SET, (BEHIND, new[-1][0]))
    writing.tally[_WRITTEN] += len(rows)
    return len(rows)


def worn(db: sqlite3.Connection) -> bool:
    """Is most of it about entries that are no more, so that it must be made anew?"""
    (written,) = db.execute(_MARK, (_WRITTEN,)).fetchone() or (0,)
    if written <= _STALE:
        return False
    sql = f"SELECT total(n) FROM tally WHERE what IN ({', '.join('?' * len(Source))})"  # noqa: S608 - question marks
    (entries,) = db.execute(sql, [str(source) for source in Source]).fetchone()
    return bool(written > 2 * entries + _STALE)


def changed(db: sqlite3.Connection, entry: int) -> None:
    """An entry's text has changed."""
    db.execute("INSERT OR IGNORE INTO unindexed VALUES (?)", (entry,))


def removed(db: sqlite3.Connection) -> None:
    """Entries were removed: the next ones may have their ids."""
    db.execute(
        "UPDATE tally SET n = min(n, coalesce((SELECT max(id) FROM entry), 0)) WHERE what = ?",
        (BEHIND,),
    )


def forget(db: sqlite3.Connection) -> None:
    """Begin anew."""
    db.execute("INSERT INTO trigram (trigram) VALUES ('delete-all')")
    db.execute("DELETE FROM unindexed")
    db.execute("DELETE FROM tally WHERE what IN (?, ?)", (BEHIND, _WRITTEN))


def _mark(db: sqlite3.Connection) -> int:
    row = db.execute(_MARK, (BEHIND,)).fetchone()
    return int(row[0]) if row else 0
