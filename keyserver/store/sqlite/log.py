"""The write-ahead log is moved into the database by a connection and a thread of its own, never by a put.

A commit that passes SQLite's own limit moves the log in the writer's thread: with a million entries one put in a
hundred waited 25 ms for it. https://www.sqlite.org/wal.html, "Checkpointing" and "Avoiding excessively large WAL
files".
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite

from keyserver.store.sqlite.session import connect, run

ROWS = 500  # written since the last time: some 8 MiB of log, two pages a row
MOST = 64 << 20  # octets of log above which writers wait for it to be moved whole
_PATIENCE = 1000  # ms that the write under way and readers are waited for then
_PASSES = 4  # what is written meanwhile is moved by the next pass, which is shorter


class Log:
    """Moves the log when enough has been written."""

    def __init__(self, path: Path, start: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """start: makes a task of it that closing waits for."""
        self._path = path
        self._start = start
        self._db: aiosqlite.Connection | None = None
        self._rows = 0
        self._at_work = False
        self._room = asyncio.Event()
        self._room.set()

    async def open(self) -> None:
        """Raises sqlite3.Error."""
        self._db = await connect(self._path, writes=True)
        await run(self._db, _begin)

    async def close(self) -> None:
        """A second call does nothing."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                await db.close()

    async def room(self) -> None:
        """To be awaited before each write: many large ones in a row would never let the log be moved whole."""
        await self._room.wait()

    def grown(self, rows: int) -> None:
        """So many rows have been written."""
        self._rows += rows
        if self._rows >= ROWS and not self._at_work and self._db is not None:
            self._at_work = True
            self._start(self._work(self._db))

    async def _work(self, db: aiosqlite.Connection) -> None:
        self._rows = 0
        try:
            with suppress(sqlite3.Error):  # the log stays longer: what is wrong, the next write finds, too
                known = -1
                for _ in range(_PASSES):
                    pages = await run(db, _move)
                    if pages == known:
                        break
                    known = pages
                # The writer begins at the log's start again if all was moved when a transaction begins: of one that is
                # never idle, none does.
                if known * await run(db, _page_size) > MOST:
                    self._room.clear()
                    await run(db, _move_all)
        finally:
            self._room.set()
            self._at_work = False


def _begin(db: sqlite3.Connection) -> None:
    """A connection that has read nothing yet does not know that there is a log, and moves none."""
    db.execute("SELECT max(number) FROM change").fetchone()
    db.execute(f"PRAGMA busy_timeout={_PATIENCE}")


def _move(db: sqlite3.Connection) -> int:
    """Move what can be moved while others read and write; the pages of the log."""
    _, pages, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)


def _move_all(db: sqlite3.Connection) -> None:
    """Move what is left, which is little by now, while writers wait."""
    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()


def _page_size(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA page_size").fetchone()[0])
