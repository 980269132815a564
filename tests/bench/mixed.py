"""What misses cost the hits beside them: one request in a hundred is a miss; nginx with the same upstream, same mix."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from bench.client import Client, Seen, Wanted
from bench.figures import BEFORE, OURS, Figure, Load, Row, contest, p99_ratio, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.peers import NGINX, Peer
from bench.service import Service, lookup
from bench.world import DELAY, World

EVERY = 100  # of so many requests, one is a miss
WAITING = 128  # connections: with few of them the rate would be that of waiting for the upstream, whoever serves
STEADY = 1500  # requests per second that saturate nobody
_WORKLOAD = f"99 % hits (1,000 keys), 1 % misses (upstream {DELAY * 1000:.0f} ms)"
_RATE = 1200  # misses per second for which certificates are made ahead: wrk's, our client's
_OWN_RATE = 400


def rate(world: World) -> list[Row]:
    """The rate beside that of hits alone, by wrk."""
    setting = world.setting
    servers, hits = world.beside(), [lookup(made.fingerprint) for made in world.thousand]
    new = partial(Wrk, connections=WAITING, seconds=setting.seconds, cpus=setting.cpus.load)
    alone = new(setting.place("wrk-unmixed"), hits)
    mixes = [
        new(setting.place(f"wrk-mixed-{number}"), hits, misses=misses, every=EVERY)
        for number, misses in enumerate(_supply(world, "rate", _RATE * setting.seconds))
    ]

    def mixed(server: Service | Peer) -> Callable[[], Load]:
        turns = iter(mixes)  # everybody gets the same
        return lambda: next(turns)(server.port, server.running)

    contestants: dict[str, Callable[[], Load]] = {}
    for name, server in servers.items():
        contestants[name] = mixed(server)
        contestants[_alone(name)] = partial(alone, server.port, server.running)
    rounds = contest(contestants, setting.rounds, warm=[_alone(name) for name in servers])
    workload = f"{_WORKLOAD}, {WAITING} connections"
    least = {NGINX: 1.0, BEFORE: 2.5}
    rows = []
    for name in servers:
        own = ratio(rounds, name, _alone(name))
        beside = Figure(own, "× hits alone", least=0.6)
        note = ""
        if name != OURS:
            beside, note = Figure(ratio(rounds, OURS, name), f"× {name}", least=least[name]), f"{own:.2f} × hits alone"
        rows += [row(workload, name, rounds[name], beside, note), row(workload, _alone(name), rounds[_alone(name)])]
    return rows


def saturated(world: World) -> list[Row]:
    """The hits' own p99, as many requests as are answered."""
    return _latencies(world, "saturated", 0, _OWN_RATE, 2.0)


def steady(world: World) -> list[Row]:
    """The same at a steady rate."""
    return _latencies(world, f"{STEADY:,} requests/s", STEADY, 2 * STEADY // EVERY, 1.5)


def _latencies(world: World, how: str, steady_rate: float, per_second: int, most: float) -> list[Row]:
    setting = world.setting
    servers, hits = world.beside(), [lookup(made.fingerprint) for made in world.thousand]
    supply = _supply(world, how.split()[0], per_second * setting.seconds)
    seen: dict[str, list[Seen]] = {name: [] for name in servers}

    def one(name: str, with_misses: bool) -> Load:
        server = servers[name]
        misses = supply[len(seen[name])] if with_misses else []
        before = server.running.cpu()
        wanted = Wanted(server.port, setting.seconds, BUSY, hits, misses, EVERY if with_misses else 0, rate=steady_rate)
        found = Client(wanted, setting.cpus.load).result()
        time.sleep(0.1)  # let the searches end that nobody waits for any more
        if with_misses:
            seen[name].append(found)
        return found.load(server.running.cpu() - before)

    contestants: dict[str, Callable[[], Load]] = {}
    for name in servers:
        contestants[name] = partial(one, name, True)
        contestants[_alone(name)] = partial(one, name, False)
    rounds = contest(contestants, setting.rounds, warm=[_alone(name) for name in servers])
    return _compared(f"{_WORKLOAD}, {BUSY} connections, {how}: p99 of the hits", rounds, seen, most)


def _compared(
    workload: str, rounds: Mapping[str, Sequence[Load]], seen: Mapping[str, Sequence[Seen]], most: float
) -> list[Row]:
    rows = []
    for name, found in seen.items():
        own = p99_ratio(rounds, name, _alone(name))
        note = f"misses: p50 {median(s.miss_p50 for s in found):.0f}, p99 {median(s.miss_p99 for s in found):.0f} ms"
        figure = Figure(own, "× hits alone", most=most)
        if name != OURS:
            figure = Figure(p99_ratio(rounds, OURS, name), f"× {name}'s", most=1.0)
            note = f"{own:.2f} × hits alone; {note}"
        rows += [row(workload, name, rounds[name], figure, note), row(workload, _alone(name), rounds[_alone(name)])]
    return rows


def _supply(world: World, prefix: str, each: int) -> list[list[str]]:
    """Misses for each round."""
    paths = [lookup(made.fingerprint) for made in world.misses(each * world.setting.rounds, f"among-{prefix}-")]
    return [paths[start : start + each] for start in range(0, len(paths), each)]


def _alone(name: str) -> str:
    return f"{name}: hits alone"
