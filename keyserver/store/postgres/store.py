"""The cache in PostgreSQL, which several nodes share.

Reads and puts are one statement each; deletes and the like are short transactions, one at a time in the whole cluster.
What others change is read from an outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import asyncpg

from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Find, Kind, Name, Record, Selection, Source
from keyserver.store.administration import Administration
from keyserver.store.arriving import Put
from keyserver.store.base import Stored, StoreError, StoreRefused, StoreStats, Undo, Undone, Waiting
from keyserver.store.cluster import Cluster
from keyserver.store.history import WHO, History
from keyserver.store.invitations import Invitations
from keyserver.store.listing import Budget, Listing, Page, Place
from keyserver.store.postgres import deletions, listing, outbox, put, reading, removing, undoing, waiting
from keyserver.store.postgres.administration import PostgresAdministration
from keyserver.store.postgres.bell import Bell
from keyserver.store.postgres.cluster import PostgresCluster
from keyserver.store.postgres.connections import CONNECT, SCAN, Connection, Connections, errors, unbounded
from keyserver.store.postgres.history import PostgresHistory
from keyserver.store.postgres.invitations import PostgresInvitations
from keyserver.store.postgres.publishing import News
from keyserver.store.postgres.recipients import PostgresRecipients
from keyserver.store.postgres.recording import REBASE
from keyserver.store.postgres.schema import bring_forward
from keyserver.store.postgres.text import fitting, text
from keyserver.store.postgres.transfer import PostgresTransfer
from keyserver.store.postgres.upstreams import PostgresUpstreams
from keyserver.store.postgres.writing import DELETING, Writing, Written
from keyserver.store.puts import Puts
from keyserver.store.recipients import Recipients
from keyserver.store.snapshot import Snapshot
from keyserver.store.transfer import Transfer
from keyserver.store.upstreams import AboutUpstreams

T = TypeVar("T")

log = logging.getLogger("keyserver.store")

_BATCH = 200  # entries in one transaction
_TRIES = 30  # 2 s each, a second apart: a scan takes a minute at most
_CHOSEN = 20_000  # ids that a purge takes at a time: each taking may be a scan
_FOLDED = 64  # transactions between two foldings of counts


class PostgresStore:
    """Promises: see `Store`."""

    def __init__(
        self,
        url: str,
        hygiene: Mapping[Kind, Hygiene],
        changes: Changes,
        max_size: int,
        password: str | None = None,
    ) -> None:
        """url: as `cache.database`. max_size in octets."""
        self._connections = Connections(url, password)
        self._hygiene = hygiene
        self._changes = changes
        self._max_size = max_size
        self._under_way: set[asyncio.Task[Any]] = set()  # what writes
        self._puts = Puts(self._put_all, self._in_background)
        self._news = News(changes, lambda: bool(self._under_way))
        self._written = 0  # transactions since counts were folded
        self.administration: Administration = PostgresAdministration(self)
        self.invitations: Invitations = PostgresInvitations(self)
        self.history: History = PostgresHistory(self, hygiene)
        self.recipients: Recipients = PostgresRecipients(self)
        self.upstreams: AboutUpstreams = PostgresUpstreams(self)
        self._bell = Bell(self._connections, self._poll_on, lambda: nodes.alone)
        self.cluster: Cluster = (nodes := PostgresCluster(self, self._bell, changes))
        self.transfer: Transfer = PostgresTransfer(self)

    # --- opening

    async def open(self) -> None:
        """As `Store.open`."""
        try:
            with errors():
                db = await self._connections.connect(SCAN)
                try:
                    await bring_forward(db)
                    if missing := await unbounded(db):
                        log.warning("the database's role lacks %s: see conf/cluster/timeouts.sql", ", ".join(missing))
                    await outbox.forget_foreign(db)
                    await db.execute(REBASE)
                    self._news.begin(await outbox.position(db))
                finally:
                    await db.close(timeout=CONNECT)
        except (StoreError, asyncpg.PostgresError) as problem:
            why = str(problem).removeprefix("the cache database").lstrip(": ")
            raise StoreRefused(f"cannot open the cache database: {why}") from problem
        await self._connections.open()

    async def close(self) -> None:
        """As `Store.close`."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        await self._bell.close()
        await self._connections.close()

    # --- reading

    async def begin(self) -> int:
        """As `Store.begin`."""
        return await self.read(deletions.count)

    async def look(self, name: Name) -> Snapshot:
        """As `Store.look`."""
        return await self.read(lambda db: reading.look(db, name))

    async def answered(self, upstream: str, domain: str) -> bool:
        """As `Store.answered`."""
        return await self.read(lambda db: reading.answered(db, upstream, domain), long=True)

    async def addresses(self, domain: str, limit: int) -> tuple[str, ...]:
        """As `Store.addresses`."""
        return await self.read(lambda db: reading.addresses(db, domain, limit), long=True)

    async def certificate(self, fingerprint: str) -> Snapshot:
        """As `Store.certificate`."""
        return await self.read(lambda db: reading.certificate(db, fingerprint))

    async def blocked(self) -> tuple[str, ...]:
        """As `Store.blocked`."""
        rows = await self.read(lambda db: db.fetch("SELECT fingerprint FROM block ORDER BY fingerprint"))
        return tuple(row[0] for row in rows)

    async def due(self, found_before: Mapping[str | None, int], limit: int) -> tuple[Record, ...]:
        """As `Store.due`."""
        return await self.read(lambda db: reading.due(db, found_before, limit), long=True)

    async def lasting(self, after: str, upto: str, limit: int) -> tuple[str, ...]:
        """As `Store.lasting`."""
        return await self.read(lambda db: reading.lasting(db, after, upto, limit), long=True)

    async def newest(self) -> int | None:
        """As `Store.newest`."""
        return await self.read(reading.newest, long=True)

    async def list(self, what: Listing, after: Place | None, budget: Budget) -> Page:
        """As `Store.list`."""
        return await self.read(lambda db: listing.page(db, what, after, budget), long=True)

    async def index_text(self, limit: int) -> int:
        """As `Store.index_text`: PostgreSQL's own index is never behind."""
        return 0

    async def search(self, text: str, kind: Kind, limit: int) -> tuple[str, ...]:
        """As `Store.search`: the newest first, blocked certificates left out."""
        return await self.read(lambda db: listing.search(db, text, kind, limit), long=True)

    async def stats(self) -> StoreStats:
        """As `Store.stats`."""
        stats = await self.read(reading.stats)
        full = f"max_size is reached ({stats.octets} of {self._max_size} octets): new finds are not cached"
        return replace(stats, healthy=full if stats.octets >= self._max_size else "")

    # --- writing

    async def put(self, finds: Sequence[Find], records: Sequence[Record], begun: int, now: int) -> tuple[Stored, ...]:
        """As `Store.put`. Puts that come while another is written wait, and go together."""
        return await asyncio.shield(self._puts.add(Put(finds, records, begun, now, WHO.get())))

    async def _put_all(self, puts: Sequence[Put]) -> Sequence[tuple[Stored, ...]]:
        answers, written = await put.put_all(self._connections, puts, self._hygiene, self._max_size)
        self._finished(written)
        return answers

    async def touch(self, asked: Mapping[Name, int]) -> None:
        """As `Store.touch`; a row that somebody else is writing is left out."""
        items = iter([(name, asked[name]) for name in fitting(asked)])
        sql = (
            "UPDATE record AS r SET asked_at = k.at FROM (SELECT q.name, q.upstream, t.at FROM record AS q"
            " JOIN unnest($1::text[], $2::bigint[]) AS t(name, at) ON t.name = q.name AND q.asked_at < t.at"
            " ORDER BY q.name, q.upstream FOR UPDATE OF q SKIP LOCKED) AS k"
            " WHERE r.name = k.name AND r.upstream = k.upstream"
        )
        while batch := list(islice(items, _BATCH)):
            columns = [[column[number] for column in batch] for number in range(2)]
            await self.write(partial(_execute, sql=sql, values=columns), durable=False)

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
        return await self.write(lambda w: removing.delete(w, fingerprint, now, source, origin, undo), exclusive=True)

    async def purge(self, what: Selection, now: int, undo: Undo | None = None) -> int:
        """As `Store.purge`, in batches; from its first moment on nothing begun before comes in any more."""
        await self.write(lambda w: removing.begin_purge(w, what, now, undo), exclusive=True)
        gone, after = 0, 0
        while ids := await self.read(partial(reading.matching, what=what, after=after, limit=_CHOSEN), long=True):
            for start in range(0, len(ids), _BATCH):
                some = ids[start : start + _BATCH]
                work = partial(removing.purge, what=what, ids=some, now=now, undo=undo)
                gone += await self.write(work, exclusive=True)
            after = ids[-1]
        return gone

    async def undo(self, id_: str, now: int, cutoffs: Mapping[tuple[Source, str | None], int]) -> Undone | None:
        """As `Store.undo`, in batches; broken off, it can be called again."""
        restored = 0
        while (step := await self.write(lambda w: undoing.restore(w, id_, now, cutoffs), exclusive=True)) is not None:
            restored += step.restored
            if step.done:
                return Undone(restored, step.deleted)
        return None

    async def undos(self, now: int) -> tuple[Waiting, ...]:
        """As `Store.undos`."""
        return await self.read(lambda db: waiting.undos(db, now))

    async def erase_undos(self, now: int) -> int:
        """As `Store.erase_undos`, in batches."""
        gone = 0
        if await self.read(lambda db: waiting.is_over(db, now)):
            while erased := await self.write(lambda w: waiting.erase(w, now, _BATCH), durable=False, exclusive=True):
                gone += erased
        return gone

    async def purge_all(self, now: int) -> int:
        """As `Store.purge_all`, in one transaction, which waits for whoever reads: in short pieces, or all others would
        wait behind it."""
        for left in reversed(range(_TRIES)):
            try:
                return await self.write(lambda w: removing.purge_all(w, now), exclusive=True, long=True)
            except StoreError as problem:
                if not left or not isinstance(problem.__cause__, asyncpg.LockNotAvailableError):
                    raise
                await asyncio.sleep(1.0)
        raise AssertionError

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
            entries, records = await self.read(
                partial(reading.expired, cutoffs=cutoffs, absent_before=absent_before, limit=most), long=True
            )
            if not entries and not records:
                break
            work = partial(removing.purge_expired, entries=entries, records=records, now=now)
            gone += await self.write(work, durable=False)
        return gone

    async def approve(
        self, fingerprint: str, source: Source, origin: str, address: str, now: int | None = None
    ) -> bool:
        """As `Store.approve`."""
        return await self.write(lambda w: removing.approve(w, fingerprint, source, origin, address, now))

    async def block(self, fingerprint: str, now: int, reason: str = "") -> None:
        """As `Store.block`."""
        await self.write(lambda w: removing.block(w, fingerprint, now, reason), exclusive=True)

    async def unblock(self, fingerprint: str, now: int) -> bool:
        """As `Store.unblock`."""
        return await self.write(lambda w: removing.unblock(w, fingerprint, now), exclusive=True)

    # --- changes of other nodes

    async def poll(self) -> None:
        """As `Store.poll`; one statement when nothing changed."""
        await self._learn(lambda since: self.read(lambda db: outbox.news(db, since)))

    async def _poll_on(self, db: Connection) -> None:
        await self._learn(lambda since: outbox.news(db, since))

    async def _learn(self, news: Callable[[outbox.Position], Awaitable[outbox.News]]) -> None:
        """Two that poll at once do not wait for each other, one of whose connections may have fallen silent: the later
        answer, which knows the other's changes again, is not counted."""
        while True:
            since = self._news.position
            found = await news(since)
            if self._news.position is since:
                return self._news.polled(found)

    def _finished(self, written: Written | None, *, told: bool = False) -> None:
        """Tell about our own change; from time to time let old rows be tidied away. told: other nodes know already."""
        if written is None:
            return
        self._news.written(written)
        if not told:
            self._bell.ring()
        self._written += 1
        if self._written % _FOLDED == 0:
            self._in_background(self._tidy())

    async def _tidy(self) -> None:
        with suppress(StoreError):  # it is done the next time
            await self._connections.write(outbox.tidy, long=True)

    # --- the way to the connections

    async def read(self, work: Callable[[Connection], Awaitable[T]], *, long: bool = False) -> T:
        """For the modules beside this one."""
        return await self._connections.read(work, long=long)

    async def write(
        self,
        work: Callable[[Writing], Awaitable[T]],
        durable: bool = True,
        *,
        exclusive: bool = False,
        long: bool = False,
    ) -> T:
        """For the modules beside this one: one transaction, its change published, carried to its end. `exclusive`: no
        put and no other such transaction of any node beside it."""
        return await asyncio.shield(self._in_background(self._carry_out(work, durable, exclusive, long)))

    async def _carry_out(
        self, work: Callable[[Writing], Awaitable[T]], durable: bool, exclusive: bool, long: bool
    ) -> T:
        # A statement of its own: what follows sees what was committed while it waited.
        begin = f"SELECT pg_advisory_xact_lock({DELETING})" if exclusive else ""
        if not durable:
            begin = f"SET LOCAL synchronous_commit = off; {begin}"

        async def carried(db: Connection) -> tuple[T, Written | None]:
            async with db.transaction():
                if begin:
                    await db.execute(begin)
                if who := WHO.get():
                    await db.execute("SELECT set_config('keyserver.who', $1, true)", text(who))
                writing = Writing(db)
                result = await work(writing)
                return result, await writing.finish(aloud=exclusive)

        result, written = await self._connections.write(carried, long=long)
        self._finished(written, told=exclusive)
        return result

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


async def _execute(writing: Writing, sql: str, values: Sequence[object]) -> None:
    await writing.db.execute(sql, *values)
