"""Several processes: a front and the core beside one process, two fronts beside nginx with two workers."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from bench import peers
from bench.figures import OURS, Figure, Row, contest, cpu_ratio, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.peers import NGINX, TUNED
from bench.service import Service, fill, lookup
from bench.world import World

_ANYWHERE: frozenset[int] = frozenset()  # two workers on one processor would show nothing: load and servers share all


def one_beside_none(world: World) -> list[Row]:
    """Hits of one front with its core, beside those of one process for all."""
    setting, paths = world.setting, [lookup(world.one.fingerprint)]
    load = Wrk(setting.place("wrk-fronts"), paths, connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    with ExitStack() as stack:
        services = {
            f"{OURS}: workers = {workers}": _service(world, stack, workers, setting.cpus.server) for workers in (1, 0)
        }
        for service in services.values():
            service.warm(paths)
        contestants = {name: partial(load, service.port, service.running) for name, service in services.items()}
        rounds = contest(contestants, setting.rounds, warm=contestants)
    one, none = services
    workload = f"one key, {BUSY} kept connections"
    figure = Figure(ratio(rounds, one, none), "× workers = 0", least=0.97)
    note = f"{cpu_ratio(rounds, one, none):.2f} × its CPU"
    return [row(workload, one, rounds[one], figure, note), row(workload, none, rounds[none])]


def two_kept(world: World) -> list[Row]:
    """CPU per request over kept connections."""
    return _two(world, as_gpg=False)


def two_with_connections(world: World) -> list[Row]:
    """The rate, a connection per request."""
    return _two(world, as_gpg=True)


def _two(world: World, as_gpg: bool) -> list[Row]:
    setting = world.setting
    made = [world.one] if as_gpg else world.thousand
    paths = [lookup(one.fingerprint) for one in made]
    name = f"two-{as_gpg}"
    load = Wrk(
        setting.place(f"wrk-{name}"),
        paths,
        connections=BUSY,
        seconds=setting.seconds,
        cpus=_ANYWHERE,
        as_gpg=as_gpg,
    )
    with ExitStack() as stack:
        service = _service(world, stack, 2, _ANYWHERE)
        place = setting.place(f"nginx-{name}")
        found = peers.nginx(stack, place, world.origin.port, world.body, _ANYWHERE, workers=2)
        others = {other: found[other] for other in (NGINX, TUNED)}
        service.warm(paths)
        for peer in others.values():
            peer.warm(paths)
        contestants = {OURS: partial(load, service.port, service.running)}
        contestants |= {other: partial(load, peer.port, peer.running) for other, peer in others.items()}
        rounds = contest(contestants, setting.rounds, warm=contestants)
    how = "a connection per request, HTTP/1.0 as gpg" if as_gpg else "1,000 keys of 8 KiB, kept connections"
    workload = f"two workers each, unpinned, {BUSY} at once: {how}"
    rows = [row(workload, OURS, rounds[OURS])]
    most = {NGINX: 0.65, TUNED: 0.75}
    for other in others:
        cpu, rate = cpu_ratio(rounds, OURS, other), ratio(rounds, OURS, other)
        if as_gpg:
            figure = Figure(rate, f"× {other}", least=1.0 if other == NGINX else None)
            note = f"we take {cpu:.2f} × its CPU"
        else:
            figure, note = Figure(cpu, f"× {other}'s CPU", most=most[other]), f"we have {rate:.2f} × its rate"
        rows.append(row(workload, other, rounds[other], figure, note))
    return rows


def _service(world: World, stack: ExitStack, workers: int, cpus: frozenset[int]) -> Service:
    """One filled as the other, ended with `stack`."""
    folder = world.setting.place(f"workers-{workers}-{len(list(world.setting.folder.glob('workers-*')))}")
    fill(folder, [world.one, *world.thousand])
    settings = {**world.setting.settings, "server.workers": str(workers)}
    return Service(stack, folder, world.upstream.url, cpus, settings)
