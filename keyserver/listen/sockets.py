"""Sockets to listen on, bound before anybody serves them: whoever serves may be another process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat

from keyserver.config.listener import Listener

BACKLOG = 2048  # connections that the system accepts ahead of us


async def bind(listener: Listener) -> list[socket.socket]:
    """One listening socket for each address that the listener's host has. Raises OSError."""
    if listener.unix is not None:
        path = str(listener.unix)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(listener.unix.stat().st_mode):
                listener.unix.unlink()  # left behind by somebody who is gone
        return [_listening(socket.AF_UNIX, path)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            made.append(_listening(family, address))
    except OSError:  # a host with several addresses listens at all of them or not at all
        for sock in made:
            sock.close()
        raise
    return made


def _listening(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type]  # as the family wants it
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
