"""Deleting, purging, approving and blocking, inside a write transaction."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from keyserver.model import Kind, Name, Selection, Source, Voucher
from keyserver.store import vouchers
from keyserver.store.base import Undo
from keyserver.store.deletion import delete_note, purge_note
from keyserver.store.past import address_of, forgotten
from keyserver.store.sifting import Value, selected
from keyserver.store.sqlite import deletions, erasing, trigrams, waiting
from keyserver.store.sqlite.dialect import DIALECT
from keyserver.store.sqlite.put import order_names
from keyserver.store.sqlite.writing import Writing
from keyserver.store.standing import Standing, recount, storable


def delete(
    writing: Writing, fingerprint: str, now: int, source: Source | None, origin: str | None, undo: Undo | None
) -> int:
    """`Store.delete`."""
    writing.tell(now)
    names = writing.touch(fingerprint)
    deletions.note(writing.db, now, delete_note(fingerprint, source, origin, names))
    rows = writing.db.execute(
        "SELECT id FROM entry WHERE fingerprint = ?1 AND (?2 IS NULL OR source = ?2) AND (?3 IS NULL OR origin = ?3)",
        (fingerprint, source and str(source), origin),
    ).fetchall()
    ids = [row[0] for row in rows]
    if undo is None:
        waiting.drop_certificate(writing, fingerprint, source, origin)
    writing.forget(names, waiting.keep(writing, undo, now, fingerprint, ids, names))
    gone = _remove(writing, ids)
    _forget_answering(writing, [fingerprint], now)
    return gone


def begin_purge(writing: Writing, what: Selection, now: int, undo: Undo | None) -> None:
    """From here on nothing that `what` selects and that was begun before comes in."""
    deletions.note(writing.db, now, purge_note(what))
    if undo is None:
        waiting.drop_selected(writing, what)


def purge(writing: Writing, what: Selection, ids: Sequence[int], now: int, undo: Undo | None) -> int:
    """Delete those of the entries `ids` that still match, and the records of their certificates' names."""
    writing.tell(now)
    values: dict[str, Value] = {"ids": json.dumps(ids)}
    where = "".join(f" AND ({part})" for part in selected(DIALECT, what, "w", values))
    rows = writing.db.execute(
        f"SELECT e.id, e.fingerprint FROM entry AS e WHERE e.id IN (SELECT value FROM json_each(:ids)){where}",  # noqa: S608
        values,
    ).fetchall()
    matching: defaultdict[str, list[int]] = defaultdict(list)
    for id_, fingerprint in rows:
        matching[fingerprint].append(id_)
    for fingerprint, of_it in matching.items():
        names = writing.touch(fingerprint)
        writing.forget(names, waiting.keep(writing, undo, now, fingerprint, of_it, names))
    gone = _remove(writing, [row[0] for row in rows])
    _forget_answering(writing, matching, now)
    return gone


def _forget_answering(writing: Writing, fingerprints: Iterable[str], now: int) -> None:
    """What an administrator has deleted altogether is not remembered as what answered before."""
    for fingerprint in fingerprints:
        rows = writing.db.execute(
            "DELETE FROM answering WHERE fingerprint = ?1 AND name IN (SELECT name FROM past_name WHERE"
            " fingerprint = ?1) AND NOT EXISTS (SELECT 1 FROM entry WHERE fingerprint = ?1) RETURNING name, view, at",
            (fingerprint,),
        )
        for name, view, since in rows.fetchall():
            writing.names.add(name)
            writing.db.execute(
                "INSERT INTO event (at, last, what, fingerprint, kind, address, who, facts)"
                " VALUES (?1, ?1, 'deleted', ?2, ?3, ?4, ?5, ?6)",
                (now, fingerprint, *address_of(name), writing.db.who, forgotten(view, fingerprint, since)),
            )


def purge_all(writing: Writing, now: int) -> int:
    """`Store.purge_all`; with foreign keys on, each row would be checked on its own."""
    count: int = writing.db.execute("SELECT count(*) FROM entry").fetchone()[0]
    with erasing.untriggered(writing.db):
        for table in ("name", "copy", "entry", "record", "revocation", "tally", *waiting.TABLES):
            writing.db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own words
        erasing.erase(writing.db, now)
        erasing.take_down_blocks(writing.db)
    trigrams.forget(writing.db)
    deletions.note(writing.db, now, purge_note(None))
    writing.everything = True
    return count


def purge_expired(
    writing: Writing,
    entries: Sequence[tuple[int, int]],
    records: Sequence[tuple[Name, str, int]],
    now: int | None = None,
) -> int:
    """Delete what is still older than its cutoff: entries (id, cutoff), records (name, upstream, cutoff)."""
    writing.tell(now, "expired")
    ids = []
    for id_, cutoff in entries:
        row = writing.db.execute("SELECT fingerprint FROM entry WHERE id = ? AND at < ?", (id_, cutoff)).fetchone()
        if row:
            ids.append(id_)
            writing.touch(row[0])
    gone = 0
    for name, upstream, cutoff in records:
        rows = writing.db.execute(
            "DELETE FROM record WHERE name = ? AND upstream = ? AND at < ? RETURNING found",
            (name, upstream, cutoff),
        ).fetchall()
        for (found,) in rows:
            writing.tally["found" if found else "absent"] -= 1
            writing.names.add(name)
            gone += 1
    return gone + _remove(writing, ids)


def _remove(writing: Writing, ids: Sequence[int]) -> int:
    """Delete entries by id; copies and names go with them."""
    rows = writing.db.execute(
        "DELETE FROM entry WHERE id IN (SELECT value FROM json_each(?)) "
        " RETURNING fingerprint, source, origin, held, approved",
        (json.dumps(ids),),
    ).fetchall()
    for _, source, origin, held, approved in rows:
        writing.count(-1, source, origin, held=held, approved=approved)
    trigrams.removed(writing.db)
    for fingerprint in {row[0] for row in rows}:
        left = writing.db.execute("SELECT 1 FROM entry WHERE fingerprint = ? LIMIT 1", (fingerprint,)).fetchone()
        writing.tally["certificates"] -= left is None
    return len(rows)


def approve(
    writing: Writing, fingerprint: str, source: Source, origin: str, address: str, now: int | None = None
) -> bool:
    """`Store.approve`."""
    writing.tell(now)
    row = writing.db.execute(
        "SELECT id, vouchers, kind, at, chained FROM entry WHERE fingerprint = ? AND source = ? AND origin = ?",
        (fingerprint, str(source), origin),
    ).fetchone()
    if row is None:
        return False
    id_, vouched, kind, at, chained = row
    before = vouchers.read(vouched)
    behind = vouchers.merged(before, [Voucher(address, approved=True)])
    stand = Standing.of(source, behind, chained=bool(chained))
    recount(writing.tally, before, stand)
    writing.db.execute(
        "UPDATE entry SET approved = ?, held = ?, vouchers = ?, rank = ? WHERE id = ?",
        (stand.approved, stand.held, stand.column, stand.rank, id_),
    )
    order_names(writing, id_, Kind(kind), at, stand)
    writing.touch(fingerprint)
    return True


def block(writing: Writing, fingerprint: str, now: int, reason: str) -> None:
    """`Store.block`."""
    writing.tell(now)
    writing.db.execute(
        "INSERT INTO block VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET at = ?2, reason = ?3",
        (fingerprint, now, storable(reason)),
    )
    writing.touch(fingerprint)
    waiting.drop_certificate(writing, fingerprint)


def unblock(writing: Writing, fingerprint: str, now: int | None = None) -> bool:
    """`Store.unblock`; the records of its names are forgotten, since its finds were refused meanwhile."""
    writing.tell(now)
    rows = writing.db.execute("DELETE FROM block WHERE fingerprint = ? RETURNING 1", (fingerprint,)).fetchall()
    if rows:
        writing.forget(writing.touch(fingerprint))
    return bool(rows)
