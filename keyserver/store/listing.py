"""What a listing asks for, in which order, and how far it has come. Pure; times are Unix seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from keyserver.model import Entry, Kind, Name, Selection, Source
from keyserver.query import name_of

NEVER = 2**53
"""When an entry ends that has no end: after all others."""

INSIDE = 3
"""Characters from which on a text is looked for inside identities; a shorter one begins an address."""

UPSTREAM = "upstream "
"""Begins the word under which entries of an upstream are counted."""

COUNTED = 1000
"""Where counting ends that nobody keeps: "1,000+"."""

_HEX = re.compile(r"(?:0x)?([0-9a-f]{3,64})")
_ID_TYPES = {16: "kid", 40: "fpr", 64: "fpr"}


class Status(StrEnum):
    """An entry's state in one word, the first that holds: blocked, expired, held, stale, fresh."""

    FRESH = "fresh"
    STALE = "stale"  # past its ttl, within serve_stale
    EXPIRED = "expired"
    HELD = "held"  # waits for an administrator
    BLOCKED = "blocked"


class Sort(StrEnum):
    """What a listing goes by; equal ones by when they first came."""

    CACHED = "cached"
    EXPIRES = "expires"
    ADDRESS = "address"  # the first that its certificate proves; none before all others
    SOURCE = "source"  # then upstream or domain, then when cached
    FINGERPRINT = "fingerprint"


Place: TypeAlias = tuple[int | str, ...]
"""An entry's place in an order: the values of `KEYS`."""

KEYS: Mapping[Sort, tuple[type[int] | type[str], ...]] = {
    Sort.CACHED: (int, int),  # at, id
    Sort.EXPIRES: (int, int, int),  # end, at, id
    Sort.ADDRESS: (str, int),  # address, id
    Sort.SOURCE: (str, str, int, int),  # source, origin, at, id
    Sort.FINGERPRINT: (str, str, str),  # fingerprint, source, origin
}
"""What a place is made of; `id` is the store's own number of an entry."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The times to live that decide when an entry has expired, in seconds (cache rule 3); local ones never do."""

    keyserver: int
    mailflow: int
    upstreams: Mapping[str, int] = field(default_factory=dict)  # those with a ttl of their own
    stale: int = 0  # what keyservers sent is stale for so long, and not yet expired

    def of(self, source: Source, origin: str) -> int | None:
        """The ttl of one source and origin; None: for ever."""
        if source is Source.LOCAL:
            return None
        return self.mailflow if source is Source.MAILFLOW else self.upstreams.get(origin, self.keyserver)

    def grace(self, source: Source) -> int:
        """For how long after its ttl an entry is stale."""
        return self.stale if source is Source.KEYSERVER else 0


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries a listing shows: those for which everything given holds. Ranges are from <= value < before."""

    wanted: Selection = field(default_factory=Selection)
    unwanted: Selection = field(default_factory=Selection)
    """Nothing that is named here may hold: not this source, nor this domain, …"""
    status: Status | None = None
    not_status: Status | None = None
    held: bool | None = None  # waits for an administrator, for some address
    approved: bool | None = None  # for some address
    cached_from: int | None = None
    cached_before: int | None = None
    expires_from: int | None = None
    expires_before: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of entries: what, in which order, at which instant and by which times to live it is judged.

    What was dated in the future by a clock that was wrong is judged by its date."""

    what: Filter
    now: int
    lifetimes: Lifetimes
    sort: Sort = Sort.CACHED
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Budget:
    """When a step ends, whichever comes first."""

    clock: Callable[[], float]  # seconds that never go back
    rows: int = 100
    candidates: int = 5000
    """Entries looked at; a set no larger than that is looked at as a whole, however long it takes."""
    seconds: float = 0.08


@dataclass(frozen=True, slots=True)
class Count:
    """How many entries match; not `exact`: at least so many."""

    entries: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One step of a listing."""

    entries: tuple[Entry, ...]
    """`octets` of each is empty: a listing reads no certificate."""
    next: Place | None
    """Where the next step goes on, None at the end. A step may end without entries and not be the last."""
    searched: int = 0
    """Entries that this step went over, and of how many about it goes over in all its steps."""
    of: int = 0
    count: Count | None = None
    """Of the whole listing; None where nobody keeps it and this is not the first step."""


def needle(text: str) -> Needle:
    """What somebody typed, as it is looked for."""
    folded = text.strip().encode("utf-8", "replace").decode().casefold()
    digits = _HEX.fullmatch("".join(folded.split()))
    return Needle(folded, digits[1].upper() if digits else "")


@dataclass(frozen=True, slots=True)
class Needle:
    """A search term: part of an identity, the beginning of an address (below `INSIDE` characters) or fingerprint, or a
    whole key ID or fingerprint of the certificate or a subkey."""

    text: str
    digits: str  # upper-case, or empty

    @property
    def inside(self) -> bool:
        """Is it long enough to be looked for inside identities?"""
        return len(self.text) >= INSIDE

    @property
    def names(self) -> tuple[Name, ...]:
        """Names under which it may be indexed."""
        type_ = _ID_TYPES.get(len(self.digits))
        return tuple(name_of(kind, type_, self.digits) for kind in Kind) if type_ else ()

    @property
    def prefixes(self) -> tuple[Name, ...]:
        """Beginnings of the names of addresses that begin with it."""
        return tuple(name_of(kind, "addr", self.text) for kind in Kind)

    def fits(self, fingerprint: str, identities: Iterable[str], names: frozenset[Name]) -> bool:
        """Is a certificate meant by it?"""
        if not self.inside:
            return any(name.startswith(self.prefixes) for name in names)
        return (
            self.text in "\n".join(identities).casefold()
            or bool(self.digits and fingerprint.startswith(self.digits))
            or not names.isdisjoint(self.names)
        )


Span: TypeAlias = tuple[int, int]
"""Instants from <= at < before."""


def span(listing: Listing, source: Source | None = None, origin: str = "") -> Span:
    """When entries of one source and origin must have been cached to match; without a source, all entries.

    No narrower than the filter is; what is inside it still has to pass the filter."""
    what, now = listing.what, listing.now
    low = [n for n in (what.cached_from,) if n is not None]
    high = [n for n in (what.cached_before,) if n is not None]
    if source is not None:
        ttl, grace = listing.lifetimes.of(source, origin), listing.lifetimes.grace(source)
        if ttl is not None:
            low += [n - ttl for n in (what.expires_from,) if n is not None]
            high += [n - ttl for n in (what.expires_before,) if n is not None]
            if what.status is Status.EXPIRED:
                high.append(now - ttl - grace + 1)
            elif what.status is Status.STALE:
                low.append(now - ttl - grace + 1)
                high.append(now - ttl + 1)
            elif what.status is Status.HELD:
                low.append(now - ttl - grace + 1)
            elif what.status is Status.FRESH:
                low.append(now - ttl + 1)
        elif what.status in (Status.EXPIRED, Status.STALE) or not _endless(what):
            return 0, 0
    return max(low, default=-NEVER), min(high, default=NEVER)


def _endless(what: Filter) -> bool:
    """May an entry that never expires match?"""
    after, before = what.expires_from, what.expires_before
    return (before is None or before > NEVER) and (after is None or after <= NEVER)


def dated(what: Filter) -> bool:
    """Does it say when entries must have been cached, or end?"""
    bounds = (what.cached_from, what.cached_before, what.expires_from, what.expires_before)
    return what.status in (Status.EXPIRED, Status.STALE) or any(bound is not None for bound in bounds)
