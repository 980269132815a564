"""Sockets to listen on, bound before anybody serves them: whoever serves may be another process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import Iterable

from keyserver.config.listener import Listener

BACKLOG = 2048  # connections that the system accepts ahead of us


async def bind(listener: Listener) -> list[socket.socket]:
    """One listening socket for each address that the listener's host has. Raises OSError."""
    if listener.unix is not None:
        return _at(listener, ())
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return _at(listener, [(family, address) for family, _, _, _, address in found])


def bind_for(listener: Listener, processes: int) -> list[list[socket.socket]]:
    """As `bind`, for so many processes: what each of them serves. Blocks. Raises OSError.

    The system deals connections out among the sockets of one address; a Unix socket is the same for all."""
    if listener.unix is not None:
        return [_at(listener, ())] * processes
    found = socket.getaddrinfo(listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    first = _at(listener, [(family, address) for family, _, _, _, address in found])
    if processes == 1:
        return [first]
    # Only a socket that shares with nobody says whether somebody else is there already.
    places = [(sock.family, sock.getsockname()) for sock in first]
    for sock in first:
        sock.close()
    return [_at(listener, places, shared=True) for _ in range(processes)]


def _at(listener: Listener, places: Iterable[tuple[int, object]], shared: bool = False) -> list[socket.socket]:
    """A host with several addresses listens at all of them or not at all."""
    if listener.unix is not None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(listener.unix.stat().st_mode):
                listener.unix.unlink()  # left behind by somebody who is gone
        return [_listening(socket.AF_UNIX, str(listener.unix))]
    made: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys(places):
            made.append(_listening(family, address, shared))
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _listening(family: int, address: object, shared: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type]  # as the family wants it
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
