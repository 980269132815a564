"""How many nodes and how much of a database so many certificates and requests need: a model, not a measurement.

`scripts/simulate` prints what each part would have to do, and which is full first. Requests go to certificates by
Zipf's law and to nodes by turns; each node keeps answers in memory, and the one not asked for longest leaves (Che's
approximation of that, https://doi.org/10.1109/JSAC.2002.801752); what is in no memory is looked up in the database;
what has expired since the last search is searched upstream, answered and stored. What one of each costs was measured
(`Costs`); everything else follows.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

BINS = 400  # of ranks: each of about the same ratio, so that few stand for millions
MEMORY_PER_ANSWER = 6560  # octets of a hot answer of 5 KiB (README, "Benchmarks")
FULL = 0.7  # of a processor: above, waiting grows faster than work


@dataclass(frozen=True, slots=True)
class Costs:
    """Measured; seconds of one processor, or octets."""

    hot: float = 17e-6  # of a node, a hot answer (cluster-hits)
    cold: float = 2.8e-3  # of a node, a hit from the database: read, judged and rendered (cluster-known)
    miss: float = 6.5e-3  # of a node, a search: proved and stored (cluster-miss-cpu)
    look: float = 0.2e-3  # of PostgreSQL (facts: 0.11 to 0.30 ms)
    put: float = 1.0e-3  # of PostgreSQL, at most (facts: 2,099/s on two processors that the writers share)
    purge: float = 0.1e-3  # of PostgreSQL, an entry (facts: 101 us)
    poll: float = 0.1e-3  # of PostgreSQL (facts: 91 us of wall time)
    room: float = 7300  # octets of disk for a certificate of 5 KiB with its names (facts: 7.3 GB a million)
    narrow: float = 1644  # of these without the certificates' own octets: what should stay in memory (facts)
    connections: int = 13  # of a node (keyserver.store.postgres.connections)
    polls: float = 2.0  # a second (keyserver.resolver.upkeep)


COSTS = Costs()


@dataclass(frozen=True)
class World:
    """What is asked of the cluster, and what it is made of."""

    certificates: int = 10_000_000
    rate: float = 2000.0  # requests per second, of all nodes
    zipf: float = 0.9  # exponent: how much the requests go to the same ones
    ttl: float = 86_400.0  # seconds
    nodes: int = 4
    memory: float = 256 * 2**20  # octets of `cache.memory` of each node
    database_cores: int = 8
    workers: int = 0  # of each node (`server.workers`): they give what is in memory, one core does the rest
    max_connections: int = 100  # PostgreSQL's default, of which 3 are kept for superusers
    cdn: float = 0.0  # seconds for which a cache before it keeps each answer
    costs: Costs = COSTS

    @cached_property
    def ranks(self) -> Sequence[tuple[float, float]]:
        """(how many certificates, share of the requests of each) by bins of ranks."""
        bins = list(_bins(self.certificates))
        weights = [(first * (first + count - 1)) ** (-self.zipf / 2) for first, count in bins]
        total = math.fsum(weight * count for weight, (_, count) in zip(weights, bins, strict=True))
        return [(count, weight / total) for weight, (_, count) in zip(weights, bins, strict=True)]

    @cached_property
    def reaching(self) -> Sequence[tuple[float, float]]:
        """(how many certificates, requests per second of each that come through a cache before the nodes)."""
        return [(count, _behind(self.rate * share, self.cdn)) for count, share in self.ranks]

    @cached_property
    def requests(self) -> float:
        """Requests per second that reach the nodes."""
        return math.fsum(count * rate for count, rate in self.reaching)

    @cached_property
    def misses(self) -> float:
        """Searches per second: one for each ttl in which a certificate is asked for."""
        return math.fsum(count * _behind(rate, self.ttl) for count, rate in self.reaching)

    @cached_property
    def cached(self) -> float:
        """Certificates whose time is not over."""
        return math.fsum(count * _behind(rate, self.ttl) * self.ttl for count, rate in self.reaching)

    @cached_property
    def hot(self) -> float:
        """Requests per second answered from memory."""
        slots = self.memory / MEMORY_PER_ANSWER
        each = [(count, rate / self.nodes) for count, rate in self.reaching]
        span = self._span(each, slots)
        return self.nodes * math.fsum(count * rate * -math.expm1(-rate * span) for count, rate in each)

    def _span(self, each: Sequence[tuple[float, float]], slots: float) -> float:
        """Seconds for which an answer stays in a node's memory when nobody asks for it: Che's characteristic time, and
        never longer than the ttl."""
        low, high = 0.0, self.ttl
        if math.fsum(count * -math.expm1(-rate * high) for count, rate in each) <= slots:
            return high
        for _ in range(60):
            middle = (low + high) / 2
            taken = math.fsum(count * -math.expm1(-rate * middle) for count, rate in each)
            low, high = (middle, high) if taken < slots else (low, middle)
        return low

    @property
    def looks(self) -> float:
        """Looks per second into the database: whatever memory does not answer."""
        return max(self.requests - self.hot, self.misses)

    @property
    def core_load(self) -> float:
        """Processors that a node's core is busy with: one process, which has one at most."""
        cold = self.looks - self.misses
        work = cold * self.costs.cold + self.misses * self.costs.miss
        return (work + (0.0 if self.workers else self.hot * self.costs.hot)) / self.nodes

    @property
    def worker_load(self) -> float:
        """Processors that each of a node's workers is busy with."""
        return self.hot * self.costs.hot / self.nodes / self.workers if self.workers else 0.0

    @property
    def database_load(self) -> float:
        """Processors that PostgreSQL is busy with. What is stored is purged, in the long run."""
        stored = self.misses * (self.costs.put + self.costs.purge)
        return self.looks * self.costs.look + stored + self.nodes * self.costs.polls * self.costs.poll

    @property
    def parts(self) -> dict[str, float]:
        """How full each is, 1 where it is: by name."""
        return {
            "processor of a node's core": self.core_load / FULL,
            "processor of a worker": self.worker_load / FULL,
            "processors of PostgreSQL": self.database_load / (FULL * self.database_cores),
            "connections of PostgreSQL": self.nodes * self.costs.connections / (self.max_connections - 3),
        }

    def at_most(self) -> tuple[float, str]:
        """Requests per second at which the first part is full, and which that is."""
        low, high = 0.0, 1e7
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if max(replace(self, rate=middle).parts.values()) > 1 else (middle, high)
        parts = replace(self, rate=high).parts
        return low, max(parts, key=parts.__getitem__)


def _bins(count: int) -> Iterator[tuple[int, int]]:
    """(first rank, how many) from 1 on."""
    first, ratio = 1, count ** (1 / BINS)
    while first <= count:
        ends = min(count, max(first, int(first * ratio)))
        yield first, ends - first + 1
        first = ends + 1


def _behind(rate: float, seconds: float) -> float:
    """Requests per second that come through something that answers by itself for so long after each."""
    return rate / (1 + rate * seconds)


def report(world: World) -> str:
    """For people."""
    costs, most = world.costs, world.at_most()
    lines = [
        f"{world.certificates:,} certificates of 5 KiB, {world.rate:,.0f} requests/s (Zipf {world.zipf}), ttl"
        f" {world.ttl / 3600:g} h, {world.nodes} nodes with {world.memory / 2**20:,.0f} MiB of answers each"
        + (f", {world.cdn:g} s in a cache before them" if world.cdn else ""),
        "",
        f"reach the nodes      {world.requests:12,.1f} /s",
        f"answered from memory {world.hot:12,.1f} /s  {100 * world.hot / world.requests:5.1f} %",
        f"looks in PostgreSQL  {world.looks:12,.1f} /s  {100 * world.looks / world.requests:5.1f} %",
        f"searched upstream    {world.misses:12,.1f} /s  {100 * world.misses / world.requests:5.1f} %",
        f"cached at a time     {world.cached:12,.0f}     {world.cached * costs.room / 1e9:5.1f} GB of disk",
        f"  without octets     {world.cached * costs.narrow / 1e9:12,.1f} GB, which should fit into memory",
        f"each node            {world.core_load + world.workers * world.worker_load:12.2f} processors",
        f"PostgreSQL           {world.database_load:12.2f} of {world.database_cores} processors,"
        f" {world.nodes * costs.connections} of {world.max_connections - 3} connections",
        "",
        *(f"{name:26} {100 * share:6.0f} % full" for name, share in world.parts.items()),
        f"first full at about {most[0]:,.0f} requests/s: {most[1]}",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; every number of `World` and `Costs` can be set."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__.split("\n", 1)[0])
    for of in (World, Costs):
        for one in fields(of):
            if one.name != "costs":
                parser.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    given = vars(parser.parse_args(arguments))
    costs = Costs(**{one.name: given.pop(one.name) for one in fields(Costs)})
    print(report(World(**given, costs=costs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
