"""`Recipients` in the cache's own PostgreSQL database."""

# ruff: noqa: S608 - our own words

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from keyserver.store import noted
from keyserver.store.names import fits
from keyserver.store.postgres.administration import Connections
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing
from keyserver.store.recipients import Coverage, Ending, Looked, Lost

_MARKS = ", ".join(f"${place}" for place in range(2, len(noted.COLUMNS) + 1))
_NOTE = (
    f"INSERT INTO recipient AS r ({', '.join(noted.COLUMNS)}) VALUES (history_hash_1($1), {_MARKS})"
    f" ON CONFLICT (hash) DO UPDATE SET {noted.AGAIN}"
)
_TODAY = (
    "SELECT a FROM unnest($1::text[]) AS a"
    " WHERE EXISTS (SELECT 1 FROM recipient AS r WHERE r.hash = history_hash_1(a) AND r.asked_day >= $2)"
)
_ENDING = (
    "SELECT fingerprint, min(kind), max(until), (array_agg(cause ORDER BY until DESC))[1], min(domain), count(*)"
    " FROM recipient WHERE word = 'yes' AND fingerprint <> '' AND asked_day >= $3 GROUP BY fingerprint"
    " HAVING count(until) = count(*) AND max(until) > $1 AND max(until) <= $2 ORDER BY max(until), fingerprint LIMIT $4"
)
_NAMED = (
    "SELECT c.f, h.hash, h.address FROM unnest($1::text[]) AS c (f) CROSS JOIN LATERAL (SELECT n.name FROM"
    " entry AS e JOIN name AS n ON n.entry = e.id WHERE e.fingerprint = c.f UNION SELECT p.name FROM past_name AS p"
    f" WHERE p.fingerprint = c.f LIMIT {noted.NAMES}) AS n CROSS JOIN LATERAL (SELECT substr(n.name,"
    " strpos(n.name, ':addr:') + 6) AS address) AS a CROSS JOIN LATERAL (SELECT history_hash_1(a.address) AS hash,"
    " a.address) AS h WHERE strpos(n.name, ':addr:') > 0"
)
_HAVE = (
    "SELECT fingerprint, hash FROM recipient"
    " WHERE hash = ANY($1) AND word = 'yes' AND fingerprint = ANY($2) AND asked_day >= $3"
)


class PostgresRecipients:
    """Promises: see `Recipients`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def note(self, seen: Mapping[str, Looked]) -> None:
        """As `Recipients.note`. In one order everywhere, so that nodes do not wait for each other in a circle."""
        rows = [
            tuple(text(value) if isinstance(value, str) else value for value in (address, *noted.row_of(address, one)))
            for address, one in sorted(seen.items(), key=lambda item: item[0])
            if fits(address)
        ]

        async def write(writing: Writing) -> None:
            if await writing.db.fetchval("SELECT active FROM history"):
                await writing.db.executemany(_NOTE, rows)

        if rows:
            await self._connections.write(write, durable=False)

    async def asked_today(self, addresses: Collection[str], day: int) -> set[str]:
        """As `Recipients.asked_today`."""
        known = {text(address): address for address in addresses}

        async def read(db: Connection) -> set[str]:
            if not await db.fetchval("SELECT active FROM history"):
                return set(addresses)
            return {known[row[0]] for row in await db.fetch(_TODAY, list(known), day)}

        return await self._connections.read(read, long=True)

    async def domains(self, since_day: int, limit: int) -> Sequence[Coverage]:
        """As `Recipients.domains`."""

        async def read(db: Connection) -> list[Coverage]:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                rows = await db.fetch(f"{noted.DOMAINS.format('$1')} LIMIT $2", since_day, limit)
                return noted.coverage(map(tuple, rows), tuple(await db.fetchrow(noted.ALL.format("$1"), since_day)))

        return await self._connections.read(read, long=True)

    async def ending(self, now: int, until: int, since_day: int, limit: int) -> Sequence[Ending]:
        """As `Recipients.ending`."""

        async def read(db: Connection) -> list[Ending]:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                rows = await db.fetch(_ENDING, now, until, since_day, limit)
                fingerprints = [row[0] for row in rows]
                named = await _named(db, fingerprints)
                hashes = [hash_ for of_one in named.values() for hash_ in of_one]
                have = {tuple(row) for row in await db.fetch(_HAVE, hashes, fingerprints, since_day)}
                return [
                    noted.ending(row, (a for h, a in named.get(row[0], {}).items() if (row[0], h) in have))
                    for row in map(tuple, rows)
                ]

        return await self._connections.read(read, long=True)

    async def lost(self, since: int, since_day: int, limit: int) -> Sequence[Lost]:
        """As `Recipients.lost`."""

        async def read(db: Connection) -> list[Lost]:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                rows = await db.fetch(noted.LOST.format("$1", "$2", "$3"), since, since_day, limit)
                named = await _named(db, sorted({row[3] for row in rows} - {""}))
                return [noted.lost(tuple(row), named) for row in rows]

        return await self._connections.read(read, long=True)


async def _named(db: Connection, fingerprints: Sequence[str]) -> dict[str, dict[bytes, str]]:
    """Addresses that certificates name or have named, by their hashes."""
    found: dict[str, dict[bytes, str]] = {}
    rows: Sequence[Any] = await db.fetch(_NAMED, list(fingerprints))
    for fingerprint, hash_, address in rows:
        found.setdefault(fingerprint, {})[hash_] = address
    return found
