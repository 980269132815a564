"""The embedded store: one SQLite file in WAL mode.

Five connections, each with a thread of its own, so that the loop never waits and nobody waits for the wrong thing:
*writer* (every transaction that changes something, one after the other), *reader* (short reads by key), *scanner*
(searches, upkeep, whatever may take longer), *lister* (what administrators page through) and the one that moves the
*log* into the file. Short looks have a sixth in the loop's thread (`near`). Other processes may have the same file
open.
Times are Unix seconds handed in; sizes are octets. sqlite3's errors leave as StoreError, with the file's name.

No memory mapping: it saves some 2 µs of a lookup's 70, counts the database's pages as our memory, and turns a read
error or a truncated file into SIGBUS, which would end the process instead of this one lookup.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Change, Find, Kind, Name, Record, Selection, Source
from keyserver.store.administration import Administration
from keyserver.store.alone import Alone
from keyserver.store.arriving import Put
from keyserver.store.base import Stored, StoreError, StoreRefused, StoreStats, Undo, Undone, Waiting
from keyserver.store.cluster import Cluster
from keyserver.store.history import WHO, History
from keyserver.store.invitations import Invitations
from keyserver.store.listing import Budget, Filter, Lifetimes, Listing, Page, Place, Sort
from keyserver.store.names import fits
from keyserver.store.puts import Puts
from keyserver.store.recipients import Recipients
from keyserver.store.snapshot import Snapshot
from keyserver.store.sqlite import (
    deletions,
    listing,
    migration,
    presence,
    put,
    reading,
    removing,
    renaming,
    schema,
    trigrams,
    undoing,
    waiting,
)
from keyserver.store.sqlite.administration import SqliteAdministration
from keyserver.store.sqlite.history import SqliteHistory
from keyserver.store.sqlite.invitations import SqliteInvitations
from keyserver.store.sqlite.log import Log
from keyserver.store.sqlite.near import Near
from keyserver.store.sqlite.presence import Presence, unwritable
from keyserver.store.sqlite.recipients import SqliteRecipients
from keyserver.store.sqlite.session import Session, connect, run
from keyserver.store.sqlite.transfer import SqliteTransfer
from keyserver.store.sqlite.upstreams import SqliteUpstreams
from keyserver.store.sqlite.writing import Writing, Written, probe, transact, unprobe
from keyserver.store.transfer import Transfer
from keyserver.store.upstreams import AboutUpstreams

T = TypeVar("T")

_BATCH = 200  # entries or names in one transaction of a purge: some 10 ms in which other writers wait
_IN_A_ROW = 16  # short looks: about a millisecond
_TRIES = 100  # at opening, 50 ms apart
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SqliteStore:
    """`Store` in an SQLite file. Promises: see `Store`; each is a test in tests/conformance."""

    def __init__(self, path: Path, hygiene: Mapping[Kind, Hygiene], changes: Changes, max_size: int) -> None:
        self._path = path
        self._hygiene = hygiene
        self._changes = changes
        self._max_size = max_size
        self.administration: Administration = SqliteAdministration(self)
        self.invitations: Invitations = SqliteInvitations(self)
        self.history: History = SqliteHistory(self, hygiene, self._shorten)
        self.recipients: Recipients = SqliteRecipients(self)
        self.upstreams: AboutUpstreams = SqliteUpstreams(self)
        self.transfer: Transfer = SqliteTransfer(self)
        self.cluster: Cluster = Alone()
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._scanner: aiosqlite.Connection | None = None
        self._lister: aiosqlite.Connection | None = None
        self._writing: set[asyncio.Task[Any]] = set()
        self._log = Log(path, self._in_background)
        self._near = Near(path)
        self._looks = 0  # in the loop's thread
        self._puts = Puts(
            lambda puts: self._carry_out(lambda db: put.put_all(db, puts, self._hygiene, self._max_size)),
            self._in_background,
        )
        self._cannot_write = ""
        self._damage = ""
        self._presence = Presence(())
        self._seen = 0  # number of the last change up to which all are published
        self._own: set[int] = set()  # numbers of our own changes after it, published when they were made
        self._version = -1  # PRAGMA data_version of the reader at the last poll

    # --- life

    async def open(self) -> None:
        """As `Store.open`. What we may only read, a file or a whole file system, is opened for lookups, and
        `stats().healthy` says so."""
        try:
            await asyncio.to_thread(schema.create_file, self._path)
            fixed = await asyncio.to_thread(unwritable, self._path)
            self._writer = await connect(self._path, writes=True, immutable=fixed)
            await self._migrate(self._writer)
            self._reader = await connect(self._path, writes=False, immutable=fixed)
            self._scanner = await connect(self._path, writes=False, immutable=fixed)
            self._lister = await connect(self._path, writes=False, immutable=fixed)
            if not fixed:
                await self._log.open()
            self._near.open(immutable=fixed)
            self._version, self._seen = await run(self._reader, _position)
            self._own.clear()
            self._damage = ""
            self._presence = await asyncio.to_thread(Presence.of, self._path)
        except BaseException as error:
            await self.close()
            if isinstance(error, sqlite3.Error):
                hint = presence.hint(self._path)
                raise StoreRefused(f"cannot open the cache database {self._path}: {error}{hint}") from error
            raise
        await self._probe()
        if not self._cannot_write:
            await self._rename()

    async def _rename(self) -> None:
        """Let entries of an older release be found by what is read in them today."""
        with suppress(StoreError):  # `stats` tells
            at = await self._write(renaming.begin)
            while at is not None:
                at = await self._write(partial(renaming.go_on, after=at, hygiene=self._hygiene))

    async def _migrate(self, db: aiosqlite.Connection) -> None:
        """Tries again where others open a new database at the same time: SQLite does not wait for all locks itself."""
        for _ in range(_TRIES):
            try:
                return await run(db, lambda db: migration.migrate(db, self._path))
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                await asyncio.sleep(0.05)
        raise StoreRefused(f"cannot open the cache database {self._path}: another process holds it locked")

    async def close(self) -> None:
        """Finish what is under way and close; a second call does nothing."""
        while self._writing:
            await asyncio.wait(self._writing)
        connections = (self._lister, self._scanner, self._reader, self._writer)
        self._lister = self._scanner = self._reader = self._writer = None
        self._near.close()
        await self._log.close()
        for db in connections:  # the writer last: it puts the log into the file
            if db is not None:
                with suppress(sqlite3.Error):
                    await db.close()

    # --- reading

    async def begin(self) -> int:
        """As `Store.begin`."""
        return await self._read(self._reader, deletions.count)

    async def look(self, name: Name) -> Snapshot:
        """As `Store.look`; also ends after the certificate with which 16 MiB of octets are passed.

        Of more than 64 certificates come the local ones first, then those found, approved or vouched for under this
        name, then keyserver, mailflow; newest first.
        """
        near = self._near.look(name)
        if near is None:
            return await self._read(self._reader, lambda db: reading.look(db, name))
        self._looks += 1
        if self._looks % _IN_A_ROW == 0:
            await asyncio.sleep(0)  # whoever looks and looks again must not hold the loop
        return near

    async def answered(self, upstream: str, domain: str) -> bool:
        """As `Store.answered`."""
        return await self._read(self._scanner, lambda db: reading.answered(db, upstream, domain))

    async def addresses(self, domain: str, limit: int) -> tuple[str, ...]:
        """As `Store.addresses`."""
        return await self._read(self._scanner, lambda db: reading.addresses(db, domain, limit))

    async def certificate(self, fingerprint: str) -> Snapshot:
        """As `Store.certificate`."""
        return await self._read(self._reader, lambda db: reading.certificate(db, fingerprint))

    async def blocked(self) -> tuple[str, ...]:
        """As `Store.blocked`."""
        sql = "SELECT fingerprint FROM block ORDER BY fingerprint"
        return await self._read(self._reader, lambda db: tuple(row[0] for row in db.execute(sql)))

    async def list(self, what: Listing, after: Place | None, budget: Budget) -> Page:
        """As `Store.list`."""
        return await self._read(self._lister, lambda db: listing.page(db, what, after, budget))

    async def index_text(self, limit: int) -> int:
        """As `Store.index_text`: some 50 ms for a thousand, in which other writers wait."""
        worn, waiting = await self._read(self._lister, lambda db: (trigrams.worn(db), len(trigrams.tail(db, limit))))
        if worn:
            await self._write(lambda writing: trigrams.forget(writing.db), durable=False)
        if waiting >= limit:
            return await self._write(partial(trigrams.write, limit=limit), durable=False)
        return 0

    async def search(self, text: str, kind: Kind, limit: int) -> tuple[str, ...]:
        """As `Store.search`: the newest first, blocked certificates left out."""
        return await self._read(self._scanner, lambda db: trigrams.search(db, text, kind, limit))

    async def due(self, found_before: Mapping[str | None, int], limit: int) -> tuple[Record, ...]:
        """As `Store.due`."""
        return await self._read(self._scanner, lambda db: reading.due(db, found_before, limit))

    async def lasting(self, after: str, upto: str, limit: int) -> tuple[str, ...]:
        """As `Store.lasting`."""
        return await self._read(self._scanner, lambda db: reading.lasting(db, after, upto, limit))

    async def newest(self) -> int | None:
        """As `Store.newest`; an index seek for each source, origin and upstream."""
        return await self._read(self._scanner, reading.newest)

    async def stats(self) -> StoreStats:
        """As `Store.stats`. While writing fails, each call tries again, so that health returns by itself."""
        if self._cannot_write:
            await self._probe()
        stats = await self._read(self._scanner, reading.stats)
        full = f"max_size is reached ({stats.octets} of {self._max_size} octets): new finds are not cached"
        gone = await asyncio.to_thread(self._presence.trouble)
        wrong = [gone, self._damage, self._cannot_write, full if stats.octets >= self._max_size else ""]
        return replace(stats, healthy="; ".join(filter(None, wrong)))

    # --- writing

    async def put(self, finds: Sequence[Find], records: Sequence[Record], begun: int, now: int) -> tuple[Stored, ...]:
        """As `Store.put`. A power cut (not a killed process) may lose the last moments of keyserver finds.

        Puts that come while another is written wait, and go together in one transaction and one change."""
        return await asyncio.shield(self._puts.add(Put(finds, records, begun, now, WHO.get())))

    async def touch(self, asked: Mapping[Name, int]) -> None:
        """As `Store.touch`."""
        for batch in _batches((name, at) for name, at in asked.items() if fits(name)):
            await self._write(partial(put.asked, names=batch), durable=False)

    def limit(self, max_size: int) -> None:
        """As `Store.limit`."""
        self._max_size = max_size

    async def delete(
        self,
        fingerprint: str,
        now: int,
        source: Source | None = None,
        origin: str | None = None,
        undo: Undo | None = None,
    ) -> int:
        """As `Store.delete`."""
        return await self._write(lambda w: removing.delete(w, fingerprint, now, source, origin, undo))

    async def purge(self, what: Selection, now: int, undo: Undo | None = None) -> int:
        """As `Store.purge`, in batches; from its first moment on nothing begun before comes in any more."""
        await self._write(lambda w: removing.begin_purge(w, what, now, undo))
        every = Listing(Filter(what), now, Lifetimes(0, 0), Sort.FINGERPRINT, descending=False)
        gone, place = 0, None
        while True:
            ways = partial(listing.step, listing=every, after=place, budget=Budget(lambda: 0.0, _BATCH))
            found = await self._read(self._scanner, ways)
            if found.ids:
                gone += await self._write(partial(removing.purge, what=what, ids=found.ids, now=now, undo=undo))
            place = found.next
            if place is None:
                return gone

    async def undo(self, id_: str, now: int, cutoffs: Mapping[tuple[Source, str | None], int]) -> Undone | None:
        """As `Store.undo`, in batches; broken off, it can be called again."""
        restored = 0
        while (step := await self._write(partial(undoing.restore, id_=id_, now=now, cutoffs=cutoffs))) is not None:
            restored += step.restored
            if step.done:
                return Undone(restored, step.deleted)
        return None

    async def undos(self, now: int) -> tuple[Waiting, ...]:
        """As `Store.undos`."""
        return await self._read(self._reader, lambda db: waiting.undos(db, now))

    async def erase_undos(self, now: int) -> int:
        """As `Store.erase_undos`, in batches."""
        gone = 0
        if await self._read(self._reader, lambda db: waiting.is_over(db, now)):
            while erased := await self._write(lambda w: waiting.erase(w, now, _BATCH), durable=False):
                gone += erased
        return gone

    async def purge_all(self, now: int) -> int:
        """As `Store.purge_all`, in one transaction."""
        return await self._commit(
            lambda db: transact(db, lambda w: removing.purge_all(w, now), foreign_keys=False, who=WHO.get())
        )

    async def purge_expired(
        self,
        cutoffs: Mapping[tuple[Source, str | None], int],
        absent_before: int,
        limit: int,
        now: int | None = None,
    ) -> int:
        """As `Store.purge_expired`."""
        gone = 0
        while gone < limit:
            most = min(_BATCH, limit - gone)
            entries, records = await self._read(
                self._scanner, partial(reading.expired, cutoffs=cutoffs, absent_before=absent_before, limit=most)
            )
            if not entries and not records:
                break
            work = partial(removing.purge_expired, entries=entries, records=records, now=now)
            gone += await self._write(work, durable=False)
        return gone

    async def approve(
        self, fingerprint: str, source: Source, origin: str, address: str, now: int | None = None
    ) -> bool:
        """As `Store.approve`."""
        return await self._write(lambda w: removing.approve(w, fingerprint, source, origin, address, now))

    async def block(self, fingerprint: str, now: int, reason: str = "") -> None:
        """As `Store.block`."""
        await self._write(lambda w: removing.block(w, fingerprint, now, reason))

    async def unblock(self, fingerprint: str, now: int) -> bool:
        """As `Store.unblock`; the records of its names are forgotten, since its finds were refused meanwhile."""
        return await self._write(lambda w: removing.unblock(w, fingerprint, now))

    # --- changes of other processes

    async def poll(self) -> None:
        """As `Store.poll`; some 60 µs when nothing changed."""
        seen, known = self._seen, self._version

        def news(db: sqlite3.Connection) -> tuple[int, int, list[tuple[int, bool, frozenset[Name]]] | None]:
            self._still_there()
            return _news(db, known, seen)

        version, last, changes = await self._read(self._reader, news)
        self._version = version
        if changes is None:
            self._advance(last)
            self._changes.publish(Change(last, frozenset(), everything=True))
            return
        for number, everything, names in changes:
            if number <= self._seen:  # published meanwhile
                continue
            mine = number in self._own
            self._advance(number)
            if not mine:
                self._changes.publish(Change(number, names, everything))

    def _publish(self, written: Written) -> None:
        """Tell about our own change, unless a poll was quicker."""
        number = written.change.number
        if number <= self._seen:
            return
        if written.previous == self._seen:
            self._advance(number)
        else:
            self._own.add(number)
        self._changes.publish(written.change)

    def _advance(self, number: int) -> None:
        self._seen = max(self._seen, number)
        if self._own:
            self._own = {n for n in self._own if n > self._seen}

    # --- the way to the connections

    async def read(self, function: Callable[[Session], T], *, long: bool = False) -> T:
        """For the modules beside this one: run a function on the reader, or, where it may take longer, the scanner."""
        return await self._read(self._scanner if long else self._reader, function)

    async def write(self, work: Callable[[Writing], T], durable: bool = True) -> T:
        """For the modules beside this one: one transaction on the writer, carried to its end."""
        return await self._write(work, durable)

    async def _read(self, db: aiosqlite.Connection | None, function: Callable[[Session], T]) -> T:
        with self._errors(writing=False):
            return await run(self._opened(db), function)

    async def _write(self, work: Callable[[Writing], T], durable: bool = True) -> T:
        who = WHO.get()
        return await self._commit(lambda db: transact(db, work, durable, who=who))

    async def _commit(self, job: Callable[[Session], tuple[T, Written | None]]) -> T:
        """One transaction, its change published; carried to its end even when the caller is cancelled."""
        return await asyncio.shield(self._in_background(self._carry_out(job)))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _carry_out(self, job: Callable[[Session], tuple[T, Written | None]]) -> T:
        def guarded(db: Session) -> tuple[tuple[T, Written | None], int]:
            self._still_there()  # before: what comes back tomorrow must not hold what was refused today
            before = db.total_changes
            done = job(db)
            self._still_there()  # behind: nothing is acknowledged that went nowhere
            return done, db.total_changes - before

        await self._log.room()
        with self._errors(writing=True):
            (result, written), rows = await run(self._opened(self._writer), guarded)
        self._log.grown(rows)
        if rows:  # where nothing was to be written, nothing was tried: SQLite begins on a read-only file, too
            self._cannot_write = ""
        if written is not None:
            self._publish(written)
        return result

    async def _probe(self) -> None:
        """Find out whether writing works (again); `_cannot_write` knows the result."""
        with suppress(StoreError):
            await run(self._opened(self._writer), _shorten_log)
            await self._write(probe, durable=False)
            await self._write(unprobe, durable=False)

    async def _shorten(self) -> None:
        """Nothing of what was overwritten stays in the log."""
        with self._errors(writing=True):
            await run(self._opened(self._writer), _shorten_log)

    def _still_there(self) -> None:
        """Raises StoreError where the database is no longer the file that was opened."""
        if trouble := self._presence.trouble():
            raise StoreError(trouble)

    def _opened(self, db: aiosqlite.Connection | None) -> aiosqlite.Connection:
        if db is None:
            raise StoreError("the cache database is not open")
        return db

    @contextmanager
    def _errors(self, writing: bool) -> Iterator[None]:
        """sqlite3's errors as StoreError, remembered for `stats`. Damage stays until the store is opened again."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError):
                raise  # a mistake of ours, not of the disk's
            text = f"{self._path}: {error}"
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                self._damage = f"{text}; nothing was deleted"
            elif writing:
                self._cannot_write = f"cannot write to {text}"
            raise StoreError(text) from error


def _position(db: sqlite3.Connection) -> tuple[int, int]:
    """Where polling starts: data_version first, so that a change in between is seen twice rather than never."""
    version = db.execute("PRAGMA data_version").fetchone()[0]
    return version, db.execute("SELECT max(number) FROM change").fetchone()[0]


def _shorten_log(db: sqlite3.Connection) -> None:
    """Move the log into the file and give its room back, as far as that is possible now."""
    with suppress(sqlite3.Error):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _news(
    db: sqlite3.Connection, known: int, seen: int
) -> tuple[int, int, list[tuple[int, bool, frozenset[Name]]] | None]:
    version = db.execute("PRAGMA data_version").fetchone()[0]
    if version == known:
        return version, seen, []
    return version, *reading.changes_since(db, seen)


def _batches(items: Any) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
