"""`Transfer` on an SQLite file."""

from __future__ import annotations

from collections.abc import Sequence

from keyserver.model import Entry, Name
from keyserver.store.sqlite import erasing, put, reading
from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.session import Session
from keyserver.store.sqlite.writing import Writing
from keyserver.store.standing import Standing
from keyserver.store.transfer import TABLES, Key, Part, Row

_ENTRY_KEY = ("fingerprint", "source", "origin")


class SqliteTransfer:
    """Promises: see `Transfer`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def count(self, part: Part) -> int:
        """As `Transfer.count`."""
        table = "entry" if part is Part.ENTRIES else TABLES[part].name
        sql = f"SELECT count(*) FROM {table}"  # noqa: S608 - our own words
        count: int = await self._connections.read(lambda db: db.execute(sql).fetchone()[0], long=True)
        return count

    async def read(self, part: Part, after: Key | None, upto: Key | None, limit: int) -> Sequence[tuple[Key, Row]]:
        """As `Transfer.read`."""
        if part is Part.ENTRIES:
            return await self._connections.read(lambda db: _entries(db, after, upto, limit), long=True)
        table = TABLES[part]
        sql = f"SELECT {', '.join(table.columns)} FROM {table.name}"  # noqa: S608 - our own words
        within, values = _within(table.key, after, upto)
        order = f"{within} ORDER BY {', '.join(table.key)} LIMIT ?"
        rows = await self._connections.read(
            lambda db: db.execute(f"{sql} WHERE {order}", (*values, limit)).fetchall(), long=True
        )
        return [table.split(row) for row in rows]

    async def write(self, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
        """As `Transfer.write`."""

        def copy(writing: Writing) -> None:
            writing.tell(None, "copying")
            _write(writing, part, rows)

        await self._connections.write(copy, durable=False)

    async def finish(self) -> None:
        """As `Transfer.finish`."""

        def tell(writing: Writing) -> None:
            writing.everything = True
            erasing.recount(writing.db)

        await self._connections.write(tell)

    def kept(self, part: Part, row: Row) -> Row:
        """As `Transfer.kept`: SQLite takes whatever another store has."""
        return row


def _within(columns: Sequence[str], after: Key | None, upto: Key | None) -> tuple[str, tuple[str | int | bytes, ...]]:
    """A condition on a key, and its values."""
    key, marks = f"({', '.join(columns)})", f"({', '.join('?' * len(columns))})"
    bounds = [(sign, bound) for sign, bound in ((">", after), ("<=", upto)) if bound is not None]
    condition = " AND ".join(f"{key} {sign} {marks}" for sign, _ in bounds) or "1"
    return condition, tuple(value for _, bound in bounds for value in bound)


def _entries(db: Session, after: Key | None, upto: Key | None, limit: int) -> list[tuple[Key, Row]]:
    within, values = _within([f"e.{column}" for column in _ENTRY_KEY], after, upto)
    order = "ORDER BY e.fingerprint, e.source, e.origin LIMIT ?"
    found: list[tuple[Key, Row]] = []
    with reading.instant(db):
        ids = db.execute(f"SELECT e.id FROM entry AS e WHERE {within} {order}", (*values, limit))  # noqa: S608
        for (id_,) in ids.fetchall():
            entry = reading.entry_of(db.execute(reading.ENTRY, (id_,)).fetchone())
            names = dict(db.execute("SELECT name, rank FROM name WHERE entry = ?", (id_,)).fetchall())
            found.append(((entry.fingerprint, str(entry.source), entry.origin), (entry, names)))
    return found


def _write(writing: Writing, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
    if part is Part.ENTRIES:
        for _, (entry, names) in rows:
            assert isinstance(entry, Entry)
            assert isinstance(names, dict)
            _write_entry(writing, entry, names)
        return
    table = TABLES[part]
    if part is Part.RECORDS:
        for _, (found, *_rest) in rows:
            writing.tally["found" if found else "absent"] += 1
    marks = ", ".join("?" * len(table.columns))
    sql = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"  # noqa: S608 - our own words
    writing.db.executemany(sql, [key + row for key, row in rows])


def _write_entry(writing: Writing, entry: Entry, names: dict[Name, int]) -> None:
    put.insert(writing, entry, Standing.of(entry.source, entry.vouchers, chained=entry.chained), names)
