"""A child's connection to its supervisor: orders with open files one way, word of being ready the other."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keyserver.notify import SIGNS

MOST = 60_000  # octets of a message
FILES = 4  # that come with one

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

Message = Mapping[str, Any]


def tell(sock: socket.socket, message: Message, files: Sequence[int] = ()) -> None:
    """One message. Raises OSError where the other end is gone."""
    socket.send_fds(sock, [json.dumps(message).encode()], list(files))


def hear(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message, which is there, with its files; None where the other end is gone."""
    try:
        octets, files, _, _ = socket.recv_fds(sock, MOST, FILES)
    except (ConnectionError, TimeoutError):
        return None
    return (json.loads(octets), files) if octets else None


class Control:
    """The child's end."""

    def __init__(self, sock: socket.socket, watchdog: float | None = None) -> None:
        """watchdog: seconds without a sign of life after which the supervisor ends us; None: it does not."""
        self._sock = sock
        self._watchdog = watchdog

    def tell(self, message: Message) -> None:
        """To the supervisor."""
        tell(self._sock, message)

    def listen(self, heard: Callable[[Message, list[int]], None]) -> None:
        """Call `heard` with every order. Without a supervisor the process ends at once: another service may begin
        as soon as we are gone, and not before."""
        self._sock.setblocking(False)
        loop = asyncio.get_running_loop()

        def readable() -> None:
            try:
                word = hear(self._sock)
            except BlockingIOError:
                return
            if word is None:
                os._exit(1)
            heard(*word)

        loop.add_reader(self._sock, readable)
        if self._watchdog is not None:
            self._live(loop, self._watchdog / SIGNS)

    def _live(self, loop: asyncio.AbstractEventLoop, every: float) -> None:
        """A sign of life, and the next one in so many seconds: a loop that hangs gives none."""
        with contextlib.suppress(OSError):  # a supervisor that does not read misses nothing, one that is gone is seen
            self.tell({"alive": True})
        loop.call_later(every, self._live, loop, every)


def die_with(supervisor: int) -> None:
    """This process ends when the one that forked it does, however that happens (Linux; elsewhere `listen` sees it)."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != supervisor:
        os._exit(1)
