"""What goes wrong, each kind in a task of its own, so that all of it happens at once."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.openpgp import Made
from support.processes import family, frozen
from support.running import Service
from support.scripted import Behaviour, Route, Scripted, hang_up, key, raw, reply, reset, slow

FAST = 30
"""Seconds by which the service's clock goes ahead of ours in each of our seconds; what is less than a jump to it."""

BROKEN: tuple[Behaviour, ...] = (
    reply(500, "broken"),
    reply(503, "busy", Retry_After="1"),
    hang_up,
    reset,
    slow(3, reply(502)),
    raw(b"\0\1garbage\r\n\r\n"),
    reply(200, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\ndamaged"),
)


@dataclass
class Faults:
    """`often`: each fault's mean pause in seconds. `done`: how often each was made."""

    service: Service
    flapping: Scripted
    people: Mapping[str, Made]
    offset: Path
    chance: random.Random
    touched: dict[str, float]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    done: collections.Counter[str] = field(default_factory=collections.Counter)
    last: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=6))
    """The latest, for who has to explain an answer."""
    ahead: float = 0.0
    skew: float = 0.0

    def tasks(self) -> Mapping[Callable[[], Awaitable[None]], float]:
        """Every fault, and its mean pause in seconds."""
        return {
            self.flap: 8,
            self.kill_front: 60,
            self.kill_core: 90,
            self.freeze: 45,
            self.reload: 20,
            self.move_clock: 30,
            self.fill_disk: 30,
            self.purge: 15,
            self.change: 2,
        }

    async def repeat(self, fault: Callable[[], Awaitable[None]], pause: float) -> None:
        """One kind, until it is over."""
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.chance.expovariate(1 / pause)):
                    await self.over.wait()
                    return
            self.last.append(fault.__name__)
            with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError, TimeoutError):
                await fault()  # it may hit what another has just ended
                self.done[fault.__name__] += 1

    async def run_clock(self) -> None:
        """Days in hours."""
        while not self.over.is_set():
            self.ahead += FAST
            self._set_clock()
            await asyncio.sleep(1)

    async def flap(self) -> None:
        """An upstream that answers nothing good for a while."""
        behaviour = self.chance.choice(BROKEN)
        self.flapping.routes = {"*": behaviour}
        await asyncio.sleep(self.chance.uniform(0.5, 5))
        self.flapping.routes = routes(self.people)

    async def kill_front(self) -> None:
        os.kill(self.chance.choice((await self.service.pids())["front"]), signal.SIGKILL)

    async def kill_core(self) -> None:
        os.kill((await self.service.pids())["core"][0], signal.SIGKILL)

    async def freeze(self) -> None:
        """The core stands still."""
        with frozen((await self.service.pids())["core"]):
            await asyncio.sleep(self.chance.uniform(0.2, 2))

    async def reload(self) -> None:
        assert self.service.process is not None
        self.service.process.send_signal(signal.SIGHUP)

    async def move_clock(self) -> None:
        """Somebody sets the clock, and back."""
        for skew in (self.chance.choice((-3600.0, -40.0, 40.0, 7200.0)), 0.0):
            self.skew = skew
            self._set_clock()
            await asyncio.sleep(self.chance.uniform(1, 5))

    def _set_clock(self) -> None:
        """At once: who reads a file that is being written finds it empty, and a clock that is right."""
        written = self.offset.with_suffix(".new")
        written.write_text(str(round(self.ahead + self.skew)))
        written.replace(self.offset)

    async def fill_disk(self) -> None:
        """No file may grow: what a full disk, or a quota, is to whoever writes."""
        assert self.service.process is not None
        pids = list(family(self.service.process.pid))
        for limit in (4096, resource.RLIM_INFINITY):
            for pid in pids:
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            if limit == 4096:
                await asyncio.sleep(self.chance.uniform(0.5, 3))

    async def purge(self) -> None:
        await self._admin("/api/v1/cache/purge", "POST", b'{"expired": true}', "application/json")

    async def change(self) -> None:
        """An administrator deletes, or imports."""
        address, made = self.chance.choice(list(self.people.items()))
        self.touched[address] = math.inf
        try:
            await self._change(made)
        finally:
            self.touched[address] = time.monotonic()

    async def _change(self, made: Made) -> None:
        if self.chance.random() < 0.5:
            await self._admin(f"/api/v1/cache/{made.fingerprint}", "DELETE")
        else:
            await self._admin("/api/v1/cache/import", "POST", made.octets, "application/pgp-keys")

    async def _admin(self, place: str, method: str, body: bytes = b"", type_: str = "") -> None:
        headers = {"Authorization": f"Bearer {self.service.token}"} | ({"Content-Type": type_} if type_ else {})
        await self.service.get(place, method=method, headers=headers, face="admin", body=body)


def routes(people: Mapping[str, Made]) -> dict[str, Route]:
    """What the upstream says when it is well."""
    return {address: key(made.octets) for address, made in people.items()}
