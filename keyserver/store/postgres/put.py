"""Puts: what is there is read, merged here, and written by one call of a server function if nothing has changed since.

So no transaction is open while we think, or while a node is stopped: nobody waits for whoever does not go on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from keyserver.hygiene import Hygiene
from keyserver.model import Find, Kind, Name, Record, Source
from keyserver.query import name_of
from keyserver.store import vouchers
from keyserver.store.arriving import Incoming, Put, refusal, settle
from keyserver.store.base import Stored, StoreError
from keyserver.store.deletion import Later, names_of_fingerprint
from keyserver.store.postgres.connections import Connection, Connections
from keyserver.store.postgres.text import fitting, text
from keyserver.store.postgres.writing import OCTETS, ROW, Written, buckets, counted
from keyserver.store.standing import Standing, first_address, folded, recount

_ROUNDS = 50
"""Rivals of one certificate: of those that write at the same time one always comes through."""
_PAUSE = 0.002  # seconds; grows with each round

_Key = tuple[str, str, str]
"""Fingerprint, source, origin."""

_READ = """
SELECT 'now' AS what, NULL::text AS fingerprint, NULL::text AS source, NULL::text AS origin,
    generation_1() AS n, (SELECT sum(n) FROM (
        SELECT n FROM tally WHERE what = 'octets' UNION ALL SELECT n FROM delta WHERE what = 'octets'
    ) AS t)::bigint AS m, NULL::text AS text, NULL::bytea AS octets,
    NULL::bigint AS at, NULL::boolean AS chained, NULL::text AS detail
UNION ALL
SELECT 'entry', e.fingerprint, e.source, e.origin, e.id, e.version, e.vouchers, e.octets,
    e.at, e.chained, e.message_id FROM entry AS e
    JOIN unnest($1::text[], $2::text[], $3::text[]) AS k(fingerprint, source, origin)
    ON e.fingerprint = k.fingerprint AND e.source || '' = k.source AND e.origin || '' = k.origin
UNION ALL
SELECT 'known', e.fingerprint, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM entry AS e WHERE e.fingerprint = ANY($1)
UNION ALL
SELECT 'revocation', r.fingerprint, NULL, NULL, NULL, r.version, NULL, r.octets, NULL, NULL, NULL
    FROM revocation AS r WHERE r.fingerprint = ANY($1)
UNION ALL
SELECT 'block', b.fingerprint, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
    FROM block AS b WHERE b.fingerprint = ANY($1)
UNION ALL
(SELECT 'delete', NULL, NULL, NULL, d.id, NULL, d.what, NULL, NULL, NULL, NULL
    FROM deletion AS d WHERE d.id > $4 ORDER BY d.id)
"""
_TIMELINE = 40  # bits below it


@dataclass(slots=True)
class _Row:
    """An entry as it is, or as this put makes it."""

    id: int | None
    version: int | None
    vouchers: str
    octets: bytes
    at: int = 0
    chained: bool = False
    detail: str = ""
    written: dict[str, Any] | None = None
    """What of it is to be written."""
    now: int = 0
    """Of the call that wrote it last."""


@dataclass(slots=True)
class _Known:
    """What there is, and what becomes of it here."""

    generation: int
    octets: int
    rows: dict[_Key, _Row]
    fingerprints: set[str]
    revocations: dict[str, tuple[int | None, bytes]]
    blocked: set[str]
    notes: list[tuple[int, str]]
    tally: Counter[str] = field(default_factory=Counter)
    names: set[Name] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    revoked: dict[str, bytes] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)

    def later(self, begun: int) -> Later:
        """The deletes after `begun`; of another timeline nobody knows which."""
        if begun >> _TIMELINE != self.generation >> _TIMELINE:
            return Later(everything=True)
        after = begun & ((1 << _TIMELINE) - 1)
        number = (self.generation & ((1 << _TIMELINE) - 1)) - after
        if number < 0:  # a server that lost deletes
            return Later(everything=True)
        return Later.of([note for id_, note in self.notes if id_ > after], number)


async def put_all(
    connections: Connections, puts: Sequence[Put], hygiene: Mapping[Kind, Hygiene], max_size: int
) -> tuple[list[tuple[Stored, ...]], Written | None]:
    """Several calls of `Store.put`, one after the other in one transaction: durable if one of them must be."""
    arrived = await _arrived(puts, hygiene)
    durable = any(arrival.durable for incoming in arrived for arrival in incoming)
    for number in range(_ROUNDS):
        known = await connections.read(lambda db: _read(db, puts))
        answers, doc, parts = await _thought(known, puts, arrived, max_size, durable=durable)
        if doc is None:
            return answers, None
        written = await _tried(connections, doc, parts)
        if written is not None:
            return answers, written
        await asyncio.sleep(_PAUSE * (number + 1))
    raise StoreError("the cache database: others write the same certificates all the time")


async def _arrived(puts: Sequence[Put], hygiene: Mapping[Kind, Hygiene]) -> list[list[Incoming]]:
    """In a thread where something is parsed."""

    def read() -> list[list[Incoming]]:
        return [[Incoming.of(find, hygiene) for find in one.finds] for one in puts]

    parses = any(find.certificate.proof.revocations for one in puts for find in one.finds)
    return await asyncio.to_thread(read) if parses else read()


async def _read(db: Connection, puts: Sequence[Put]) -> _Known:
    keys = sorted({_key(find) for one in puts for find in one.finds})
    begun = min(one.begun & ((1 << _TIMELINE) - 1) for one in puts)
    columns = [[key[number] for key in keys] for number in range(3)]
    known = _Known(0, 0, {key: _Row(None, None, "[]", b"") for key in keys}, set(), {}, set(), [])
    for what, fingerprint, source, origin, n, m, said, octets, *rest in await db.fetch(_READ, *columns, begun):
        if what == "now":
            known.generation, known.octets = n, m or 0
        elif what == "entry":
            known.rows[fingerprint, source, origin] = _Row(n, m, said, octets, *rest)
        elif what == "known":
            known.fingerprints.add(fingerprint)
        elif what == "revocation":
            known.revocations[fingerprint] = (m, octets)
        elif what == "block":
            known.blocked.add(fingerprint)
        else:
            known.notes.append((n, said))
    return known


async def _thought(
    known: _Known, puts: Sequence[Put], arrived: Sequence[Sequence[Incoming]], max_size: int, *, durable: bool
) -> tuple[list[tuple[Stored, ...]], str | None, list[bytes]]:
    """The answers, and what the function is to write: in a thread where copies are merged, which takes its time."""
    if any(row.id is not None for row in known.rows.values()):
        return await asyncio.to_thread(_think, known, puts, arrived, max_size, durable=durable)
    return _think(known, puts, arrived, max_size, durable=durable)


def _think(
    known: _Known, puts: Sequence[Put], arrived: Sequence[Sequence[Incoming]], max_size: int, *, durable: bool
) -> tuple[list[tuple[Stored, ...]], str | None, list[bytes]]:
    room = max_size - known.octets
    answers = []
    for one, incoming in zip(puts, arrived, strict=True):
        answer, room = _put_one(known, one, incoming, room)
        answers.append(answer)
    return answers, *_document(known, durable=durable, who=puts[0].who, now=max(one.now for one in puts))


def _put_one(known: _Known, one: Put, incoming: Sequence[Incoming], room: int) -> tuple[tuple[Stored, ...], int]:
    """The answers, and the room that is left."""
    later = known.later(one.begun)
    settled = settle(one, incoming, later, room, ROW, lambda a, left: _put(known, a, later, one.now, left))
    lifts = [arrival.find.certificate.fingerprint for arrival in incoming]
    for record in settled.records:
        _put_record(known, record, lifts)
    return settled.answers, settled.room


def _put(known: _Known, arrival: Incoming, later: Later, now: int, room: int) -> Stored:
    find = arrival.find
    fingerprint, row = find.certificate.fingerprint, known.rows[_key(find)]
    there = row.id is not None or row.written is not None
    refused = refusal(find, later, blocked=fingerprint in known.blocked, full=not there and room <= 0)
    # A full store takes no revocations of strangers either: they would grow it without end.
    stranger = fingerprint not in known.fingerprints and fingerprint not in known.revocations
    if arrival.revocations and not (refused is Stored.FULL and stranger):
        _put_revocations(known, fingerprint, arrival)
    if refused is not None:
        return refused
    if find.update and not there:
        return Stored.GONE
    row.now = now
    return _renew(known, row, arrival, now) if there else _new(known, row, find, now)


def _put_revocations(known: _Known, fingerprint: str, arrival: Incoming) -> None:
    """Add revocations to those that are kept apart (cache rule 9)."""
    version, old = known.revocations.get(fingerprint, (None, b""))
    merged = arrival.hygiene.merge_revocations(old, arrival.revocations) if old else arrival.revocations
    if merged == old:
        return
    known.revocations[fingerprint] = (version, merged)
    known.revoked[fingerprint] = merged
    known.touched.add(fingerprint)


def _new(known: _Known, row: _Row, find: Find, now: int) -> Stored:
    proof, behind = find.certificate.proof, vouchers.merged((), find.vouchers)
    stand = Standing.of(find.source, behind, chained=find.chained)
    row.octets, row.vouchers = find.certificate.octets, stand.column
    row.at, row.chained, row.detail = now, find.chained, find.detail
    row.written = _columns(find, now, stand) | _texts(proof.index, proof.identities) | {"part": row.octets}
    known.fingerprints.add(find.certificate.fingerprint)
    known.touched.add(find.certificate.fingerprint)
    known.names |= proof.index
    known.tally.update(
        counted(1, str(find.source), text(find.origin), len(row.octets), held=stand.held, approved=stand.approved)
    )
    return Stored.NEW


def _renew(known: _Known, row: _Row, arrival: Incoming, now: int) -> Stored:
    find, hygiene = arrival.find, arrival.hygiene
    if find.update:
        find, now = replace(find, vouchers=(), chained=row.chained, detail=row.detail), row.at
    proof, new = find.certificate.proof, find.certificate.octets
    before = vouchers.read(row.vouchers)
    stand = Standing.of(find.source, vouchers.merged(before, find.vouchers), chained=find.chained)
    recount(known.tally, before, stand)
    known.touched.add(find.certificate.fingerprint)
    columns = _columns(find, now, stand)
    if new != row.octets and (find.source is Source.LOCAL or not find.replace):
        new = hygiene.merge([row.octets, new], b"")  # local: what an administrator imported never loses anything
    written = row.written or {}
    if new == row.octets:  # it may prove more than when it was stored, by a newer rule of names
        names = sorted({*written.get("names", ()), *fitting(proof.index)})
        row.written = written | columns | {"names": names}
        stored = Stored.SAME
    else:
        index, identities = hygiene.index(new) if new != find.certificate.octets else (proof.index, proof.identities)
        known.tally[OCTETS] += len(new) - len(row.octets)
        row.written = written | columns | _texts(index, identities) | {"part": new}
        known.names |= index
        stored = Stored.CHANGED
    known.names |= proof.index
    row.octets, row.vouchers = new, stand.column
    row.at, row.chained, row.detail = now, find.chained, find.detail
    return stored


def _put_record(known: _Known, record: Record, lifts: Sequence[str]) -> None:
    known.names.add(record.name)
    known.records.append(
        {
            "name": record.name,
            "upstream": text(record.upstream),
            "found": record.found,
            "at": record.at,
            "asked_at": record.asked_at,
            "lifts": lifts,
        }
    )


def _columns(find: Find, now: int, stand: Standing) -> dict[str, Any]:
    kind = find.certificate.proof.kind
    return {
        "fingerprint": find.certificate.fingerprint,
        "kind": str(kind),
        "source": str(find.source),
        "origin": text(find.origin),
        "at": now,
        "rank": stand.rank,
        "claimed": stand.claimed,
        "approved": stand.approved,
        "held": stand.held,
        "chained": find.chained,
        "vouchers": text(stand.column),
        "vouched": [name_of(kind, "addr", address) for address in stand.vouched],
        "message_id": text(find.detail),
    }


def _texts(names: frozenset[Name], identities: Sequence[str]) -> dict[str, Any]:
    return {
        "names": fitting(names),
        "identities": json.dumps(identities),
        "folded": text(folded(identities)),
        "address": text(first_address(names))[:200],
    }


def _document(known: _Known, *, durable: bool, who: str, now: int) -> tuple[str | None, list[bytes]]:
    """What `put_2` takes; None where there is nothing to write."""
    parts: list[bytes] = []

    def part(octets: bytes) -> int:
        parts.append(octets)
        return len(parts)

    entries = []
    for row in known.rows.values():
        if row.written is not None:
            found = {**row.written, "id": row.id, "now": row.now}
            if "part" in found:
                found["part"] = part(found["part"])
            entries.append(found)
    if not (entries or known.records or known.revoked):
        return None, []
    fingerprints = sorted({key[0] for key in known.rows})
    named = known.names.union(*(names_of_fingerprint(one) for one in known.touched))
    document = {
        "generation": known.generation,
        "durable": durable,
        "who": text(who),
        "now": now,
        "locks": buckets(fingerprints),
        "known": [
            {"fingerprint": key[0], "source": key[1], "origin": key[2], "version": row.version}
            for key, row in known.rows.items()
        ],
        "certificates": [
            {
                "fingerprint": one,
                "revoked": known.revocations.get(one, (None, b""))[0],
                "blocked": one in known.blocked,
            }
            for one in fingerprints
        ],
        "names": fitting(named),
        "touched": sorted(known.touched),
        "entries": entries,
        "revocations": [{"fingerprint": one, "part": part(octets)} for one, octets in known.revoked.items()],
        "records": sorted(known.records, key=lambda record: (record["name"], record["upstream"])),
        "tally": known.tally,
    }
    return json.dumps(document), parts


async def _tried(connections: Connections, doc: str, parts: Sequence[bytes]) -> Written | None:
    """Write it; None where something has changed since it was read."""

    try:
        row = await connections.write(lambda db: db.fetchrow(_CALL, doc, parts))
    except StoreError as problem:
        if isinstance(problem.__cause__, asyncpg.DeadlockDetectedError):
            return None
        raise
    assert row is not None
    return Written(row["xid"], frozenset(row["names"])) if row["written"] else None


_CALL = "SELECT written, xid, names FROM put_2($1::jsonb, $2::bytea[])"


def _key(find: Find) -> _Key:
    return find.certificate.fingerprint, str(find.source), text(find.origin)
