"""What the store reads: each bounded, each look one statement, so of one instant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from keyserver.model import Entry, Kind, Name, Record, Selection, Source
from keyserver.query import name_of
from keyserver.store import vouchers
from keyserver.store.base import StoreStats
from keyserver.store.listing import UPSTREAM
from keyserver.store.names import fits
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.sifting import DIALECT, Values, condition
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import OCTETS
from keyserver.store.snapshot import Snapshot

MAX_CERTIFICATES = 64  # of one name
MAX_CLAIMS = 1024  # index rows looked at to find them: one certificate may stand there once per origin
MAX_ENTRIES = 64  # of one certificate, in a snapshot
MAX_RECORDS = 256  # of one name: one per upstream
MAX_OCTETS = 16 << 20  # of one snapshot; the certificate that passes it is the last

_ENTRY = "e.fingerprint, e.kind, e.octets, e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id, e.identities"
_NO_ENTRY = "NULL::text, NULL, NULL::bytea, NULL, NULL, NULL::bigint, NULL, NULL::boolean, NULL, NULL"

_LOOK = f"""
WITH raw AS (
    SELECT n.fingerprint, row_number() OVER (ORDER BY n.rank, n.at DESC, n.entry) AS place FROM name AS n
    WHERE n.name = $1 AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = n.fingerprint)
    ORDER BY n.rank, n.at DESC, n.entry LIMIT {MAX_CLAIMS}
),
claims AS (
    SELECT fingerprint, min(place) AS place FROM raw GROUP BY fingerprint ORDER BY min(place) LIMIT {MAX_CERTIFICATES}
),
copies AS (
    SELECT c.place, {_ENTRY}, e.number FROM claims AS c CROSS JOIN LATERAL (
        SELECT x.*, row_number() OVER (ORDER BY x.rank, x.at DESC, x.id) AS number FROM entry AS x
        WHERE x.fingerprint = c.fingerprint ORDER BY x.rank, x.at DESC, x.id LIMIT {MAX_ENTRIES}
    ) AS e
),
sizes AS (
    SELECT place, sum(sum(octet_length(octets))) OVER (ORDER BY place) - sum(octet_length(octets)) AS before
    FROM copies GROUP BY place
),
kept AS (SELECT e.* FROM copies AS e JOIN sizes USING (place) WHERE before <= {MAX_OCTETS})
SELECT 'entry' AS what, {_ENTRY}, place AS n, number AS m FROM kept AS e
UNION ALL
SELECT 'revocation', r.fingerprint, NULL, r.octets, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM revocation AS r WHERE r.fingerprint IN (SELECT fingerprint FROM kept)
UNION ALL
(SELECT 'record', q.name, NULL, NULL, NULL, q.upstream, q.at, NULL, q.found, NULL, NULL, q.asked_at, NULL
    FROM record AS q WHERE q.name = $1 LIMIT {MAX_RECORDS})
UNION ALL
SELECT 'answering', a.fingerprint, NULL, NULL, NULL, a.view, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM answering AS a WHERE a.name = $1
UNION ALL
SELECT 'begun', {_NO_ENTRY}, generation_1(), NULL
"""  # noqa: S608 - our own words

_CERTIFICATE = f"""
(SELECT 'entry' AS what, {_ENTRY}, 0::bigint AS n, row_number() OVER (ORDER BY e.rank, e.at DESC, e.id) AS m
    FROM entry AS e WHERE e.fingerprint = $1 ORDER BY e.rank, e.at DESC, e.id LIMIT {{}})
UNION ALL
SELECT 'revocation', r.fingerprint, NULL, r.octets, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM revocation AS r WHERE r.fingerprint = $1
"""  # noqa: S608

_ANSWERED = """
SELECT EXISTS (
    SELECT 1 FROM record WHERE upstream = $1 AND found AND right(name, length($2) + 1) = '@' || $2
) OR EXISTS (
    SELECT 1 FROM name AS n JOIN entry AS e ON e.id = n.entry
    WHERE strpos(n.name, '@') > 0 AND substr(n.name, strpos(n.name, '@') + 1) = $2
        AND e.source = 'keyserver' AND e.origin = $1 AND EXISTS (
            SELECT 1 FROM json_array_elements(e.vouchers::json) AS v
            WHERE v ->> 0 = substr(n.name, strpos(n.name, ':addr:') + 6)
        )
)
"""

_ADDRESSES = """
SELECT DISTINCT substr(name, length($1::text) + 1) FROM name
WHERE strpos(name, '@') > 0 AND substr(name, strpos(name, '@') + 1) = $2 AND starts_with(name, $1::text)
LIMIT $3
"""

_MAX_OF_ONE = 10_000  # entries of one certificate


async def look(db: Connection, name: Name) -> Snapshot:
    """`Store.look`."""
    return _snapshot(await db.fetch(_LOOK, name if fits(name) else ""))


async def certificate(db: Connection, fingerprint: str) -> Snapshot:
    """`Store.certificate`."""
    return _snapshot(await db.fetch(_CERTIFICATE.format(_MAX_OF_ONE), text(fingerprint)))


async def answered(db: Connection, upstream: str, domain: str) -> bool:
    """`Store.answered`."""
    return bool(await db.fetchval(_ANSWERED, text(upstream), text(domain)))


async def addresses(db: Connection, domain: str, limit: int) -> tuple[str, ...]:
    """`Store.addresses`."""
    rows = await db.fetch(_ADDRESSES, name_of(Kind.OPENPGP, "addr", ""), text(domain), limit)
    return tuple(row[0] for row in rows)


def _snapshot(rows: Sequence[Any]) -> Snapshot:
    found, revocations, records, begun, answering = [], {}, [], -1, {}
    for row in rows:
        what = row["what"]
        if what == "entry":
            found.append(((row["n"], row["m"]), entry_of(row)))
        elif what == "revocation":
            revocations[row["fingerprint"]] = row["octets"]
        elif what == "record":
            name, upstream, at, chained, asked_at = (row[i] for i in ("fingerprint", "origin", "at", "chained", "n"))
            records.append(record_of((name, upstream, chained, at, asked_at)))
        elif what == "answering":
            answering[row["origin"]] = row["fingerprint"]
        else:
            begun = row["n"]
    found.sort(key=lambda pair: pair[0])
    return Snapshot(tuple(entry for _, entry in found), revocations, tuple(records), begun, answering)


def entry_of(row: Mapping[str, Any]) -> Entry:
    """An entry from its columns."""
    return Entry(
        fingerprint=row["fingerprint"],
        kind=Kind(row["kind"]),
        octets=row["octets"],
        source=Source(row["source"]),
        origin=row["origin"],
        cached_at=row["at"],
        seen_at=row["at"],
        vouchers=vouchers.read(row["vouchers"]),
        chained=row["chained"],
        detail=row["message_id"],
        identities=tuple(json.loads(row["identities"])),
    )


def record_of(row: Sequence[Any]) -> Record:
    """From name, upstream, found, at, asked_at."""
    name, upstream, found, at, asked_at = row
    return Record(name, upstream, found, at, asked_at if asked_at >= at else 0)


async def due(db: Connection, found_before: Mapping[str | None, int], limit: int) -> tuple[Record, ...]:
    """`Store.due`: one index range per upstream."""
    rest = found_before.get(None)
    named = {upstream for upstream in found_before if upstream is not None}
    if rest is not None:
        named.update(await jump(db, "record", "upstream", "found AND asked_at > at"))
    candidates: list[Record] = []
    for upstream in sorted(named):
        rows = await db.fetch(
            "SELECT name, upstream, found, at, asked_at FROM record"
            " WHERE found AND asked_at > at AND upstream = $1 AND at < $2 ORDER BY at LIMIT $3",
            text(upstream),
            found_before.get(upstream, rest),
            limit,
        )
        candidates += map(record_of, rows)
    candidates.sort(key=lambda record: (record.at, record.name, record.upstream))
    return tuple(candidates[:limit])


async def lasting(db: Connection, after: str, upto: str, limit: int) -> tuple[str, ...]:
    """`Store.lasting`: a range of the index of identities."""
    rows = await db.fetch(
        "SELECT DISTINCT fingerprint FROM entry WHERE fingerprint > $1 AND fingerprint <= $2"
        " AND source || '' IN ('local', 'mailflow') AND kind = 'openpgp' ORDER BY fingerprint LIMIT $3",
        after,
        upto,
        limit,
    )
    return tuple(row[0] for row in rows)


async def jump(db: Connection, table: str, column: str, where: str) -> list[str]:
    """The different values of a column that leads an index (after what `where` fixes): one seek each, no scan."""
    least = f"SELECT {column} FROM {table} WHERE {where}"  # noqa: S608 - our own words
    turn = f"ORDER BY {column} LIMIT 1"
    rows = await db.fetch(
        f"WITH RECURSIVE found AS (({least} {turn}) UNION ALL SELECT"  # noqa: S608
        f" ({least} AND {column} > found.{column} {turn}) FROM found WHERE found.{column} IS NOT NULL)"
        f" SELECT {column} FROM found WHERE {column} IS NOT NULL"
    )
    return [row[0] for row in rows]


async def newest(db: Connection) -> int | None:
    """`Store.newest`: an index seek for each source, origin and upstream."""
    found = [
        await db.fetchval("SELECT max(at) FROM entry WHERE source = 'mailflow'"),
        await db.fetchval("SELECT max(at) FROM record WHERE NOT found"),
    ]
    for source in (Source.KEYSERVER, Source.LOCAL):
        for origin in await jump(db, "entry", "origin", f"source = '{source}'"):
            sql = "SELECT max(at) FROM entry WHERE source = $1 AND origin = $2"
            found.append(await db.fetchval(sql, str(source), origin))
    for upstream in await jump(db, "record", "upstream", "found"):
        found.append(await db.fetchval("SELECT max(at) FROM record WHERE found AND upstream = $1", upstream))
    return max((at for at in found if at is not None), default=None)


Expired = tuple[list[tuple[int, int]], list[tuple[Name, str, int]]]
"""Entries (id, cutoff) and records (name, upstream, cutoff)."""


async def expired(
    db: Connection, cutoffs: Mapping[tuple[Source, str | None], int], absent_before: int, limit: int
) -> Expired:
    """What `Store.purge_expired` would delete."""
    entries: list[tuple[int, int]] = []
    records: list[tuple[Name, str, int]] = []
    for (source, origin), cutoff in cutoffs.items():
        others = sorted(o for s, o in cutoffs if s is source and o is not None)
        if origin is None and source is Source.MAILFLOW and not others:
            sql = "SELECT id FROM entry WHERE source = 'mailflow' AND at < $1 ORDER BY at LIMIT $2"
            entries += [(row[0], cutoff) for row in await db.fetch(sql, cutoff, limit - len(entries))]
            continue
        origins = [] if origin is None else [text(origin)]
        if origin is None:
            origins = [o for o in await jump(db, "entry", "origin", f"source = '{source}'") if o not in others]
        for one in origins:
            sql = "SELECT id FROM entry WHERE source = $1 AND origin = $2 AND at < $3 ORDER BY at LIMIT $4"
            rows = await db.fetch(sql, str(source), one, cutoff, limit - len(entries))
            entries += [(row[0], cutoff) for row in rows]
        if source is Source.KEYSERVER:
            records += await _expired_found(db, origin, others, cutoff, limit - len(records))
    sql = "SELECT name, upstream FROM record WHERE NOT found AND at < $1 ORDER BY at LIMIT $2"
    rows = await db.fetch(sql, absent_before, limit - len(records))
    records += [(name, upstream, absent_before) for name, upstream in rows]
    return entries, records[: limit - len(entries)]


async def _expired_found(
    db: Connection, origin: str | None, others: Sequence[str], cutoff: int, limit: int
) -> list[tuple[Name, str, int]]:
    upstreams = [origin] if origin is not None else await jump(db, "record", "upstream", "found")
    records: list[tuple[Name, str, int]] = []
    for upstream in upstreams:
        if origin is None and upstream in others:
            continue
        sql = "SELECT name FROM record WHERE found AND upstream = $1 AND at < $2 ORDER BY at LIMIT $3"
        rows = await db.fetch(sql, text(upstream), cutoff, limit - len(records))
        records += [(name, upstream, cutoff) for (name,) in rows]
    return records


async def matching(db: Connection, what: Selection, after: int, limit: int) -> list[int]:
    """Ids of entries that a selection means, from behind `after`, in their order."""
    bound = Values(after, limit)
    sql = f"SELECT e.id FROM entry AS e WHERE e.id > $1 AND {condition(what, bound)} ORDER BY e.id LIMIT $2"  # noqa: S608
    return [row[0] for row in await db.fetch(sql, *bound.all)]


_COUNTED = f"{DIALECT.tally} UNION ALL SELECT 'blocked', count(*) FROM block"  # noqa: S608 - our own words


async def stats(db: Connection) -> StoreStats:
    """`Store.stats`: kept by whoever writes, so that counting a million rows costs nothing."""
    rows = await db.fetch(_COUNTED)
    tally = {row["what"]: row["n"] for row in rows}
    return StoreStats(
        certificates=tally.get("certificates", 0),
        entries={str(source): tally.get(str(source), 0) for source in Source},
        records_found=tally.get("found", 0),
        records_absent=tally.get("absent", 0),
        blocked=tally["blocked"],
        octets=tally.get(OCTETS, 0),
        upstreams={what.removeprefix(UPSTREAM): n for what, n in tally.items() if what.startswith(UPSTREAM) and n},
        held=tally.get("held", 0),
        approved=tally.get("approved", 0),
    )
