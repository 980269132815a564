"""A store with a million entries: how long a put takes, and the service its start."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

from bench import rows
from bench.certificates import many
from bench.figures import OURS, Figure, Row, percentile
from bench.service import UPSTREAM, Service, database
from bench.world import World
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.model import Certificate, Find, Source
from keyserver.openpgp import clean
from keyserver.store.sqlite import SqliteStore

_PAUSE = 0.002  # seconds between puts: a busy service, not a bulk import


def puts(world: World) -> list[Row]:
    """One put at a time with small certificates, then a start over the same database."""
    setting = world.setting
    entries, count = setting.scaled(30_000, 1_000_000), setting.scaled(300, 5000)
    folder = setting.place("million")
    times = asyncio.run(_put(database(folder), entries, count))
    starts = []
    for _ in range(setting.rounds):
        with ExitStack() as stack:
            began = time.monotonic()
            Service(stack, folder, world.upstream.url, setting.cpus.server, setting.settings)
            starts.append(time.monotonic() - began)
    workload = f"{entries:,} entries"
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    note = f"worst of {count:,}: {max(times):.1f} ms; waiting for the disk is in it"
    return [
        Row(f"a put with {workload}: p99", OURS, Figure(p99, "ms", most=6.0), p50=p50, p99=p99, note=note),
        Row(f"start to ready with {workload}", OURS, Figure(percentile(starts, 0.5), "s", most=1.0)),
    ]


async def _put(path: Path, entries: int, count: int) -> list[float]:
    """Milliseconds of each put."""
    await rows.build(path, entries)
    now = int(time.time())
    cleaned = [one for made in many("put-", count) for one in clean(made.octets, now) if isinstance(one, Certificate)]
    store = SqliteStore(path, hygiene_of(), Changes(), 1 << 40)
    await store.open()
    times = []
    try:
        for certificate in cleaned:
            await asyncio.sleep(_PAUSE)
            began = time.perf_counter()
            await store.put([Find(certificate, Source.KEYSERVER, UPSTREAM)], [], await store.begin(), now)
            times.append(1000 * (time.perf_counter() - began))
    finally:
        await store.close()
    return times
