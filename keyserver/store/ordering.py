"""Orders of a listing: which columns, and which ranges of which indexes hold all that may match.

A listing by when entries end needs no column for it: within one source and origin it is the order of `at`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyserver.model import Source
from keyserver.store.listing import NEVER, Listing, Place, Sort, Status, span
from keyserver.store.sifting import Asking, Dialect, Value

_LAST = 2**62  # no id is larger

KEY_OF: Mapping[Sort, str] = {
    Sort.CACHED: "e.at, e.id",
    Sort.ADDRESS: "e.address, e.id",
    Sort.SOURCE: "e.source, e.origin, e.at, e.id",
    Sort.FINGERPRINT: "e.fingerprint, e.source, e.origin",
}
"""A place as columns; of `EXPIRES` it begins with when the entry ends."""

KEYED: Mapping[Sort, tuple[str, tuple[str, ...], str]] = {
    Sort.ADDRESS: ("entry_address", ("e.address",), "e.id"),
    Sort.SOURCE: ("entry_age", ("e.source", "e.origin", "e.at"), "e.id"),
    Sort.FINGERPRINT: ("entry_identity", ("e.fingerprint", "e.source", "e.origin"), ""),
}
"""Of the orders that are one index: index, its columns, and what decides between equal ones."""


@dataclass(frozen=True, slots=True)
class Range:
    """Part of an index, in the order of `at`; its entries end at `at + ttl`, or never."""

    index: str
    where: str
    values: Mapping[str, Value] = field(default_factory=dict)
    source: Source | None = None
    origin: str = ""
    named: bool = False
    """Of names `n` and not of entries `e`."""

    @property
    def key(self) -> tuple[str, str]:
        """The columns of `at` and id."""
        return ("n.at", "n.entry") if self.named else ("e.at", "e.id")


def ranges(dialect: Dialect, listing: Listing) -> Asking[list[Range]]:
    """Where all that may match lies, ordered by `at`: as few entries besides as may be."""
    what = listing.what
    if listing.sort is Sort.CACHED:
        if what.wanted.domain is not None:
            domain = what.wanted.domain.lower()
            return [Range("name_domain", f"{dialect.domain} = :domain", {"domain": domain}, named=True)]
        if what.held or what.status is Status.HELD:
            return [Range("entry_held", "e.held")]
        if what.approved:
            return [Range("entry_approved", "e.approved")]
    return (yield from groups(listing))


def groups(listing: Listing) -> Asking[list[Range]]:
    """One range for each source and origin with a time to live of its own, of those that a filter wants."""
    wanted = listing.what.wanted
    source = wanted.source if wanted.upstream is None else Source.KEYSERVER
    if wanted.source not in (None, source):
        return []
    found = []
    for one in Source:
        if source not in (None, one):
            continue
        if one is Source.MAILFLOW:
            found.append(Range("entry_mail", f"e.source = '{one}'", source=one))
            continue
        named = [wanted.upstream] if wanted.upstream is not None else None
        for origin in named or (yield from _origins(one)):
            where = f"e.source = '{one}' AND e.origin = :origin"
            found.append(Range("entry_age", where, {"origin": origin}, one, origin))
    return found


def _origins(source: Source) -> Asking[list[str]]:
    """All origins of a source: one seek each, no scan."""
    least = "SELECT min(origin) FROM entry WHERE source = :source"
    found: list[str] = []
    rows = yield least, {"source": str(source)}
    while rows[0][0] is not None:
        found.append(rows[0][0])
        rows = yield f"{least} AND origin > :last", {"source": str(source), "last": found[-1]}
    return found


def bounds(one: Range, listing: Listing) -> tuple[int, int]:
    """From <= at < before, as far as it is known."""
    return span(listing, one.source, one.origin)


def lifetime(one: Range, listing: Listing) -> int | None:
    """For how long entries of a range live; None: for ever."""
    return listing.lifetimes.of(one.source, one.origin) if one.source is not None else 0


def seek(listing: Listing, after: Place, ttl: int | None) -> tuple[int, int] | None:
    """Behind which `at` and id a range with this ttl goes on behind a place of `CACHED` or `EXPIRES`; None: it is
    over."""
    values = [int(value) for value in after]
    if listing.sort is Sort.CACHED:
        return values[0], values[1]
    end, at, id_ = values
    if ttl is None:
        if end == NEVER:
            return at, id_
        if (end > NEVER) is listing.descending:
            return (_LAST, _LAST) if listing.descending else (-_LAST, -1)
        return None
    here = end - ttl
    return here, -1 if here > at else id_ if here == at else _LAST


def fixed(listing: Listing) -> tuple[str, int]:
    """Of an order that is one index: what the filter says of its first columns, and of how many; the values are those
    of the sieve."""
    wanted = listing.what.wanted
    if listing.sort is not Sort.SOURCE or (wanted.source is None and wanted.upstream is None):
        return "", 0
    source = Source.KEYSERVER if wanted.upstream is not None else wanted.source
    if wanted.upstream is None:
        return f"e.source = '{source}'", 1
    return f"e.source = '{source}' AND e.origin = :wupstream", 2
