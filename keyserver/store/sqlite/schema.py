"""The tables, their versions, and the first look at a database file before anything is written to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from keyserver.store.base import StoreRefused
from keyserver.store.sqlite.recording import RECORDING

APPLICATION_ID = 0x4B734361  # "KsCa": tells our databases from those of other programs
PAGE_SIZE = 8192  # one certificate of usual size lies in one page
OLDEST_SQLITE = (3, 35, 0)  # RETURNING

_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class Fill:
    """A statement to be run on every entry: on `:after < id <= :last`, some thousand at once."""

    sql: str


Step = tuple[str | Fill, ...]
"""What leads from one version to the next."""

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

FIRST_ADDRESS = (
    "UPDATE entry SET address = coalesce((SELECT min(substr(n.name, instr(n.name, ':addr:') + 6)) FROM name AS n"
    " WHERE n.entry = entry.id AND instr(n.name, ':addr:')), '')"
)
"""The first of the addresses that an entry is indexed under, which listings go by."""

LISTS: Step = (
    "ALTER TABLE entry ADD COLUMN address TEXT NOT NULL DEFAULT ''",
    # Of which entries the text index below is behind, those with a higher id than it has seen aside.
    "CREATE TABLE unindexed (entry INTEGER PRIMARY KEY)",
    # The texts themselves stand in `entry.folded`; what is found here may be stale, and is looked at again there.
    "CREATE VIRTUAL TABLE trigram USING fts5"
    " (folded, content='', tokenize='trigram case_sensitive 1', detail=none, columnsize=0)",
)

ADDRESSES: Step = (Fill(FIRST_ADDRESS + " WHERE id > :after AND id <= :last"),)

INDEXES: Step = (
    # None by `at` alone: the ranges of `entry_age` and `entry_mail` are merged, and a put writes a page less.
    "CREATE INDEX entry_held ON entry (at) WHERE held",
    "CREATE INDEX entry_approved ON entry (at) WHERE approved",
    "CREATE INDEX entry_address ON entry (address)",
    "INSERT INTO tally SELECT 'upstream ' || origin, count(*) FROM entry WHERE source = 'keyserver' GROUP BY origin",
    "INSERT INTO tally SELECT 'held', count(*) FROM entry WHERE held",
    "INSERT INTO tally SELECT 'approved', count(*) FROM entry WHERE approved",
)

DOMAINS: Step = (
    # `at` is in it so that a domain of any size can be listed newest first.
    "CREATE INDEX name_domain ON name (substr(name, instr(name, '@') + 1), at, entry) WHERE instr(name, '@') > 0",
)

UNDO: Step = (
    # What was deleted and can be brought back: narrow rows and their octets apart, as for entries. `names` holds
    # [name, rank] pairs, so that the index is restored as it was.
    """CREATE TABLE undo (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        at INTEGER NOT NULL,
        until INTEGER NOT NULL,
        entries INTEGER NOT NULL
    )""",
    """CREATE TABLE undo_entry (
        id INTEGER PRIMARY KEY,
        undo INTEGER NOT NULL REFERENCES undo (number) ON DELETE CASCADE,
        fingerprint TEXT NOT NULL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        origin TEXT NOT NULL,
        at INTEGER NOT NULL,
        vouchers TEXT NOT NULL,
        chained INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        identities TEXT NOT NULL,
        folded TEXT NOT NULL,
        names TEXT NOT NULL
    )""",
    "CREATE UNIQUE INDEX undo_entry_identity ON undo_entry (fingerprint, source, origin)",
    "CREATE INDEX undo_entry_undo ON undo_entry (undo, fingerprint)",
    """CREATE TABLE undo_copy (
        entry INTEGER PRIMARY KEY REFERENCES undo_entry (id) ON DELETE CASCADE,
        octets BLOB NOT NULL
    )""",
    """CREATE TABLE undo_record (
        name TEXT NOT NULL,
        upstream TEXT NOT NULL,
        at INTEGER NOT NULL,
        asked_at INTEGER NOT NULL,
        fingerprint TEXT NOT NULL,
        undo INTEGER NOT NULL REFERENCES undo (number) ON DELETE CASCADE,
        PRIMARY KEY (name, upstream)
    ) WITHOUT ROWID""",
    "CREATE INDEX undo_record_undo ON undo_record (undo, fingerprint)",
)

UPSTREAMS: Step = (
    "CREATE TABLE pause (upstream TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE told (upstream TEXT PRIMARY KEY, counts BLOB NOT NULL)",
)

ACTS: Step = ("CREATE INDEX act_certificate ON act (certificate, number) WHERE certificate != ''",)

INVITATIONS: Step = (
    # See `store.invitations`; confirm, withdraw: digests of the tokens. AUTOINCREMENT as for acts.
    """CREATE TABLE invitation (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        confirm BLOB NOT NULL UNIQUE,
        withdraw BLOB NOT NULL UNIQUE,
        address TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        origin TEXT NOT NULL,
        made_at INTEGER NOT NULL,
        made_by TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        stage TEXT NOT NULL,
        changed_at INTEGER NOT NULL,
        note TEXT NOT NULL,
        confirmed_at INTEGER NOT NULL
    )""",
    "CREATE INDEX invitation_address ON invitation (address, number)",
    "CREATE INDEX invitation_made ON invitation (made_at)",
    "CREATE INDEX invitation_idle ON invitation (number) WHERE stage NOT IN ('confirmed', 'withdrawn')",
)

OUTLOOK: Step = (
    # See `store.recipients`; `store.noted` says what is in its columns.
    """CREATE TABLE recipient (
        hash BLOB PRIMARY KEY,
        domain TEXT NOT NULL,
        asked_day INTEGER NOT NULL,
        word TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER,
        cause TEXT NOT NULL,
        kind TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        reason TEXT NOT NULL,
        lost INTEGER NOT NULL
    ) WITHOUT ROWID""",
    # See `store.upstreams`.
    """CREATE TABLE pace (
        day INTEGER NOT NULL,
        upstream TEXT NOT NULL,
        bucket INTEGER NOT NULL,
        n INTEGER NOT NULL,
        PRIMARY KEY (day, upstream, bucket)
    ) WITHOUT ROWID""",
)

STEPS: tuple[Step, ...] = (
    VERSION_1,
    VERSION_2,
    ACCESS,
    LISTS,
    ADDRESSES,
    INDEXES,
    DOMAINS,
    UNDO,
    UPSTREAMS,
    ACTS,
    INVITATIONS,
    RECORDING,
    OUTLOOK,
)
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
        refuse_newer(path, int.from_bytes(header[60:64], "big"), len(STEPS))


def refuse_newer(path: Path, version: int, ours: int) -> None:
    """Raises StoreRefused where a newer release has written the file."""
    if version > ours:
        raise StoreRefused(
            f"{path} was written by a newer release (schema version {version}, this one knows {ours});"
            " it was left as it is: install the newer release again, or restore a backup from before it"
        )
