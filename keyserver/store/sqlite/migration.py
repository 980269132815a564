"""An older database is brought forward, so that a million entries neither hold the file for minutes nor begin anew.

Each step is a transaction; one that goes over all entries is many, and notes how far it is. A process that is killed
leaves a database of some version between, where the next one goes on.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from keyserver.store.base import StoreRefused
from keyserver.store.sqlite.schema import APPLICATION_ID, PAGE_SIZE, STEPS, Fill, Step, refuse_newer

BATCH = 5000  # entries in one transaction
TOLD = 50_000  # entries from which on it takes long enough to be told

_PLACE = "migration"  # its row among the counts: the last entry that is done
_LOG = logging.getLogger("keyserver.store")


def migrate(db: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> None:
    """Bring the database to version `len(steps)`. Raises StoreRefused, sqlite3.Error."""
    version = _version(db, path)
    refuse_newer(path, version, len(steps))
    if version == len(steps):
        return
    if version == 0:
        db.execute(f"PRAGMA page_size={PAGE_SIZE}")  # before the first page is written
        db.execute("PRAGMA journal_mode=WAL")  # stays with the file
        with _transaction(db):
            if _version(db, path) == 0:  # another process may have been quicker
                _create(db, steps)
    entries: int = db.execute("SELECT count(*) FROM entry").fetchone()[0]
    db.execute("PRAGMA temp_store=FILE")  # what is sorted for an index is as large as the index
    (moved,) = db.execute("PRAGMA wal_autocheckpoint").fetchone()
    db.execute("PRAGMA wal_autocheckpoint=1000").fetchall()  # nobody else moves the log yet
    tell = _LOG.warning if entries >= TOLD else _LOG.debug  # on stderr too where no log was opened yet
    while (version := _version(db, path)) < len(steps):
        tell("%s: step %d of %d to this release's schema, %d entries", path, version + 1, len(steps), entries)
        for part in steps[version]:
            if isinstance(part, Fill):
                _fill(db, part, lambda: _version(db, path) == version, lambda done: tell("%d entries done", done))
        with _transaction(db):
            if _version(db, path) == version:
                _take(db, steps, version)
        refuse_newer(path, _version(db, path), len(steps))
    db.execute(f"PRAGMA wal_autocheckpoint={moved}").fetchall()
    db.execute("PRAGMA temp_store=MEMORY")


def _create(db: sqlite3.Connection, steps: Sequence[Step]) -> None:
    for version in range(len(steps)):
        _take(db, steps, version)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")


def _take(db: sqlite3.Connection, steps: Sequence[Step], version: int) -> None:
    """The statements of one step, inside a transaction; what goes over all entries is done before."""
    for statement in steps[version]:
        if isinstance(statement, str):
            db.execute(statement)
    db.execute("DELETE FROM tally WHERE what = ?", (_PLACE,))
    db.execute(f"PRAGMA user_version={version + 1}")


def _fill(db: sqlite3.Connection, fill: Fill, wanted: Callable[[], bool], tell: Callable[[int], None]) -> None:
    """Run it on all entries, batch by batch, from where it was left."""
    done = 0
    while True:
        with _transaction(db):
            if not wanted():  # another process has been quicker
                return
            row = db.execute("SELECT n FROM tally WHERE what = ?", (_PLACE,)).fetchone()
            after = row[0] if row else -1
            last, count = db.execute(
                "SELECT max(id), count(*) FROM (SELECT id FROM entry WHERE id > ? ORDER BY id LIMIT ?)", (after, BATCH)
            ).fetchone()
            if last is None:
                return
            db.execute(fill.sql, {"after": after, "last": last})
            db.execute("INSERT INTO tally VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = ?2", (_PLACE, last))
        done += count
        if done % (20 * BATCH) == 0:
            tell(done)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int
    version, ours, tables = db.execute(  # one statement, one instant
        "SELECT (SELECT user_version FROM pragma_user_version), (SELECT application_id FROM pragma_application_id),"
        " (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    if tables and ours != APPLICATION_ID:
        raise StoreRefused(f"{path} is the database of another program; it was left as it is")
    return version
