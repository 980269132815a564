"""What changed, when, and by whom; and what was known at an earlier time.

Every line of these docstrings has its test in tests/conformance. It lies in the cache's database, is written by the
database itself in the transaction of each change, and is kept within bounds of age and size. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from keyserver.model import Kind, Name, Source
from keyserver.store.snapshot import Snapshot

NOTHING: Mapping[str, object] = MappingProxyType({})
WHO: ContextVar[str] = ContextVar("WHO", default="")
"""Who makes the changes of this context, where it is an administrator; empty: the origin itself."""


class What(StrEnum):
    """What an event says."""

    FIRST_SEEN = "first seen"  # a certificate of which nothing was cached, and nothing is in the history
    CACHED = "cached"  # another entry of a known certificate, or one that had gone
    RENEWED = "renewed"  # the same octets again, more than an hour after the last time
    MERGED = "merged"  # its copy changed: replaced or merged
    REVOKED = "revoked"  # a revocation that was not known (of the certificate, a subkey, a user ID)
    HELD = "held"  # it waits for an administrator, for an address
    APPROVED = "approved"  # for an address
    DELETED = "deleted"
    EXPIRED = "expired"  # its time to live was over: tidied away
    UNDONE = "undone"  # a delete was taken back
    BLOCKED = "blocked"
    UNBLOCKED = "unblocked"
    REPLACED = "replaced"  # another certificate than before answers for an address
    PAUSED = "paused"  # an upstream, by an administrator
    RESUMED = "resumed"
    SETTINGS = "settings"  # other settings that decide answers are in force


class Word(StrEnum):
    """What an upstream said to a query."""

    FOUND = "found"
    ABSENT = "absent"
    FAILED = "failed"  # it could not be asked, or gave no usable answer


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `last`: until when the same was seen again (renewals within an hour of each other)."""

    number: int  # growing in the order in which readers see them
    at: int
    what: What
    fingerprint: str = ""
    kind: Kind | None = None
    source: Source | None = None
    origin: str = ""
    address: str = ""  # normalised; only of approvals, holds and replacements
    who: str = ""  # an administrator; empty: the origin itself
    last: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)  # what JSON can say; REPLACED: {"old": fingerprint, …}


@dataclass(frozen=True, slots=True)
class Said:
    """One upstream's word to one query, unchanged from `since` to `last`, with no longer than a day between."""

    upstream: str
    word: Word
    since: int
    last: int


@dataclass(frozen=True, slots=True)
class Past:
    """What was known of one name at one instant. `whole_since`: before it the history is not whole (0: nothing is)."""

    snapshot: Snapshot  # entries with their times of then, records, revocations; what was blocked is left out
    said: tuple[Said, ...]  # the last word of each upstream up to then, failures too
    later: tuple[Said, ...]  # the next word of each after that
    answering: Mapping[str, str]  # view -> the certificate that had answered last
    settings: Mapping[str, object] | None  # in force then, as `settings` was given them
    whole_since: int
    paused: frozenset[str] = frozenset()  # upstreams, by an administrator


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much history is kept; `keep` 0: none is written, and what there is goes."""

    keep: int  # seconds
    max_size: int  # octets, about


class History(Protocol):
    """Raises StoreError as `Store` does."""

    def limit(self, bounds: Bounds) -> None:
        """These bounds hold from the next `tidy` on; before the first call nothing is tidied away."""

    async def tidy(self, now: int, limit: int) -> int:
        """Let go of up to `limit` rows that lie outside the bounds, the oldest events first; how many. 0: it is done.

        What still says how things stand stays, whatever its age and size. It is looked for again when a hundredth of
        `keep` has gone by, or at once where the size is passed. Also takes down what was there before the history began
        (an older release's database, one for which it was off): an event for each entry, block and revocation, with
        numbers below zero; only then is the history whole."""

    async def events(
        self, limit: int, before: int | None = None, fingerprint: str | None = None, names: Sequence[Name] = ()
    ) -> Sequence[Event]:
        """The latest, latest first; `before`: of smaller numbers. Of one certificate, and of names: of every
        certificate that is or was stored under one, and those that bear its address themselves. Without either: all."""

    async def since(self, number: int, limit: int) -> Sequence[Event]:
        """Behind that number, in order; nobody will add one before them (on PostgreSQL: what is still being written
        waits, whatever database of that server it is in). `renewed` is left out, and what was there before the
        history began."""

    async def newest(self) -> int:
        """The number of the last event that `since` could give; 0 without any."""

    async def count(self, after: int, upto: int) -> int:
        """How many of those that `since` gives are behind the one number and not behind the other."""

    async def words(self, name: Name, limit: int) -> Sequence[Said]:
        """What upstreams said to this query, latest first."""

    async def past(self, name: Name, at: int) -> Past:
        """Everything that decided the answer to this name at that instant, changes of that second included.

        Within what is one event (renewed within an hour) or one word (within a day) a time is given as that instant:
        the real one was an hour, or a day, before it at most. `asked_at` is not known, nor which 64 of more
        certificates than that `look` gave."""

    async def failed(self, words: Mapping[tuple[Name, str], int]) -> None:
        """Upstreams failed to answer queries: (name, upstream) -> when last. Not durable, no change is published."""

    async def answers(
        self,
        view: str,
        name: Name,
        fingerprint: str,
        at: int,
        before: str | None = None,
        facts: Mapping[str, object] = NOTHING,
    ) -> str:
        """From now on this certificate answers first for this address in this view; the one before it (itself, or
        empty: none is remembered). Another one than before is an event, `replaced`, in the same transaction: once,
        whoever else says the same. Names (`Snapshot.answering`) are published as changed. Nothing is remembered where
        no history is kept, nor longer than a certificate of that name is in it; a delete of all of a certificate ends
        its memory, as an event `deleted` for the address.

        `before`: only if this is what was remembered (empty: nothing), and the new one is cached; else nothing changes.
        `facts`: for the event."""

    async def answer_first(self, seen: Mapping[tuple[str, Name], tuple[str, int]]) -> None:
        """Certificates that answered where nothing was remembered: (view, name) -> fingerprint, when. What is
        remembered meanwhile stays, and what is not cached is not remembered. Not durable, no change is published."""

    async def settings(self, settings: Mapping[str, object], at: int) -> bool:
        """These are in force from now on; False where they were already, and then nothing is written. The first are no
        event: they are on record for `past`, and given by neither `events` nor `since`."""

    async def copy(self, fingerprint: str, source: Source, origin: str) -> bytes | None:
        """The octets that this entry had last, from the history, whether or not it is cached now."""

    async def cursor(self, receiver: str) -> int | None:
        """The number of the last event that a receiver has; None: it has never been set."""

    async def move(self, receiver: str, number: int) -> None:
        """It has everything up to this number, durably; only ever forward. One that is set holds nothing back: what
        goes by the bounds goes."""

    async def forget(self, address: str) -> int:
        """Erase every trace of an address from the history, of either kind: words, memory of what answered, events and
        past copies of certificates that name it and are not cached with it now; how many rows. Its records go, too,
        and what would tell other nodes or undo a delete. What was freed before goes when the database is vacuumed. Goes
        over all events."""

    async def forget_all(self) -> None:
        """Erase the history, of what is cached, too; `tidy` takes that down anew. `Store.purge_all` erases both."""

    async def size(self) -> tuple[int, int]:
        """How many events, words and notes of recipients there are, and octets, about; may be some seconds old."""
