"""Deleted is deleted in every process, at the very next request.

The core sends each change to every front, then raises a counter in memory that all share, then the changing call
returns. A front that sees the counter above its own number reads what was sent before it answers from memory, and one
that cannot get there does not answer from memory: whatever else happens, nothing stale leaves.
"""

from __future__ import annotations

import json
import mmap
import select
import socket
from collections.abc import Callable

from keyserver.changes import Changes
from keyserver.model import EVERYTHING, Change

MOST = 60_000
"""Octets of one message; a change of more names is told as one of all names."""

PATIENCE = 0.25
"""Seconds that a change waits for a front that does not read: it may be many changes at once."""


class Counter:
    """The number of the last change that was told to every front, in memory shared by processes forked after it was
    made; only the core writes it."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self.cell = memory.cast("Q")
        """Its first item; to look is one aligned read."""
        self.detached = self.cell[1:2]
        """As `Changes.detached`, for all processes."""
        self.base: memoryview[float] = memory[16:24].cast("d")
        """As `Clocks.base`, for all processes."""


class Teller:
    """The core's end: tells fronts what `changes` publishes.

    changes: numbered from where the counter stands. late(front): this front could not be told and is out; it must not
    answer again, which its number sees to, and should be ended. patience: seconds that a change waits for it."""

    def __init__(
        self, changes: Changes, counter: Counter, late: Callable[[int], None], patience: float = PATIENCE
    ) -> None:
        self._changes = changes
        self._cell = counter.cell
        self._late = late
        self._patience = patience
        self._fronts: dict[int, socket.socket] = {}
        changes.published += self._cell[0]  # of the core before: numbers only rise
        self._cell[0] = changes.published
        counter.detached[0] = changes.detached[0]
        changes.detached = counter.detached
        changes.subscribe(self._tell)

    def admit(self, front: int, sock: socket.socket) -> None:
        """A front, which from now on hears everything; `sock` is ours from here on."""
        self.dismiss(front)
        sock.setblocking(False)
        self._fronts[front] = sock
        self._send(front, _written(self._changes.published, None))

    def dismiss(self, front: int) -> None:
        """A front that is gone."""
        sock = self._fronts.pop(front, None)
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Nobody is told any more."""
        for front in tuple(self._fronts):
            self.dismiss(front)

    def _tell(self, change: Change) -> None:
        number = self._changes.published
        message = _written(number, change)
        for front in tuple(self._fronts):
            self._send(front, message)
        self._cell[0] = number

    def _send(self, front: int, message: bytes) -> None:
        sock = self._fronts[front]
        try:
            try:
                sock.send(message)
            except BlockingIOError:  # many changes at once, or it hangs
                poll = select.poll()
                poll.register(sock, select.POLLOUT)
                poll.poll(self._patience * 1000)
                sock.send(message)
        except BlockingIOError:
            self.dismiss(front)
            self._late(front)
        except OSError:
            self.dismiss(front)  # it is gone


class Replica(Changes):
    """A front's end: the core's changes, published here under the core's numbers."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.told = counter.cell
        self.detached = counter.detached
        self.sock: socket.socket | None = None
        """Where changes come; whoever waits for octets there calls `catch_up`."""
        self.over = True
        """Nothing more will come from the core that was heard last."""

    def attach(self, sock: socket.socket) -> None:
        """Hear a core, in place of the one before; nothing learnt from that one stands any more."""
        self.detach()
        sock.setblocking(False)
        self.sock, self.over = sock, False
        self.catch_up()

    def detach(self) -> None:
        """The core is gone: forget everything."""
        if self.sock is not None:
            self.sock.close()
            self.sock, self.over = None, True
        self._forget()

    def catch_up(self) -> None:
        """Read what was sent. If that is not everything, nothing kept is left."""
        while self.sock is not None and not self.over:
            try:
                message = self.sock.recv(MOST + 1)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self.over = True
                break
            number, change = _read(message)
            if change is None:  # the core's first word
                self._forget()
                self.published = number
            elif number == self.published + 1:
                self.publish(change)
            else:
                self._forget()
        if self.told[0] > self.published:
            self._forget()

    def _forget(self) -> None:
        number = self.published
        self.publish(EVERYTHING)
        self.published = number
        self._recent.clear()


def _written(number: int, change: Change | None) -> bytes:
    """A message; without a change: the number from which on a front is told."""
    if change is None:
        return json.dumps([number]).encode()
    message = json.dumps([number, change.number, *change.names]).encode()
    if change.everything or len(message) > MOST:
        message = json.dumps([number, change.number, None]).encode()
    return message


def _read(message: bytes) -> tuple[int, Change | None]:
    number, *rest = json.loads(message)
    if not rest:
        return number, None
    if rest[1:] == [None]:
        return number, Change(rest[0], frozenset(), everything=True)
    return number, Change(rest[0], frozenset(rest[1:]))
