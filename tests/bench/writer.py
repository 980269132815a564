"""A node that only writes, in a process of its own: many puts at once for a while, or the purge of what has expired.

`python -m bench.writer` reads one JSON object and writes one: `puts`, `seconds`, and `times` in milliseconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any

from bench import rows
from bench.service import UPSTREAM
from keyserver.changes import Changes
from keyserver.model import Find, Source
from keyserver.resolver.upkeep import BETWEEN_BATCHES, PURGE_BATCH
from keyserver.store.postgres import PostgresStore


async def _run(wanted: dict[str, Any]) -> dict[str, Any]:
    store = PostgresStore(wanted["url"], rows.stand_ins(), Changes(), 1 << 40)
    await store.open()
    times: list[float] = []
    print("begins", flush=True)
    began = time.perf_counter()
    try:
        if wanted.get("purge"):
            await _purge(store, wanted["before"], times)
        else:
            numbers, ends = itertools.count(wanted["first"]), began + wanted["seconds"]
            await asyncio.gather(*(_write(store, numbers, ends, times) for _ in range(wanted["writers"])))
    finally:
        took = time.perf_counter() - began
        await store.close()
    return {"puts": len(times), "seconds": took, "times": times}


async def _write(store: PostgresStore, numbers: itertools.count[int], ends: float, times: list[float]) -> None:
    """One put after the other, each of a certificate that nobody has."""
    while (began := time.perf_counter()) < ends:
        (certificate,) = rows.certificates([next(numbers)])
        find = Find(certificate, Source.KEYSERVER, UPSTREAM)
        await store.put([find], [], await store.begin(), int(time.time()))
        times.append(1000 * (time.perf_counter() - began))


async def _purge(store: PostgresStore, before: int, times: list[float]) -> None:
    """As upkeep does it."""
    gone = PURGE_BATCH
    while gone == PURGE_BATCH:
        began = time.perf_counter()
        gone = await store.purge_expired({(Source.KEYSERVER, None): before}, 0, PURGE_BATCH)
        times.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(BETWEEN_BATCHES)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(_run(json.loads(sys.stdin.readline())))))
