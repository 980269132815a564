"""What a scrape reads from the service's parts, beside what is counted as it happens (`observe`, `mailflow.counts`).

Names go by Prometheus's conventions: base units, `_total` on what only grows. Labels are names from the configuration
and a few fixed words, never what a client or a mail said.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from keyserver import __version__
from keyserver.app.parts import Parts
from keyserver.faces.cache import MemoryLimit
from keyserver.listen.server import ListeningServer
from keyserver.listen.tls import TlsCertificate
from keyserver.processes.fronts import Fronts
from keyserver.processes.register import BY_FACE
from keyserver.store.base import StoreError, StoreStats

CIRCUIT = ("closed", "half-open", "open", "paused")
"""What an upstream's circuit may be."""


@dataclass(frozen=True, slots=True)
class MemoryValue:
    """One fact about the answers that a process keeps, by its metric's name, under which fronts report it, too.
    `grows`: it never gets less while the process lives."""

    name: str
    meaning: str
    read: Callable[[], int]
    grows: bool = False


def memory_values(budget: MemoryLimit) -> tuple[MemoryValue, ...]:
    """What is shown of the answers that a process keeps."""
    return (
        MemoryValue("keyserver_hot_bytes", "Memory of answers kept, all faces together", lambda: budget.octets),
        MemoryValue("keyserver_hot_limit_bytes", "What that may be (cache.memory)", lambda: budget.limit),
        MemoryValue("keyserver_hot_found", "Answers kept", lambda: len(budget.found)),
        MemoryValue("keyserver_hot_absent", "Negative answers kept", lambda: len(budget.absent)),
        MemoryValue("keyserver_hot_evicted", "Answers that left for want of memory", lambda: budget.evicted, True),
        MemoryValue("keyserver_hot_expired", "Answers whose time was over", lambda: budget.expired, True),
        MemoryValue(
            "keyserver_hot_forgotten", "Answers behind which something changed", lambda: budget.forgotten, True
        ),
    )


class ServiceMetrics(Collector):
    """Read at every scrape. servers, certificates, fronts: what listens, by the time of the scrape."""

    def __init__(
        self,
        parts: Parts,
        budget: MemoryLimit,
        servers: list[ListeningServer[Any]],
        certificates: Mapping[str, TlsCertificate],
        fronts: Fronts | None,
    ) -> None:
        self._parts = parts
        self._budget = budget
        self._servers = servers
        self._certificates = certificates
        self._fronts = fronts
        self._stats: StoreStats | None = None
        registry = parts.observer.registry
        registry.register(self)
        ProcessCollector(registry=registry)

    async def exposition(self) -> bytes:
        """Prometheus text."""
        try:
            self._stats = await self._parts.store.stats()
        except StoreError:
            self._stats = None
        return self._parts.observer.exposition()

    def collect(self) -> Iterator[Metric]:
        """Every family, in an order that stays."""
        build = GaugeMetricFamily(
            "keyserver_build_info", "Release that runs, and what runs it", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield from self._memory()
        yield from self._listening()
        yield from self._processes()
        yield from self._upstreams()
        yield from self._store()
        yield from self._cluster()
        yield from self._lists()
        yield GaugeMetricFamily(
            "keyserver_searches_under_way", "Searches under way", value=self._parts.resolver.searches
        )
        yield GaugeMetricFamily(
            "keyserver_mailflow_waiting_mails",
            "Mails received and not yet read",
            value=self._parts.intake.status().waiting,
        )
        yield GaugeMetricFamily(
            "keyserver_clock_jumped",
            "1 while nothing is purged because the clock jumped",
            value=bool(self._parts.upkeep.clockwatch.complaint),
        )

    def _memory(self) -> Iterator[Metric]:
        for value in memory_values(self._budget):
            if value.grows:
                total = value.read() + self._ever(value.name)
                yield CounterMetricFamily(value.name, value.meaning, value=total)
            else:
                yield GaugeMetricFamily(value.name, value.meaning, value=value.read() + self._now(value.name))
        negative = sum(hot.counts().negative_hits for hot in self._parts.hot) + self._ever("hkp_negative_hits")
        yield CounterMetricFamily("keyserver_hkp_negative_hits", "Absences given from memory over HTTP", value=negative)

    def _listening(self) -> Iterator[Metric]:
        present = GaugeMetricFamily("keyserver_connections", "Open connections", labels=["face"])
        refused = CounterMetricFamily(
            "keyserver_connections_refused",
            "Connections over a limit, or of those from whom none are taken",
            labels=["face"],
        )
        for face in dict.fromkeys(server.face for server in self._servers):
            mine = [server for server in self._servers if server.face == face]
            elsewhere = face in BY_FACE
            there = self._now(f"{face}_connections") if elsewhere else 0
            turned_away = self._ever(f"{face}_refused") if elsewhere else 0
            # where fronts have a face's connections, those of its server here are theirs, handed on
            here = 0 if elsewhere and self._fronts is not None else sum(server.present for server in mine)
            present.add_metric([face], here + there)
            refused.add_metric([face], sum(server.refused for server in mine) + turned_away)
        yield present
        yield refused
        expiry = GaugeMetricFamily(
            "keyserver_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of a listener expires, Unix time",
            labels=["section", "file"],
        )
        for section, certificate in self._certificates.items():
            certificate.look()
            if certificate.expires is not None:
                expiry.add_metric([section, str(certificate.file)], certificate.expires)
        yield expiry

    def _processes(self) -> Iterator[Metric]:
        restarts = CounterMetricFamily(
            "keyserver_process_restarts",
            "How often a process of the service died and was started again",
            labels=["kind"],
        )
        if self._fronts is not None:
            nodes = self._fronts.nodes()
            for kind in ("core", "front"):
                restarts.add_metric([kind], sum(node.restarts for node in nodes if node.kind == kind))
        yield restarts

    def _upstreams(self) -> Iterator[Metric]:
        circuit = GaugeMetricFamily(
            "keyserver_upstream_circuit", "1 for what an upstream's circuit is now", labels=["upstream", "state"]
        )
        for status in self._parts.resolver.statuses():
            for state in CIRCUIT:
                circuit.add_metric([status.name, state], state == status.state)
        yield circuit

    def _store(self) -> Iterator[Metric]:
        stats = self._stats
        yield GaugeMetricFamily(
            "keyserver_store_healthy",
            "1 while the store takes and gives what it should",
            value=stats is not None and not stats.healthy,
        )
        yield GaugeMetricFamily(
            "keyserver_store_limit_bytes",
            "Size of the database above which new finds are not cached (cache.max_size)",
            value=self._parts.rules.faces().max_size,
        )
        if stats is None:
            return
        yield GaugeMetricFamily("keyserver_store_bytes", "Size of the database", value=stats.octets)
        yield GaugeMetricFamily("keyserver_store_certificates", "Certificates cached", value=stats.certificates)
        entries = GaugeMetricFamily("keyserver_store_entries", "Cache entries", labels=["source"])
        for source, count in stats.entries.items():
            entries.add_metric([source], count)
        yield entries
        records = GaugeMetricFamily("keyserver_store_records", "What upstreams said, by query", labels=["outcome"])
        records.add_metric(["found"], stats.records_found)
        records.add_metric(["absent"], stats.records_absent)
        yield records
        yield GaugeMetricFamily("keyserver_store_blocked", "Certificates that are blocked", value=stats.blocked)

    def _cluster(self) -> Iterator[Metric]:
        membership = self._parts.upkeep.membership
        nodes = membership.nodes()
        living = GaugeMetricFamily(
            "keyserver_cluster_nodes", "Nodes that share the cache and are alive", value=sum(n.living for n in nodes)
        )
        differing = GaugeMetricFamily(
            "keyserver_cluster_differing_settings",
            "Settings that another living node has otherwise than this one, and should not",
            labels=["node"],
        )
        differences: dict[str, int] = {}
        for node in nodes:
            if node.living and not node.here:
                differences[node.name] = max(differences.get(node.name, 0), len(node.differences))
        for name, number in differences.items():
            differing.add_metric([name], number)
        yield living
        yield differing
        yield GaugeMetricFamily(
            "keyserver_cluster_leads", "1 where this node purges, tidies and prefetches", value=membership.leads
        )
        detached = membership.detached
        yield GaugeMetricFamily(
            "keyserver_cluster_detached_seconds",
            "How long the cache database has not been reached, 0 while it is",
            value=detached.seconds if detached is not None else 0,
        )
        yield GaugeMetricFamily(
            "keyserver_cluster_lag_seconds", "Time since this node last knew of all changes", value=membership.lag
        )

    def _lists(self) -> Iterator[Metric]:
        labels = ["url"]
        entries = GaugeMetricFamily("keyserver_crl_entries", "Entries of a revocation list", labels=labels)
        ends = GaugeMetricFamily(
            "keyserver_crl_next_update_timestamp_seconds",
            "When a revocation list should have been replaced, Unix time; 0: none has been had yet",
            labels=labels,
        )
        stale = GaugeMetricFamily(
            "keyserver_crl_stale", "1 while a revocation list's end is over, or none has been had", labels=labels
        )
        fetched = GaugeMetricFamily(
            "keyserver_crl_fetched_timestamp_seconds", "When a revocation list was fetched last", labels=labels
        )
        failures = CounterMetricFamily(
            "keyserver_crl_failures", "How often a revocation list could not be had, or was refused", labels=labels
        )
        for one in self._parts.crls.standings():
            for family, value in (
                (entries, one.entries),
                (ends, one.ends),
                (stale, one.stale),
                (fetched, one.fetched_at),
                (failures, one.failures),
            ):
                family.add_metric([one.url], value)
        yield from (entries, ends, stale, fetched, failures)

    def _now(self, key: str) -> int:
        return self._fronts.total(key) if self._fronts is not None else 0

    def _ever(self, key: str) -> int:
        return self._fronts.ever(key) if self._fronts is not None else 0
