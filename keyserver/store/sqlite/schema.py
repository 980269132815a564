"""The tables, their versions, and the first look at a database file before anything is written to it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from keyserver.store.base import StoreRefused

APPLICATION_ID = 0x4B734361  # "KsCa": tells our databases from those of other programs
PAGE_SIZE = 8192  # one certificate of usual size lies in one page
OLDEST_SQLITE = (3, 35, 0)  # RETURNING

_MAGIC = b"SQLite format 3\x00"

Step = tuple[str, ...]
"""The statements that lead from one version to the next."""

VERSION_1: Step = (
    # One row per entry, kept narrow: listings and searches scan it without touching octets. `at` is cached_at and
    # seen_at (they are renewed together); `rank` is 0 local, 1 approved, 2 keyserver, 3 mailflow.
    """CREATE TABLE entry (
        id INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        origin TEXT NOT NULL,
        at INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        approved INTEGER NOT NULL,
        held INTEGER NOT NULL,
        chained INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        identities TEXT NOT NULL,
        folded TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX entry_identity ON entry (fingerprint, source, origin)",
    "CREATE INDEX entry_rank ON entry (fingerprint, rank, at DESC)",
    "CREATE INDEX entry_age ON entry (source, origin, at)",
    "CREATE INDEX entry_mail ON entry (at) WHERE source = 'mailflow'",
    """CREATE TABLE copy (
        entry INTEGER PRIMARY KEY REFERENCES entry (id) ON DELETE CASCADE,
        octets BLOB NOT NULL
    )""",
    # rank and at stand in the key so that the best 64 of very many certificates are the first 64 of the index.
    """CREATE TABLE name (
        name TEXT NOT NULL,
        rank INTEGER NOT NULL,
        at INTEGER NOT NULL,
        entry INTEGER NOT NULL REFERENCES entry (id) ON DELETE CASCADE,
        PRIMARY KEY (name, rank, at DESC, entry)
    ) WITHOUT ROWID""",
    "CREATE INDEX name_entry ON name (entry)",
    "CREATE TABLE revocation (fingerprint TEXT PRIMARY KEY, octets BLOB NOT NULL)",
    """CREATE TABLE record (
        name TEXT NOT NULL,
        upstream TEXT NOT NULL,
        found INTEGER NOT NULL,
        at INTEGER NOT NULL,
        asked_at INTEGER NOT NULL,
        PRIMARY KEY (name, upstream)
    ) WITHOUT ROWID""",
    "CREATE INDEX record_found ON record (upstream, at) WHERE found = 1",
    "CREATE INDEX record_absent ON record (at) WHERE found = 0",
    "CREATE INDEX record_due ON record (upstream, at) WHERE found = 1 AND asked_at > at",
    "CREATE INDEX record_asked ON record (asked_at) WHERE asked_at > 0",
    "CREATE TABLE block (fingerprint TEXT PRIMARY KEY, at INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: the counter goes on when old rows are tidied away.
    "CREATE TABLE deletion (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, what TEXT NOT NULL)",
    # number grows by the names in the row, so that a difference of numbers says how much there is to read.
    "CREATE TABLE change (number INTEGER PRIMARY KEY, everything INTEGER NOT NULL, names TEXT NOT NULL)",
    "INSERT INTO change VALUES (0, 0, '[]')",
    "CREATE TABLE probe (octets BLOB NOT NULL)",
    "CREATE TABLE tally (what TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
)

VERSION_2: Step = (
    # Who stands behind an entry, by address; approved and held say the same for the whole entry, for listings.
    # What was approved before this was known for certain of no address: it is seen or approved again. What was held
    # waits on, for whatever address of its sender's domain the mail may have come from.
    "ALTER TABLE entry ADD COLUMN vouchers TEXT NOT NULL DEFAULT '[]'",
    "UPDATE entry SET rank = CASE source WHEN 'keyserver' THEN 2 ELSE 3 END WHERE rank = 1",
    "UPDATE name SET rank = (SELECT e.rank FROM entry AS e WHERE e.id = name.entry) WHERE rank = 1",
    "UPDATE entry SET vouchers = (SELECT json_group_array(json_array(substr(n.name, instr(n.name, ':addr:') + 6),"
    " json('false'), json('true'), json('false'), entry.at)) FROM name AS n WHERE n.entry = entry.id"
    " AND instr(n.name, ':addr:') AND substr(n.name, -length(entry.origin) - 1) = '@' || entry.origin)"
    " WHERE held AND source = 'mailflow'",
    "UPDATE entry SET approved = 0, held = vouchers <> '[]' WHERE approved OR held",
    "DROP INDEX record_asked",  # of a listing that nobody reads
)

ACCESS: Step = (
    # What administration keeps: see `store.administration`. Append-only acts; AUTOINCREMENT: a cursor stays good when
    # the oldest are tidied away.
    """CREATE TABLE token (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        role TEXT NOT NULL,
        digest BLOB NOT NULL,
        made_at INTEGER NOT NULL,
        made_by TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE session (
        digest BLOB PRIMARY KEY,
        token TEXT NOT NULL,
        begun_at INTEGER NOT NULL,
        used_at INTEGER NOT NULL,
        place TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX session_token ON session (token, begun_at)",
    """CREATE TABLE act (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        who TEXT NOT NULL,
        way TEXT NOT NULL,
        place TEXT NOT NULL,
        act TEXT NOT NULL,
        certificate TEXT NOT NULL,
        facts TEXT NOT NULL,
        refusal INTEGER NOT NULL
    )""",
    "CREATE INDEX act_sort ON act (refusal, number)",
    "CREATE INDEX act_who ON act (who, number)",
    "CREATE INDEX act_act ON act (act, number)",
)

STEPS: tuple[Step, ...] = (VERSION_1, VERSION_2, ACCESS)
"""Step n leads from version n to n + 1; the chain only ever grows at its end."""


def create_file(path: Path) -> None:
    """Make the directory and an empty file of mode 0600 where they are missing, or look at the file that is there.

    Only reads an existing file; raises StoreRefused where it cannot be a database of ours of this version or older.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreRefused(f"SQLite {sqlite3.sqlite_version} is too old: the cache needs {wanted} or newer")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise StoreRefused(f"cannot open the cache database {path}: {error.strerror or error}") from error
    with suppress(OSError):  # not the owner: the file's mode is not ours to mend
        path.chmod(path.stat().st_mode & 0o700)
    if header and (len(header) < 100 or not header.startswith(_MAGIC)):
        raise StoreRefused(f"{path} is not an SQLite database, or damaged; it was left as it is")
    if int.from_bytes(header[68:72], "big") == APPLICATION_ID:
        _refuse_newer(path, int.from_bytes(header[60:64], "big"), len(STEPS))


def migrate(db: sqlite3.Connection, path: Path, steps: Sequence[Step] = STEPS) -> None:
    """Bring the database to version `len(steps)`, all steps in one transaction.

    Raises StoreRefused, sqlite3.Error.
    """
    version = _version(db, path)
    _refuse_newer(path, version, len(steps))
    if version == len(steps):
        return
    if version == 0:
        db.execute(f"PRAGMA page_size={PAGE_SIZE}")  # before the first page is written
        db.execute("PRAGMA journal_mode=WAL")  # stays with the file
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db, path)  # again: another process may have been quicker
        _refuse_newer(path, version, len(steps))
        for step in steps[version:]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={len(steps)}")
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


def _refuse_newer(path: Path, version: int, ours: int) -> None:
    if version > ours:
        raise StoreRefused(
            f"{path} was written by a newer release (schema version {version}, this one knows {ours});"
            " it was left as it is"
        )
