"""Who was told what: how many addresses, fingerprints and key IDs each upstream has heard, and of which domains.

Counted, not noted: of each value only a keyed hash is kept, and of those a bounded number. The counts survive a
restart; a killed process loses those of its last minute.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query
from keyserver.resolver.distinct import Distinct
from keyserver.store.upstreams import AboutUpstreams

SIZE = 1024  # values that are counted exactly; beyond, the standard error is 3 %
DOMAIN_SIZE = 64  # the same, of one domain: 12.5 %
DOMAINS = 500  # that are counted by themselves: where another comes, the least asked about joins the others
SHOWN = 100  # domains

log = logging.getLogger("keyserver.upstreams")


@dataclass(frozen=True, slots=True)
class Count:
    """How many different ones. error: relative standard error, 0 where the count is exact."""

    count: int
    error: float


@dataclass(frozen=True, slots=True)
class DomainTold:
    """What an upstream was told of one domain, since it is counted by itself."""

    domain: str
    questions: int
    addresses: Count


@dataclass(frozen=True, slots=True)
class OtherDomains:
    """What it was told of all domains that are not named."""

    domains: Count
    questions: int
    addresses: Count


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What one upstream was told since a moment (Unix seconds)."""

    upstream: str
    since: int
    questions: int
    addresses: Count
    fingerprints: Count
    key_ids: Count
    other: Count  # texts, and digests of X.509 fields
    domains: tuple[DomainTold, ...]  # those with the most addresses first
    other_domains: OtherDomains


@dataclass(slots=True)
class _Domain:
    questions: int = 0
    addresses: Distinct = field(default_factory=lambda: Distinct(DOMAIN_SIZE))


@dataclass(slots=True)
class _Others:
    questions: int = 0
    addresses: Distinct = field(default_factory=lambda: Distinct(SIZE))
    domains: Distinct = field(default_factory=lambda: Distinct(SIZE))

    def take(self, domain: int, what: _Domain) -> None:
        self.domains.add(domain)
        self.questions += what.questions
        self.addresses.take(what.addresses)


_SORTS = ("addresses", "fingerprints", "key_ids", "other")


@dataclass(slots=True)
class _Told:
    since: int
    questions: int = 0
    sorts: dict[str, Distinct] = field(default_factory=lambda: {sort: Distinct(SIZE) for sort in _SORTS})
    domains: dict[str, _Domain] = field(default_factory=dict)
    others: _Others = field(default_factory=_Others)
    changed: bool = True

    def written(self) -> bytes:
        """As `read` takes it."""
        value = {
            "since": self.since,
            "questions": self.questions,
            "sorts": {sort: counted.written() for sort, counted in self.sorts.items()},
            "domains": {name: [d.questions, d.addresses.written()] for name, d in self.domains.items()},
            "others": [self.others.questions, self.others.addresses.written(), self.others.domains.written()],
        }
        return json.dumps(value).encode()

    @classmethod
    def read(cls, octets: bytes) -> _Told:
        """Raises ValueError, KeyError, TypeError."""
        value = json.loads(octets)
        questions, addresses, domains = value["others"]
        return cls(
            int(value["since"]),
            int(value["questions"]),
            {sort: Distinct.read(value["sorts"][sort], SIZE) for sort in _SORTS},
            {name: _Domain(int(n), Distinct.read(text, DOMAIN_SIZE)) for name, (n, text) in value["domains"].items()},
            _Others(int(questions), Distinct.read(addresses, SIZE), Distinct.read(domains, SIZE)),
            changed=False,
        )


class Disclosures:
    """The counts of every upstream."""

    def __init__(self, kept: AboutUpstreams, hashed: Callable[[str], int], clock: Callable[[], int]) -> None:
        """`hashed`: 64 bits, keyed, the same after a restart."""
        self._kept = kept
        self._hashed = hashed
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def note(self, upstream: str, query: Query) -> None:
        """An upstream is told this now."""
        told = self._told.get(upstream)
        if told is None:
            told = self._told[upstream] = _Told(self._clock())
        told.questions += 1
        told.changed = True
        hashed = self._hashed(str(query))
        told.sorts[_sort_of(query)].add(hashed)
        if isinstance(query, ByAddress):
            domain = told.domains.get(query.domain) or self._new_domain(told, query.domain)
            domain.questions += 1
            domain.addresses.add(hashed)

    def _new_domain(self, told: _Told, name: str) -> _Domain:
        if len(told.domains) >= DOMAINS:
            least = min(told.domains, key=lambda name: told.domains[name].questions)
            told.others.take(self._hashed(least), told.domains.pop(least))
        domain = told.domains[name] = _Domain()
        return domain

    def shown(self) -> tuple[Disclosed, ...]:
        """Of each upstream that was ever told anything."""
        return tuple(self._shown(name, self._told[name]) for name in sorted(self._told))

    def _shown(self, name: str, told: _Told) -> Disclosed:
        ordered = sorted(told.domains.items(), key=lambda item: (-item[1].addresses.count, -item[1].questions, item[0]))
        others = _Others(told.others.questions)
        others.addresses.take(told.others.addresses)
        others.domains.take(told.others.domains)
        for domain, of_it in ordered[SHOWN:]:
            others.take(self._hashed(domain), of_it)
        counts = {sort: _count(counted) for sort, counted in told.sorts.items()}
        return Disclosed(
            upstream=name,
            since=told.since,
            questions=told.questions,
            domains=tuple(DomainTold(d, of_it.questions, _count(of_it.addresses)) for d, of_it in ordered[:SHOWN]),
            other_domains=OtherDomains(_count(others.domains), others.questions, _count(others.addresses)),
            **counts,
        )

    async def load(self) -> None:
        """Go on with what was kept; what cannot be read is counted anew, from now on. Raises StoreError."""
        for name, octets in (await self._kept.told()).items():
            try:
                self._told[name] = _Told.read(octets)
            except (ValueError, KeyError, TypeError, AttributeError):
                log.error("what upstream %s was told before cannot be read: it is counted anew", name)

    async def keep(self) -> None:
        """Keep what has changed. Raises StoreError."""
        changed: Mapping[str, _Told] = {name: told for name, told in self._told.items() if told.changed}
        for told in changed.values():
            told.changed = False
        try:
            if changed:
                await self._kept.keep_told({name: told.written() for name, told in changed.items()})
        except BaseException:
            for told in changed.values():
                told.changed = True
            raise


def _sort_of(query: Query) -> str:
    if isinstance(query, ByAddress):
        return "addresses"
    if isinstance(query, ByFingerprint):
        return "fingerprints"
    return "key_ids" if isinstance(query, ByKeyId) else "other"


def _count(counted: Distinct) -> Count:
    return Count(counted.count, counted.error)
