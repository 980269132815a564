"""Short looks are read in the loop's own thread, where they are cheapest: the way to another thread and back costs more
than what they read. What is long, must wait or comes from a disk goes to the reader's thread as before."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from keyserver.model import Name
from keyserver.store.snapshot import Snapshot
from keyserver.store.sqlite import reading
from keyserver.store.sqlite.session import uri_of

ELSEWHERE = 64  # looks that go to their thread after one that read from a disk: what they read is warm then


def blocks_read() -> int:
    """What this thread has read from disks so far, in blocks; 0.3 µs."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock


class Near:
    """A connection in the loop's thread, which never waits for anybody."""

    def __init__(self, path: Path, blocks: Callable[[], int] = blocks_read) -> None:
        self._path = path
        self._blocks = blocks
        self._db: sqlite3.Connection | None = None
        self._elsewhere = 0  # of the next looks

    def open(self, *, immutable: bool) -> None:
        """In the loop's thread. Raises sqlite3.Error."""
        self._db = sqlite3.connect(uri_of(self._path, immutable=immutable), uri=True, isolation_level=None, timeout=0)
        self._db.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """A second call does nothing."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def look(self, name: Name) -> Snapshot | None:
        """`Store.look` where it is short and disk and database let it be; None: ask the reader."""
        if self._db is None:
            return None
        if self._elsewhere:
            self._elsewhere -= 1
            return None
        before = self._blocks()
        try:
            return reading.look(self._db, name, reading.SHORT)
        except (sqlite3.Error, reading.TooMuch):  # whatever is wrong, the reader finds it, too, and says so
            return None
        finally:
            if self._blocks() != before:
                self._elsewhere = ELSEWHERE
