"""A listing's filter as a condition on `entry AS e`, with named values. Every word of it can be said of one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from keyserver.model import Selection, Source
from keyserver.store.listing import NEVER, Lifetimes, Listing, Needle, Status, needle

Value: TypeAlias = str | int

DOMAIN = "instr(n.name, '@') > 0 AND substr(n.name, instr(n.name, '@') + 1)"
"""The domain of an address, as the index has it."""

AFTER_ALL = "\U0010ffff"
"""Behind every character of a text."""
_BLOCKED = "EXISTS (SELECT 1 FROM block AS b WHERE b.fingerprint = e.fingerprint)"
_NAMED = "EXISTS (SELECT 1 FROM name AS n INDEXED BY name_entry WHERE n.entry = e.id AND "
WAITING_NAMED = "EXISTS (SELECT 1 FROM (SELECT json_extract(value, '$[0]') AS name FROM json_each(e.names)) AS n WHERE "
"""Of `undo_entry AS e`, which keeps its names beside it."""


@dataclass(frozen=True, slots=True)
class Sieve:
    """SQL that is 1 for an entry that matches; `end`: when one ends."""

    condition: str
    end: str
    values: Mapping[str, Value]


def sieve(listing: Listing) -> Sieve:
    """Of a listing."""
    values: dict[str, Value] = {"now": listing.now, "never": NEVER}
    end = _end(listing.lifetimes, values)
    parts = [f"({part})" for part in _parts(listing, end, values)]
    return Sieve(" AND ".join(parts) or "1", end, values)


def _end(lifetimes: Lifetimes, values: dict[str, Value]) -> str:
    """When an entry's time to live ends."""
    values |= {"mailflow": lifetimes.mailflow, "keyserver": lifetimes.keyserver, "stale": lifetimes.stale}
    own = ""
    for number, (upstream, ttl) in enumerate(sorted(lifetimes.upstreams.items())):
        own += f" WHEN :u{number} THEN :t{number}"
        values |= {f"u{number}": upstream, f"t{number}": ttl}
    ttl_of = f"CASE e.origin{own} ELSE :keyserver END" if own else ":keyserver"
    return f"CASE e.source WHEN 'local' THEN :never WHEN 'mailflow' THEN e.at + :mailflow ELSE e.at + {ttl_of} END"


def _parts(listing: Listing, end: str, values: dict[str, Value]) -> Iterator[str]:
    what = listing.what
    yield from selected(what.wanted, "w", values)
    for part in selected(what.unwanted, "n", values):
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


def selected(what: Selection, prefix: str, values: dict[str, Value], named: str = _NAMED) -> Iterator[str]:
    """What a selection names, each by itself. Adds the values, whose names begin with `prefix`.

    `named` begins a condition on a name `n` of `e`."""

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
        yield f"{named}{DOMAIN} = {bound('domain', what.domain.lower())})"
    if what.text is not None:
        yield " OR ".join(_texts(needle(what.text), prefix, values, named))


def _texts(term: Needle, prefix: str, values: dict[str, Value], named: str) -> Iterator[str]:
    """The ways in which an entry can be meant by a text."""
    if not term.inside:
        ranges = []
        for number, name in enumerate(term.prefixes):
            first, last = f"{prefix}a{number}", f"{prefix}z{number}"
            values |= {first: name, last: name + AFTER_ALL}
            ranges.append(f"n.name >= :{first} AND n.name < :{last}")
        yield f"{named}({' OR '.join(ranges)}))"
        return
    values[f"{prefix}text"] = term.text
    yield f"instr(e.folded, :{prefix}text) > 0"
    if term.digits:
        values |= {f"{prefix}first": term.digits, f"{prefix}last": term.digits + "G"}
        yield f"e.fingerprint >= :{prefix}first AND e.fingerprint < :{prefix}last"
    if term.names:
        values |= {f"{prefix}id{number}": name for number, name in enumerate(term.names)}
        yield f"{named}n.name IN ({', '.join(f':{prefix}id{number}' for number in range(len(term.names)))}))"


def _status(status: Status, end: str) -> str:
    """As `Status` says it: the first that holds."""
    gone = f"{end} + CASE e.source WHEN '{Source.KEYSERVER}' THEN :stale ELSE 0 END <= :now"
    if status is Status.BLOCKED:
        return _BLOCKED
    if status is Status.EXPIRED:
        return f"{gone} AND NOT {_BLOCKED}"
    if status is Status.HELD:
        return f"e.held AND NOT {gone} AND NOT {_BLOCKED}"
    if status is Status.STALE:
        return f"NOT e.held AND {end} <= :now AND NOT {gone} AND NOT {_BLOCKED}"
    return f"NOT e.held AND {end} > :now AND NOT {_BLOCKED}"
