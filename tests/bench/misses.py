"""Misses: what the service adds to its upstream's time, their processor time, and that of hits from the store."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from bench.certificates import many
from bench.client import ask_each
from bench.figures import BEFORE, OURS, Figure, Load, Row, contest, cpu_ratio, percentile, row
from bench.peers import Peer
from bench.service import Service, lookup
from bench.world import DELAY, KEY, World

AT_ONCE = 16  # misses under way


def overhead(world: World) -> list[Row]:
    """A miss one at a time: found upstream, cleaned, stored, answered; less the upstream's own time."""
    made = world.misses(world.setting.scaled(80, 500), "overhead")
    asked = {name: _timer(service.port) for name, service in world.services.items()}
    direct = _timer(world.upstream.port)
    world.service.warm([lookup(world.one.fingerprint)])
    times: dict[str, list[float]] = {name: [] for name in asked}
    own = []
    for one in made:
        for name, through in asked.items():
            times[name].append(through(lookup(one.fingerprint)))
        own.append(direct(lookup(one.fingerprint)))
    added = {name: median(a - b for a, b in zip(ours, own, strict=True)) for name, ours in times.items()}
    workload = f"a miss, upstream of {DELAY * 1000:.0f} ms on loopback: time added"
    rows = [_timed(workload, OURS, times[OURS], Figure(added[OURS], "ms", most=2.0))]
    if BEFORE in times:
        figure = Figure(added[OURS] / added[BEFORE], f"× {BEFORE}", most=0.65)
        rows.append(_timed(workload, BEFORE, times[BEFORE], figure, f"{added[BEFORE]:.2f} ms added"))
    return [*rows, _timed(workload, "the upstream itself", own)]


def processor_time(world: World) -> list[Row]:
    """CPU of a miss over all processes, some at once; nginx's, which reads and proves nothing, for comparison."""
    each = world.setting.scaled(50, 500)
    rounds = world.setting.rounds
    paths = [lookup(made.fingerprint) for made in world.misses(each * (rounds + 1), "costly")]
    servers: dict[str, Service | Peer] = {**world.services, **world.mirror}
    loads = each_once(world, servers, paths, each)
    workload = f"misses, {AT_ONCE} at once, upstream of {DELAY * 1000:.0f} ms: CPU of all processes"
    return _costs(workload, loads, {BEFORE: 0.5})


def cold_hits(world: World) -> list[Row]:
    """Hits that the store answers, not memory: each key is asked for the first time since the start."""
    setting = world.setting
    each = setting.scaled(50, 400)
    made = many("cold-", each * (setting.rounds + 1), KEY)
    for one in made:
        world.upstream.put(one.fingerprint, one.octets)
    paths = [lookup(one.fingerprint) for one in made]
    starts: dict[str, tuple[Mapping[str, str], Path | None]] = {OURS: (setting.settings, None)}
    if setting.before:
        starts[BEFORE] = ({}, setting.before)
    servers: dict[str, Service | Peer] = {}
    with ExitStack() as stack:
        for name, (settings, checkout) in starts.items():
            folder = setting.place(f"cold-{len(servers)}")
            with ExitStack() as first:
                service = Service(first, folder, world.upstream.url, setting.cpus.server, settings, checkout)
                ask_each(service.port, paths, AT_ONCE, setting.cpus.load)
            servers[name] = Service(stack, folder, world.upstream.url, setting.cpus.server, settings, checkout)
        loads = each_once(world, servers, paths, each)
    workload = f"hits of {KEY:,} octets from the store, not memory, {AT_ONCE} at once: CPU of all processes"
    return _costs(workload, loads, {BEFORE: 0.7})


def each_once(
    world: World, servers: Mapping[str, Service | Peer], paths: Sequence[str], each: int
) -> dict[str, list[Load]]:
    """Every path once from every server, `each` in a round; the first so many warm what is not measured."""
    cpus = world.setting.cpus.load

    def shares() -> Iterator[Sequence[str]]:
        return (paths[start : start + each] for start in range(0, len(paths), each))

    turns = {name: shares() for name in servers}

    def one(name: str) -> Load:
        server = servers[name]
        before = server.running.cpu()
        seen = ask_each(server.port, next(turns[name]), AT_ONCE, cpus)
        return Load(seen.misses, seen.seconds, seen.miss_p50, seen.miss_p99, server.running.cpu() - before)

    for name in servers:
        one(name)
    return contest({name: lambda name=name: one(name) for name in servers}, world.setting.rounds)  # type: ignore[misc]


def _costs(workload: str, loads: Mapping[str, Sequence[Load]], most: Mapping[str, float]) -> list[Row]:
    """Our row, then each other's with our processor time beside it."""
    rows = [row(workload, OURS, loads[OURS])]
    for name in loads:
        if name != OURS:
            figure = Figure(cpu_ratio(loads, OURS, name), f"× {name}'s CPU", most=most.get(name))
            rows.append(row(workload, name, loads[name], figure))
    return rows


def _timed(workload: str, who: str, times: Sequence[float], figure: Figure | None = None, note: str = "") -> Row:
    return Row(workload, who, figure, p50=median(times), p99=percentile(times, 0.99), note=note)


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
