"""How many searches the clients of one network may start."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from cachetools import FIFOCache

from keyserver.listen.trust import Trust, address_of

NETWORKS = 50_000  # client networks whose misses are counted


def network_of(client: str | None) -> str:
    """The network of a client's address (IPv4 /24, IPv6 /64); empty where it has none (a Unix socket)."""
    address = address_of(client or "")
    if address is None:
        return ""
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


class SearchRateLimit:
    """A token bucket of searches for each client network (IPv4 /24, IPv6 /64); whom we trust is left alone."""

    def __init__(self, per_minute: int, trust: Trust, monotonic: Callable[[], float]) -> None:
        self.change(per_minute)
        self._trust = trust
        self._monotonic = monotonic
        self._buckets: FIFOCache[str, tuple[float, float]] = FIFOCache(NETWORKS)

    def change(self, per_minute: int) -> None:
        """Another number of searches."""
        self._rate = per_minute / 60
        self._burst = float(max(1, per_minute))

    def take(self, client: str | None) -> bool:
        """May this client start one more search now? None is ourselves, a Unix socket's client is the empty string."""
        if client is None or self._trust.trusts(client):
            return True
        network = network_of(client) or client
        now = self._monotonic()
        tokens, then = self._buckets.pop(network, (self._burst, now))
        tokens = min(self._burst, tokens + (now - then) * self._rate)
        allowed = tokens >= 1
        self._buckets[network] = (tokens - 1 if allowed else tokens, now)
        return allowed
