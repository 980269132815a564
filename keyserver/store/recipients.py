"""Who was asked for lately, and whether mail to them could be encrypted by what was cached then.

One note for each address, under a keyed hash: no address lies in it in clear. Every line of these docstrings has its
test in tests/conformance. Nothing is noted while no history is kept, nor kept for longer than it is; `History.tidy`,
`History.forget`, `History.forget_all` and `Store.purge_all` let go of notes, too. A note tells nobody of a change, and
is as durable as `Store.touch`. Times are Unix seconds, days are counted since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from keyserver.model import Kind

DAY = 86400  # seconds
MAX_KEPT = 400  # days that a note is kept at most, however long the history is
MAX_REASON = 200  # characters of a reason that are kept


class Encryptable(StrEnum):
    """Could mail to an address be encrypted?"""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # nothing in the cache says


@dataclass(frozen=True, slots=True)
class Looked:
    """What the cache said of one address at one instant."""

    word: Encryptable
    at: int
    kind: Kind | None = None  # of the certificate that lasts longest; None: there is none
    fingerprint: str = ""
    until: int | None = None  # the first instant at which nobody can encrypt any more by itself; None: never
    cause: str = ""  # what happens then: "it expires", "its key for encryption expires"
    reason: str = ""  # why not, without addresses


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many addresses of one domain were asked for, and what was said of them. `domain` empty: all others."""

    domain: str
    asked: int
    yes: int
    no: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate that mail is encrypted with, and that ends by itself."""

    fingerprint: str
    kind: Kind
    until: int
    cause: str
    domain: str  # the first by name, of those of its recipients
    addresses: tuple[str, ...]  # of its recipients those that are known in clear, by name; `MAX_NAMED` at most
    recipients: int  # how many addresses that were asked for have it for their best


@dataclass(frozen=True, slots=True)
class Lost:
    """An address that mail could be encrypted to, and cannot any more."""

    domain: str
    since: int  # when that was seen
    fingerprint: str  # of the certificate that it had; empty: neither cache nor history knows that one any more
    reason: str
    address: str  # empty: not known in clear


MAX_NAMED = 10
"""Addresses that are named of one certificate."""


class Recipients(Protocol):
    """Raises StoreError as `Store` does.

    An address is known in clear where it is a name of the certificate of its note, in the cache or the history."""

    async def note(self, seen: Mapping[str, Looked]) -> None:
        """Addresses (normalised) were asked for, and this was seen of each.

        What is unknown leaves the word of an earlier note as it was, and that of the certificate; the day is noted. A
        word that stays keeps the instant since when it holds. A no keeps the certificate of the yes before it."""

    async def asked_today(self, addresses: Collection[str], day: int) -> set[str]:
        """Those of them that are noted for that day, or a later one; all of them while nothing is noted at all."""

    async def domains(self, since_day: int, limit: int) -> Sequence[Coverage]:
        """Of what was asked for on that day or later: the domains most asked for first, by name where equal; last,
        where there are more than `limit`, what all others come to."""

    async def ending(self, now: int, until: int, since_day: int, limit: int) -> Sequence[Ending]:
        """Certificates of the notes of that day and later that say yes, and that end in `now` < t <= `until`, soonest
        first."""

    async def lost(self, since: int, since_day: int, limit: int) -> Sequence[Lost]:
        """Notes of that day and later whose word turned from yes to no at that instant or later, latest first."""
