"""Accepting by ourselves, where a connection has something to show before it is one: the PROXY header, TLS.

Such a connection counts from its first instant, under the address that it comes from; once it is one it counts under
its client's. Out of descriptors, what has not been accepted waits for its turn with the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from keyserver.listen.clients import Clients
from keyserver.listen.trust import UNIX, Trust, plain
from keyserver.model import Malformed
from keyserver.wire import proxy

AT_ONCE = 32  # connections accepted before others have their turn
AGAIN = 0.5  # seconds until we look again when the system has nothing left


class ConnectionFactory(Protocol):
    """Makes a connection's protocol."""

    def __call__(self, client: str | None = None) -> asyncio.Protocol:
        """client: the address that a proxy named; None: the peer's."""


EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How connections arrive at one listening socket."""

    make: ConnectionFactory
    trust: Trust
    seconds: int  # for everything that comes before the first message
    tls: ssl.SSLContext | None
    proxied: bool  # a PROXY header comes first


class Acceptor:
    """What arrives at one socket. `refuse` hears why a connection is not taken; descriptors from `ceiling` on are kept
    back."""

    def __init__(
        self,
        sock: socket.socket,
        manner: Acceptance,
        clients: Clients,
        refuse: Callable[[str], None],
        ceiling: int,
    ) -> None:
        self._sock = sock
        self._manner = manner
        self._clients = clients
        self._refuse = refuse
        self._ceiling = ceiling
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._accept)

    async def close(self) -> None:
        """Accept nothing more; what has not arrived yet never will."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:
                # level-triggered: to look again at once would be to spin
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(AGAIN, self._resume)
                self._refuse("out of file descriptors" if problem.errno in EXHAUSTED else str(problem))
                return
            connection.setblocking(False)
            self._meet(connection, address[0] if isinstance(address, tuple) else UNIX)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def _meet(self, connection: socket.socket, peer: str) -> None:
        if connection.fileno() >= self._ceiling:
            reason = "out of file descriptors"
        elif self._manner.proxied and not self._manner.trust.proxy(peer):
            reason = "not in limits.proxies"
        else:
            reason = self._clients.enter(peer)
        if reason:
            connection.close()
            self._refuse(reason)
            return
        task = self._loop.create_task(self._arrive(connection, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _arrive(self, connection: socket.socket, peer: str) -> None:
        began = self._loop.time()
        try:
            client = await self._introduced(connection, peer)
            # From here on the transport closes the socket, whatever happens.
            await self._loop.connect_accepted_socket(
                partial(self._manner.make, client),
                connection,
                ssl=self._manner.tls,
                ssl_handshake_timeout=max(0.1, self._manner.seconds - (self._loop.time() - began))
                if self._manner.tls is not None
                else None,
            )
        except Malformed as problem:
            self._refuse(str(problem))
        except (OSError, TimeoutError):
            pass  # a handshake that failed, or came too late
        finally:
            self._clients.leave(peer)

    async def _introduced(self, connection: socket.socket, peer: str) -> str | None:
        """Who the client is, where a proxy has to say it. The socket is closed where it does not."""
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._manner.proxied:
                return None
            async with asyncio.timeout(self._manner.seconds):
                return plain(await _client(self._loop, connection) or peer)
        except BaseException:
            connection.close()
            raise


async def _client(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> str | None:
    """Who stands behind the proxy; None where it does not say. Takes the PROXY header and not one octet more.

    Raises Malformed, OSError."""
    head = await _exactly(loop, connection, proxy.LEAST)
    if proxy.version(head) == 2:
        head += await _exactly(loop, connection, proxy.FIXED - proxy.LEAST)
        return proxy.read_rest(head, await _exactly(loop, connection, proxy.rest_length(head)))
    while not head.endswith(b"\n"):
        if len(head) >= proxy.MAX_LINE:
            raise Malformed("a PROXY line without end")
        head += await loop.sock_recv(connection, 1) or _cut()
        if head.endswith(b"\n"):
            break
        with contextlib.suppress(BlockingIOError):
            # looked at first, so that what is behind the line stays where it is
            ahead = connection.recv(proxy.MAX_LINE - len(head), socket.MSG_PEEK)
            head += connection.recv(ahead.find(b"\n") + 1 or len(ahead)) if ahead else b""
    return proxy.read_line(head)


async def _exactly(loop: asyncio.AbstractEventLoop, connection: socket.socket, count: int) -> bytes:
    octets = b""
    while len(octets) < count:
        octets += await loop.sock_recv(connection, count - len(octets)) or _cut()
    return octets


def _cut() -> bytes:
    raise Malformed("a PROXY header cut short")
