"""Misses: what the service adds to its upstream's time, and what they cost the hits beside them."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from statistics import median

from bench.client import Client, Seen, Wanted
from bench.figures import OURS, Figure, Load, Row, contest, percentile, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.service import lookup
from bench.world import DELAY, World

EVERY = 100  # of so many requests, one is a miss
WAITING = 128  # connections: with few of them the rate would be that of waiting for the upstream, whoever serves
_RATE = 1200  # misses per second for which certificates are made ahead


def overhead(world: World) -> list[Row]:
    """A miss one at a time: found upstream, cleaned, stored, answered; less the upstream's own time."""
    count = world.setting.scaled(80, 500)
    made = world.misses(count, "overhead")
    world.service.warm([lookup(world.one.fingerprint)])
    through, direct = _timer(world.service.port), _timer(world.upstream.port)
    ours, own = [], []
    for one in made:
        ours.append(through(lookup(one.fingerprint)))
        own.append(direct(lookup(one.fingerprint)))
    added = [a - b for a, b in zip(ours, own, strict=True)]
    workload = f"a miss, upstream of {DELAY * 1000:.0f} ms on loopback: time added"
    return [
        Row(workload, OURS, Figure(median(added), "ms", most=2.0), p50=median(ours), p99=percentile(ours, 0.99)),
        Row(workload, "the upstream itself", p50=median(own), p99=percentile(own, 0.99)),
    ]


def among_hits(world: World) -> list[Row]:
    """99 % hits and 1 % misses beside hits alone: the rate by wrk, the hits' own latencies by our client."""
    setting, service = world.setting, world.service
    hits = [lookup(made.fingerprint) for made in world.thousand]
    service.warm(hits)
    each = _RATE * setting.seconds
    supply = [lookup(made.fingerprint) for made in world.misses(2 * setting.rounds * each, "among")]
    taken = iter(range(0, len(supply), each))
    place = setting.place("wrk-mixed")
    alone = Wrk(
        setting.place("wrk-unmixed"), hits, connections=WAITING, seconds=setting.seconds, cpus=setting.cpus.load
    )

    def mixed() -> Load:
        start = next(taken)
        slot = place / str(start)
        slot.mkdir()
        load = Wrk(
            slot,
            hits,
            connections=WAITING,
            seconds=setting.seconds,
            cpus=setting.cpus.load,
            misses=supply[start : start + each],
            every=EVERY,
        )
        return load(service.port, service.running)

    rounds = contest({"alone": lambda: alone(service.port, service.running), "mixed": mixed}, setting.rounds)
    seen: dict[bool, list[Seen]] = {False: [], True: []}
    for _ in range(setting.rounds):
        for with_misses in (False, True):
            start = next(taken) if with_misses else 0
            misses = supply[start : start + each] if with_misses else []
            wanted = Wanted(service.port, setting.seconds, BUSY, hits, misses, EVERY if with_misses else 0)
            seen[with_misses].append(Client(wanted, setting.cpus.load).result())
            time.sleep(0.1)  # let the searches end that nobody waits for any more
    slower = median(b.hit_p99 / a.hit_p99 for a, b in zip(seen[False], seen[True], strict=True))
    workload = f"99 % hits (1,000 keys), 1 % misses (upstream {DELAY * 1000:.0f} ms)"
    note = (
        f"misses: p50 {median(s.miss_p50 for s in seen[True]):.0f}, p99 {median(s.miss_p99 for s in seen[True]):.0f} ms"
    )
    p99 = f"{workload}, {BUSY} connections: p99 of the hits"
    workload = f"{workload}, {WAITING} connections"
    return [
        row(workload, OURS, rounds["mixed"], Figure(ratio(rounds, "mixed", "alone"), "× hits alone", least=0.7)),
        row(workload, f"{OURS}: hits alone", rounds["alone"]),
        row(p99, OURS, [s.load() for s in seen[True]], Figure(slower, "× hits alone", most=2.0), note),
        row(p99, f"{OURS}: hits alone", [s.load() for s in seen[False]]),
    ]


class _timer:
    """Requests on one kept connection; each call is one, and gives its milliseconds."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)

    def __call__(self, path: str) -> float:
        began = time.perf_counter()
        self._connection.request("GET", path)
        reply = self._connection.getresponse()
        reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status}")
        return 1000 * (time.perf_counter() - began)
