"""`Transfer` on a PostgreSQL database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from keyserver.model import Entry, Name
from keyserver.store.names import fits
from keyserver.store.postgres import reading
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.recording import REBASE
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing
from keyserver.store.standing import Standing, first_address, folded
from keyserver.store.transfer import TABLES, Key, Part, Row

Value = TypeVar("Value")

_ENTRY_KEY = ("e.fingerprint", "e.source", "e.origin")
_READ = "e.fingerprint, e.kind, e.octets, e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id, e.identities"
_ENTRIES = (
    f"SELECT {_READ}, n.names, n.ranks FROM entry AS e CROSS JOIN LATERAL ("  # noqa: S608 - our own words
    "SELECT coalesce(array_agg(name), '{}') AS names, coalesce(array_agg(rank), '{}') AS ranks"
    " FROM name WHERE entry = e.id) AS n"
)
_COLUMNS = (
    "fingerprint, kind, source, origin, at, rank, approved, held, chained, vouchers, message_id, identities, folded,"
    " address, octets"
)
_INSERT = (
    f"INSERT INTO entry ({_COLUMNS})"  # noqa: S608 - our own words
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING id"
)
_NUMBERS = "SELECT setval(pg_get_serial_sequence('{table}', 'number'), max(number)) FROM {table}"


class PostgresTransfer:
    """Promises: see `Transfer`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def count(self, part: Part) -> int:
        """As `Transfer.count`."""
        table = "entry" if part is Part.ENTRIES else TABLES[part].name
        sql = f"SELECT count(*) FROM {table}"  # noqa: S608 - our own words
        count: int = await self._connections.read(lambda db: db.fetchval(sql), long=True)
        return count

    async def read(self, part: Part, after: Key | None, upto: Key | None, limit: int) -> Sequence[tuple[Key, Row]]:
        """As `Transfer.read`."""
        if part is Part.ENTRIES:
            return await self._entries(after, upto, limit)
        table = TABLES[part]
        within, values = _within(table.key, after, upto)
        columns, order = ", ".join(table.columns), ", ".join(table.key)
        sql = f"SELECT {columns} FROM {table.name} WHERE {within} ORDER BY {order} LIMIT {limit:d}"  # noqa: S608
        rows = await self._connections.read(lambda db: db.fetch(sql, *values), long=True)
        return [table.split(tuple(row)) for row in rows]

    async def write(self, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
        """As `Transfer.write`."""

        async def add(writing: Writing) -> None:
            await writing.tell(None, "copying")
            if part is Part.ENTRIES:
                await _write_entries(writing, [_entry_of(row) for _, row in rows])
            else:
                await _write_table(writing, part, rows)

        await self._connections.write(add, durable=False)

    async def finish(self) -> None:
        """As `Transfer.finish`: a commit that waits for the disk waits for all before it."""

        async def tell(writing: Writing) -> None:
            writing.everything = True

        await self._connections.write(tell)

    def kept(self, part: Part, row: Row) -> Row:
        """As `Transfer.kept`: what is no text there is replaced, names too long for an index are left out."""
        if part is Part.ENTRIES:
            entry, names = _entry_of(row)
            entry = replace(entry, detail=text(entry.detail))
            return entry, {name: rank for name, rank in names.items() if fits(name)}
        return tuple(map(_plain, row))

    async def _entries(self, after: Key | None, upto: Key | None, limit: int) -> Sequence[tuple[Key, Row]]:
        within, values = _within(_ENTRY_KEY, after, upto)
        sql = f"{_ENTRIES} WHERE {within} ORDER BY {', '.join(_ENTRY_KEY)} LIMIT {limit:d}"
        found: list[tuple[Key, Row]] = []
        for row in await self._connections.read(lambda db: db.fetch(sql, *values), long=True):
            entry = reading.entry_of(row)
            names = dict(zip(row["names"], row["ranks"], strict=True))
            found.append(((entry.fingerprint, str(entry.source), entry.origin), (entry, names)))
        return found


def _within(columns: Sequence[str], after: Key | None, upto: Key | None) -> tuple[str, tuple[str | int | bytes, ...]]:
    """A condition on a key, and its values."""
    bounds = [(sign, bound) for sign, bound in ((">", after), ("<=", upto)) if bound is not None]
    conditions = []
    values: tuple[str | int | bytes, ...] = ()
    for sign, bound in bounds:
        marks = ", ".join(f"${len(values) + place}" for place in range(1, len(columns) + 1))
        conditions.append(f"({', '.join(columns)}) {sign} ({marks})")
        values += tuple(map(_plain, bound))
    return " AND ".join(conditions) or "true", values


def _plain(value: Value) -> Value:
    """As PostgreSQL takes it."""
    return text(value) if isinstance(value, str) else value  # type: ignore[return-value]  # text stays text


def _entry_of(row: Row) -> tuple[Entry, dict[Name, int]]:
    entry, names = row
    assert isinstance(entry, Entry)
    assert isinstance(names, dict)
    return entry, names


async def _write_entries(writing: Writing, given: Sequence[tuple[Entry, dict[Name, int]]]) -> None:
    """Entries that are not there, under their names with their ranks."""
    fingerprints = sorted({entry.fingerprint for entry, _ in given})
    known = await writing.db.fetch("SELECT DISTINCT fingerprint FROM entry WHERE fingerprint = ANY($1)", fingerprints)
    writing.tally["certificates"] += len(fingerprints) - len(known)
    rows = []
    for entry, names in given:
        stand = Standing.of(entry.source, entry.vouchers, chained=entry.chained)
        rows.append(
            (
                *(entry.fingerprint, str(entry.kind), str(entry.source), entry.origin, entry.cached_at),
                *(stand.rank, stand.approved, stand.held, entry.chained, stand.column, text(entry.detail)),
                *(json.dumps(entry.identities), text(folded(entry.identities)), first_address(filter(fits, names))),
                entry.octets,
            )
        )
        source, octets = str(entry.source), len(entry.octets)
        writing.count(1, source, entry.origin, octets, held=stand.held, approved=stand.approved)
    ids = await writing.db.fetchmany(_INSERT, rows)
    named = [
        (name, rank, entry.cached_at, id_, entry.fingerprint)
        for (entry, names), (id_,) in zip(given, ids, strict=True)
        for name, rank in names.items()
        if fits(name)
    ]
    await writing.db.executemany(
        "INSERT INTO name (name, rank, at, entry, fingerprint) VALUES ($1, $2, $3, $4, $5)", named
    )


async def _write_table(writing: Writing, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
    table = TABLES[part]
    if part is Part.RECORDS:
        for _, (found, *_rest) in rows:
            writing.tally["found" if found else "absent"] += 1
    marks = ", ".join(f"${place}" for place in range(1, len(table.columns) + 1))
    sql = f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})"  # noqa: S608 - our own words
    await writing.db.executemany(sql, [list(map(_plain, key + row)) for key, row in rows])
    if part in (Part.ACTS, Part.INVITATIONS):  # those that come in the usual way are numbered behind them
        await writing.db.execute(_NUMBERS.format(table=table.name))
    elif part is Part.EVENTS:
        await writing.db.execute(REBASE)
