"""LDAP searches beside slapd with pcache, hits on HKP while LDAP clients search, and hostile LDAP."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from types import MappingProxyType

from bench import hostile_ldap
from bench.client import Client as HttpClient
from bench.client import Wanted as HttpWanted
from bench.constant import CONSTANT, constant
from bench.directories import PCACHE, SLAPD, directories
from bench.figures import OURS, Figure, Load, Row, compared, contest, cpu_ratio, ratio, row
from bench.hits import BUSY
from bench.ldap_client import Client, Wanted, ends, search
from bench.load import Wrk
from bench.machine import Missing
from bench.peers import Peer
from bench.processes import DidNotStart, Running
from bench.service import lookup
from bench.world import World

AT_ONCE = 8  # connections, each for one search or sequence
CLIENTS = 200
_PASSES = 3  # until a reply is known by its octets: where there are fronts, the core knows it before they do
PAUSE = 0.05  # seconds between the searches of a paced client
PACED, HASTY = "20 times a second each", "without pause"
MB = 1_000_000


class _NoFace(RuntimeError):
    """The service has no LDAP listener."""


def known(world: World) -> list[Row]:
    """Kept connections, a search that is known by its octets."""
    wanted = Wanted(0, world.setting.seconds, BUSY, _fingerprints(world))
    bare = constant(world.stack, world.setting.place("constant"), _reply(world), world.setting.cpus.server)
    rounds = _against(world, wanted, {CONSTANT: bare})
    workload = f"LDAP: 1,000 keys, {BUSY} kept connections, known by their octets"
    rows = compared(workload, rounds, {PCACHE: 3.0}) + _slower(workload, rounds)
    cpu = Figure(cpu_ratio(rounds, OURS, CONSTANT), f"× {CONSTANT}'s", most=1.6)
    return [*rows, Row(workload, f"{OURS}: CPU", cpu)]


def parsed(world: World) -> list[Row]:
    """The same, each search with octets of its own."""
    rounds = _against(world, Wanted(0, world.setting.seconds, BUSY, _fingerprints(world), spelled=True))
    return compared(f"LDAP: 1,000 keys, {BUSY} kept connections, parsed", rounds, {PCACHE: 1.5})


def connections(world: World) -> list[Row]:
    """A connection per search."""
    rounds = _against(world, Wanted(0, world.setting.seconds, AT_ONCE, _fingerprints(world), kept=False))
    return compared(f"LDAP: a connection per search, {AT_ONCE} at once", rounds, {PCACHE: 1.5})


def sequence(world: World) -> list[Row]:
    """gpg's three searches on a connection."""
    wanted = Wanted(0, world.setting.seconds, AT_ONCE, _fingerprints(world), kept=False, sequence=True)
    return compared(f"LDAP: gpg's three searches, {AT_ONCE} at once", _against(world, wanted), {PCACHE: 1.5})


def beside(world: World) -> list[Row]:
    """Hits on HKP alone, and while 200 LDAP clients search: each some times a second, or as fast as it is answered."""
    setting, service = world.setting, world.service
    path, fingerprints = lookup(world.one.fingerprint), _fingerprints(world)
    service.warm([path])
    _warm(_port(world), fingerprints)
    load = Wrk(setting.place("wrk-beside"), [path], connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    searched: dict[str, list[float]] = {PACED: [], HASTY: []}

    def busy(how: str) -> Load:
        pause = PAUSE if how == PACED else 0.0
        wanted = Wanted(_port(world), setting.seconds + 1, CLIENTS, fingerprints, pause=pause)
        client = Client(wanted, setting.cpus.load)
        time.sleep(0.5)  # until all have connected
        seen = load(service.port, service.running)
        searched[how].append(client.result().rate)
        return seen

    alone = partial(load, service.port, service.running)
    rounds = contest({"alone": alone, PACED: partial(busy, PACED), HASTY: partial(busy, HASTY)}, setting.rounds)
    rows = []
    for how in (PACED, HASTY):
        slower = median(b.p99 / a.p99 for a, b in zip(rounds["alone"], rounds[how], strict=True))
        workload = f"hits on HKP while {CLIENTS} LDAP clients search {how}"
        note = f"beside {median(searched[how]):,.0f} searches a second, whose client shares wrk's processor"
        rows.append(row(workload, OURS, rounds[how], Figure(ratio(rounds, how, "alone"), "× alone", least=0.4), note))
        rows.append(Row(workload, f"{OURS}: p99", Figure(slower, "× alone", most=3.0)))
    rows.append(row(rows[-1].workload, f"{OURS}: alone", rounds["alone"]))
    return rows


def hostile(world: World) -> list[Row]:
    """Hostile messages: processor time of each, how long a hit on HKP waits beside floods of them, memory after all."""
    setting, service = world.setting, world.service
    port, path = _port(world), lookup(world.one.fingerprint)
    service.warm([path])
    costly, longest, most = (0.0, ""), (0.0, ""), 0
    for name, octets in hostile_ldap.messages().items():
        costs = []
        for _ in range(3):
            before = service.running.cpu()
            _send(port, octets)
            costs.append(1000 * (service.running.cpu() - before))
        costly = max(costly, (min(costs), name))
        most = max(most, service.running.memory())
    for name, octets in hostile_ldap.floods().items():
        client = HttpClient(
            HttpWanted(service.port, setting.scaled(7, 15) / 10, 1, [path], pause=0.001), setting.cpus.load
        )
        for _ in range(3):
            _send(port, octets)
        waited = client.result().hit_worst
        longest = max(longest, (waited, name))
        most = max(most, service.running.memory())
        setting.tell(f"hostile LDAP: {name}: a hit waited {waited:.0f} ms at most")
    return [
        Row(
            f"hostile LDAP messages: processor time of the worst of {len(hostile_ldap.messages())}",
            OURS,
            Figure(costly[0], "ms", most=50),
            note=f"{costly[1]}; more than the loop's time: threads and the look beside it are in it",
        ),
        Row(
            "floods of LDAP messages on one connection: longest wait of a hit on HKP",
            OURS,
            Figure(longest[0], "ms"),
            note=longest[1],
        ),
        Row("hostile LDAP: memory of all processes", OURS, Figure(most / MB, "MB", most=200)),
    ]


def _against(world: World, wanted: Wanted, more: Mapping[str, Peer] = MappingProxyType({})) -> dict[str, list[Load]]:
    """Us, both slapds and `more`, everything asked for once before, in interleaved rounds."""
    contestants = {OURS: (_port(world), world.service.running)}
    others = {**_directories(world), **more}
    contestants |= {name: (peer.port, peer.running) for name, peer in others.items()}

    def one(port: int, running: Running, seconds: float) -> Load:
        given = Wanted(
            port, seconds, wanted.connections, wanted.fingerprints, wanted.kept, wanted.spelled, wanted.sequence
        )
        before = running.cpu()
        load = Client(given, world.setting.cpus.load).result()
        return Load(load.requests, load.seconds, load.p50, load.p99, running.cpu() - before, load.errors)

    for port, _ in contestants.values():
        for _ in range(_PASSES):
            _warm(port, wanted.fingerprints)
    loads = {
        name: partial(one, port, running, wanted.seconds * (0.7 if world.setting.quick else 1))
        for name, (port, running) in contestants.items()
    }
    return contest(loads, world.setting.rounds, warm=loads)


def _slower(workload: str, rounds: dict[str, list[Load]]) -> list[Row]:
    """Our p99 beside pcache's."""
    if PCACHE not in rounds:
        return []
    slower = median(a.p99 / b.p99 for a, b in zip(rounds[OURS], rounds[PCACHE], strict=True))
    return [Row(workload, f"{OURS}: p99", Figure(slower, f"× {PCACHE}", most=1.0))]


def _directories(world: World) -> dict[str, Peer]:
    """slapd with the thousand keys, and its cache; started at the first call."""
    if SLAPD not in world.started:
        keys = {made.fingerprint: (made, world.service.get(lookup(made.fingerprint))[1]) for made in world.thousand}
        try:
            world.started |= directories(world.stack, world.setting.place("slapd"), keys, world.setting.cpus.server)
        except (Missing, DidNotStart, subprocess.SubprocessError) as problem:
            world.setting.tell(f"slapd: {problem}; its rows are left out")
            return {}
    return {name: world.started[name] for name in (PCACHE, SLAPD)}


def _fingerprints(world: World) -> list[str]:
    return [made.fingerprint for made in world.thousand]


def _port(world: World) -> int:
    if world.service.ldap_port is None:
        raise _NoFace("the service opened no LDAP listener")
    return world.service.ldap_port


def _warm(port: int, fingerprints: Sequence[str]) -> None:
    """Ask for each once, so that it is in memory. Raises RuntimeError when one is not found."""
    with socket.create_connection(("127.0.0.1", port), 30) as opened:
        for fingerprint in fingerprints:
            if b"BEGIN PGP" not in _ask(opened, fingerprint):
                raise RuntimeError(f"LDAP on port {port} does not know {fingerprint}")


def _reply(world: World) -> bytes:
    """What the service answers to the search for one of the thousand."""
    with socket.create_connection(("127.0.0.1", _port(world)), 30) as opened:
        return _ask(opened, world.thousand[0].fingerprint)


def _ask(opened: socket.socket, fingerprint: str) -> bytes:
    opened.sendall(search(fingerprint))
    got = b""
    while ends(got) is None:
        more = opened.recv(1 << 16)
        if not more:
            raise RuntimeError(f"the connection was closed while {fingerprint} was awaited")
        got += more
    return got


def _send(port: int, octets: bytes) -> None:
    """Send, read what comes for a moment, close."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as opened:
        opened.settimeout(0.1)
        opened.sendall(octets)
        while opened.recv(1 << 16):
            pass
