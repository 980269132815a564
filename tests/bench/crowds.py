"""Many connections, and what memory an answer takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.certificates import many
from bench.figures import OURS, Figure, Load, Row, contest, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.service import Service, fill, lookup
from bench.world import KEY, World

IDLE = 256
CROWD = 10_000
MB = 1_000_000


def idle(world: World) -> list[Row]:
    """256 idle connections beside 32 busy ones."""
    setting, service = world.setting, world.service
    path = lookup(world.one.fingerprint)
    service.warm([path])
    load = Wrk(setting.place("wrk-idle"), [path], connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    busy = partial(load, service.port, service.running)

    def beside() -> Load:
        with _open(service.port, path, IDLE):
            return busy()

    rounds = contest({"alone": busy, "crowd": beside}, setting.rounds)
    figure = Figure(ratio(rounds, "crowd", "alone"), f"× {BUSY} alone", least=0.8)
    workload = f"{IDLE} idle + {BUSY} busy connections"
    return [row(workload, OURS, rounds["crowd"], figure), row(workload, f"{OURS}: {BUSY} alone", rounds["alone"])]


def crowd(world: World) -> list[Row]:
    """Memory with 10,000 open connections, each of which has been served."""
    service = world.service
    path = lookup(world.one.fingerprint)
    service.warm([path])
    with _open(service.port, path, CROWD) as opened:
        memory = service.running.memory()
    figure = Figure(memory / MB, "MB", most=300)
    note = "" if opened == CROWD else f"only {opened:,} could be opened: raise the limit of open files"
    return [Row(f"{opened:,} open connections: memory of all processes", OURS, figure, note=note)]


def per_answer(world: World) -> list[Row]:
    """How much memory grows with each hot answer of 5 KiB."""
    setting = world.setting
    first, rest = 800, setting.scaled(1500, 20_000)
    folder = setting.place("memory")
    certificates = many("in-memory-", first + rest, KEY)
    fill(folder, certificates)
    paths = [lookup(made.fingerprint) for made in certificates]
    with ExitStack() as stack:  # the first answers also fill SQLite's page cache, which is not theirs
        service = Service(stack, folder, world.upstream.url, setting.cpus.server, setting.settings)
        service.warm(paths[:first])
        before = service.running.memory()
        service.warm(paths[first:])
        grown = service.running.memory() - before
    size = sum(len(made.octets) for made in certificates[:1])
    note = f"over {rest:,} answers, each with all names of its certificate ({size:,} octets unarmored)"
    return [Row("memory of a hot answer of 5 KiB", OURS, Figure(grown / rest / 1000, "KB", most=6.5), note=note)]


@contextmanager
def _open(port: int, path: str, count: int) -> Iterator[int]:
    """So many connections that have been answered once and are kept; as many as can be."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    sockets: list[socket.socket] = []
    try:
        for number in range(count):
            try:
                sockets.append(socket.create_connection(("127.0.0.1", port), 10, (f"127.0.0.{2 + number % 8}", 0)))
            except OSError:
                break
            _ask(sockets[-1], request)
        yield len(sockets)
    finally:
        for opened in sockets:
            opened.close()


def _ask(opened: socket.socket, request: bytes) -> None:
    opened.sendall(request)
    got = b""
    while b"-----END" not in got:
        more = opened.recv(65536)
        if not more:
            raise RuntimeError("the service closed a connection that should be kept")
        got += more
