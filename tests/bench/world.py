"""What the HTTP measurements share: certificates, the filled service, its upstream, and the peers, each made once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property

from bench import peers
from bench.certificates import Made, make, many
from bench.client import ask_each
from bench.figures import BEFORE, OURS
from bench.machine import Missing
from bench.peers import Peer
from bench.processes import DidNotStart
from bench.service import Service, fill, lookup
from bench.setting import Setting
from bench.upstream import Scripted
from support.postgres import Cluster

DELAY = 0.02  # seconds that the upstream takes
KEY = 5145  # octets of the one key's answer
KEYS = 8192  # the same of the thousand
NEGATIVES = 10_000


class World:
    """Everything is started when it is first asked for, and ended with `stack`."""

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        self.setting = setting
        self.stack = stack
        self.started: dict[str, Peer] = {}
        """Further peers that a measurement started for itself and those after it."""

    @cached_property
    def one(self) -> Made:
        """The key of about 5 KiB."""
        return make("one", KEY)

    @cached_property
    def thousand(self) -> list[Made]:
        """A thousand of about 8 KiB."""
        return many("of-a-thousand-", 1000, KEYS)

    @cached_property
    def absent(self) -> list[str]:
        """Addresses that the upstream said it does not know."""
        return [f"nobody{number}@absent.example" for number in range(NEGATIVES)]

    @cached_property
    def upstream(self) -> Scripted:
        """The service's upstream, with its delay."""
        return Scripted(self.stack, self.setting.folder / "upstream", DELAY, self.setting.cpus.load)

    @cached_property
    def postgres(self) -> Cluster:
        """A PostgreSQL whose commits reach the disk as on a real server."""
        return self.stack.enter_context(Cluster(durable=True, settings={"shared_buffers": "512MB"}))

    @cached_property
    def service(self) -> Service:
        """The service, which knows all of the above; its memory is not warm yet."""
        folder = self.setting.place("service")
        self.setting.tell("filling the service's database")
        fill(folder, [self.one, *self.thousand], self.absent)
        return Service(self.stack, folder, self.upstream.url, self.setting.cpus.server, self.setting.settings)

    @cached_property
    def services(self) -> dict[str, Service]:
        """The service, and the one of the commit before where that is wanted: it begins with nothing, and asks the
        upstream for what the other was filled with."""
        found = {OURS: self.service}
        if self.setting.before:
            place, cpus = self.setting.place("before"), self.setting.cpus.server
            found[BEFORE] = Service(self.stack, place, self.upstream.url, cpus, checkout=self.setting.before)
        return found

    @cached_property
    def mirror(self) -> dict[str, Peer]:
        """nginx as a cache in front of the service's own upstream, by its name; none where it is not installed."""
        place, cpus = self.setting.place("mirror"), self.setting.cpus.server
        try:
            started = peers.nginx(self.stack, place, self.upstream.port, self.body, cpus)
        except (Missing, DidNotStart) as problem:
            self.setting.tell(f"nginx: {problem}; its rows are left out")
            return {}
        return {peers.NGINX: started[peers.NGINX]}

    def beside(self) -> dict[str, Service | Peer]:
        """All that ask the same upstream, by name, each with the thousand keys in memory or cache."""
        for made in self.thousand:
            self.upstream.put(made.fingerprint, self.service.get(lookup(made.fingerprint))[1])
        found: dict[str, Service | Peer] = {**self.services, **self.mirror}
        paths = [lookup(made.fingerprint) for made in self.thousand]
        for one in found.values():
            for _ in range(2):  # the second time it must be a hit
                ask_each(one.port, paths, 16, self.setting.cpus.load)
        return found

    @cached_property
    def body(self) -> bytes:
        """What the service answers to the one key: the body that all servers give."""
        return self.service.get(lookup(self.one.fingerprint))[1]

    @cached_property
    def origin(self) -> Scripted:
        """Where the caches have the same bodies from, without delay."""
        origin = Scripted(self.stack, self.setting.folder / "origin", 0, self.setting.cpus.load)
        origin.put(self.one.fingerprint, self.body)
        for made in self.thousand:
            origin.put(made.fingerprint, self.service.get(lookup(made.fingerprint))[1])
        return origin

    @cached_property
    def peers(self) -> dict[str, Peer]:
        """All peers that are installed, by name; what is missing is told."""
        found: dict[str, Peer] = {}
        cpus, place, stack = self.setting.cpus.server, self.setting.place, self.stack
        starts: dict[str, Callable[[], dict[str, Peer]]] = {
            "nginx": lambda: peers.nginx(stack, place("nginx"), self.origin.port, self.body, cpus),
            "varnish": lambda: {peers.VARNISH: peers.varnish(stack, place("varnish"), self.origin.port, cpus)},
            "sks": lambda: {peers.SKS: peers.sks(stack, place("sks"), [self.one, *self.thousand], cpus)},
        }
        for name, start in starts.items():
            try:
                found |= start()
            except (Missing, DidNotStart, subprocess.SubprocessError) as problem:
                self.setting.tell(f"{name}: {problem}; its rows are left out")
        return found

    def misses(self, count: int, prefix: str) -> list[Made]:
        """New small certificates that only the upstream has."""
        made = many(f"{prefix}-", count)
        for one in made:
            self.upstream.put(one.fingerprint, one.octets)
        return made
