"""A TCP proxy on 127.0.0.1 that can drop every connection, or swallow what goes through it, for a while.

async with Between(port) as between:
    between.port                    # connect here instead
    between.drop()                  # all connections end at once, and new ones are refused
    between.swallow()               # they stay, new ones too, but nothing passes, and nobody is told
    between.mend()                  # as in the beginning; what was swallowed stays lost, its connections end
"""

from __future__ import annotations

import asyncio
import contextlib


class Between:
    """See the module."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._how = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Between:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        self._how = "drop"
        self._end()

    def swallow(self) -> None:
        self._how = "swallow"

    def mend(self) -> None:
        if self._how == "swallow":
            self._end()
        self._how = ""

    def _end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._how == "drop":
                writer.transport.abort()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far_writer)
            try:
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            finally:
                self._writers.discard(far_writer)
                far_writer.close()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(65536):
            if not self._how:
                writer.write(octets)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
