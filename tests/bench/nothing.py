"""Very many addresses whose domains have nothing, with every kind of upstream but VKS."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench.figures import OURS, Figure, Row
from bench.nameserver import Denying
from bench.service import Service, lookup
from bench.view import View
from bench.world import World
from support.processes import family

NAMES = ("127.0.0.3", 53)  # where the name server listens, at the only port that the C library asks
AT_ONCE = 32
WARMING = 200  # addresses whose questions load every library before memory is looked at
MB = 1_000_000

TEMPLATES = {
    "wkd": "wkd:",
    "dane": "dane:",
    "hkps": "hkps://keys.{domain}",
    "ldap": "ldap://keys.{domain}",
    "ldaps": "ldaps://keys.{domain}",
}
"""Upstreams of each domain's own, by the names that they get."""


def addresses(world: World) -> list[Row]:
    """Each address for OpenPGP and for S/MIME, twice; the second time nobody is asked."""
    setting = world.setting
    count = setting.scaled(500, 10_000)
    folder = setting.place("nothing")
    view = View(folder, resolver=NAMES[0])
    names = Denying(world.stack, folder, NAMES, setting.cpus.load)
    origin = world.upstream.port
    service = Service(
        world.stack,
        folder,
        f"hkp://127.0.0.1:{origin}",
        setting.cpus.server,
        {"limits.trusted": '["127.0.0.0/8"]', **setting.settings},
        keys=_upstreams(origin),
        inside=view.command,
    )
    _ask(service.port, [f"warm{n}@warm{n}-bench.de" for n in range(WARMING)])
    asked = [f"somebody{n}@nothing{n}-bench.de" for n in range(count)]
    before = service.running.memory()
    with _Watch(service.running.pid) as watch:
        first = _ask(service.port, asked)
    between = names.questions()
    second = _ask(service.port, asked)
    again = names.questions() - between
    grown = (service.running.memory() - before) / MB
    workload = f"{count:,} addresses of as many domains that have nothing"
    who = f"{OURS}, all upstream kinds but vks"
    note = f"{between:,} DNS questions; {_shown(first)}; {watch.threads} threads at most"
    return [
        Row(f"{workload}: growth of memory", who, Figure(grown, "MB", most=30), note=note),
        Row(f"{workload}: open sockets", who, Figure(watch.sockets, "at a time", most=500)),
        Row(f"{workload}: once more", who, Figure(again, "DNS questions", most=0), note=_shown(second)),
    ]


def _upstreams(origin: int) -> str:
    """Further tables of the configuration."""
    every = {"store": f"certs+http://127.0.0.1:{origin}/certificates/search.cgi", **TEMPLATES}
    tables = [f'[[upstream]]\nname = "{name}"\nurl = "{url}"\n' for name, url in every.items()]
    return "".join(table + (f'resolver = "{NAMES[0]}"\n' if 'url = "dane:"' in table else "") for table in tables)


@dataclass
class _Round:
    statuses: Counter[int]
    seconds: float


def _shown(asked: _Round) -> str:
    counts = ", ".join(f"{number:,} × {status}" for status, number in sorted(asked.statuses.items()))
    return f"{counts} in {asked.seconds:.1f} s"


def _ask(port: int, addresses: Sequence[str]) -> _Round:
    """Each address by HKP and by RFC 4387, some at once."""
    paths = [path for a in addresses for path in (lookup(a), f"/certificates/search.cgi?email={a}")]
    began = time.perf_counter()

    def share(number: int) -> Counter[int]:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        statuses: Counter[int] = Counter()
        for path in paths[number::AT_ONCE]:
            connection.request("GET", path)
            reply = connection.getresponse()
            reply.read()
            statuses[reply.status] += 1
        connection.close()
        return statuses

    with ThreadPoolExecutor(AT_ONCE) as threads:
        statuses: Counter[int] = sum(threads.map(share, range(AT_ONCE)), Counter())
    return _Round(statuses, time.perf_counter() - began)


class _Watch:
    """The most sockets and threads that a process and its children had at a time, looked at twenty times a second."""

    def __init__(self, pid: int) -> None:
        self.sockets = self.threads = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            pids = list(family(self._pid))
            self.sockets = max(self.sockets, sum(_sockets(pid) for pid in pids))
            self.threads = max(self.threads, sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids))


def _sockets(pid: int) -> int:
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except OSError:  # closed meanwhile
            continue
    return found
