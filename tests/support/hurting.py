"""What goes wrong with nodes that share a database, one thing at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from support.between import Between
from support.history import Crash
from support.postgres import Cluster
from support.processes import family, frozen
from support.running import Service

FAULTS = ("kill", "freeze", "drop", "swallow", "clock", "restart", "crash", "freeze server")


@dataclass
class Hurting:
    """Nodes and their proxies and clocks by name. `chance` decides what a fault leaves open."""

    server: Cluster
    services: dict[str, Service]
    betweens: dict[str, Between]
    offsets: dict[str, Path]
    chance: random.Random

    async def hurt(self, fault: str, name: str) -> Crash | None:
        """Until it is over, or has begun to last; when the server lost what was not on the disk, if it did."""
        seconds = self.chance.uniform(0.3, 3.0)
        service, between = self.services[name], self.betweens[name]
        if fault == "kill":
            await asyncio.to_thread(service.kill)
            await asyncio.to_thread(service.start)
        elif fault == "freeze":
            assert service.process is not None
            with frozen([service.process.pid]):
                await asyncio.sleep(seconds)
        elif fault in ("drop", "swallow"):
            between.drop() if fault == "drop" else between.swallow()
            await asyncio.sleep(seconds)
            between.mend()
        elif fault == "clock":
            self.offsets[name].write_text(str(self.chance.choice((-40, -5, -1, 0, 1, 5, 40))))
        elif fault == "freeze server":
            with frozen(list(family(self.server.pid))):
                await asyncio.sleep(seconds)
        elif fault == "restart":
            await asyncio.to_thread(self.server.stop)
            await asyncio.to_thread(self.server.start)
        else:
            return await self._crash()
        return None

    async def _crash(self) -> Crash:
        start = time.monotonic()
        pids = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        found = (await asyncio.to_thread(self.server.sql, pids)).split()
        if found:
            os.kill(int(self.chance.choice(found)), signal.SIGKILL)
            await asyncio.sleep(0.05)
            await self._answers()
        return Crash(start, time.monotonic())

    async def _answers(self) -> None:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(RuntimeError):
                    await asyncio.to_thread(self.server.sql, "SELECT 1")
                    return
                await asyncio.sleep(0.05)
