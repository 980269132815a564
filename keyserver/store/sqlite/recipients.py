"""`Recipients` in the cache's own SQLite file."""

# ruff: noqa: S608 - our own words

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

from keyserver.store import noted
from keyserver.store.names import fits
from keyserver.store.past import address_of
from keyserver.store.recipients import Coverage, Ending, Looked, Lost
from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.reading import instant
from keyserver.store.sqlite.session import Session, keyed
from keyserver.store.sqlite.writing import Writing

_BATCH = 200  # notes in one transaction

_NOTE = (
    f"INSERT INTO recipient AS r ({', '.join(noted.COLUMNS)}) VALUES ({', '.join('?' * len(noted.COLUMNS))})"
    f" ON CONFLICT (hash) DO UPDATE SET {noted.AGAIN}"
)
_ENDING = (  # what is beside max() is of the row that has it
    "SELECT fingerprint, kind, max(until), cause, min(domain), count(*) FROM recipient"
    " WHERE word = 'yes' AND fingerprint <> '' AND asked_day >= :day GROUP BY fingerprint"
    " HAVING count(until) = count(*) AND max(until) > :now AND max(until) <= :upto"
    " ORDER BY max(until), fingerprint LIMIT :limit"
)
_NAMES = (
    "SELECT n.name FROM entry AS e JOIN name AS n ON n.entry = e.id WHERE e.fingerprint = ?1"
    f" UNION SELECT name FROM past_name WHERE fingerprint = ?1 LIMIT {noted.NAMES}"
)
_HAS = "SELECT 1 FROM recipient WHERE hash = ? AND word = 'yes' AND fingerprint = ? AND asked_day >= ?"


class SqliteRecipients:
    """Promises: see `Recipients`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def note(self, seen: Mapping[str, Looked]) -> None:
        """As `Recipients.note`."""
        notes = [one for one in seen.items() if fits(one[0])]
        for first in range(0, len(notes), _BATCH):
            work = partial(_note, notes=notes[first : first + _BATCH])
            await self._connections.write(work, durable=False)

    async def asked_today(self, addresses: Collection[str], day: int) -> set[str]:
        """As `Recipients.asked_today`."""

        def read(db: Session) -> set[str]:
            key, active = db.execute("SELECT key, active FROM history").fetchone()
            if not active:
                return set(addresses)
            sql = "SELECT 1 FROM recipient WHERE hash = ? AND asked_day >= ?"
            return {one for one in addresses if db.execute(sql, (keyed(key, one), day)).fetchone()}

        return await self._connections.read(read, long=True)

    async def domains(self, since_day: int, limit: int) -> Sequence[Coverage]:
        """As `Recipients.domains`."""

        def read(db: Session) -> list[Coverage]:
            with instant(db):
                rows = db.execute(f"{noted.DOMAINS.format('?')} LIMIT ?", (since_day, limit)).fetchall()
                return noted.coverage(rows, db.execute(noted.ALL.format("?"), (since_day,)).fetchone())

        return await self._connections.read(read, long=True)

    async def ending(self, now: int, until: int, since_day: int, limit: int) -> Sequence[Ending]:
        """As `Recipients.ending`."""
        values = {"now": now, "upto": until, "day": since_day, "limit": limit}

        def read(db: Session) -> list[Ending]:
            with instant(db):
                found = []
                for row in db.execute(_ENDING, values).fetchall():
                    named = _named(db, row[0])
                    have = [one for h, one in named.items() if db.execute(_HAS, (h, row[0], since_day)).fetchone()]
                    found.append(noted.ending(row, have))
                return found

        return await self._connections.read(read, long=True)

    async def lost(self, since: int, since_day: int, limit: int) -> Sequence[Lost]:
        """As `Recipients.lost`."""

        def read(db: Session) -> list[Lost]:
            with instant(db):
                rows = db.execute(noted.LOST.format("?", "?", "?"), (since, since_day, limit)).fetchall()
                named = {fingerprint: _named(db, fingerprint) for fingerprint in {row[3] for row in rows} - {""}}
                return [noted.lost(row, named) for row in rows]

        return await self._connections.read(read, long=True)


def _note(writing: Writing, notes: Iterable[tuple[str, Looked]]) -> None:
    key, active = writing.db.execute("SELECT key, active FROM history").fetchone()
    if active:
        rows = [(keyed(key, address), *noted.row_of(address, looked)) for address, looked in notes]
        writing.db.executemany(_NOTE, rows)


def _named(db: Session, fingerprint: str) -> Mapping[bytes, str]:
    """Addresses that a certificate names or has named, by their hashes."""
    (key,) = db.execute("SELECT key FROM history").fetchone()
    names = (address_of(row[0])[1] for row in db.execute(_NAMES, (fingerprint,)))
    return {keyed(key, address): address for address in names if address}
