"""One write transaction: what it touches is gathered while it runs, and leaves as one change row."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from keyserver.model import Change, Name, Source
from keyserver.store.deletion import names_of_fingerprint
from keyserver.store.listing import UPSTREAM
from keyserver.store.sqlite.reading import MAX_PUBLISHED
from keyserver.store.sqlite.session import Session

T = TypeVar("T")

_KEPT_NAMES = 2 * MAX_PUBLISHED  # change rows are tidied away behind that many names
_TIDIED = 256  # names, each time so many have come
_PROBE = 256 << 10  # octets


@dataclass(frozen=True, slots=True)
class Written:
    """A finished transaction's change, and the number of the one before it."""

    change: Change
    previous: int


class Writing:
    """A write transaction under way."""

    def __init__(self, db: Session) -> None:
        self.db = db
        self.names: set[Name] = set()
        """Every name that was touched."""
        self.everything = False
        """Was more touched than can be named?"""
        self.tally: Counter[str] = Counter()
        """What the counts of `stats` change by."""

    def tell(self, now: int | None, act: str = "") -> None:
        """What is recorded from here on was done at this time; and how, where its triggers cannot see that."""
        self.db.now, self.db.act = now, act

    def touch(self, fingerprint: str) -> frozenset[Name]:
        """Note that a certificate is touched: every name of every entry of it, and those of its fingerprint."""
        rows = self.db.execute(
            "SELECT DISTINCT n.name FROM entry AS e CROSS JOIN name AS n ON n.entry = e.id WHERE e.fingerprint = ?",
            (fingerprint,),
        )
        names = names_of_fingerprint(fingerprint).union(row[0] for row in rows)
        self.names |= names
        return names

    @cached_property
    def undoable(self) -> bool:
        """Does anything wait to be undone?"""
        return self.db.execute("SELECT 1 FROM undo LIMIT 1").fetchone() is not None

    def forget(self, names: Collection[Name], undo: int = 0) -> None:
        """Forget the records of some names, so that the next lookup asks again. Those that wait to be undone, too, but
        for what this very `undo` has taken: another one must not bring back what now is to be asked again."""
        chosen = json.dumps(list(names))
        rows = self.db.execute(
            "DELETE FROM record WHERE name IN (SELECT value FROM json_each(?)) RETURNING found", (chosen,)
        )
        for (found,) in rows.fetchall():
            self.tally["found" if found else "absent"] -= 1
        if self.undoable:
            self.db.execute(
                "DELETE FROM undo_record WHERE name IN (SELECT value FROM json_each(?)) AND undo <> ?", (chosen, undo)
            )

    def count(self, by: int, source: str, origin: str, *, held: bool, approved: bool) -> None:
        """Count an entry of this kind in (1) or out (-1)."""
        self.tally[source] += by
        if source == Source.KEYSERVER:
            self.tally[UPSTREAM + origin] += by
        self.tally["held"] += by * held
        self.tally["approved"] += by * approved

    def finish(self) -> Written | None:
        """Write counts and change row; None where nothing was touched."""
        for what, n in self.tally.items():
            if n:
                self.db.execute("INSERT INTO tally VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = n + ?2", (what, n))
        if not self.names and not self.everything:
            return None
        step = max(1, len(self.names))
        names = "[]" if self.everything else json.dumps(sorted(self.names))
        rows = self.db.execute(
            "INSERT INTO change SELECT max(number) + ?, ?, ? FROM change RETURNING number",
            (step, self.everything, names),
        ).fetchall()
        number: int = rows[0][0]
        if number // _TIDIED != (number - step) // _TIDIED:
            self.db.execute("DELETE FROM change WHERE number < ?", (number - max(_KEPT_NAMES, step),))
        return Written(Change(number, frozenset(self.names), self.everything), number - step)


def transact(
    db: Session, work: Callable[[Writing], T], durable: bool = True, foreign_keys: bool = True, who: str = ""
) -> tuple[T, Written | None]:
    """Run `work` in one IMMEDIATE transaction; whatever it raises, nothing of it stays.

    A commit reaches the operating system before it returns, so a killed process loses nothing and a power cut
    corrupts nothing (WAL). `durable` also waits for the disk, and for all that was written before: for what no
    upstream can tell us again. What a keyserver said may be searched again after a power cut, and its answer should
    not wait for a disk. who: the administrator that does it, for the history.
    """
    db.now, db.act, db.who = None, "", who
    db.set("synchronous", "FULL" if durable else "NORMAL")
    db.set("foreign_keys", "ON" if foreign_keys else "OFF")
    db.execute("BEGIN IMMEDIATE")
    try:
        writing = Writing(db)
        result = work(writing)
        written = writing.finish()
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    return result, written


def probe(writing: Writing) -> None:
    """Write enough to know that there is room again; `unprobe` gives it back."""
    writing.db.execute("INSERT INTO probe VALUES (zeroblob(?))", (_PROBE,))


def unprobe(writing: Writing) -> None:
    """Take away what `probe` wrote: a transaction of its own, or nothing would have reached the file."""
    writing.db.execute("DELETE FROM probe")
