"""What the store reads, as functions of a connection: each bounded, each of one instant where it says so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from keyserver.model import Entry, Kind, Name, Record, Source
from keyserver.query import name_of
from keyserver.store import vouchers
from keyserver.store.base import StoreStats
from keyserver.store.listing import UPSTREAM
from keyserver.store.names import fits
from keyserver.store.past import EVENT, WORD
from keyserver.store.snapshot import Snapshot
from keyserver.store.sqlite import deletions

MAX_CERTIFICATES = 64  # of one name
MAX_CLAIMS = 1024  # index rows looked at to find them: one certificate may stand there once per origin
MAX_ENTRIES = 64  # of one certificate, in a snapshot
MAX_RECORDS = 256  # of one name: one per upstream
MAX_OCTETS = 16 << 20  # of one snapshot or page; the certificate or entry that passes it is the last
MAX_PUBLISHED = 10_000  # names; beyond that a poll says "everything" sooner than it reads them all


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one look reads."""

    certificates: int
    entries: int  # of each
    octets: int


FULL = Bounds(MAX_CERTIFICATES, MAX_ENTRIES, MAX_OCTETS)
SHORT = Bounds(4, 8, 128 << 10)
"""What nearly every look stays below."""


class TooMuch(Exception):
    """There is more than the bounds admit, and not the best of it but all is wanted."""


# CROSS JOIN keeps SQLite from changing the order of the loops: first the seek in the index of names.
CLAIMS = (
    "SELECT e.fingerprint FROM name AS n CROSS JOIN entry AS e ON e.id = n.entry"
    " WHERE n.name = ? AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint)"
    " ORDER BY n.rank, n.at DESC LIMIT ?"
)
_ENTRY = (
    "SELECT e.fingerprint, e.kind, c.octets, e.source, e.origin, e.at, e.vouchers, e.chained, e.message_id,"
    " e.identities FROM entry AS e CROSS JOIN copy AS c ON c.entry = e.id WHERE "
)
ENTRY = _ENTRY + "e.id = ?"
ENTRIES = _ENTRY + "e.fingerprint = ? ORDER BY e.rank, e.at DESC LIMIT ?"
REVOCATION = "SELECT octets FROM revocation WHERE fingerprint = ?"
RECORDS = "SELECT name, upstream, found, at, asked_at FROM record WHERE name = ? LIMIT ?"
ANSWERING = "SELECT view, fingerprint FROM answering WHERE name = ?"


@contextmanager
def instant(db: sqlite3.Connection) -> Iterator[None]:
    """Everything read inside is of one instant."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


def look(db: sqlite3.Connection, name: Name, bounds: Bounds = FULL) -> Snapshot:
    """`Store.look`. Raises TooMuch where other bounds than FULL are passed."""
    with instant(db):
        fingerprints: dict[str, None] = {}
        for (fingerprint,) in db.execute(CLAIMS, (name, MAX_CLAIMS)) if fits(name) else ():
            fingerprints[fingerprint] = None
            if len(fingerprints) == bounds.certificates:
                break
        if bounds is not FULL and len(fingerprints) == bounds.certificates:
            raise TooMuch
        entries: list[Entry] = []
        revocations: dict[str, bytes] = {}
        room = bounds.octets
        for fingerprint in fingerprints:
            found = _entries(db, fingerprint, bounds.entries)
            entries += found
            if revoked := db.execute(REVOCATION, (fingerprint,)).fetchone():
                revocations[fingerprint] = revoked[0]
            room -= sum(len(entry.octets) for entry in found)
            if bounds is not FULL and (room < 0 or len(found) == bounds.entries):
                raise TooMuch
            if room < 0:
                break
        records = tuple(_record(row) for row in db.execute(RECORDS, (name, MAX_RECORDS))) if fits(name) else ()
        answering = dict(db.execute(ANSWERING, (name,))) if ":addr:" in name and fits(name) else {}
        begun = deletions.count(db)
    return Snapshot(tuple(entries), revocations, records, begun, answering)


def certificate(db: sqlite3.Connection, fingerprint: str) -> Snapshot:
    """`Store.certificate`; at most 1,024 entries."""
    with instant(db):
        entries = tuple(_entries(db, fingerprint, MAX_CLAIMS))
        revoked = db.execute(REVOCATION, (fingerprint,)).fetchone()
    return Snapshot(entries, {fingerprint: revoked[0]} if revoked else {})


def answered(db: sqlite3.Connection, upstream: str, domain: str) -> bool:
    """`Store.answered`."""
    suffix = f"@{domain}"
    record = "SELECT 1 FROM record WHERE upstream = ? AND found = 1 AND substr(name, ?) = ? LIMIT 1"
    if db.execute(record, (upstream, -len(suffix), suffix)).fetchone():
        return True
    entry = (
        "SELECT 1 FROM name AS n INDEXED BY name_domain CROSS JOIN entry AS e ON e.id = n.entry"
        " WHERE instr(n.name, '@') > 0 AND substr(n.name, instr(n.name, '@') + 1) = ?"
        " AND e.source = 'keyserver' AND e.origin = ? AND EXISTS (SELECT 1 FROM json_each(e.vouchers) AS v"
        " WHERE json_extract(v.value, '$[0]') = substr(n.name, instr(n.name, ':addr:') + 6)) LIMIT 1"
    )
    return db.execute(entry, (domain, upstream)).fetchone() is not None


def addresses(db: sqlite3.Connection, domain: str, limit: int) -> tuple[str, ...]:
    """`Store.addresses`."""
    sql = (
        "SELECT DISTINCT substr(name, length(?1) + 1) FROM name INDEXED BY name_domain"
        " WHERE instr(name, '@') > 0 AND substr(name, instr(name, '@') + 1) = ?2 AND substr(name, 1, length(?1)) = ?1"
        " LIMIT ?3"
    )
    return tuple(row[0] for row in db.execute(sql, (name_of(Kind.OPENPGP, "addr", ""), domain, limit)))


def _entries(db: sqlite3.Connection, fingerprint: str, limit: int) -> list[Entry]:
    return [entry_of(row) for row in db.execute(ENTRIES, (fingerprint, limit))]


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from its columns: fingerprint, kind, octets, source, origin, at, vouchers, chained, message-id,
    identities."""
    fingerprint, kind, octets, source, origin, at, vouched, chained, message_id, identities = row
    return Entry(
        fingerprint=fingerprint,
        kind=Kind(kind),
        octets=octets,
        source=Source(source),
        origin=origin,
        cached_at=at,
        seen_at=at,
        vouchers=vouchers.read(vouched),
        chained=bool(chained),
        detail=message_id,
        identities=tuple(json.loads(identities)),
    )


def _record(row: Sequence[Any]) -> Record:
    name, upstream, found, at, asked_at = row
    return Record(name, upstream, bool(found), at, asked_at if asked_at >= at else 0)


def due(db: sqlite3.Connection, found_before: Mapping[str | None, int], limit: int) -> tuple[Record, ...]:
    """`Store.due`: one index range per upstream."""
    candidates: list[Record] = []
    rest = found_before.get(None)
    with instant(db):
        upstreams = [] if rest is None else jump(db, "record", "upstream", "found = 1 AND asked_at > at", ())
        for upstream in {*upstreams, *(u for u in found_before if u is not None)}:
            before = found_before.get(upstream, rest)
            rows = db.execute(
                "SELECT name, upstream, found, at, asked_at FROM record"
                " WHERE found = 1 AND asked_at > at AND upstream = ? AND at < ? ORDER BY at LIMIT ?",
                (upstream, before, limit),
            )
            candidates += map(_record, rows)
    candidates.sort(key=lambda record: (record.at, record.name, record.upstream))
    return tuple(candidates[:limit])


def jump(db: sqlite3.Connection, table: str, column: str, where: str, values: Sequence[Any]) -> list[str]:
    """The different values of a column that leads an index (after what `where` fixes): one seek each, no scan."""
    least = f"SELECT min({column}) FROM {table} WHERE {where}"  # noqa: S608 - our own words, values are bound
    found: list[str] = []
    row = db.execute(least, values).fetchone()
    while row[0] is not None:
        found.append(row[0])
        row = db.execute(f"{least} AND {column} > ?", (*values, row[0])).fetchone()
    return found


_OLD = "SELECT id FROM entry INDEXED BY entry_age WHERE source = ? AND origin = ? AND at < ? ORDER BY at LIMIT ?"
# One range, however many domains wrote to us.
_OLD_MAIL = "SELECT id FROM entry INDEXED BY entry_mail WHERE source = 'mailflow' AND at < ? ORDER BY at LIMIT ?"


def expired(
    db: sqlite3.Connection, cutoffs: Mapping[tuple[Source, str | None], int], absent_before: int, limit: int
) -> tuple[list[tuple[int, int]], list[tuple[Name, str, int]]]:
    """What `Store.purge_expired` would delete: entries (id, cutoff) and records (name, upstream, cutoff)."""
    entries: list[tuple[int, int]] = []
    records: list[tuple[Name, str, int]] = []
    with instant(db):
        for (source, origin), cutoff in cutoffs.items():
            others = sorted(o for s, o in cutoffs if s is source and o is not None)
            if origin is None and source is Source.MAILFLOW and not others:
                rows = db.execute(_OLD_MAIL, (cutoff, limit - len(entries)))
                entries += [(row[0], cutoff) for row in rows]
                continue
            origins = [origin]
            if origin is None:
                origins = [o for o in jump(db, "entry", "origin", "source = ?", (str(source),)) if o not in others]
            for one in origins:
                rows = db.execute(_OLD, (str(source), one, cutoff, limit - len(entries)))
                entries += [(row[0], cutoff) for row in rows]
            if source is Source.KEYSERVER:
                records += _expired_found(db, origin, others, cutoff, limit - len(records))
        rows = db.execute(
            "SELECT name, upstream FROM record WHERE found = 0 AND at < ? ORDER BY at LIMIT ?",
            (absent_before, limit - len(records)),
        )
        records += [(name, upstream, absent_before) for name, upstream in rows]
    return entries, records[: limit - len(entries)]


def _expired_found(
    db: sqlite3.Connection, origin: str | None, others: Sequence[str], cutoff: int, limit: int
) -> list[tuple[Name, str, int]]:
    upstreams = [origin] if origin is not None else jump(db, "record", "upstream", "found = 1", ())
    records: list[tuple[Name, str, int]] = []
    for upstream in upstreams:
        if origin is None and upstream in others:
            continue
        rows = db.execute(
            "SELECT name FROM record WHERE found = 1 AND upstream = ? AND at < ? ORDER BY at LIMIT ?",
            (upstream, cutoff, limit - len(records)),
        )
        records += [(name, upstream, cutoff) for (name,) in rows]
    return records


def lasting(db: sqlite3.Connection, after: str, upto: str, limit: int) -> tuple[str, ...]:
    """`Store.lasting`: a range of the index of identities."""
    rows = db.execute(
        "SELECT DISTINCT fingerprint FROM entry WHERE fingerprint > ? AND fingerprint <= ?"
        " AND source IN ('local', 'mailflow') AND kind = 'openpgp' ORDER BY fingerprint LIMIT ?",
        (after, upto, limit),
    )
    return tuple(row[0] for row in rows)


def newest(db: sqlite3.Connection) -> int | None:
    """`Store.newest`."""
    seeks: list[tuple[str, tuple[str, ...]]] = [
        ("SELECT max(at) FROM entry INDEXED BY entry_mail WHERE source = 'mailflow'", ()),
        ("SELECT max(at) FROM record INDEXED BY record_absent WHERE found = 0", ()),
    ]
    with instant(db):
        for source in (Source.KEYSERVER, Source.LOCAL):
            origins = jump(db, "entry", "origin", "source = ?", (str(source),))
            seeks += [("SELECT max(at) FROM entry WHERE source = ? AND origin = ?", (str(source), o)) for o in origins]
        for upstream in jump(db, "record", "upstream", "found = 1", ()):
            seeks.append(("SELECT max(at) FROM record WHERE found = 1 AND upstream = ?", (upstream,)))
        found = [db.execute(sql, values).fetchone()[0] for sql, values in seeks]
    return max((at for at in found if at is not None), default=None)


def octets(db: sqlite3.Connection) -> int:
    """Octets of the pages in use; what was freed is used again and does not count, nor does the history, about."""
    pages, free, size = (db.execute(f"PRAGMA {what}").fetchone()[0] for what in _SIZES)
    return int((pages - free) * size) - history_octets(db)


def history_octets(db: sqlite3.Connection) -> int:
    """What the history takes, about."""
    events, words, copies = history_counts(db)
    return events * EVENT + words * WORD + copies


def history_counts(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Events, words as they were counted last, octets of past copies: two rows are read."""
    given = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0)"
    counts: tuple[int, int, int] = db.execute(f"SELECT events + {given}, words, octets FROM history").fetchone()  # noqa: S608
    return counts


def history_words(db: sqlite3.Connection) -> int:
    """Words and notes of recipients, counted: of very many a part, as hashes are spread evenly."""
    return _hashed(db, "word") + _hashed(db, "recipient")


def _hashed(db: sqlite3.Connection, table: str) -> int:
    few: int = db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT ?)", (_COUNTED,)).fetchone()[0]  # noqa: S608
    if few < _COUNTED:
        return few
    part: int = db.execute(f"SELECT count(*) FROM {table} WHERE hash < x'01'").fetchone()[0]  # noqa: S608
    return part * 256


_COUNTED = 20_000


_SIZES = ("page_count", "freelist_count", "page_size")


def stats(db: sqlite3.Connection) -> StoreStats:
    """`Store.stats`: kept in a table by whoever writes, so that counting a million rows costs nothing."""
    with instant(db):
        tally = dict(db.execute("SELECT what, n FROM tally"))
        blocked = db.execute("SELECT count(*) FROM block").fetchone()[0]
        size = octets(db)
    return StoreStats(
        certificates=tally.get("certificates", 0),
        entries={str(source): tally.get(str(source), 0) for source in Source},
        records_found=tally.get("found", 0),
        records_absent=tally.get("absent", 0),
        blocked=blocked,
        octets=size,
        upstreams={what.removeprefix(UPSTREAM): n for what, n in tally.items() if what.startswith(UPSTREAM) and n},
        held=tally.get("held", 0),
        approved=tally.get("approved", 0),
    )


def changes_since(db: sqlite3.Connection, seen: int) -> tuple[int, list[tuple[int, bool, frozenset[Name]]] | None]:
    """The last change's number, and the changes after `seen`; None where they are too many or were tidied away."""
    with instant(db):
        last: int = db.execute("SELECT max(number) FROM change").fetchone()[0]
        kept = db.execute("SELECT 1 FROM change WHERE number = ?", (seen,)).fetchone()
        if kept is None or last - seen > MAX_PUBLISHED:
            return last, None
        rows = db.execute("SELECT number, everything, names FROM change WHERE number > ? ORDER BY number", (seen,))
        return last, [(number, bool(all_), frozenset(json.loads(names))) for number, all_, names in rows]
