"""What the core knows of its fronts: their lines, what they answered from memory, who they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Any

from keyserver.changes import Changes
from keyserver.faces.asked import AskedNames
from keyserver.faces.http.hot import HotCounts
from keyserver.model import Name
from keyserver.processes.agreed import Agreed
from keyserver.processes.control import Control, Message
from keyserver.processes.news import Counter, Teller
from keyserver.processes.register import BY_FACE
from keyserver.processes.streams import Place, Streams

AGREES = 5.0
"""Seconds that a front has to go by another configuration."""

_LOG = logging.getLogger("keyserver.processes")


@dataclass(frozen=True, slots=True)
class Node:
    """One process, for `keyserver nodes`. `since`: Unix seconds."""

    kind: str
    pid: int
    since: int
    restarts: int
    connections: int = 0
    hot_answers: int = 0
    """Given from memory since its start."""


@dataclass(slots=True)
class _Front:
    pid: int
    pidfd: int
    since: int
    restarts: int
    streams: Streams | None = None
    counts: dict[str, int] = field(default_factory=dict)
    agreed: int = -1
    """The number of the configuration that it goes by."""


class Fronts:
    """The register of all fronts. stop(), reload(): what the supervisor may order."""

    def __init__(
        self,
        counter: Counter,
        control: Control,
        agreed: Agreed,
        *,
        stop: Callable[[], None],
        reload: Callable[[], None],
    ) -> None:
        self.places: dict[str, Place] = {}
        """Listeners' protocols by their configuration's keys, to be filled before `begin`."""
        self._counter = counter
        self._control = control
        self._agreed = agreed
        self._reported = asyncio.Event()
        self._stop = stop
        self._reload = reload
        self._fronts: dict[int, _Front] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = AskedNames()
        self._core: Message = {}
        self._gone: Counts[str] = Counts()

    def begin(
        self, changes: Changes, hits: Callable[[str, int], None], searched: Callable[[Sequence[Name]], None]
    ) -> None:
        """Admit fronts. hits(face, count) and searched(names): what they answered, once a second, where no
        line of the log tells it."""
        self._hits, self._searched = hits, searched
        self._teller = Teller(changes, self._counter, self._late)
        self._control.listen(self._heard)

    def ready(self, lines: Sequence[str]) -> None:
        """Say that the core serves."""
        self._control.tell({"ready": list(lines)})

    def close(self) -> None:
        """Nobody is told or served any more."""
        self._teller.close()
        for front in self._fronts.values():
            if front.streams is not None:
                front.streams.close()

    def counts(self) -> HotCounts:
        """Nothing was answered from memory in this process; for fronts there is `total`."""
        return HotCounts(0, 0)

    def asked(self) -> dict[Name, int]:
        """What is to be logged of what fronts answered since the last call, and how often."""
        return self._asked.take()

    def total(self, what: str) -> int:
        """The sum of one of the fronts' counts."""
        return sum(front.counts.get(what, 0) for front in self._fronts.values())

    def ever(self, what: str) -> int:
        """The same of a count that only grows, with those of fronts that are gone."""
        return self._gone[what] + self.total(what)

    def nodes(self) -> Sequence[Node]:
        """Everybody."""
        core = self._core
        found = [
            Node("supervisor", os.getppid(), int(core.get("began", 0)), 0),
            Node("core", os.getpid(), int(core.get("since", 0)), int(core.get("restarts", 0))),
        ]
        for _, front in sorted(self._fronts.items()):
            counts = front.counts
            hot, connections = (
                sum(counts.get(f"{face}_{what}", 0) for face in BY_FACE) for what in ("hits", "connections")
            )
            found.append(Node("front", front.pid, front.since, front.restarts, connections, hot))
        return found

    def propose(self, octets: bytes) -> None:
        """The configuration from here on; fronts see it at the next change of everything. Raises ValueError."""
        self._agreed.write(octets)

    async def agree(self) -> None:
        """Return when all fronts go by it; one that does not is ended."""
        number = self._agreed.number
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGREES):
                while any(front.agreed < number for front in self._fronts.values()):
                    self._reported.clear()
                    await self._reported.wait()
        for at, front in tuple(self._fronts.items()):
            if front.agreed < number:
                self._late(at)

    # orders

    def _heard(self, message: Message, files: list[int]) -> None:
        match message["do"]:
            case "admit":
                self._core = message["core"]
                self._admit(message, *files)
            case "reload":
                self._reload()
            case "stop":
                self._stop()

    def _admit(self, message: Message, line: int, news: int, pidfd: int) -> None:
        number = message["front"]
        if (before := self._fronts.get(number)) is not None:
            self._dismiss(number, before)
        front = _Front(message["pid"], pidfd, message["since"], message["restarts"])
        self._fronts[number] = front
        self._teller.admit(number, socket(fileno=news))
        front.streams = Streams(
            self.places, lambda counts: self._count(front, counts), lambda: self._dismiss(number, front)
        )
        task = asyncio.get_running_loop().create_task(front.streams.begin(socket(fileno=line)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _dismiss(self, number: int, front: _Front) -> None:
        """A front is gone."""
        if self._fronts.get(number) is not front:
            return
        del self._fronts[number]
        self._gone.update(front.counts)
        self._reported.set()
        self._teller.dismiss(number)
        os.close(front.pidfd)
        if front.streams is not None:
            front.streams.close()

    def _late(self, number: int) -> None:
        """A front could not be told of a change: it never answers from memory again, so it is of no use."""
        front = self._fronts.get(number)
        if front is None:
            return
        _LOG.error("a front does not read and is ended", extra={"facts": {"front": number, "pid": front.pid}})
        try:
            signal.pidfd_send_signal(front.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _count(self, front: _Front, said: Mapping[str, Any]) -> None:
        counts, before = said["counts"], front.counts
        front.counts = dict(counts)
        for face, part in BY_FACE.items():
            fresh = counts.get(f"{face}_hits", 0) - before.get(f"{face}_hits", 0)
            if fresh > 0:
                self._hits(face, fresh)
            asked = said["asked"].get(face)
            if asked and part.logged:
                self._asked.add(asked)
            elif asked:
                self._searched(list(asked))
        front.agreed = said["agreed"]
        self._reported.set()
