"""Rows of the history that are erased, and what is taken down anew in their place, inside a write transaction."""

from __future__ import annotations

import json
from collections.abc import Collection

from keyserver.model import Kind, Name
from keyserver.query import name_of
from keyserver.store.deletion import purge_note
from keyserver.store.past import BEFORE, REVOKED
from keyserver.store.postgres import waiting
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.recording import ERASED
from keyserver.store.postgres.text import text
from keyserver.store.postgres.writing import Writing


async def erase(db: Connection, whole: int) -> None:
    """Everything; whole: as `Kept.whole` from here on."""
    await db.execute(f"TRUNCATE {', '.join(ERASED)}")
    await db.execute("UPDATE history SET key = new_key_1(), whole = $1", whole)


async def stop(db: Connection, limit: int) -> int:
    """No more is recorded; erase up to `limit` rows."""
    await db.execute("UPDATE history SET active = false, whole = 0 WHERE active OR whole IS DISTINCT FROM 0")
    gone = 0
    for table in ERASED:
        rows = f"SELECT ctid FROM {table} LIMIT $1"  # noqa: S608 - our own words
        status = await db.execute(f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({rows}))", limit - gone)  # noqa: S608
        gone += int(status.rpartition(" ")[2])
    return gone


async def take_down(db: Connection, which: str, *values: object) -> None:
    """An event for each of these entries `e` that has none."""
    await db.execute(
        "INSERT INTO event (number, at, last, what, fingerprint, kind, source, origin, cached, vouchers, chained,"  # noqa: S608
        f" detail) SELECT e.id - {BEFORE}, e.at, e.at, 'cached', e.fingerprint, e.kind, e.source, e.origin, e.at,"
        f" e.vouchers, e.chained, e.message_id FROM entry AS e WHERE {which} AND NOT EXISTS (SELECT 1 FROM event AS o"
        " WHERE o.fingerprint = e.fingerprint AND o.source = e.source AND o.origin = e.origin)",
        *values,
    )


async def take_down_blocks(db: Connection, which: str = "true") -> None:
    """An event for each of these blocks `t`."""
    await db.execute(
        "INSERT INTO event (number, at, last, what, fingerprint, facts)"  # noqa: S608
        f" SELECT row_number() OVER (ORDER BY t.at, t.fingerprint) - {3 * BEFORE}, t.at, t.at, 'blocked',"
        f" t.fingerprint, json_build_object('reason', t.reason)::text FROM block AS t WHERE {which}"
    )


async def drop(db: Connection, numbers: Collection[int], fingerprints: Collection[str]) -> int:
    """Events of these certificates, with the copies and names that no event is left for; how many events."""
    status = await db.execute("DELETE FROM event WHERE number = ANY($1)", list(numbers))
    await db.execute("DELETE FROM past_settings WHERE number = ANY($1)", list(numbers))
    of_them = sorted(fingerprints)
    copies = await db.fetch(
        "DELETE FROM past_span AS s WHERE s.fingerprint = ANY($1) AND NOT EXISTS (SELECT 1 FROM event AS e WHERE"  # noqa: S608
        " e.fingerprint = s.fingerprint AND e.number <= s.upto AND CASE s.source"
        f" WHEN '{REVOKED}' THEN e.source = '' AND e.origin = '' AND e.what = 'revoked'"
        " ELSE e.source = s.source AND e.origin = s.origin END) RETURNING s.copy",
        of_them,
    )
    await drop_copies(db, [row[0] for row in copies])
    await db.execute(
        "DELETE FROM past_name AS n WHERE n.fingerprint = ANY($1) AND NOT EXISTS"
        " (SELECT 1 FROM event AS e WHERE e.fingerprint = n.fingerprint AND e.source > '')",
        of_them,
    )
    return int(status.rpartition(" ")[2])


async def drop_copies(db: Connection, digests: Collection[bytes]) -> None:
    """Those of these copies that no span needs."""
    await db.execute(
        "DELETE FROM past_copy AS c WHERE c.digest = ANY($1)"
        " AND NOT EXISTS (SELECT 1 FROM past_span AS s WHERE s.copy = c.digest)",
        list(digests),
    )


def names_of(address: str) -> list[Name]:
    """Of either kind."""
    return [text(name_of(kind, "addr", address)) for kind in Kind]


async def bearing(db: Connection, address: str) -> list[str]:
    """Certificates that ever bore an address: by name, or by a voucher. Goes over all events."""
    rows = await db.fetch(
        "SELECT fingerprint FROM past_name WHERE name = ANY($1) UNION SELECT fingerprint FROM event WHERE address = $2"
        " UNION SELECT fingerprint FROM name WHERE name = ANY($1)"
        " UNION SELECT fingerprint FROM event WHERE vouchers <> '[]' AND strpos(vouchers, $3) > 0",
        names_of(address),
        text(address),
        text(json.dumps(address)),
    )
    return [row[0] for row in rows if row[0]]


async def forget(writing: Writing, address: str, fingerprints: Collection[str]) -> int:
    """`History.forget`; fingerprints: of what `bearing` found."""
    db = writing.db
    names, quoted = names_of(address), text(json.dumps(address))
    gone = 0
    for sql, value in (
        ("DELETE FROM word WHERE hash IN (SELECT history_hash_1(n) FROM unnest($1::text[]) AS n)", names),
        ("DELETE FROM answering WHERE name = ANY($1::text[])", names),
        ("DELETE FROM recipient WHERE hash = history_hash_1($1)", text(address)),
        ("DELETE FROM event WHERE address = $1 AND source = ''", text(address)),
    ):
        gone += int((await db.execute(sql, value)).rpartition(" ")[2])
    for fingerprint in fingerprints:
        living = await db.fetchval(
            "SELECT EXISTS (SELECT 1 FROM entry AS e WHERE e.fingerprint = $1 AND (strpos(e.vouchers, $2) > 0"
            " OR EXISTS (SELECT 1 FROM name AS n WHERE n.entry = e.id AND n.name = ANY($3))))",
            fingerprint,
            quoted,
            names,
        )
        if not living:
            gone += await _forget_certificate(db, fingerprint)
            await waiting.drop_certificate(writing, fingerprint)
    await _forget_notes(writing, names)
    return gone


async def _forget_notes(writing: Writing, names: Collection[Name]) -> None:
    """Records, and what told others of changes and deletes: it tells them of more than there was."""
    await writing.forget(names)
    writing.everything = True
    await writing.db.execute("UPDATE change SET everything = true, names = '{}' WHERE names && $1::text[]", names)
    for name in names:
        sql = "UPDATE deletion SET what = $1 WHERE strpos(what, $2) > 0"
        await writing.db.execute(sql, purge_note(None), text(json.dumps(name)))


async def _forget_certificate(db: Connection, fingerprint: str) -> int:
    """All of it but that it is blocked or revoked; what of it is cached is taken down anew."""
    rows = await db.fetch(
        "SELECT number FROM event WHERE fingerprint = $1 AND what NOT IN ('blocked', 'unblocked', 'revoked')",
        fingerprint,
    )
    gone = await drop(db, [row[0] for row in rows], [fingerprint])
    spans = await db.fetch("DELETE FROM past_span WHERE fingerprint = $1 RETURNING copy", fingerprint)
    await drop_copies(db, [row[0] for row in spans])
    await take_down(db, "e.fingerprint = $1", fingerprint)
    return gone
