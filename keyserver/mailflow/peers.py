"""Who may speak to a listener of the mail flow, and how many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from keyserver.config.kinds import Network
from keyserver.config.listener import Listener
from keyserver.mailflow.direction import ip_of

_LOG = logging.getLogger("keyserver.mailflow")


class Peers:
    """The connections of one listener. Loopback and Unix sockets take everybody, other listeners only `allowed`."""

    def __init__(self, face: str, listener: Listener, allowed: Sequence[Network], most: int) -> None:
        self._face = face
        self._open_to_all = listener.loopback
        self._allowed = tuple(allowed)
        self._most = most
        self._transports: set[asyncio.BaseTransport] = set()

    def admit(self, transport: asyncio.BaseTransport) -> str:
        """Count a new connection in; else the reason why it has to be closed."""
        peer = transport.get_extra_info("peername")
        if not self._open_to_all:
            address = ip_of(peer[0]) if isinstance(peer, tuple) else None
            if address is None or not any(address in network for network in self._allowed):
                _LOG.warning("connection refused: not in mailflow.allowed_clients", extra={"facts": {"on": self._face}})
                return "not allowed"
        if len(self._transports) >= self._most:
            _LOG.warning("connection refused: too many", extra={"facts": {"on": self._face}})
            return "too many connections"
        self._transports.add(transport)
        return ""

    def leave(self, transport: asyncio.BaseTransport | None) -> None:
        """A connection is over."""
        if transport is not None:
            self._transports.discard(transport)

    def close(self) -> None:
        """End every connection."""
        for transport in list(self._transports):
            transport.close()


class Idle:
    """Closes a connection on which nothing has come for so long."""

    def __init__(self, seconds: float, close: Callable[[], None]) -> None:
        self._seconds = seconds
        self._close = close
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._look)

    def alive(self) -> None:
        """Something came."""
        self._last = self._loop.time()

    def stop(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._timer = None
            self._close()
