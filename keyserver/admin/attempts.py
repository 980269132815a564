"""How often somebody may try a token: counted before anything is looked up."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import FIFOCache

from keyserver.listen.trust import UNIX
from keyserver.resolver.ratelimit import network_of

PER_CLIENT = 10  # tries that fail, of one client network (/24, /64), in a minute
IN_ALL = 100
CLIENTS = 10_000  # client networks that are counted


class Attempts:
    """Token buckets for each client network and for all together. monotonic: seconds.

    Who comes by a Unix socket is not counted: its permissions say who that is, and it is the way in for the
    administrator while strangers use up what there is for all."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all = _Bucket(IN_ALL, monotonic())
        self._clients: FIFOCache[str, _Bucket] = FIFOCache(CLIENTS)

    def take(self, client: str) -> float:
        """Begin a try; seconds to wait where none is left, and then nothing is counted."""
        if client == UNIX:
            return 0.0
        now = self._monotonic()
        own = self._bucket(client, now)
        wait = max(own.wait(now), self._all.wait(now))
        if not wait:
            own.left -= 1
            self._all.left -= 1
        return wait

    def give_back(self, client: str) -> None:
        """The try did not fail."""
        if client != UNIX:
            self._all.left += 1
            self._bucket(client, self._monotonic()).left += 1

    def _bucket(self, client: str, now: float) -> _Bucket:
        network = network_of(client) or client
        bucket: _Bucket | None = self._clients.get(network)
        if bucket is None:
            bucket = self._clients[network] = _Bucket(PER_CLIENT, now)
        return bucket


class _Bucket:
    """Full at the beginning; in a minute it fills from empty to full."""

    def __init__(self, size: int, now: float) -> None:
        self.left = float(size)
        self._size = size
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until something is in it."""
        rate = self._size / 60
        self.left = min(float(self._size), self.left + (now - self._at) * rate)
        self._at = now
        return 0.0 if self.left >= 1 else (1 - self.left) / rate
