"""A front's end: the core behind its connections, for as long as there is one."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from typing import Any, Protocol

from keyserver.processes.frames import Frame, FrameKind, pack
from keyserver.processes.line import Line
from keyserver.processes.news import Replica
from keyserver.processes.streams import StreamOpening

GRACE = 1.0
"""Seconds that what is hot and true is given without a core."""

DESERTED = 30.0
"""Seconds after which a front without a core gives up: the supervisor starts another, with another line."""

_LOG = logging.getLogger("keyserver.processes")


class End(Protocol):
    """What a stream of the core ends in, here."""

    def take(self, frame: Frame) -> None:
        """A frame of the stream."""

    def choke(self, choked: bool) -> None:
        """The core is behind, or no longer."""

    def orphaned(self) -> None:
        """The core is gone; so is the stream."""


class Relay:
    """Streams to the core, while there is one that serves."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self._line: Line | None = None
        self._serves = False
        self._ends: dict[int, End] = {}
        self._last = 0
        self._grace: asyncio.TimerHandle | None = None
        self._came = asyncio.Event()
        self._lost_at: float | None = None

    async def connect(self, line: socket.socket, news: socket.socket) -> None:
        """A core is there, in place of the one before."""
        self._leave()
        loop = asyncio.get_running_loop()
        self.replica.attach(news)
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        loop.add_reader(news, self._news, news)
        mine: list[Line] = []
        self._line = await Line.over(line, self._take, lambda: self._lost(mine), self._choked)
        mine.append(self._line)

    @property
    def deserted(self) -> bool:
        """Has there been no core for so long that there will not be one?"""
        lost = self._lost_at
        return lost is not None and asyncio.get_running_loop().time() - lost > DESERTED

    def close(self) -> None:
        """No core is needed any more."""
        self._leave()
        self.replica.detach()

    async def ready(self) -> None:
        """Return when a core serves."""
        await self._came.wait()

    def open(self, end: End, opening: StreamOpening) -> int:
        """A stream's number; 0 where there is no core."""
        if self._line is None or not self._serves:
            return 0
        self._last = self._last % 0xFFFF_FFFF + 1
        while self._last in self._ends:
            self._last = self._last % 0xFFFF_FFFF + 1
        self._ends[self._last] = end
        self._line.send(FrameKind.OPEN, self._last, opening.write())
        return self._last

    def send(self, kind: FrameKind, stream: int, payload: bytes = b"") -> None:
        """One frame of a stream."""
        if self._line is not None and stream in self._ends:
            self._line.send(kind, stream, payload)

    def data(self, stream: int, octets: bytes) -> None:
        """A stream's octets."""
        if self._line is not None and stream in self._ends:
            self._line.data(stream, octets)

    def end(self, stream: int) -> None:
        """A stream is not needed any more."""
        if self._ends.pop(stream, None) is not None and self._line is not None:
            self._line.send(FrameKind.LOST, stream)

    def ended(self, stream: int) -> None:
        """The core ended it."""
        self._ends.pop(stream, None)

    def count(self, facts: Mapping[str, Any]) -> bool:
        """Tell the core what was answered from memory; False where there is none."""
        if self._line is None or not self._serves:
            return False
        self._line.send(FrameKind.COUNTS, 0, pack(dict(facts)))
        return True

    # inside

    def _take(self, frame: Frame) -> None:
        if frame.kind is FrameKind.HELLO:
            self._serves = True
            self._lost_at = None
            self._came.set()
        elif (end := self._ends.get(frame.stream)) is not None:
            try:
                end.take(frame)
            except Exception:  # a bug, which is one client's and not everybody's
                _LOG.exception("a connection ends for an error of ours")
                self.end(frame.stream)
                end.orphaned()

    def _choked(self, choked: bool) -> None:
        for end in tuple(self._ends.values()):
            end.choke(choked)

    def _news(self, sock: socket.socket) -> None:
        self.replica.catch_up()
        if self.replica.over:
            asyncio.get_running_loop().remove_reader(sock)

    def _lost(self, line: list[Line]) -> None:
        if line and self._line is line[0]:
            self._leave()
            self._grace = asyncio.get_running_loop().call_later(GRACE, self.replica.detach)

    def _leave(self) -> None:
        """The core that was here is gone."""
        line, self._line = self._line, None
        if self._serves:
            self._lost_at = asyncio.get_running_loop().time()
        self._serves = False
        self._came.clear()
        if self.replica.sock is not None:
            asyncio.get_running_loop().remove_reader(self.replica.sock)
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end.orphaned()
        if line is not None:
            line.close()
