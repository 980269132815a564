"""The bell: who has changed something rings, and all nodes look at once what it was.

It says no more than that: changes are read from the outbox, and whoever misses a bell reads them a moment later.

NOTIFY holds one lock of the whole server until its transaction is on disk: inside that of each put, nobody would share
a flush. So it rings behind puts, on a connection of its own that waits for no disk. Deletes and the like, which are one
at a time anyway, ring in their own transaction (`Writing.finish`).
https://www.postgresql.org/docs/15/sql-notify.html
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import asyncpg

from keyserver.store.base import StoreError
from keyserver.store.postgres.connections import CONNECT, LOOK, Connection, Connections, errors

CHANNEL = "changes_of_keyserver"
BETWEEN = 0.005  # seconds between two bells of one node, and between two polls
EVERY = 0.5  # seconds between two polls where no bell rings
POOLED = 0.1  # the same behind a pooler that lends connections by the transaction: nobody can listen there
PAUSES = 0.05, 2.0  # seconds before a listener that was cut connects again, the first and the longest
_LAST = 1.0  # seconds for what still rings when the store is closed

_RING = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')"

log = logging.getLogger("keyserver.nodes")


class Bell:
    """Rings, and listens for those of others."""

    def __init__(
        self, connections: Connections, poll: Callable[[Connection], Awaitable[None]], alone: Callable[[], bool]
    ) -> None:
        """poll: learns and publishes on a connection what is new; alone: nobody hears us."""
        self._connections = connections
        self._poll = poll
        self._alone = alone
        self._rung = False
        self._ringing: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._pause = PAUSES[0]

    def ring(self) -> None:
        """Something was committed. Bells that come close together are one."""
        if self._alone():
            return
        self._rung = True
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring())

    async def close(self) -> None:
        """Ring what is still to be rung."""
        if self._ringing is not None:
            await asyncio.wait((self._ringing,), timeout=_LAST)
            self._ringing.cancel()
            await asyncio.gather(self._ringing, return_exceptions=True)
        if self._connection is not None:
            await _closed(self._connection)

    async def _ring(self) -> None:
        while self._rung:
            self._rung = False
            try:
                with errors():
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connections.connect(LOOK, "bell")
                    async with asyncio.timeout(LOOK):
                        await self._connection.execute(_RING)
                await asyncio.sleep(BETWEEN)
            except StoreError:  # the others poll
                if self._connection is not None:
                    self._connection.terminate()
                await asyncio.sleep(EVERY)

    async def listen(self, caught_up: Callable[[float], None]) -> None:
        """As `Cluster.listen`."""
        if self._connections.pooled:
            log.info(
                "behind a pooler nothing can be listened for: changes of other nodes are looked for every %d ms",
                1000 * POOLED,
            )
        while True:
            try:
                with errors():
                    await self._until_cut(caught_up)
            except StoreError as problem:
                level = logging.DEBUG if self._pause == PAUSES[0] else logging.WARNING
                log.log(level, "changes of other nodes are not heard at once: %s", " ".join(str(problem).split()))
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, PAUSES[1])

    async def _until_cut(self, caught_up: Callable[[float], None]) -> None:
        """Listen on one connection for as long as it answers in time: one that is silent says nothing else."""
        every = POOLED if self._connections.pooled else EVERY
        rung, loop = asyncio.Event(), asyncio.get_running_loop()
        connection = await self._connections.connect(LOOK, "listener")
        try:
            if not self._connections.pooled:
                async with asyncio.timeout(LOOK):
                    await connection.add_listener(CHANNEL, lambda _, pid, *__: None if pid == self._own else rung.set())
                connection.add_termination_listener(lambda _: rung.set())
            while True:
                rung.clear()
                asked = loop.time()
                async with asyncio.timeout(LOOK):
                    await self._poll(connection)
                caught_up(loop.time() - asked)
                self._pause = PAUSES[0]
                await asyncio.sleep(BETWEEN)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every - BETWEEN):
                        await rung.wait()
        except TimeoutError:
            connection.terminate()
            raise
        finally:
            await _closed(connection)

    @property
    def _own(self) -> int:
        """The server's process that rings for us."""
        ours = self._connection
        return 0 if ours is None or ours.is_closed() else ours.get_server_pid()


async def _closed(connection: Connection) -> None:
    try:
        await connection.close(timeout=CONNECT)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
