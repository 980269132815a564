"""Kept connections to PostgreSQL: bounded in number, each use bounded in time, opened again by themselves.

No pool of asyncpg's: that sends a query more at each release, and logs a traceback for each failed attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from keyserver.store.base import StoreError

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECT = 2.0  # seconds
FREE = 1.0  # seconds to wait for a connection that nobody uses
LOOK, WRITE, SCAN = 1.0, 5.0, 60.0  # seconds of one use
POOLER = "pooler"
"""Parameter of our own in a URL: `pooler=transaction` says that a pooler stands between."""

_TROUBLE_CLASSES = frozenset({"08", "53", "57"})
"""Connection, resources, intervention; https://www.postgresql.org/docs/15/errcodes-appendix.html"""
_TROUBLE = frozenset(
    {"25006", "55000", "40001", "40P01", "55P03", "25P03", "3D000", "28000", "28P01", "XX000", "58030"}
)
"""Read-only, a replica, serialization, deadlock, lock not available, idle in transaction; no such database, not let in;
damage."""

_SESSION = {
    "application_name": "keyserver",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "2s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
    "client_connection_check_interval": "2s",
    "jit": "off",  # no look is long enough for it
}

_NEEDED = (
    "client_connection_check_interval",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
)
"""What must come from the role where a pooler lets nobody say it; without, one node can hold up all others."""


@contextmanager
def errors() -> Iterator[None]:
    """What the server, the network or the time do to us as StoreError; mistakes of our own stay what they are."""
    try:
        yield
    except asyncpg.PostgresError as error:
        state = error.sqlstate or ""
        if state[:2] in _TROUBLE_CLASSES or state in _TROUBLE:
            raise StoreError(f"the cache database: {error}") from error
        raise
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        said = str(error) or "no answer in time"
        raise StoreError(f"the cache database cannot be reached: {said}") from error


class _Kept:
    """Connections of one kind, made when they are first needed."""

    def __init__(self, connect: Callable[[float], Awaitable[Connection]], number: int, seconds: float) -> None:
        self._connect = connect
        self._seconds = seconds
        self._free: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        self._number = number
        for _ in range(number):
            self._free.put_nowait(None)

    async def use(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run it on one that nobody else uses. One that was broken off is never used again: nobody knows what it has
        still to say."""
        try:
            connection = self._free.get_nowait()
        except asyncio.QueueEmpty:
            async with asyncio.timeout(FREE):
                connection = await self._free.get()
        try:
            if connection is None or connection.is_closed():
                connection = None
                connection = await self._connect(self._seconds)
            async with asyncio.timeout(self._seconds):
                return await work(connection)
        except asyncpg.PostgresError:
            if connection is not None and (connection.is_closed() or connection.is_in_transaction()):
                connection.terminate()
                connection = None
            raise
        except BaseException:
            if connection is not None:
                connection.terminate()
                connection = None
            raise
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        for _ in range(self._number):
            connection = await self._free.get()
            if connection is not None and not connection.is_closed():
                try:
                    await connection.close(timeout=CONNECT)
                except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                    connection.terminate()


class Connections:
    """All connections of one store."""

    def __init__(self, url: str, password: str | None = None, *, looks: int = 4, writes: int = 4) -> None:
        """url: as `cache.database`; password: of its user, where neither libpq's files nor its variables have it."""
        self._url, self.pooled = _plain(url)
        self._password = password
        self._open = False
        self._under_way: set[asyncio.Task[Any]] = set()
        self._looks = _Kept(self.connect, looks, LOOK)
        self._writes = _Kept(self.connect, writes, WRITE)
        self._scans = _Kept(self.connect, 2, SCAN)

    async def open(self) -> None:
        """Nothing is tried yet."""
        self._open = True

    async def close(self) -> None:
        """Finish what is under way, and close; a second call does nothing."""
        if not self._open:
            return
        self._open = False
        while self._under_way:
            await asyncio.wait(self._under_way)
        for kept in (self._looks, self._writes, self._scans):
            await kept.close()

    async def connect(self, seconds: float, task: str = "") -> Connection:
        """A new connection, on which no statement takes longer; the caller closes it. task: what the server's list of
        sessions calls it besides our name."""
        settings = {} if self.pooled else {**_SESSION, "statement_timeout": str(int(1000 * seconds))}
        if task and settings:
            settings["application_name"] += f" {task}"
        connection: Connection = await asyncpg.connect(
            self._url,
            password=self._password,
            timeout=CONNECT,
            statement_cache_size=0 if self.pooled else 200,
            server_settings=settings or None,
        )
        return connection

    async def read(self, work: Callable[[Connection], Awaitable[T]], *, long: bool = False) -> T:
        """Run it on a kept connection, or, where it may take longer, on another. Raises StoreError."""
        return await self._used(self._scans if long else self._looks, work)

    async def write(self, work: Callable[[Connection], Awaitable[T]], *, long: bool = False) -> T:
        """The same on one that writes. Carried to its end even when the caller is cancelled."""
        return await self._used(self._scans if long else self._writes, work)

    async def _used(self, kept: _Kept, work: Callable[[Connection], Awaitable[T]]) -> T:
        if not self._open:
            raise StoreError("the cache database is not open")
        # A query that is broken off costs a connection: whoever stops waiting lets it end by itself.
        return await asyncio.shield(self.in_background(self._guarded(kept, work)))

    async def _guarded(self, kept: _Kept, work: Callable[[Connection], Awaitable[T]]) -> T:
        with errors():
            return await kept.use(work)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` waits for."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it


async def unbounded(db: Connection) -> tuple[str, ...]:
    """Time-outs that this session does not have."""
    rows = await db.fetch("SELECT name FROM pg_settings WHERE name = ANY($1) AND setting = '0' ORDER BY name", _NEEDED)
    return tuple(row[0] for row in rows)


def _plain(url: str) -> tuple[str, bool]:
    """A URL as asyncpg reads it, and whether a pooler stands between."""
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    rest = [(name, value) for name, value in given if name != POOLER]
    return urlunsplit(parts._replace(query=urlencode(rest, safe="/:,"))), (POOLER, "transaction") in given
