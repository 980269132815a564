"""Run the service for a while under load and faults, and print how each figure moved."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from soak.faults import FAST, Faults, routes
from soak.load import Load
from soak.samples import Figures
from support.openpgp import make
from support.ports import free_port
from support.running import Service
from support.scripted import Scripted
from support.shim import clock_shim

PEOPLE = 300
CLIENTS = 12
SETTINGS = {
    "server.workers": "2",
    "cache.ttl": '"1h"',
    "cache.negative_ttl": '"10m"',
    "cache.serve_stale": '"1d"',
    "cache.purge_interval": '"1s"',
    "cache.memory": '"4 MiB"',
    "cache.max_size": '"32 MiB"',
    "smime.trust_anchors": '"none"',
}


async def soak(minutes: float, seed: int, folder: Path) -> int:
    """Everything; 1 where a figure grows or an answer was wrong."""
    people = {f"p{n}@example.org": make([f"<p{n}@example.org>"], seed=f"soak{n}") for n in range(PEOPLE)}
    environment, offset = clock_shim(folder)
    ports = {f"{face}.listen": f'["127.0.0.1:{free_port()}"]' for face in ("hkp", "ldap")}
    ports["admin.listen"] = f'"127.0.0.1:{free_port()}"'
    figures, chance = Figures(), random.Random(seed)
    async with Scripted(routes(people)) as upstream:
        service = Service(folder, upstreams=[upstream.url], settings=SETTINGS | ports, environment=environment)
        service.patience = 120
        with service:
            load = Load(service, people, chance)
            faults = Faults(service, upstream, people, offset, chance, load.touched)
            load.faults = faults.last
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(load.client())
                group.create_task(load.watcher())
                group.create_task(faults.run_clock())
                for fault, pause in faults.tasks().items():
                    group.create_task(faults.repeat(fault, pause))
                await sample(service, load, upstream, figures, minutes * 60)
                load.over.set()
                faults.over.set()
            ended = service.stop()
    return report(minutes, load, faults, figures, ended)


async def sample(service: Service, load: Load, upstream: Scripted, figures: Figures, seconds: float) -> None:
    """Look from time to time, until the end; what the harness itself remembers is dropped."""
    began, pause = time.monotonic(), max(1.0, min(10.0, seconds / 300))
    while (at := time.monotonic() - began) < seconds:
        await asyncio.sleep(pause)
        upstream.requests.clear()
        with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError, KeyError, TimeoutError):
            pids = await service.pids()
            latencies, load.latencies = load.latencies, []
            figures.look(at, pids, service.directory / "keyserver.db", latencies)
        del service.log[:-1000]


def report(minutes: float, load: Load, faults: Faults, figures: Figures, ended: int) -> int:
    """Print it all."""
    days = minutes * 60 * (1 + FAST) / 86400
    print(f"{minutes:g} minutes, {days:.1f} days by the service's clock; it ended with {ended}")
    print("clients saw:", ", ".join(f"{name} {count:,}" for name, count in sorted(load.seen.items())))
    print("faults:", ", ".join(f"{name} {count}" for name, count in sorted(faults.done.items())))
    good = not load.wrong and ended == 0
    for line, fine in figures.report():
        print(line)
        good = good and fine
    print(f"{len(load.wrong)} wrong answers", *load.wrong[:10], sep="\n  ")
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is left to chance (1)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return asyncio.run(soak(given.minutes, given.seed, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
