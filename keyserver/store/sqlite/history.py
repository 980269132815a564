"""`History` in the cache's own SQLite file: what `recording` wrote, read; and what no trigger can know, written."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from keyserver.hygiene import Hygiene
from keyserver.model import Kind, Name, Source
from keyserver.store import past
from keyserver.store.history import NOTHING, Bounds, Event, Past, Said
from keyserver.store.keeping import Keeping
from keyserver.store.names import fits
from keyserver.store.past import CANDIDATES, EVENT, EVENT_COLUMNS, FIRST_SETTINGS, REVOKED, WORD, Spoken, State
from keyserver.store.sqlite import erasing
from keyserver.store.sqlite.administration import Connections
from keyserver.store.sqlite.reading import CLAIMS, MAX_CLAIMS, REVOCATION, history_counts, history_words, instant, jump
from keyserver.store.sqlite.recording import SAY
from keyserver.store.sqlite.session import Session, keyed
from keyserver.store.sqlite.shelves import SqliteShelves
from keyserver.store.sqlite.writing import Writing

_EVENTS = f"SELECT {EVENT_COLUMNS} FROM event"  # noqa: S608 - our own words
_NEWS = f"{_EVENTS} WHERE what <> 'renewed' AND number > ? ORDER BY number LIMIT ?"
_NEWER = "SELECT max(number), max(CASE WHEN what <> 'renewed' THEN number END) FROM event WHERE number > ?"
_NEWEST = (
    "SELECT (SELECT max(number) FROM event), (SELECT number FROM event WHERE what <> 'renewed' AND number >= 0"
    " ORDER BY number DESC LIMIT 1)"
)
_NUMBERS = (
    "SELECT number FROM event INDEXED BY event_entry WHERE fingerprint IN (SELECT value FROM json_each(?))"
    " AND number < ? ORDER BY number DESC LIMIT ?"
)
_OF_CERTIFICATES = f"{_EVENTS} WHERE number IN ({_NUMBERS})"
_COUNT = "SELECT count(*) FROM event WHERE what <> 'renewed' AND number > ? AND number <= ?"
_WORDS = "SELECT upstream, since, last, word, gone FROM word WHERE hash = ? ORDER BY since {} LIMIT ?"
_STATE = (
    "SELECT number, kind, cached, last, vouchers, chained, detail FROM event WHERE fingerprint = ? AND source = ?"
    " AND origin = ? AND at <= ? ORDER BY at DESC, number DESC LIMIT 1"
)
_STANDING = (
    "SELECT number, what FROM event WHERE fingerprint = ? AND source = '' AND origin = '' AND at <= ?"
    " AND what IN ({}) ORDER BY at DESC, number DESC LIMIT 1"
)
_ASIDE = (
    "SELECT c.octets FROM past_span AS s JOIN past_copy AS c ON c.digest = s.copy WHERE s.fingerprint = ?"
    " AND s.source = ? AND s.origin = ? AND s.upto >= ? ORDER BY s.upto LIMIT 1"
)
_LIVING = (
    "SELECT c.octets FROM entry AS e JOIN copy AS c ON c.entry = e.id WHERE e.fingerprint = ? AND e.source = ?"
    " AND e.origin = ?"
)
_CACHED = "SELECT 1 FROM entry WHERE fingerprint = ? LIMIT 1"
_FIRST = (
    "INSERT INTO answering SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM entry WHERE fingerprint = ?3)"
    " ON CONFLICT DO NOTHING"
)
_ACTIVE = "SELECT active FROM history"
_MOST_WORDS = 20_000  # of one query


class SqliteHistory:
    """Promises: see `History`."""

    def __init__(
        self, connections: Connections, hygiene: Mapping[Kind, Hygiene], shorten: Callable[[], Awaitable[None]]
    ) -> None:
        """shorten: empties the write-ahead log."""
        self._connections = connections
        self._hygiene = hygiene
        self._shorten = shorten
        self._keeping = Keeping(SqliteShelves(connections))
        self._looked = 0, 0  # up to which number events were looked at for news, and the last of those

    def limit(self, bounds: Bounds) -> None:
        """As `History.limit`."""
        self._keeping.limit(bounds)

    async def tidy(self, now: int, limit: int) -> int:
        """As `History.tidy`."""
        return await self._keeping.tidy(now, limit)

    async def events(
        self, limit: int, before: int | None = None, fingerprint: str | None = None, names: Sequence[Name] = ()
    ) -> Sequence[Event]:
        """As `History.events`."""

        def read(db: Session) -> list[Event]:
            end = before if before is not None else 1 << 62
            if fingerprint is None and not names:
                return _read_events(db, f"number < ? AND number <> {FIRST_SETTINGS}", (end,), limit)
            found = {} if fingerprint is None else {fingerprint: None}
            for name in filter(fits, names):
                found |= dict.fromkeys(_fingerprints(db, name))
            of_them = (json.dumps(list(found)), end, limit)
            events = [past.event(row) for row in db.execute(_OF_CERTIFICATES, of_them)]
            for kind, address in map(past.address_of, names):
                if address:
                    events += _read_events(
                        db, "address = ? AND number < ? AND kind = ? AND address <> ''", (address, end, kind), limit
                    )
            chosen = {event.number: event for event in events}
            return [chosen[number] for number in sorted(chosen, reverse=True)[:limit]]

        return await self._connections.read(read, long=True)

    async def since(self, number: int, limit: int) -> Sequence[Event]:
        """As `History.since`."""
        if await self.newest() <= number:
            return []
        rows = await self._connections.read(lambda db: db.execute(_NEWS, (max(number, 0), limit)).fetchall(), long=True)
        return [past.event(row) for row in rows]

    async def newest(self) -> int:
        """As `History.newest`. No index knows it, which each put would have to write; what was looked at once is not
        looked at again."""
        looked, newest = self._looked
        sql, values = (_NEWER, (looked,)) if looked else (_NEWEST, ())
        last, news = await self._connections.read(lambda db: db.execute(sql, values).fetchone(), long=True)
        self._looked = max(looked, last or 0), max(newest, news or 0)
        return self._looked[1]

    async def count(self, after: int, upto: int) -> int:
        """As `History.count`."""

        def read(db: Session) -> int:
            found: int = db.execute(_COUNT, (max(after, 0), upto)).fetchone()[0]
            return found

        return await self._connections.read(read, long=True)

    async def words(self, name: Name, limit: int) -> Sequence[Said]:
        """As `History.words`."""
        rows = await self._connections.read(lambda db: _words(db, name, "DESC", limit))
        return [row.said() for row in rows]

    async def past(self, name: Name, at: int) -> Past:
        """As `History.past`."""
        return await self._connections.read(lambda db: _past(db, name, at, self._hygiene), long=True)

    async def failed(self, words: Mapping[tuple[Name, str], int]) -> None:
        """As `History.failed`."""

        def write(writing: Writing) -> None:
            key, active = writing.db.execute("SELECT key, active FROM history").fetchone()
            marks = {"hash": ":hash", "upstream": ":upstream", "at": ":at", "word": "'failed'"}
            for (name, upstream), at in words.items() if active else ():
                if not fits(name):
                    continue
                values = {"hash": keyed(key, name), "upstream": upstream, "at": at}
                if not writing.db.execute(SAY[0].format(**marks), values).rowcount:
                    insert = "INSERT INTO word VALUES (:hash, :upstream, :at, :at, 'failed', NULL)"
                    writing.db.execute(f"{insert} ON CONFLICT DO NOTHING", values)

        await self._connections.write(write, durable=False)

    async def answers(
        self,
        view: str,
        name: Name,
        fingerprint: str,
        at: int,
        before: str | None = None,
        facts: Mapping[str, object] = NOTHING,
    ) -> str:
        """As `History.answers`."""
        return await self._connections.write(lambda w: _answers(w, view, name, fingerprint, at, before, facts))

    async def answer_first(self, seen: Mapping[tuple[str, Name], tuple[str, int]]) -> None:
        """As `History.answer_first`."""
        rows = [(name, view, *what) for (view, name), what in seen.items() if fits(name)]

        def write(writing: Writing) -> None:
            if writing.db.execute(_ACTIVE).fetchone()[0]:
                writing.db.executemany(_FIRST, rows)

        await self._connections.write(write, durable=False)

    async def settings(self, settings: Mapping[str, object], at: int) -> bool:
        """As `History.settings`."""
        return await self._connections.write(lambda w: _settings(w, past.canonical(settings), at))

    async def copy(self, fingerprint: str, source: Source, origin: str) -> bytes | None:
        """As `History.copy`."""
        sql = (
            "SELECT c.octets FROM past_span AS s JOIN past_copy AS c ON c.digest = s.copy WHERE s.fingerprint = ?"
            " AND s.source = ? AND s.origin = ? ORDER BY s.upto DESC LIMIT 1"
        )
        key = (fingerprint, str(source), origin)

        def read(db: Session) -> bytes | None:
            with instant(db):
                octets: bytes | None = _first(db.execute(_LIVING, key)) or _first(db.execute(sql, key))
            return octets

        return await self._connections.read(read)

    async def cursor(self, receiver: str) -> int | None:
        """As `History.cursor`."""
        sql = "SELECT number FROM delivery WHERE receiver = ?"
        return await self._connections.read(lambda db: _first(db.execute(sql, (receiver,))))

    async def move(self, receiver: str, number: int) -> None:
        """As `History.move`."""
        sql = "INSERT INTO delivery VALUES (?1, ?2) ON CONFLICT DO UPDATE SET number = max(number, ?2)"
        await self._connections.write(lambda w: w.db.execute(sql, (receiver, number)))

    async def forget(self, address: str) -> int:
        """As `History.forget`. What it was written over in the file and its log is overwritten, too; pages that were
        freed before then keep it until VACUUM."""
        found = await self._connections.read(lambda db: erasing.bearing(db, address), long=True)
        gone = await self._connections.write(lambda w: erasing.forget(w, address, found))
        await self._shorten()
        return gone

    async def forget_all(self) -> None:
        """As `History.forget_all`."""

        def write(writing: Writing) -> None:
            with erasing.untriggered(writing.db):
                erasing.erase(writing.db, 0)

        await self._connections.write(write)

    async def size(self) -> tuple[int, int]:
        """As `History.size`."""

        def read(db: Session) -> tuple[int, int]:
            events, _, copies = history_counts(db)
            words = history_words(db)
            return events + words, events * EVENT + words * WORD + copies

        return await self._connections.read(read, long=True)


def _first(rows: Iterable[Sequence[Any]]) -> Any:
    return next((row[0] for row in rows), None)


def _read_events(db: Session, where: str, values: Sequence[object], limit: int) -> list[Event]:
    rows = db.execute(f"{_EVENTS} WHERE {where} ORDER BY number DESC LIMIT ?", (*values, limit))
    return [past.event(row) for row in rows]


def _words(db: Session, name: Name, order: str, limit: int) -> list[Spoken]:
    if not fits(name):
        return []
    (key,) = db.execute("SELECT key FROM history").fetchone()
    return [Spoken(*row) for row in db.execute(_WORDS.format(order), (keyed(key, name), limit))]


def _fingerprints(db: Session, name: Name) -> list[str]:
    """Certificates that are or were stored under a name."""
    was = db.execute("SELECT fingerprint FROM past_name WHERE name = ? LIMIT ?", (name, CANDIDATES))
    now = CLAIMS.replace(" AND NOT EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint)", "")
    found = dict.fromkeys(row[0] for row in db.execute(now, (name, MAX_CLAIMS)))
    return [*dict.fromkeys((*list(found)[:CANDIDATES], *(row[0] for row in was)))]


def _past(db: Session, name: Name, at: int, hygiene: Mapping[Kind, Hygiene]) -> Past:
    with instant(db):
        states: list[State] = []
        revocations: dict[str, bytes] = {}
        for fingerprint in _fingerprints(db, name) if fits(name) else ():
            last = db.execute(_STANDING.format("'blocked', 'unblocked'"), (fingerprint, at)).fetchone()
            if last is not None and last[1] == "blocked":
                continue
            states += _states(db, fingerprint, at)
            if revoked := _revocations(db, fingerprint, at):
                revocations[fingerprint] = revoked
        words = list(reversed(_words(db, name, "DESC", _MOST_WORDS)))
        kind, address = past.address_of(name)
        replaced = (
            _EVENTS + " WHERE address = ? AND address <> '' AND what IN ('replaced', 'deleted') AND kind = ? AND at > ?"
        )
        events = [past.event(row) for row in db.execute(f"{replaced} ORDER BY number", (address, kind, at))]
        now = db.execute("SELECT view, fingerprint, at FROM answering WHERE name = ?", (name,)).fetchall()
        settings = _first(
            db.execute("SELECT settings FROM past_settings WHERE at <= ? ORDER BY at DESC, number DESC LIMIT 1", (at,))
        )
        turned = db.execute(past.TURNED.format(" INDEXED BY event_entry", "?"), (at,))
        paused = past.paused(db.execute("SELECT upstream, at FROM pause"), turned, at)
        (whole,) = db.execute("SELECT whole FROM history").fetchone()
        if whole is None:
            whole = _first(db.execute("SELECT at FROM event ORDER BY number LIMIT 1")) or 0
    known = past.records(name, words, at)
    said, later = past.said(words, at)
    answering = past.answering(now, events, at)
    return Past(
        past.snapshot(name, at, states, revocations, known, answering, hygiene),
        said,
        later,
        answering,
        json.loads(settings) if settings is not None else None,
        whole,
        paused,
    )


def _states(db: Session, fingerprint: str, at: int) -> list[State]:
    """Its entries as they were."""
    found: list[State] = []
    of_it = "fingerprint = ? AND source > ''"
    for source in jump(db, "event", "source", of_it, (fingerprint,)):
        for origin in jump(db, "event", "origin", "fingerprint = ? AND source = ?", (fingerprint, source)):
            place = (fingerprint, source, origin)
            row = db.execute(_STATE, (*place, at)).fetchone()
            if row is None or row[2] is None:
                continue
            number, kind, cached, last, vouchers, chained, detail = row
            octets = _first(db.execute(_ASIDE, (*place, number))) or _first(db.execute(_LIVING, place))
            if octets is not None:
                found.append(State(fingerprint, kind, source, origin, cached, last, vouchers, chained, detail, octets))
    return found


def _revocations(db: Session, fingerprint: str, at: int) -> bytes | None:
    row = db.execute(_STANDING.format("'revoked'"), (fingerprint, at)).fetchone()
    if row is None:
        return None
    aside = db.execute(_ASIDE, (fingerprint, REVOKED, "", row[0]))
    octets: bytes | None = _first(aside) or _first(db.execute(REVOCATION, (fingerprint,)))
    return octets


def _answers(
    writing: Writing,
    view: str,
    name: Name,
    fingerprint: str,
    at: int,
    before: str | None,
    told: Mapping[str, object],
) -> str:
    db = writing.db
    if not fits(name) or not db.execute(_ACTIVE).fetchone()[0]:
        return ""
    row = db.execute("SELECT fingerprint, at FROM answering WHERE name = ? AND view = ?", (name, view)).fetchone()
    there = str(row[0]) if row is not None else ""
    if there == fingerprint or before not in (None, there):
        return there
    if before is not None and not db.execute(_CACHED, (fingerprint,)).fetchone():
        return there
    db.execute(
        "INSERT INTO answering VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET fingerprint = ?3, at = ?4",
        (name, view, fingerprint, at),
    )
    writing.names.add(name)
    if row is None:
        return ""
    old, since = row
    kind, address = past.address_of(name)
    facts = json.dumps({**told, "view": view, "old": old, "since": since})
    db.execute(
        "INSERT INTO event (at, last, what, fingerprint, kind, address, who, facts)"
        " VALUES (?1, ?1, 'replaced', ?2, ?3, ?4, ?5, ?6)",
        (at, fingerprint, kind, address, db.who, facts),
    )
    return str(old)


def _settings(writing: Writing, settings: str, at: int) -> bool:
    db = writing.db
    last = _first(db.execute("SELECT settings FROM past_settings ORDER BY number DESC LIMIT 1"))
    if settings == last or not db.execute(_ACTIVE).fetchone()[0]:
        return False
    first = FIRST_SETTINGS if last is None else None
    number = db.execute(
        "INSERT INTO event (number, at, last, what, who, facts) VALUES (?1, ?2, ?2, 'settings', ?3, ?4)",
        (first, at, db.who, past.differing(last, settings)),
    ).lastrowid
    erasing.counted(db, first is not None)
    db.execute("INSERT INTO past_settings VALUES (?, ?, ?)", (number, at, settings))
    return True
