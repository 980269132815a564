"""Finds and records on their way into the tables, inside a write transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from keyserver.hygiene import Hygiene
from keyserver.model import Entry, Find, Kind, Name, Record, Source
from keyserver.query import name_of
from keyserver.store import vouchers
from keyserver.store.arriving import Incoming, Put, refusal, settle
from keyserver.store.base import Stored
from keyserver.store.deletion import Later, names_of_fingerprint
from keyserver.store.names import fits
from keyserver.store.sqlite import deletions, renaming, trigrams, waiting
from keyserver.store.sqlite.reading import REVOCATION, octets
from keyserver.store.sqlite.session import Session
from keyserver.store.sqlite.writing import Writing, Written, transact
from keyserver.store.standing import Standing, first_address, folded, recount, storable

_ROW = 600  # octets that an entry takes besides its copy, about


def put_all(
    db: Session, puts: Sequence[Put], hygiene: Mapping[Kind, Hygiene], max_size: int
) -> tuple[list[tuple[Stored, ...]], Written | None]:
    """Several calls of `Store.put`, one after the other in one transaction: durable if one of them must be."""
    arrived = [[Incoming.of(find, hygiene) for find in one.finds] for one in puts]

    def work(writing: Writing) -> list[tuple[Stored, ...]]:
        writing.db.who = puts[0].who
        room = max_size - octets(writing.db)
        answers = []
        for one, incoming in zip(puts, arrived, strict=True):
            answer, room = _put_one(writing, one, incoming, room)
            answers.append(answer)
        return answers

    return transact(db, work, durable=any(arrival.durable for incoming in arrived for arrival in incoming))


def _put_one(writing: Writing, one: Put, incoming: Sequence[Incoming], room: int) -> tuple[tuple[Stored, ...], int]:
    """The answers, and the room that is left."""
    writing.tell(one.now)
    later = deletions.later_than(writing.db, one.begun)
    settled = settle(one, incoming, later, room, _ROW, lambda a, left: _put(writing, a, later, one.now, left))
    for record in settled.records:
        _put_record(writing, record)
        if record.found:
            _lift(writing, record, [a.find.certificate.fingerprint for a in incoming])
    return settled.answers, settled.room


def _put(writing: Writing, arrival: Incoming, later: Later, now: int, room: int) -> Stored:
    find, hygiene = arrival.find, arrival.hygiene
    fingerprint = find.certificate.fingerprint
    old = writing.db.execute(
        "SELECT e.id, e.vouchers, e.at, e.chained, e.message_id, c.octets FROM entry AS e"
        " JOIN copy AS c ON c.entry = e.id WHERE e.fingerprint = ? AND e.source = ? AND e.origin = ?",
        (fingerprint, str(find.source), find.origin),
    ).fetchone()
    blocked = writing.db.execute("SELECT 1 FROM block WHERE fingerprint = ?", (fingerprint,)).fetchone() is not None
    refused = refusal(find, later, blocked=blocked, full=old is None and room <= 0)
    # A full store takes no revocations of strangers either: they would grow it without end.
    if arrival.revocations and (refused is not Stored.FULL or _known(writing, fingerprint)):
        _put_revocations(writing, fingerprint, hygiene, arrival.revocations)
    if refused is not None:
        return refused
    if find.update and old is None:
        return Stored.GONE
    waiting.superseded(writing, fingerprint, find.source, find.origin)
    if old is None:
        return _insert(writing, find, now)
    writing.touch(fingerprint)
    row, vouched, at, chained, detail, copy = old
    if find.update:
        find, now = replace(find, vouchers=(), chained=bool(chained), detail=detail), at
    before = vouchers.read(vouched)
    stand = Standing.of(find.source, vouchers.merged(before, find.vouchers), chained=find.chained)
    recount(writing.tally, before, stand)
    stored = _update_copy(writing, row, find, now, hygiene, copy, stand.rank)  # first: the history tells it as one
    _update_entry(writing, row, find, now, stand)
    order_names(writing, row, find.certificate.proof.kind, now, stand)
    return stored


def _known(writing: Writing, fingerprint: str) -> bool:
    """Is there an entry or a revocation of this certificate?"""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM entry WHERE fingerprint = ?1)"
        " OR EXISTS (SELECT 1 FROM revocation WHERE fingerprint = ?1)"
    )
    return bool(writing.db.execute(sql, (fingerprint,)).fetchone()[0])


def _put_revocations(writing: Writing, fingerprint: str, hygiene: Hygiene, new: bytes) -> None:
    """Add revocations to those that are kept apart (cache rule 9)."""
    row = writing.db.execute(REVOCATION, (fingerprint,)).fetchone()
    merged = hygiene.merge_revocations(row[0], new) if row else new
    if row and merged == row[0]:
        return
    writing.db.execute(
        "INSERT INTO revocation VALUES (?1, ?2) ON CONFLICT DO UPDATE SET octets = ?2",
        (fingerprint, merged),
    )
    writing.touch(fingerprint)
    waiting.drop_certificate(writing, fingerprint)  # its owner has withdrawn what waits


def _insert(writing: Writing, find: Find, now: int) -> Stored:
    proof = find.certificate.proof
    entry = Entry(
        fingerprint=find.certificate.fingerprint,
        kind=proof.kind,
        octets=find.certificate.octets,
        source=find.source,
        origin=find.origin,
        cached_at=now,
        seen_at=now,
        vouchers=vouchers.merged((), find.vouchers),
        chained=find.chained,
        detail=find.detail,
        identities=proof.identities,
    )
    stand = Standing.of(entry.source, entry.vouchers, chained=entry.chained)
    row = insert(writing, entry, stand, dict.fromkeys(proof.index, stand.rank))
    if stand.vouched or stand.rank != stand.claimed:  # else they stand where they belong
        order_names(writing, row, entry.kind, now, stand)
    return Stored.NEW


def insert(writing: Writing, entry: Entry, stand: Standing, names: Mapping[Name, int]) -> int:
    """A new row for an entry, under its names with their ranks; its ID."""
    fingerprint, at = entry.fingerprint, entry.cached_at
    first = writing.db.execute("SELECT 1 FROM entry WHERE fingerprint = ? LIMIT 1", (fingerprint,)).fetchone() is None
    if first:
        writing.names |= names_of_fingerprint(fingerprint)
    else:
        writing.touch(fingerprint)
    row = writing.db.execute(
        "INSERT INTO entry (fingerprint, kind, source, origin, at, rank, approved, held, vouchers, chained,"
        " message_id, identities, folded, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            fingerprint,
            str(entry.kind),
            str(entry.source),
            entry.origin,
            at,
            stand.rank,
            stand.approved,
            stand.held,
            stand.column,
            entry.chained,
            storable(entry.detail),
            json.dumps(entry.identities),
            folded(entry.identities),
            first_address(names),
        ),
    ).lastrowid
    assert row is not None
    writing.db.execute("INSERT INTO copy VALUES (?, ?)", (row, entry.octets))
    _index(writing, row, names, at)
    writing.count(1, str(entry.source), entry.origin, held=stand.held, approved=stand.approved)
    writing.tally["certificates"] += first
    return row


def _update_entry(writing: Writing, row: int, find: Find, now: int, stand: Standing) -> None:
    writing.db.execute(
        "UPDATE entry SET at = ?, rank = ?, approved = ?, held = ?, vouchers = ?, chained = ?, message_id = ?"
        " WHERE id = ?",
        (now, stand.rank, stand.approved, stand.held, stand.column, find.chained, storable(find.detail), row),
    )


def _update_copy(writing: Writing, row: int, find: Find, now: int, hygiene: Hygiene, copy: bytes, place: int) -> Stored:
    proof, new = find.certificate.proof, find.certificate.octets
    names, identities = proof.index, proof.identities
    if new != copy and (find.source is Source.LOCAL or not find.replace):
        new = hygiene.merge([copy, new], b"")  # local: what an administrator imported never loses anything
    if new == copy:  # it may prove more than when it was stored, by a newer rule of names
        renaming.add(writing, row, proof.index, place, now)
        return Stored.SAME
    if new != find.certificate.octets:
        names, identities = hygiene.index(new)
    writing.db.execute("UPDATE copy SET octets = ? WHERE entry = ?", (new, row))
    writing.db.execute(
        "UPDATE entry SET identities = ?, folded = ?, address = ? WHERE id = ?",
        (json.dumps(identities), folded(identities), first_address(names), row),
    )
    trigrams.changed(writing.db, row)
    writing.db.execute("DELETE FROM name WHERE entry = ?", (row,))
    _index(writing, row, dict.fromkeys(names, place), now)
    return Stored.CHANGED


def _index(writing: Writing, row: int, names: Mapping[Name, int], at: int) -> None:
    rows = [(name, place, at, row) for name, place in names.items() if fits(name)]
    writing.db.executemany("INSERT INTO name VALUES (?, ?, ?, ?)", rows)
    writing.names.update(row[0] for row in rows)


def order_names(writing: Writing, row: int, kind: Kind, at: int, stand: Standing) -> None:
    """Let an entry's names stand where they belong: under an address for which somebody stands behind it before all
    who only claim it, or a stranger's many certificates would push the owner's out of a snapshot. What `_lift` has
    lifted stays while that upstream's word is on record."""
    writing.db.execute(
        "UPDATE name SET at = ?1, rank = CASE WHEN rank = 1 AND EXISTS (SELECT 1 FROM record AS r JOIN entry AS e"
        " ON r.upstream = e.origin WHERE e.id = ?4 AND e.source = 'keyserver' AND r.name = name.name AND r.found)"
        " THEN 1 WHEN instr(name, ':addr:') THEN ?2 ELSE ?3 END WHERE entry = ?4",
        (at, stand.claimed, stand.rank, row),
    )
    vouched = [(row, name_of(kind, "addr", address)) for address in stand.vouched]
    writing.db.executemany("UPDATE name SET rank = 1 WHERE entry = ? AND name = ?", vouched)


def _lift(writing: Writing, record: Record, fingerprints: Sequence[str]) -> None:
    """What an upstream has found when asked for this very name stands before what only claims it."""
    writing.db.executemany(
        "UPDATE name SET rank = 1 WHERE name = ?1 AND rank > 1 AND entry ="
        " (SELECT id FROM entry WHERE fingerprint = ?2 AND source = 'keyserver' AND origin = ?3)",
        [(record.name, fingerprint, record.upstream) for fingerprint in fingerprints],
    )


def _put_record(writing: Writing, record: Record) -> None:
    """The last word of an upstream counts; when it was last asked for only ever goes forward."""
    old = writing.db.execute(
        "SELECT found FROM record WHERE name = ? AND upstream = ?", (record.name, record.upstream)
    ).fetchone()
    if old:
        writing.tally["found" if old[0] else "absent"] -= 1
    writing.tally["found" if record.found else "absent"] += 1
    writing.db.execute(
        "INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE"
        " SET found = ?3, at = ?4, asked_at = max(asked_at, ?5)",
        (record.name, record.upstream, record.found, record.at, record.asked_at),
    )
    writing.names.add(record.name)
    waiting.said(writing, record)


def asked(writing: Writing, names: Sequence[tuple[Name, int]]) -> None:
    """`Store.touch`, for some of the names."""
    writing.db.executemany("UPDATE record SET asked_at = ?2 WHERE name = ?1 AND asked_at < ?2", names)
