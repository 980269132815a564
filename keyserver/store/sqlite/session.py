"""One SQLite connection on aiosqlite's thread, and whole functions run on it in one hop.

aiosqlite gives each connection a thread, but hands it one statement at a time: a transaction of ten statements would
be ten hops of some 60 µs, could be cancelled half-way, and would call our hygiene functions on the loop. Here a
function travels in the place of a statement's parameters, through aiosqlite's public interface only.

A thread of our own around sqlite3 made a whole miss no cheaper (0.65 x against 0.64 x of what it was): what costs is
the hop, and puts that wait share one (`puts`).
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from keyserver.store.standing import storable

T = TypeVar("T")

_RUN = "-- run a function"
_BUSY = 5.0  # seconds to wait for another process's write transaction
_READ_CACHE = 4 << 10  # KiB of page cache; the rest is the kernel's
_WRITE_CACHE = 32 << 10  # KiB: what a batch of 500 certificates dirties, or pages would be written twice
_LOG_SIZE = 32 << 20  # octets to which the log shrinks again after something big


class _Done:
    """A function's result where aiosqlite expects a cursor."""

    def __init__(self, result: object) -> None:
        self._result = result

    def fetchall(self) -> object:
        """What the function returned."""
        return self._result


class Session(sqlite3.Connection):
    """A connection that also runs functions: `execute(_RUN, (function,))` calls `function(self)`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._settings: dict[str, str] = {}
        self.now: int | None = None
        """What time it is in the transaction under way, for what its triggers record (`recording`); None: the clock's.
        """
        self.act = ""
        """What they cannot see: "expired", "undone"; "copying": they record nothing."""
        self.who = ""
        """Who does it, where it is an administrator."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As sqlite3's own, or the function that stands in the parameters."""
        if sql is _RUN:
            return cast(sqlite3.Cursor, _Done(parameters[0](self)))
        try:
            return super().execute(sql, parameters)
        except UnicodeEncodeError:
            return super().execute(sql, _storable(parameters))

    def provide(self) -> None:
        """Register what the triggers call. On the connection's own thread."""
        self.create_function("history_now", 0, lambda: self.now)
        self.create_function("history_act", 0, lambda: self.act)
        self.create_function("history_who", 0, lambda: self.who)
        self.create_function("history_hash", 2, keyed, deterministic=True)
        self.create_function("history_digest", 1, _digest, deterministic=True)

    def set(self, pragma: str, value: str) -> None:
        """Set a pragma of this connection, unless that was its last value here: to set one makes SQLite prepare every
        statement again, which is a third of a put."""
        if self._settings.get(pragma) != value:
            self.execute(f"PRAGMA {pragma}={value}")
            self._settings[pragma] = value


def keyed(key: bytes, name: str) -> bytes:
    """By what a query stands in the history: nobody without the key can tell which it was. PostgreSQL does the same."""
    inner = hashlib.sha256(key + name.encode()).digest()
    return hashlib.sha256(key + inner).digest()[:16]


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()[:16]


def _storable(parameters: Any) -> Any:
    if isinstance(parameters, dict):
        return dict(zip(parameters, _storable(parameters.values()), strict=True))
    return [storable(value) if isinstance(value, str) else value for value in parameters]


def uri_of(path: Path, *, immutable: bool) -> str:
    """The database as SQLite opens it: never a new file, `schema.create_file` makes it, closed to others."""
    return f"{path.absolute().as_uri()}?{'mode=ro&immutable=1' if immutable else 'mode=rw'}"


async def connect(path: Path, *, writes: bool, immutable: bool = False) -> aiosqlite.Connection:
    """A connection in autocommit mode; transactions are begun by name. Raises sqlite3.Error.

    immutable: nobody can change the file, and SQLite needs no files beside it."""
    uri = uri_of(path, immutable=immutable)
    db = await aiosqlite.connect(uri, uri=True, factory=Session, isolation_level=None, timeout=_BUSY)
    try:
        await run(db, lambda c: _pragmas(c, writes))
    except BaseException:
        await db.close()
        raise
    return db


def _pragmas(db: Session, writes: bool) -> None:
    db.execute(f"PRAGMA cache_size=-{_WRITE_CACHE if writes else _READ_CACHE}")
    db.execute("PRAGMA temp_store=MEMORY")
    if not writes:
        db.execute("PRAGMA query_only=ON")
        return
    db.provide()
    db.execute(f"PRAGMA journal_size_limit={_LOG_SIZE}").fetchall()
    db.execute("PRAGMA wal_autocheckpoint=0").fetchall()  # `log` does it, in a thread of its own
    # Some distributions overwrite every freed page with zeros: a purge of 1 GB would write 1 GB of public certificates.
    db.execute("PRAGMA secure_delete=FAST").fetchall()


async def run(db: aiosqlite.Connection, function: Callable[[Session], T]) -> T:
    """Call `function(connection)` on the connection's thread, in one hop, to its end even if we are cancelled."""
    return cast(T, await db.execute_fetchall(_RUN, (function,)))
