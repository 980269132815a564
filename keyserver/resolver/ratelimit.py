"""How many searches the clients of one network may start, and how often an upstream is asked."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable

from cachetools import FIFOCache

from keyserver.listen.trust import Trust, address_of
from keyserver.model import Rate

NETWORKS = 50_000  # client networks whose misses are counted


def network_of(client: str | None) -> str:
    """The network of a client's address (IPv4 /24, IPv6 /64); empty where it has none (a Unix socket)."""
    address = address_of(client or "")
    if address is None:
        return ""
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False))


class Pace:
    """When something may be done that may be done so often: in no span of `rate.seconds` more than `rate.times`."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._turns: deque[float] = deque(maxlen=rate.times)

    def take(self, now: float, most: float) -> float:
        """Seconds until its turn, which is taken unless it is further off than `most`."""
        free = self._turns[0] + self._rate.seconds if len(self._turns) == self._rate.times else now
        wait = max(0.0, free - now)
        if wait <= most:
            self._turns.append(now + wait)
        return wait


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
