"""Deleting, purging, approving and blocking, inside a write transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keyserver.model import Kind, Name, Selection, Source, Voucher
from keyserver.query import name_of
from keyserver.store import vouchers
from keyserver.store.base import Undo
from keyserver.store.deletion import delete_note, purge_note
from keyserver.store.past import address_of, forgotten
from keyserver.store.postgres import deletions, erasing, waiting
from keyserver.store.postgres.sifting import Values, condition
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing
from keyserver.store.standing import Standing, recount


async def delete(
    writing: Writing, fingerprint: str, now: int, source: Source | None, origin: str | None, undo: Undo | None
) -> int:
    """`Store.delete`."""
    await writing.tell(now)
    fingerprint, origin = text(fingerprint), origin if origin is None else text(origin)
    names = await writing.touch([fingerprint])
    await deletions.note(writing.db, now, delete_note(fingerprint, source, origin, names))
    rows = await writing.db.fetch(
        "SELECT id FROM entry WHERE fingerprint = $1 AND ($2::text IS NULL OR source = $2)"
        " AND ($3::text IS NULL OR origin = $3)",
        fingerprint,
        source and str(source),
        origin,
    )
    ids = [row[0] for row in rows]
    if undo is None:
        await waiting.drop_certificate(writing, fingerprint, source, origin)
    await writing.forget(names, await waiting.keep(writing, undo, now, ids, names))
    gone = await _remove(writing, ids)
    await _forget_answering(writing, [fingerprint], now)
    return gone


async def begin_purge(writing: Writing, what: Selection, now: int, undo: Undo | None) -> None:
    """From here on nothing that `what` selects and that was begun before comes in."""
    await deletions.note(writing.db, now, purge_note(what))
    if undo is None:
        await waiting.drop_selected(writing, what)


async def purge(writing: Writing, what: Selection, ids: Sequence[int], now: int, undo: Undo | None) -> int:
    """Delete those of the entries `ids` that still match, and the records of their certificates' names."""
    await writing.tell(now)
    bound = Values(list(ids))
    sql = f"SELECT e.id, e.fingerprint FROM entry AS e WHERE e.id = ANY($1) AND {condition(what, bound)}"  # noqa: S608
    rows = await writing.db.fetch(sql, *bound.all)
    matching = [row[0] for row in rows]
    names = await writing.touch({row[1] for row in rows})
    await writing.forget(names, await waiting.keep(writing, undo, now, matching, names))
    gone = await _remove(writing, matching)
    await _forget_answering(writing, {row[1] for row in rows}, now)
    return gone


async def _forget_answering(writing: Writing, fingerprints: Iterable[str], now: int) -> None:
    """As in `sqlite.removing`; in the order in which others write there."""
    rows = await writing.db.fetch(
        "WITH old AS (SELECT a.name, a.view FROM past_name AS p JOIN answering AS a ON a.name = p.name"
        " AND a.fingerprint = p.fingerprint WHERE p.fingerprint = ANY($1) AND NOT EXISTS (SELECT 1 FROM entry AS e"
        " WHERE e.fingerprint = p.fingerprint) ORDER BY a.name, a.view FOR UPDATE OF a)"
        " DELETE FROM answering AS a USING old WHERE a.name = old.name AND a.view = old.view"
        " RETURNING a.name, a.view, a.fingerprint, a.at",
        sorted(fingerprints),
    )
    writing.names.update(row["name"] for row in rows)
    await writing.db.executemany(
        "INSERT INTO event (number, at, last, what, who, fingerprint, kind, address, facts) VALUES (event_number_1(),"
        " $1, $1, 'deleted', coalesce(current_setting('keyserver.who', true), ''), $2, $3, $4, $5)",
        [
            (now, row["fingerprint"], *address_of(row["name"]), forgotten(row["view"], row["fingerprint"], row["at"]))
            for row in rows
        ],
    )


async def purge_all(writing: Writing, now: int) -> int:
    """`Store.purge_all`."""
    count: int = await writing.db.fetchval("SELECT count(*) FROM entry")
    tables = ("name", "entry", "record", "revocation", "tally", "delta", *waiting.TABLES)
    await writing.db.execute(f"TRUNCATE {', '.join(tables)}")
    await erasing.erase(writing.db, now)
    await erasing.take_down_blocks(writing.db)
    await deletions.note(writing.db, now, purge_note(None))
    writing.everything = True
    return count


async def purge_expired(
    writing: Writing,
    entries: Sequence[tuple[int, int]],
    records: Sequence[tuple[Name, str, int]],
    now: int | None = None,
) -> int:
    """Delete what is still older than its cutoff: entries (id, cutoff), records (name, upstream, cutoff)."""
    await writing.tell(now, "expired")
    ids, cutoffs = [id_ for id_, _ in entries], [cutoff for _, cutoff in entries]
    known = await writing.db.fetch("SELECT DISTINCT fingerprint FROM entry WHERE id = ANY($1)", ids)
    await writing.lock(row[0] for row in known)
    rows = await writing.db.fetch(
        "SELECT e.id, e.fingerprint FROM unnest($1::bigint[], $2::bigint[]) AS o (id, cutoff)"
        " JOIN entry AS e ON e.id = o.id WHERE e.at < o.cutoff",
        ids,
        cutoffs,
    )
    if rows:
        await writing.touch({row[1] for row in rows})
    gone = await _expire_records(writing, records) if records else 0
    return gone + await _remove(writing, [row[0] for row in rows])


async def _expire_records(writing: Writing, records: Sequence[tuple[Name, str, int]]) -> int:
    """Locked in the order in which puts write them."""
    rows = await writing.db.fetch(
        "WITH old AS (SELECT r.name, r.upstream FROM unnest($1::text[], $2::text[], $3::bigint[])"
        " AS o (name, upstream, cutoff) JOIN record AS r ON r.name = o.name AND r.upstream = o.upstream"
        " WHERE r.at < o.cutoff ORDER BY r.name, r.upstream FOR UPDATE OF r)"
        " DELETE FROM record AS r USING old WHERE r.name = old.name AND r.upstream = old.upstream"
        " RETURNING r.name, r.found",
        [record[0] for record in records],
        [record[1] for record in records],
        [record[2] for record in records],
    )
    for name, found in rows:
        writing.tally["found" if found else "absent"] -= 1
        writing.names.add(name)
    return len(rows)


async def _remove(writing: Writing, ids: Sequence[int]) -> int:
    """Delete entries by id; names go with them."""
    if not ids:
        return 0
    rows = await writing.db.fetch(
        "DELETE FROM entry WHERE id = ANY($1)"
        " RETURNING fingerprint, source, origin, octet_length(octets), held, approved",
        ids,
    )
    for _, source, origin, octets, held, approved in rows:
        writing.count(-1, source, origin, octets, held=held, approved=approved)
    fingerprints = {row[0] for row in rows}
    left = await writing.db.fetch(
        "SELECT DISTINCT fingerprint FROM entry WHERE fingerprint = ANY($1)", sorted(fingerprints)
    )
    writing.tally["certificates"] -= len(fingerprints) - len(left)
    return len(rows)


async def approve(
    writing: Writing, fingerprint: str, source: Source, origin: str, address: str, now: int | None = None
) -> bool:
    """`Store.approve`."""
    await writing.tell(now)
    fingerprint, address = text(fingerprint), text(address)
    await writing.lock([fingerprint])
    row = await writing.db.fetchrow(
        "SELECT id, vouchers, kind, at, chained FROM entry WHERE fingerprint = $1 AND source = $2 AND origin = $3",
        fingerprint,
        str(source),
        text(origin),
    )
    if row is None:
        return False
    before = vouchers.read(row["vouchers"])
    behind = vouchers.merged(before, [Voucher(address, approved=True)])
    stand = Standing.of(source, behind, chained=row["chained"])
    recount(writing.tally, before, stand)
    await writing.db.execute(
        "UPDATE entry SET approved = $2, held = $3, vouchers = $4, rank = $5, version = nextval('version')"
        " WHERE id = $1",
        row["id"],
        stand.approved,
        stand.held,
        stand.column,
        stand.rank,
    )
    await order_names(writing, row["id"], Kind(row["kind"]), row["at"], stand)
    await writing.touch([fingerprint])
    return True


async def order_names(writing: Writing, row: int, kind: Kind, at: int, stand: Standing) -> None:
    """As `sqlite.put.order_names`."""
    vouched = [name_of(kind, "addr", address) for address in stand.vouched]
    await writing.db.execute("SELECT order_names_1($1, $2, $3, $4, $5)", row, at, stand.rank, stand.claimed, vouched)


async def block(writing: Writing, fingerprint: str, now: int, reason: str) -> None:
    """`Store.block`."""
    await writing.tell(now)
    fingerprint = text(fingerprint)
    await writing.db.execute(
        "INSERT INTO block (fingerprint, at, reason) VALUES ($1, $2, $3)"
        " ON CONFLICT (fingerprint) DO UPDATE SET at = excluded.at, reason = excluded.reason",
        fingerprint,
        now,
        text(reason),
    )
    await writing.touch([fingerprint])
    await waiting.drop_certificate(writing, fingerprint)


async def unblock(writing: Writing, fingerprint: str, now: int | None = None) -> bool:
    """`Store.unblock`; the records of its names are forgotten, since its finds were refused meanwhile."""
    await writing.tell(now)
    fingerprint = text(fingerprint)
    there = await writing.db.fetchval("DELETE FROM block WHERE fingerprint = $1 RETURNING true", fingerprint)
    if there:
        await writing.forget(await writing.touch([fingerprint]))
    return bool(there)
