"""Notes of recipients as the tables of either store have them: see `Recipients`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from keyserver.model import Kind
from keyserver.store.recipients import DAY, MAX_NAMED, MAX_REASON, Coverage, Ending, Looked, Lost

NAMES = 1000
"""Names of one certificate among which addresses are looked for."""

COLUMNS = ("hash", "domain", "asked_day", "word", "since", "until", "cause", "kind", "fingerprint", "reason", "lost")
"""Of a row. lost: its word turned from yes to no."""

_LATER = "CASE WHEN excluded.{0} > r.{0} THEN excluded.{0} ELSE r.{0} END"
_OF_A_YES = "CASE excluded.word WHEN 'yes' THEN excluded.{0} ELSE r.{0} END"
_BUT_UNKNOWN = "CASE excluded.word WHEN 'unknown' THEN r.{0} ELSE excluded.{0} END"

AGAIN = ", ".join(
    (
        f"asked_day = {_LATER.format('asked_day')}",
        f"word = {_BUT_UNKNOWN.format('word')}",
        "since = CASE WHEN excluded.word IN ('unknown', r.word) THEN r.since ELSE excluded.since END",
        *(f"{column} = {_OF_A_YES.format(column)}" for column in ("until", "cause", "kind", "fingerprint")),
        f"reason = {_BUT_UNKNOWN.format('reason')}",
        "lost = CASE excluded.word WHEN 'unknown' THEN r.lost WHEN 'no' THEN r.lost OR r.word = 'yes' ELSE false END",
    )
)
"""What becomes of the row `r` of an address that is noted again."""

COUNTS = (
    "count(*) AS asked, coalesce(sum(CASE word WHEN 'yes' THEN 1 ELSE 0 END), 0) AS yes,"
    " coalesce(sum(CASE word WHEN 'no' THEN 1 ELSE 0 END), 0) AS no"
)
DOMAINS = f"SELECT domain, {COUNTS} FROM recipient WHERE asked_day >= {{}} GROUP BY domain ORDER BY asked DESC, domain"  # noqa: S608
ALL = f"SELECT {COUNTS} FROM recipient WHERE asked_day >= {{}}"  # noqa: S608 - our own words
LOST = (
    "SELECT hash, domain, since, fingerprint, reason FROM recipient"
    " WHERE lost AND since >= {} AND asked_day >= {} ORDER BY since DESC, hash LIMIT {}"
)

Named: TypeAlias = Mapping[str, Mapping[bytes, str]]
"""Addresses in clear that certificates name: fingerprint -> hash -> address."""


def row_of(address: str, looked: Looked) -> tuple[object, ...]:
    """`COLUMNS` but for the hash."""
    return (
        address.rpartition("@")[2],
        looked.at // DAY,
        str(looked.word),
        looked.at,
        looked.until,
        looked.cause,
        str(looked.kind or ""),
        looked.fingerprint,
        looked.reason[:MAX_REASON],
        False,
    )


def coverage(rows: Iterable[Sequence[Any]], every: Sequence[int]) -> list[Coverage]:
    """From rows of `DOMAINS` and that of `ALL`."""
    found = [Coverage(domain, asked, yes, no, asked - yes - no) for domain, asked, yes, no in rows]
    asked, yes, no = (int(n) for n in every)
    asked, yes, no = asked - sum(c.asked for c in found), yes - sum(c.yes for c in found), no - sum(c.no for c in found)
    return [*found, Coverage("", asked, yes, no, asked - yes - no)] if asked else found


def ending(row: Sequence[Any], addresses: Iterable[str]) -> Ending:
    """From (fingerprint, kind, until, cause, domain, recipients)."""
    fingerprint, kind, until, cause, domain, recipients = row
    return Ending(fingerprint, Kind(kind), until, cause, domain, tuple(sorted(addresses)[:MAX_NAMED]), int(recipients))


def lost(row: Sequence[Any], named: Named) -> Lost:
    """From a row of `LOST`."""
    hash_, domain, since, fingerprint, reason = row
    return Lost(domain, since, fingerprint, reason, named.get(fingerprint, {}).get(bytes(hash_), ""))
