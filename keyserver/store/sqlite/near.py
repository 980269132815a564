"""Short looks are read in the loop's own thread, where they are cheapest: the way to another thread and back costs more
than what they read. What is long, must wait or comes from a slow disk goes to the reader's thread as before."""

from __future__ import annotations

import resource
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from keyserver.model import Name
from keyserver.store.base import Snapshot
from keyserver.store.sqlite import reading
from keyserver.store.sqlite.session import uri_of

SLOW = 0.002  # seconds; usual are some 50 µs
PAUSE = 1.0  # seconds for which looks go to their thread after one that waited for the disk


class Near:
    """A connection in the loop's thread, which never waits for anybody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._again = 0.0
        self._blocks = 0  # read from a disk by this thread so far

    def open(self, *, immutable: bool) -> None:
        """In the loop's thread. Raises sqlite3.Error."""
        self._db = sqlite3.connect(uri_of(self._path, immutable=immutable), uri=True, isolation_level=None, timeout=0)
        self._db.execute("PRAGMA query_only=ON")
        self._blocks = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock

    def close(self) -> None:
        """A second call does nothing."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def look(self, name: Name) -> Snapshot | None:
        """`Store.look` where it is short and disk and database let it be; None: ask the reader."""
        began = time.monotonic()
        if self._db is None or began < self._again:
            return None
        try:
            return reading.look(self._db, name, reading.SHORT)
        except (sqlite3.Error, reading.TooMuch):  # whatever is wrong, the reader finds it, too, and says so
            return None
        finally:
            ended = time.monotonic()
            if ended - began > SLOW:
                self._judge(ended)

    def _judge(self, now: float) -> None:
        """Was it the disk? A processor that others have, too, is no reason."""
        blocks = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        if blocks != self._blocks:
            self._blocks, self._again = blocks, now + PAUSE
