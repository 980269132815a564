"""Bringing back what a delete took and what still waits, inside a write transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keyserver.model import Kind, Source
from keyserver.store import vouchers
from keyserver.store.postgres.removing import order_names
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import OCTETS, ROW, Writing
from keyserver.store.standing import Standing, first_address
from keyserver.store.undoing import Cutoffs, Step, expired

_BATCH = 100  # certificates in one transaction


async def restore(writing: Writing, id_: str, now: int, cutoffs: Cutoffs) -> Step | None:
    """The next batch of `Store.undo`; None where nothing of that id waits."""
    db = writing.db
    await writing.tell(now, "undone")
    found = await db.fetchrow("SELECT number, entries FROM undo WHERE id = $1 AND until > $2", text(id_), now)
    if found is None:
        return None
    number, deleted = found
    rows = await db.fetch(
        "SELECT fingerprint FROM undo_entry WHERE undo = $1"
        " UNION SELECT fingerprint FROM undo_record WHERE undo = $1 LIMIT $2",
        number,
        _BATCH,
    )
    restored = 0
    for (fingerprint,) in rows:
        restored += await _restore_certificate(writing, number, fingerprint, cutoffs)
    done = len(rows) < _BATCH
    if done:
        await db.execute("DELETE FROM undo WHERE number = $1", number)
    return Step(restored, deleted, done)


async def _restore_certificate(writing: Writing, undo: int, fingerprint: str, cutoffs: Cutoffs) -> int:
    db = writing.db
    rows = await db.fetch(
        "SELECT id, kind, source, origin, at, vouchers, chained, names, ranks, octet_length(octets) AS size"
        " FROM undo_entry WHERE undo = $1 AND fingerprint = $2 ORDER BY id",
        undo,
        fingerprint,
    )
    living = [row for row in rows if not expired(Source(row["source"]), row["origin"], row["at"], cutoffs)]
    known = await db.fetchval("SELECT EXISTS (SELECT 1 FROM entry WHERE fingerprint = $1)", fingerprint)
    if living or known:  # else a record would only hide that nothing is here
        await _restore_records(writing, undo, fingerprint, cutoffs)
    for row in living:
        await _insert(writing, row)
    if living:
        writing.tally["certificates"] += not known
        await writing.touch([fingerprint])
    writing.tally[OCTETS] -= sum(row["size"] + ROW for row in rows)
    await db.execute("DELETE FROM undo_entry WHERE undo = $1 AND fingerprint = $2", undo, fingerprint)
    await db.execute("DELETE FROM undo_record WHERE undo = $1 AND fingerprint = $2", undo, fingerprint)
    return len(living)


async def _insert(writing: Writing, row: Mapping[str, Any]) -> None:
    """A living entry again, under its names with their ranks."""
    source = Source(row["source"])
    stand = Standing.of(source, vouchers.read(row["vouchers"]), chained=row["chained"])
    names: Sequence[str] = row["names"]
    id_: int = await writing.db.fetchval(
        "INSERT INTO entry (fingerprint, kind, source, origin, at, rank, approved, held, chained, vouchers, message_id,"
        " identities, folded, address, octets) SELECT fingerprint, kind, source, origin, at, $2, $3, $4, chained,"
        " vouchers, message_id, identities, folded, $5, octets FROM undo_entry WHERE id = $1 RETURNING id",
        row["id"],
        stand.rank,
        stand.approved,
        stand.held,
        first_address(names),
    )
    await writing.db.execute(
        "INSERT INTO name (name, rank, at, entry, fingerprint) SELECT n.name, n.rank, e.at, e.id, e.fingerprint"
        " FROM entry AS e, unnest($2::text[], $3::smallint[]) AS n (name, rank) WHERE e.id = $1",
        id_,
        names,
        row["ranks"],
    )
    await order_names(writing, id_, Kind(row["kind"]), row["at"], stand)
    writing.count(1, source, row["origin"], row["size"], held=stand.held, approved=stand.approved)


async def _restore_records(writing: Writing, undo: int, fingerprint: str, cutoffs: Cutoffs) -> None:
    rows = await writing.db.fetch(
        "SELECT name, upstream, at, asked_at FROM undo_record WHERE undo = $1 AND fingerprint = $2", undo, fingerprint
    )
    fresh = [tuple(row) for row in rows if not expired(Source.KEYSERVER, row["upstream"], row["at"], cutoffs)]
    await writing.db.executemany(
        "INSERT INTO record (name, upstream, found, at, asked_at) VALUES ($1, $2, true, $3, $4)", fresh
    )
    writing.tally["found"] += len(fresh)
    writing.names.update(row[0] for row in fresh)
