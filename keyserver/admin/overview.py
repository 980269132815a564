"""How the service does, at a glance: what was asked, what is cached, what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from keyserver.admin.concerns import (
    Concern,
    MailLoad,
    broken_store,
    certificate_ends,
    of_certificates,
    of_clock,
    of_lists,
    of_mail,
    of_nodes,
    of_store,
    of_upstreams,
    of_webhook,
    worst,
)
from keyserver.admin.health import DAY, HOUR, POINTS, WEEK, Pulse
from keyserver.admin.resources import EntryResource
from keyserver.admin.service import Listing, Service
from keyserver.config import Config
from keyserver.events.webhook import WebhookStatus
from keyserver.resolver.membership import ClusterNode
from keyserver.resolver.revoked import Standing
from keyserver.store.base import StoreError, StoreStats
from keyserver.store.listing import NEVER, Filter, Sort
from keyserver.traffic import Traffic

_WINDOWS = (("1 hour", HOUR), ("24 hours", DAY), ("7 days", WEEK))
_SHOWN = 5  # entries of a short list
_KINDS = ("hit", "miss", "failed")


@dataclass(frozen=True, slots=True)
class Window:
    """Lookups of the last so many seconds. since: where the service is younger than that, when it began."""

    name: str
    hits: int
    misses: int
    failed: int
    ratio: float | None  # hits of all that were answered, 0 to 1; None: nothing was asked
    since: int | None


@dataclass(frozen=True, slots=True)
class Short:
    """The first few of a list, and how many it has; exact: else there are at least so many."""

    entries: tuple[EntryResource, ...]
    number: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Cached:
    """What is in the cache. soon: expires within an hour."""

    stats: StoreStats
    expiring: Short
    soon: Short
    held: Short


@dataclass(frozen=True, slots=True)
class Glance:
    """All of it. tone: the worst of the concerns; cached: None where the store cannot be read."""

    concerns: tuple[Concern, ...]
    tone: str
    windows: tuple[Window, ...]
    hits: tuple[int, ...]  # in each half hour of the last day, oldest first
    misses: tuple[int, ...]
    pulses: tuple[Pulse, ...]
    cached: Cached | None
    now: int


class Overview:
    """The operation. clock: Unix seconds; complaint: what is wrong with the clock, empty for nothing; differing:
    nodes whose settings differ from ours; lists: revocation lists."""

    def __init__(
        self,
        *,
        service: Service,
        pulses: Callable[[], Sequence[Pulse]],
        stats: Callable[[], Awaitable[StoreStats]],
        mail: Callable[[], MailLoad],
        traffic: Traffic,
        complaint: Callable[[], str],
        differing: Callable[[], Sequence[ClusterNode]],
        webhook: Callable[[], WebhookStatus],
        lists: Callable[[], Sequence[Standing]] = tuple,
        clock: Callable[[], int],
    ) -> None:
        self._service = service
        self._pulses = pulses
        self._stats = stats
        self._mail = mail
        self._traffic = traffic
        self._complaint = complaint
        self._differing = differing
        self._lists = lists
        self._webhook = webhook
        self._clock = clock

    async def show(self, config: Config) -> Glance:
        """The service at this moment; a store in trouble is among the concerns. config: the one that holds now."""
        now = self._clock()
        pulses = tuple(self._pulses())
        concerns: list[Concern] = []
        try:
            cached = await self._cached(now)
            concerns += of_store(cached.stats, config.cache.max_size)
        except StoreError as problem:
            cached = None
            concerns.append(broken_store(str(problem)))
        concerns += of_upstreams(pulses)
        files = {s.tls_certificate: None for s in (config.hkp, config.ldap, config.admin) if s.tls_certificate}
        concerns += of_certificates(await asyncio.to_thread(certificate_ends, files), now)
        concerns += of_clock(self._complaint())
        concerns += of_nodes(self._differing())
        concerns += of_lists(self._lists())
        concerns += of_mail(self._mail())
        concerns += of_webhook(self._webhook())
        concerns.sort(key=lambda concern: concern.kind)
        return Glance(
            concerns=tuple(concerns),
            tone=worst(concerns),
            windows=tuple(self._window(name, seconds, now) for name, seconds in _WINDOWS),
            hits=tuple(self._traffic.series("hit", DAY, POINTS)),
            misses=tuple(self._traffic.series("miss", DAY, POINTS)),
            pulses=pulses,
            cached=cached,
            now=now,
        )

    def _window(self, name: str, seconds: int, now: int) -> Window:
        hits, misses, failed = (self._traffic.total(kind, seconds) for kind in _KINDS)
        since = self._traffic.since if now - self._traffic.since < seconds else None
        return Window(name, hits, misses, failed, hits / (hits + misses) if hits + misses else None, since)

    async def _cached(self, now: int) -> Cached:
        expiring = Filter(expires_from=now + 1, expires_before=NEVER)
        soon = Filter(expires_from=now + 1, expires_before=now + HOUR)
        return Cached(
            stats=await self._stats(),
            expiring=_short(await self._service.list(expiring, _SHOWN, sort=Sort.EXPIRES, descending=False)),
            soon=_short(await self._service.list(soon, 1, sort=Sort.EXPIRES, descending=False)),
            held=_short(await self._service.list(Filter(held=True), _SHOWN)),
        )


def _short(listing: Listing) -> Short:
    exact = listing.next is None or listing.count_exact
    number = listing.count if listing.count is not None else len(listing.entries)
    return Short(listing.entries, number, exact)
