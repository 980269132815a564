"""Who was told what: how many addresses, fingerprints and key IDs each upstream has heard, and of which domains.

Counted, not noted: of each value only a keyed hash is kept, and of those a bounded number. The counts survive a
restart; a killed process loses those of its last minute. Nodes that share a cache count together: each adds what it has
told since, and a value that two have told is one where they share the key, too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query
from keyserver.resolver.distinct import Distinct
from keyserver.store.upstreams import AboutUpstreams

SIZE = 1024  # values that are counted exactly; beyond, the standard error is 3 %
DOMAIN_SIZE = 64  # the same, of one domain: 12.5 %
DOMAINS = 500  # that are counted by themselves: where another comes, the least asked about joins the others
SHOWN = 100  # domains
TRIES = 10  # to add to what other nodes add to

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

    def join(self, other: _Others) -> None:
        self.questions += other.questions
        self.addresses.take(other.addresses)
        self.domains.take(other.domains)


_SORTS = ("addresses", "fingerprints", "key_ids", "other")


@dataclass(slots=True)
class _Told:
    since: int
    questions: int = 0
    sorts: dict[str, Distinct] = field(default_factory=lambda: {sort: Distinct(SIZE) for sort in _SORTS})
    domains: dict[str, _Domain] = field(default_factory=dict)
    others: _Others = field(default_factory=_Others)

    def domain(self, name: str, hashed: Callable[[str], int]) -> _Domain:
        """A domain's own counts; where there are too many, the one least asked about joins the others."""
        found = self.domains.get(name)
        if found is None:
            if len(self.domains) >= DOMAINS:
                least = min(self.domains, key=lambda name: self.domains[name].questions)
                self.others.take(hashed(least), self.domains.pop(least))
            found = self.domains[name] = _Domain()
        return found

    def join(self, other: _Told, hashed: Callable[[str], int]) -> None:
        """Count what the other has counted, too."""
        self.since = min(self.since, other.since)
        self.questions += other.questions
        for sort, counted in other.sorts.items():
            self.sorts[sort].take(counted)
        for name, of_it in other.domains.items():
            mine = self.domain(name, hashed)
            mine.questions += of_it.questions
            mine.addresses.take(of_it.addresses)
        self.others.join(other.others)

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
        )


class Disclosures:
    """The counts of every upstream."""

    def __init__(self, kept: AboutUpstreams, hashed: Callable[[str], int], clock: Callable[[], int]) -> None:
        """`hashed`: 64 bits, keyed, the same after a restart."""
        self._kept = kept
        self._hashed = hashed
        self._clock = clock
        self._read: dict[str, tuple[bytes, _Told | None]] = {}  # as kept; None: it cannot be read
        self._leaving: dict[str, _Told] = {}  # told since, and being kept
        self._fresh: dict[str, _Told] = {}  # told since

    def note(self, upstream: str, query: Query) -> None:
        """An upstream is told this now."""
        told = self._fresh.get(upstream)
        if told is None:
            told = self._fresh[upstream] = _Told(self._clock())
        told.questions += 1
        hashed = self._hashed(str(query))
        told.sorts[_sort_of(query)].add(hashed)
        if isinstance(query, ByAddress):
            domain = told.domain(query.domain, self._hashed)
            domain.questions += 1
            domain.addresses.add(hashed)

    def shown(self) -> tuple[Disclosed, ...]:
        """Of each upstream that was ever told anything."""
        names = {name for name, (_, told) in self._read.items() if told} | self._leaving.keys() | self._fresh.keys()
        return tuple(self._shown(name, self._whole(name)) for name in sorted(names))

    def _whole(self, name: str) -> _Told:
        """What is known of an upstream, together."""
        parts = [self._read.get(name, (b"", None))[1], self._leaving.get(name), self._fresh.get(name)]
        return self._together(*(told for told in parts if told is not None))

    def _together(self, first: _Told, *more: _Told) -> _Told:
        whole = _Told(first.since)
        for told in (first, *more):
            whole.join(told, self._hashed)
        return whole

    def _shown(self, name: str, told: _Told) -> Disclosed:
        ordered = sorted(told.domains.items(), key=lambda item: (-item[1].addresses.count, -item[1].questions, item[0]))
        others = told.others
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
            if name in self._read and self._read[name][0] == octets:
                continue
            told = None
            try:
                told = _Told.read(octets)
            except (ValueError, KeyError, TypeError, AttributeError):
                log.error("what upstream %s was told before cannot be read: it is counted anew", name)
            self._read[name] = octets, told

    async def keep(self) -> None:
        """Add what was told since to what is kept, and hear what other nodes have added. Raises StoreError."""
        await self.load()
        for name in tuple(self._fresh):
            self._leaving[name] = self._fresh.pop(name)
            try:
                kept = await self._add(name)
            except BaseException:
                self._stay(name)
                raise
            if not kept:
                self._stay(name)

    async def _add(self, name: str) -> bool:
        for _ in range(TRIES):
            octets, told = self._read.get(name, (None, None))
            fresh = self._leaving[name]
            whole = self._together(told, fresh) if told is not None else fresh
            written = whole.written()
            if await self._kept.keep_told(name, octets, written):
                del self._leaving[name]
                self._read[name] = written, whole
                return True
            await self.load()  # another node was quicker
        return False

    def _stay(self, name: str) -> None:
        """It could not be kept: the next time, with what was told meanwhile."""
        told, later = self._leaving.pop(name), self._fresh.get(name)
        self._fresh[name] = told if later is None else self._together(told, later)


def _sort_of(query: Query) -> str:
    if isinstance(query, ByAddress):
        return "addresses"
    if isinstance(query, ByFingerprint):
        return "fingerprints"
    return "key_ids" if isinstance(query, ByKeyId) else "other"


def _count(counted: Distinct) -> Count:
    return Count(counted.count, counted.error)
