"""Deleted entries and found records that wait to be undone, inside a write transaction.

As in SQLite: whatever would take a living entry away takes away what waits, at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from keyserver.model import Name, Selection, Source
from keyserver.store.base import Undo, Waiting
from keyserver.store.deletion import KEEP
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.sifting import WAITING_NAMED, Value, Values, condition
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import OCTETS, ROW, Writing

TABLES = ("undo_entry", "undo_record", "undo")

_MOST = 1000  # undos in a list
_OVER = "(until <= $1 OR at > $1 + $2)"


async def keep(writing: Writing, undo: Undo | None, now: int, ids: Sequence[int], names: Mapping[Name, str]) -> int:
    """Set the entries `ids` aside, with the found records of their names (name -> certificate); the undo's number, 0
    where nothing waits. They are deleted by the caller."""
    if undo is None or not ids:
        return 0
    db = writing.db
    number: int = await db.fetchval(
        "INSERT INTO undo AS u (id, at, until, entries) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE"
        " SET at = $2, until = greatest(u.until, $3), entries = u.entries + $4 RETURNING number",
        text(undo.id),
        now,
        undo.until,
        len(ids),
    )
    taken = await db.fetch(
        "INSERT INTO undo_entry (undo, fingerprint, kind, source, origin, at, vouchers, chained, message_id,"
        " identities, folded, names, ranks, octets) SELECT $1, e.fingerprint, e.kind, e.source, e.origin, e.at,"
        " e.vouchers, e.chained, e.message_id, e.identities, e.folded, n.names, n.ranks, e.octets FROM entry AS e"
        " CROSS JOIN LATERAL (SELECT coalesce(array_agg(m.name), '{}') AS names, coalesce(array_agg(m.rank), '{}')"
        " AS ranks FROM name AS m WHERE m.entry = e.id) AS n"
        " WHERE e.id = ANY($2) RETURNING octet_length(octets)",
        number,
        ids,
    )
    await db.execute(
        "INSERT INTO undo_record (name, upstream, at, asked_at, fingerprint, undo)"
        " SELECT r.name, r.upstream, r.at, r.asked_at, c.fingerprint, $1"
        " FROM unnest($2::text[], $3::text[]) AS c (name, fingerprint) JOIN record AS r ON r.name = c.name"
        " WHERE r.found",
        number,
        list(names.keys()),
        list(names.values()),
    )
    writing.tally[OCTETS] += sum(row[0] + ROW for row in taken)
    return number


async def drop_certificate(
    writing: Writing, fingerprint: str, source: Source | None = None, origin: str | None = None
) -> None:
    """Erase what waits of a certificate (of one source and origin, where given)."""
    bound = Values()
    parts = [f"e.fingerprint = {bound(fingerprint)}"]
    if source is not None:
        parts.append(f"e.source = {bound(str(source))}")
    if origin is not None:
        parts.append(f"e.origin = {bound(origin)}")
    await _drop(writing, " AND ".join(parts), bound.all)


async def drop_selected(writing: Writing, what: Selection) -> None:
    """Erase every waiting entry that a purge would take if it were not deleted already."""
    bound = Values()
    await _drop(writing, condition(what, bound, WAITING_NAMED), bound.all)


async def _drop(writing: Writing, where: str, values: Sequence[Value]) -> None:
    """Erase waiting entries `e`, and the records of their names: as for a delete, the next lookup asks again."""
    rows = await writing.db.fetch(
        f"WITH gone AS (DELETE FROM undo_entry AS e WHERE {where} RETURNING e.names, octet_length(e.octets) AS size),"  # noqa: S608
        " forgotten AS (DELETE FROM undo_record WHERE name IN (SELECT unnest(names) FROM gone))"
        " SELECT size FROM gone",
        *values,
    )
    writing.tally[OCTETS] -= sum(row[0] + ROW for row in rows)


async def undos(db: Connection, now: int) -> tuple[Waiting, ...]:
    """`Store.undos`."""
    sql = "SELECT id, at, until, entries FROM undo WHERE until > $1 ORDER BY at DESC, number DESC LIMIT $2"
    return tuple(Waiting(*row) for row in await db.fetch(sql, now, _MOST))


async def is_over(db: Connection, now: int) -> bool:
    """Is there anything to erase?"""
    return bool(await db.fetchval(f"SELECT EXISTS (SELECT 1 FROM undo WHERE {_OVER})", now, KEEP))  # noqa: S608


async def erase(writing: Writing, now: int, limit: int) -> int:
    """Erase up to `limit` entries whose time is over, the undos when none is left; how many entries."""
    over = f"(SELECT number FROM undo WHERE {_OVER})"  # noqa: S608
    rows = await writing.db.fetch(
        f"DELETE FROM undo_entry WHERE id IN (SELECT id FROM undo_entry WHERE undo IN {over} LIMIT $3)"  # noqa: S608
        " RETURNING octet_length(octets)",
        now,
        KEEP,
        limit,
    )
    writing.tally[OCTETS] -= sum(row[0] + ROW for row in rows)
    if len(rows) < limit:
        await writing.db.execute(f"DELETE FROM undo WHERE number IN {over}", now, KEEP)  # noqa: S608
    return len(rows)
