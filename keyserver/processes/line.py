"""One connection between a front and the core: frames both ways, over an inherited pair of sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import cast

from keyserver.model import Malformed
from keyserver.processes.frames import Frame, FrameKind, Reader, pieces, write

HIGH = 1 << 20
"""Octets not yet taken by the other end above which nobody adds more than he must."""

_LOG = logging.getLogger("keyserver.processes")


class Line(asyncio.Protocol):
    """take(frame): called for each; it must not raise. lost(): the other end is gone. choked(bool): more than `HIGH`
    waits to be sent, or no longer."""

    def __init__(self, take: Callable[[Frame], None], lost: Callable[[], None], choked: Callable[[bool], None]) -> None:
        self._take = take
        self._lost = lost
        self._choked = choked
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        take: Callable[[Frame], None],
        lost: Callable[[], None],
        choked: Callable[[bool], None],
    ) -> Line:
        """A line over one end of a pair, which is its from here on."""
        sock.setblocking(False)
        _, line = await asyncio.get_running_loop().create_unix_connection(lambda: cls(take, lost, choked), sock=sock)
        return line

    def send(self, kind: FrameKind, stream: int, payload: bytes = b"") -> None:
        """One frame; nothing happens where the other end is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(write(kind, stream, payload))

    def data(self, stream: int, octets: bytes) -> None:
        """A stream's octets."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(pieces(stream, octets))

    @property
    def waiting(self) -> int:
        """Octets that the other end has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """End it; what waits is sent."""
        if self._transport is not None:
            self._transport.close()

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(HIGH)

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Octets of frames."""
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except Malformed:
            _LOG.exception("the line between two processes is broken; it ends")
            if self._transport is not None:
                self._transport.abort()

    def pause_writing(self) -> None:
        """The other end is behind."""
        self._choked(True)

    def resume_writing(self) -> None:
        """It caught up."""
        self._choked(False)
