"""A listing's filter as a condition on `entry AS e`, with named values. Every word of it can be said of one row.

What SQLite and PostgreSQL say differently stands in a `Dialect`; a value is named `:name` for both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from keyserver.model import Selection, Source
from keyserver.store.listing import NEVER, Lifetimes, Listing, Needle, Status, needle

T = TypeVar("T")
Value: TypeAlias = str | int | list[int]

Values: TypeAlias = Mapping[str, Value]

Asking: TypeAlias = Generator[tuple[str, Values], Sequence[Sequence[Any]], T]
"""Yields statements, is sent their rows, and returns what it came to: for stores that wait and stores that do not."""

AFTER_ALL = "\U0010ffff"
"""Behind every character of a text."""
BLOCKED = "EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint)"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of database says what a listing asks."""

    true: str
    contains: str
    """Does the text of the first pair of braces contain that of the second?"""
    domain: str
    """The domain of the address `n.name` is …, as the index has it."""
    named: str
    """Of an entry `e`: it has a name `n` of which what comes into the braces is true."""
    by: str
    """Behind a table: go by this index; empty where the database decides."""
    join: str
    """That keeps the order of the loops, where the database can be told."""
    among: str
    """A table `j` whose `value` is each of the numbers `:ids`."""
    tally: str
    """Selects words and their counts."""
    containing: Callable[[str, int], Asking[list[int] | None]]
    """Up to so many ids of entries that may contain a text, by an index of texts; None where it cannot say."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """SQL that is true for an entry that matches; `end`: when one ends."""

    condition: str
    end: str
    values: Values


def sieve(dialect: Dialect, listing: Listing) -> Sieve:
    """Of a listing."""
    values: dict[str, Value] = {"now": listing.now, "never": NEVER}
    end = _end(listing.lifetimes, values)
    parts = [f"({part})" for part in _parts(dialect, listing, end, values)]
    return Sieve(" AND ".join(parts) or dialect.true, end, values)


def _end(lifetimes: Lifetimes, values: dict[str, Value]) -> str:
    """When an entry's time to live ends."""
    values |= {"mailflow": lifetimes.mailflow, "keyserver": lifetimes.keyserver, "stale": lifetimes.stale}
    own = ""
    for number, (upstream, ttl) in enumerate(sorted(lifetimes.upstreams.items())):
        own += f" WHEN :u{number} THEN :t{number}"
        values |= {f"u{number}": upstream, f"t{number}": ttl}
    ttl_of = f"CASE e.origin{own} ELSE :keyserver END" if own else ":keyserver"
    return f"CASE e.source WHEN 'local' THEN :never WHEN 'mailflow' THEN e.at + :mailflow ELSE e.at + {ttl_of} END"


def _parts(dialect: Dialect, listing: Listing, end: str, values: dict[str, Value]) -> Iterator[str]:
    what = listing.what
    yield from selected(dialect, what.wanted, "w", values)
    for part in selected(dialect, what.unwanted, "n", values):
        yield f"NOT ({part})"
    if what.status is not None:
        yield _status(what.status, end)
    if what.not_status is not None:
        yield f"NOT ({_status(what.not_status, end)})"
    for column, wanted in (("held", what.held), ("approved", what.approved)):
        if wanted is not None:
            yield f"e.{column}" if wanted else f"NOT e.{column}"
    for sql, name, bound in (
        ("e.at >= :", "cached_from", what.cached_from),
        ("e.at < :", "cached_before", what.cached_before),
        (f"{end} >= :", "expires_from", what.expires_from),
        (f"{end} < :", "expires_before", what.expires_before),
    ):
        if bound is not None:
            values[name] = bound
            yield sql + name


def selected(
    dialect: Dialect, what: Selection, prefix: str, values: dict[str, Value], named: str | None = None
) -> Iterator[str]:
    """What a selection names, each by itself. Adds the values, whose names begin with `prefix`.

    `named`: as the dialect's, where `e` is something else."""
    named = named or dialect.named

    def bound(name: str, value: Value) -> str:
        values[prefix + name] = value
        return f":{prefix}{name}"

    if what.source is not None:
        yield f"e.source = {bound('source', str(what.source))}"
    if what.upstream is not None:
        yield f"e.source = '{Source.KEYSERVER}' AND e.origin = {bound('upstream', what.upstream)}"
    if what.kind is not None:
        yield f"e.kind = {bound('kind', str(what.kind))}"
    if what.domain is not None:
        yield named.format(f"{dialect.domain} = {bound('domain', what.domain.lower())}")
    if what.text is not None:
        yield " OR ".join(_texts(dialect, needle(what.text), prefix, values, named))


def _texts(dialect: Dialect, term: Needle, prefix: str, values: dict[str, Value], named: str) -> Iterator[str]:
    """The ways in which an entry can be meant by a text."""
    if not term.inside:
        ranges = []
        for number, name in enumerate(term.prefixes):
            first, last = f"{prefix}a{number}", f"{prefix}z{number}"
            values |= {first: name, last: name + AFTER_ALL}
            ranges.append(f"n.name >= :{first} AND n.name < :{last}")
        yield named.format(f"({' OR '.join(ranges)})")
        return
    values[f"{prefix}text"] = term.text
    yield dialect.contains.format("e.folded", f":{prefix}text")
    if term.digits:
        values |= {f"{prefix}first": term.digits, f"{prefix}last": term.digits + "G"}
        yield f"e.fingerprint >= :{prefix}first AND e.fingerprint < :{prefix}last"
    if term.names:
        values |= {f"{prefix}id{number}": name for number, name in enumerate(term.names)}
        yield named.format(f"n.name IN ({', '.join(f':{prefix}id{number}' for number in range(len(term.names)))})")


def _status(status: Status, end: str) -> str:
    """As `Status` says it: the first that holds."""
    gone = f"{end} + CASE e.source WHEN '{Source.KEYSERVER}' THEN :stale ELSE 0 END <= :now"
    if status is Status.BLOCKED:
        return BLOCKED
    if status is Status.EXPIRED:
        return f"{gone} AND NOT {BLOCKED}"
    if status is Status.HELD:
        return f"e.held AND NOT {gone} AND NOT {BLOCKED}"
    if status is Status.STALE:
        return f"NOT e.held AND {end} <= :now AND NOT {gone} AND NOT {BLOCKED}"
    return f"NOT e.held AND {end} > :now AND NOT {BLOCKED}"
