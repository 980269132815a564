"""Rows of the history that are erased, and what is taken down anew in their place, inside a write transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from keyserver.model import Kind, Name
from keyserver.query import name_of
from keyserver.store.deletion import purge_note
from keyserver.store.past import BEFORE, REVOKED
from keyserver.store.sqlite import waiting
from keyserver.store.sqlite.recording import CREATE, TABLES, TRIGGERS
from keyserver.store.sqlite.session import Session, keyed
from keyserver.store.sqlite.writing import Writing

_THESE = "IN (SELECT value FROM json_each(?))"


@contextmanager
def untriggered(db: sqlite3.Connection) -> Iterator[None]:
    """Nothing is recorded, and SQLite empties whole tables at once, as it does for those without triggers."""
    for name in TRIGGERS:
        db.execute(f"DROP TRIGGER {name}")
    yield
    for trigger in CREATE:
        db.execute(trigger)
    recount(db)


def recount(db: sqlite3.Connection) -> None:
    """Where events came with numbers of another store, or went without being counted."""
    given = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"
    db.execute(f"UPDATE history SET events = (SELECT count(*) FROM event) - {given}")  # noqa: S608


def erase(db: sqlite3.Connection, whole: int) -> None:
    """Everything, where nothing is recorded meanwhile; whole: as `Kept.whole` from here on. Blocks stay on record."""
    for table in TABLES:
        db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own words
    db.execute("UPDATE history SET key = randomblob(32), whole = ?, words = 0, octets = 0", (whole,))


def stop(db: sqlite3.Connection, limit: int) -> int:
    """No more is recorded; erase up to `limit` rows."""
    db.execute("UPDATE history SET active = 0, whole = 0")
    gone = 0
    for table, key in TABLES.items():
        rows = f"SELECT {key} FROM {table} LIMIT ?"  # noqa: S608 - our own words
        gone += db.execute(f"DELETE FROM {table} WHERE ({key}) IN ({rows})", (limit - gone,)).rowcount  # noqa: S608
    return gone


def take_down(db: sqlite3.Connection, which: str, values: Sequence[object]) -> None:
    """An event for each of these entries `e` that has none."""
    rows = db.execute(
        "INSERT INTO event (number, at, last, what, fingerprint, kind, source, origin, cached, vouchers, chained,"  # noqa: S608
        f" detail) SELECT e.id - {BEFORE}, e.at, e.at, 'cached', e.fingerprint, e.kind, e.source, e.origin, e.at,"
        f" e.vouchers, e.chained, e.message_id FROM entry AS e WHERE {which} AND NOT EXISTS (SELECT 1 FROM event AS o"
        " WHERE o.fingerprint = e.fingerprint AND o.source = e.source AND o.origin = e.origin)",
        values,
    )
    counted(db, rows.rowcount)


def take_down_blocks(db: sqlite3.Connection, which: str = "1") -> None:
    """An event for each of these blocks `t`."""
    rows = db.execute(
        "INSERT INTO event (number, at, last, what, fingerprint, facts)"  # noqa: S608
        f" SELECT row_number() OVER (ORDER BY t.at, t.fingerprint) - {3 * BEFORE}, t.at, t.at, 'blocked',"
        f" t.fingerprint, json_object('reason', t.reason) FROM block AS t WHERE {which}"
    )
    counted(db, rows.rowcount)


def counted(db: sqlite3.Connection, events: int) -> None:
    """So many were taken down, whose numbers are none that are given."""
    db.execute("UPDATE history SET events = events + ?", (events,))


def drop(db: sqlite3.Connection, numbers: Collection[int], fingerprints: Collection[str]) -> int:
    """Events of these certificates, with the copies and names that no event is left for; how many events."""
    gone = db.execute(f"DELETE FROM event WHERE number {_THESE}", (json.dumps(list(numbers)),)).rowcount  # noqa: S608
    db.execute(f"DELETE FROM past_settings WHERE number {_THESE}", (json.dumps(list(numbers)),))  # noqa: S608
    of_them = json.dumps(sorted(fingerprints))
    copies = db.execute(
        f"DELETE FROM past_span AS s WHERE s.fingerprint {_THESE} AND NOT EXISTS (SELECT 1 FROM event AS e WHERE"  # noqa: S608
        " e.fingerprint = s.fingerprint AND e.number <= s.upto AND CASE s.source"
        f" WHEN '{REVOKED}' THEN e.source = '' AND e.origin = '' AND e.what = 'revoked'"
        " ELSE e.source = s.source AND e.origin = s.origin END) RETURNING copy",
        (of_them,),
    ).fetchall()
    unused = "NOT EXISTS (SELECT 1 FROM past_span AS s WHERE s.copy = past_copy.digest)"
    db.executemany(f"DELETE FROM past_copy WHERE digest = ? AND {unused}", copies)  # noqa: S608
    db.execute(
        f"DELETE FROM past_name WHERE fingerprint {_THESE} AND NOT EXISTS"  # noqa: S608
        " (SELECT 1 FROM event AS e WHERE e.fingerprint = past_name.fingerprint AND e.source > '')",
        (of_them,),
    )
    return gone


def names_of(address: str) -> tuple[Name, ...]:
    """Of either kind."""
    return tuple(name_of(kind, "addr", address) for kind in Kind)


def bearing(db: Session, address: str) -> set[str]:
    """Certificates that ever bore an address: by name, or by a voucher. Goes over all events."""
    names = json.dumps(names_of(address))
    quoted = json.dumps(address)
    rows = db.execute(
        f"SELECT fingerprint FROM past_name WHERE name {_THESE} UNION SELECT fingerprint FROM event WHERE address = ?"  # noqa: S608
        f" UNION SELECT e.fingerprint FROM name AS n JOIN entry AS e ON e.id = n.entry WHERE n.name {_THESE}"
        " UNION SELECT fingerprint FROM event WHERE vouchers <> '[]' AND instr(vouchers, ?)",
        (names, address, names, quoted),
    )
    return {row[0] for row in rows}


def forget(writing: Writing, address: str, fingerprints: Collection[str]) -> int:
    """`History.forget`; fingerprints: of what `bearing` found."""
    db = writing.db
    db.set("secure_delete", "ON")
    names, quoted = names_of(address), json.dumps(address)
    chosen = json.dumps(names)
    (key,) = db.execute("SELECT key FROM history").fetchone()
    gone = 0
    for name in names:
        gone += db.execute("DELETE FROM word WHERE hash = ?", (keyed(key, name),)).rowcount
        gone += db.execute("DELETE FROM answering WHERE name = ?", (name,)).rowcount
    gone += db.execute("DELETE FROM recipient WHERE hash = ?", (keyed(key, address),)).rowcount
    gone += db.execute("DELETE FROM event WHERE address = ? AND source = ''", (address,)).rowcount
    for fingerprint in fingerprints:
        living = db.execute(
            f"SELECT 1 FROM entry AS e WHERE e.fingerprint = ? AND (instr(e.vouchers, ?) OR EXISTS"  # noqa: S608
            f" (SELECT 1 FROM name AS n WHERE n.entry = e.id AND n.name {_THESE})) LIMIT 1",
            (fingerprint, quoted, chosen),
        ).fetchone()
        if not living:
            gone += _forget_certificate(db, fingerprint)
            waiting.drop_certificate(writing, fingerprint)
    _forget_notes(writing, names)
    return gone


def _forget_notes(writing: Writing, names: Collection[Name]) -> None:
    """Records, and what told others of changes and deletes: it tells them of more than there was."""
    writing.forget(names)
    writing.everything = True
    for name in names:
        quoted = json.dumps(name)
        writing.db.execute("UPDATE change SET everything = 1, names = '[]' WHERE instr(names, ?)", (quoted,))
        writing.db.execute("UPDATE deletion SET what = ? WHERE instr(what, ?)", (purge_note(None), quoted))


def _forget_certificate(db: Session, fingerprint: str) -> int:
    """All of it but that it is blocked or revoked; what of it is cached is taken down anew."""
    rows = db.execute(
        "SELECT number FROM event WHERE fingerprint = ? AND what NOT IN ('blocked', 'unblocked', 'revoked')",
        (fingerprint,),
    ).fetchall()
    gone = drop(db, [row[0] for row in rows], [fingerprint])
    db.execute("DELETE FROM past_span WHERE fingerprint = ?", (fingerprint,))
    db.execute("DELETE FROM past_copy WHERE NOT EXISTS (SELECT 1 FROM past_span AS s WHERE s.copy = past_copy.digest)")
    take_down(db, "e.fingerprint = ?", (fingerprint,))
    return gone
