"""Verdicts: from memory by socketmap beside hits on HKP, and of very many recipients by the API."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from statistics import median

from bench.certificates import Made, many
from bench.client import Client as HttpClient
from bench.client import Wanted as HttpWanted
from bench.figures import OURS, Figure, Load, Row, contest, cpu_ratio, ratio, row
from bench.service import UPSTREAM, Service, fill, lookup
from bench.socketmap_client import Client, Wanted
from bench.upstream import Scripted
from bench.world import World
from keyserver.wire.socketmap import netstring
from support import openpgp

ADDRESSES = 1000
YES = "smtp:[gateway.example]:10025"
POLICY = f'[[verdict.policy]]\nname = "encrypt"\nyes = "{YES}"\n'
HITS = f"{OURS}: HKP"

DELAY = 0.2  # seconds that the upstreams of many recipients take
OTHER = "other"  # the second of them
DOMAINS = ("east.example", "west.example")
AT_ONCE = 50  # recipients that are looked up at the same time
KNOWN = 0.9  # the share of them that is cached


def mapped(world: World) -> list[Row]:
    """One kept connection each, one question at a time: verdicts on known addresses, and their certificates on HKP."""
    setting, folder = world.setting, world.setting.place("verdicts")
    made = many("verdict-", ADDRESSES)
    addresses = [one.addresses[0] for one in made]
    fill(folder, made, found=addresses)
    with ExitStack() as stack:
        settings = {"verdict.socketmap_listen": '"127.0.0.1:0"', **setting.settings}
        service = Service(stack, folder, world.upstream.url, setting.cpus.server, settings, keys=POLICY)
        paths = [lookup(address) for address in addresses]
        wanted = Wanted(service.port_of("socketmap") or 0, setting.seconds, "encrypt", addresses, f"OK {YES}")
        _warm(service, wanted, paths)

        def by_map() -> Load:
            before = service.running.cpu()
            load = Client(wanted, setting.cpus.load).result()
            return replace(load, cpu=service.running.cpu() - before)

        def by_hkp() -> Load:
            before = service.running.cpu()
            seen = HttpClient(HttpWanted(service.port, setting.seconds, 1, paths), setting.cpus.load).result()
            return seen.load(service.running.cpu() - before)

        contestants = {OURS: by_map, HITS: by_hkp}
        rounds = contest(contestants, setting.rounds, warm=contestants)
    workload = f"{ADDRESSES:,} addresses, one kept connection, one question at a time"
    figure = Figure(ratio(rounds, OURS, HITS), "× hot hits on HKP", least=0.5)
    note = f"{cpu_ratio(rounds, OURS, HITS):.2f} × their CPU"
    return [
        row(f"verdicts by socketmap: {workload}", OURS, rounds[OURS], figure, note),
        row(f"hot hits on HKP: {workload}", HITS, rounds[HITS]),
    ]


def _warm(service: Service, wanted: Wanted, paths: Sequence[str]) -> None:
    """Ask both for each once, so that memory knows the answers."""
    service.warm(paths)
    with socket.create_connection(("127.0.0.1", wanted.port), 30) as connection:
        for address in wanted.addresses:
            connection.sendall(netstring(f"{wanted.policy} {address}".encode()))
            reply = connection.recv(1 << 16)
            if reply != netstring(wanted.expected.encode()):
                raise RuntimeError(f"{address}: {reply!r}")


def recipients(world: World) -> list[Row]:
    """Very many recipients in one question to the API, the most of them cached; the upstreams are slow.

    There are two, each for a domain: one alone is never asked so many questions at the same time."""
    setting = world.setting
    count = setting.scaled(2_000, 10_000)
    made = [_recipient(f"recipient{number}@{DOMAINS[number % 2]}") for number in range(count)]
    known = made[: int(count * KNOWN)]
    upstreams = [Scripted(world.stack, setting.folder / name, DELAY, setting.cpus.load) for name in DOMAINS]
    for one in made[len(known) :]:
        for upstream in upstreams:
            upstream.put(one.addresses[0], one.octets)
    # Strangers stand among the known as they would in a list.
    addresses = [one.addresses[0] for number in range(10) for one in made[number::10]]
    folder = setting.place("recipients")
    for number, name in enumerate((UPSTREAM, OTHER)):
        half = known[number::2]
        fill(folder, half, found=[one.addresses[0] for one in half], origin=name)
    rounds = contest({OURS: partial(_asked_once, world, upstreams, addresses)}, setting.rounds)
    ideal = (count - len(known)) * DELAY / AT_ONCE
    figure = Figure(median(load.seconds for load in rounds[OURS]) / ideal, "× the ideal", most=1.3)
    workload = f"{count:,} recipients by the API, {KNOWN:.0%} cached, upstreams of {DELAY * 1000:.0f} ms"
    return [row(workload, OURS, rounds[OURS], figure, f"{AT_ONCE} at once; ideal: {ideal:.1f} s")]


def _recipient(address: str) -> Made:
    made = openpgp.make([f"Bench <{address}>"], seed=address, hash_name="sha256", old=False)
    return Made(made.octets, made.fingerprint, (f"Bench <{address}>",))


def _asked_once(world: World, upstreams: Sequence[Scripted], addresses: Sequence[str]) -> Load:
    """A service that has just begun with what is known, and one question to it."""
    setting = world.setting
    first, second = (f'domains = ["{domain}"]\n' for domain in DOMAINS)
    keys = f'{first}[[upstream]]\nname = "{OTHER}"\nurl = "{upstreams[1].url}"\ntimeout = "5s"\n{second}'
    with ExitStack() as stack:
        folder = setting.place(f"recipients/{time.monotonic_ns()}")
        for file in (setting.folder / "recipients").glob("keyserver.db*"):
            (folder / file.name).write_bytes(file.read_bytes())
        # On any processor: there is nobody beside it.
        service = Service(stack, folder, upstreams[0].url, frozenset(), setting.settings, keys=keys)
        headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
        connection = HTTPConnection("127.0.0.1", service.admin_port, timeout=600)
        before, began = service.running.cpu(), time.perf_counter()
        connection.request("POST", "/api/v1/can-encrypt", json.dumps(addresses), headers)
        reply = connection.getresponse()
        octets = reply.read()
        seconds, cpu = time.perf_counter() - began, service.running.cpu() - before
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"can-encrypt: {reply.status} {octets[:200]!r}")
    words = Counter(one["verdict"] for one in json.loads(octets)["verdicts"])
    return Load(words.total(), seconds, 0.0, 0.0, cpu, words.total() - words["yes"])
