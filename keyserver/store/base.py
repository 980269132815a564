"""What a store promises. Every line of these docstrings has its test in tests/conformance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from keyserver.model import Find, Kind, Name, Record, Selection, Source
from keyserver.store.administration import Administration
from keyserver.store.cluster import Cluster
from keyserver.store.history import History
from keyserver.store.invitations import Invitations
from keyserver.store.listing import Budget, Listing, Page, Place
from keyserver.store.recipients import Recipients
from keyserver.store.snapshot import Snapshot
from keyserver.store.transfer import Transfer
from keyserver.store.upstreams import AboutUpstreams


class StoreError(Exception):
    """The store cannot do this now: disk full, file read-only or damaged. The text is for the log and `/readyz`.

    Lookups go on without the cache; nothing is deleted."""


class StoreRefused(Exception):
    """The store cannot be opened at all: a newer version's database, no permission. One clear line; nothing touched."""


class Stored(StrEnum):
    """What became of one find."""

    NEW = "new"  # a new entry
    CHANGED = "changed"  # this origin's copy was replaced or merged, and differs
    SAME = "same"  # the same octets; its time was renewed
    DELETED = "deleted"  # refused: named by a delete that came after `begun`
    BLOCKED = "blocked"  # refused: blocked by an administrator
    FULL = "full"  # not cached: `max_size` is reached
    GONE = "gone"  # an update of an entry that is not there


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counts for `op=stats`, metrics and `/readyz`."""

    certificates: int
    entries: Mapping[str, int]  # source -> entries
    records_found: int
    records_absent: int
    blocked: int
    octets: int  # size of the database
    healthy: str = ""  # empty, or what is wrong
    upstreams: Mapping[str, int] = field(default_factory=dict)  # upstream -> entries, where there are any
    held: int = 0  # entries that wait for an administrator
    approved: int = 0


@dataclass(frozen=True, slots=True)
class Undo:
    """How a delete can be undone. Deletes of the same id are one act, and undone together."""

    id: str
    until: int  # from this instant on it can not; that of the act's last delete counts


@dataclass(frozen=True, slots=True)
class Waiting:
    """A delete that can be undone."""

    id: str
    at: int  # of its last part
    until: int
    entries: int  # that it deleted


@dataclass(frozen=True, slots=True)
class Undone:
    """What an undo has brought back."""

    restored: int  # entries
    deleted: int  # entries that the delete had taken


class Store(Protocol):
    """The cache. Times are Unix seconds handed in by the caller; but for `now` where it says so, no clock is read."""

    administration: Administration
    """What administration keeps in the same database; it opens and closes with the store."""

    invitations: Invitations
    """Invitations and consents of the owners of certificates; as above."""

    history: History
    """What changed there, and when; as above."""

    recipients: Recipients
    """Who was asked for, and could be encrypted to; as above."""

    upstreams: AboutUpstreams
    """What is kept there about upstreams; as above."""

    transfer: Transfer
    """Its rows as they are, for a copy in another store."""

    cluster: Cluster
    """What nodes that share the database know of each other there."""

    async def open(self) -> None:
        """Open or create, migrating an older version forward. Raises StoreRefused."""

    async def close(self) -> None:
        """Finish what is under way and close; a second call does nothing."""

    async def begin(self) -> int:
        """The deletion counter now; hand it to `put` as `begun`, so that nothing begun before a delete undoes it."""

    async def look(self, name: Name) -> Snapshot:
        """All about one name, in one read of one instant (an index seek for each part, one thread hop).

        At most 64 certificates; local ones first, then those that an upstream has found when asked for this very name,
        that were approved for it or that its own mail vouches for, however many others claim it too. Entries come back
        whether expired or not: policy judges them."""

    async def answered(self, upstream: str, domain: str) -> bool:
        """Is an entry kept that this upstream sent for an address of the domain, or a found record of one?

        By the entry's vouchers, which only upstreams with a host for each domain have: a certificate that names an
        address of the domain may be another host's. The domain as names have it. A scan of what names it."""

    async def addresses(self, domain: str, limit: int) -> tuple[str, ...]:
        """Addresses of the domain that entries of OpenPGP certificates are indexed under, each once, at most `limit`.

        The domain as names have it, nothing below it. Names of any entry, blocked and expired ones too."""

    async def certificate(self, fingerprint: str) -> Snapshot:
        """All entries of one certificate (blocked ones too) and its revocations; `records` is empty."""

    async def put(self, finds: Sequence[Find], records: Sequence[Record], begun: int, now: int) -> tuple[Stored, ...]:
        """Write finds, their revocations, index, records and the change row in one transaction.

        On disk when it returns, as far as killing the process goes; what upstreams could bring again may be lost with
        the power. A full store (FULL) takes no revocations of certificates that it does not know.
        One answer per find, in order. Same (fingerprint, source, origin): replaced, or merged where `replace` is False;
        cached_at (and seen_at) become `now`; vouchers are merged by address: what is authenticated or approved stays
        so, what is held is held until approved; at most 64 stay: approved ones first, held ones last, then the latest.
        A find refused as DELETED or BLOCKED leaves no trace, its revocations excepted. Records begun before a delete
        that touched their name are dropped. An update (`Find.update`) is merged into the copy of its entry, whose
        times, vouchers, chain and detail stay; where there is none it is GONE, and only its revocations are kept.
        An absent record replaces found and the other way round. Under a name that no index could hold (`names.fits`)
        nothing is found, and nothing is on record.
        Changes are published (names: every name of old and new copies, and the records' names) before it returns."""

    async def touch(self, asked: Mapping[Name, int]) -> None:
        """Note when clients last asked for these names: asked_at of their records, only ever forward; no change."""

    async def delete(
        self,
        fingerprint: str,
        now: int,
        source: Source | None = None,
        origin: str | None = None,
        undo: Undo | None = None,
    ) -> int:
        """Delete a certificate's entries (of one source and origin, where given); how many.

        Also forgets the records of every name of that certificate, so that the next lookup asks again; also counts
        as a delete for `begun` when nothing was there. Revocations stay.
        With `undo`, entries and found records wait to be undone; without, what waits of these entries is erased."""

    async def purge(self, what: Selection, now: int, undo: Undo | None = None) -> int:
        """Delete every entry that matches; how many.

        As `delete` for each, also for what was begun before and is not yet there."""

    async def undo(self, id_: str, now: int, cutoffs: Mapping[tuple[Source, str | None], int]) -> Undone | None:
        """Bring back what a delete took, as it was; None where nothing of that id waits (any more).

        Entries have their old times, vouchers and octets, and found records their old times. Whatever befell them while
        they waited counts: what was purged, deleted for good, blocked, revoked or brought again by its own origin stays
        as it is, a later word of the same upstream too, and what lies before its cutoff (as for `purge_expired`) has
        expired. A delete of another certificate that forgot the same records leaves them forgotten.
        Changes are published; a find begun before the delete stays refused. Each delete can be undone once."""

    async def undos(self, now: int) -> tuple[Waiting, ...]:
        """The deletes that can be undone, the latest first, at most 1,000. What waits is in no listing and no count."""

    async def erase_undos(self, now: int) -> int:
        """Erase what can not be undone any more (and what waits by a clock that was wrong); how many entries."""

    async def purge_all(self, now: int) -> int:
        """Forget everything but blocks: entries, records, revocations, what waits to be undone, the history; how many
        entries."""

    async def purge_expired(
        self,
        cutoffs: Mapping[tuple[Source, str | None], int],
        absent_before: int,
        limit: int,
        now: int | None = None,
    ) -> int:
        """Delete up to `limit` entries that lie before their cutoff, and absent records before `absent_before`.

        cutoffs: (source, origin) -> instant; an entry whose cached_at (mailflow: seen_at) lies before it has expired.
        Origin None is every origin of that source not named itself; a source not named never expires. Returns how many
        entries and records went: below `limit`, it is done. Found records go with the same cutoffs (by upstream).
        now: for the history (None: the database's clock)."""

    async def approve(
        self, fingerprint: str, source: Source, origin: str, address: str, now: int | None = None
    ) -> bool:
        """Approve one entry for one address, which is then no longer held for it; is there such an entry?

        now: for the history (None: the database's clock)."""

    async def block(self, fingerprint: str, now: int, reason: str = "") -> None:
        """From now on neither cached nor answered; existing entries stay but are never handed out by `look`."""

    async def unblock(self, fingerprint: str, now: int) -> bool:
        """Take a block away; was there one?"""

    async def blocked(self) -> tuple[str, ...]:
        """Fingerprints of what is blocked."""

    async def list(self, what: Listing, after: Place | None, budget: Budget) -> Page:
        """One step of a listing, behind a place that an earlier step gave.

        Every entry that is there from the first step to the last, and whose place does not change, comes exactly once,
        whatever else comes and goes. Nothing that a lookup needs waits for it."""

    async def index_text(self, limit: int) -> int:
        """Bring what listings look texts up in up to date by up to `limit` entries, once so many wait; how many."""

    async def search(self, text: str, kind: Kind, limit: int) -> tuple[str, ...]:
        """Fingerprints of certificates with an identity containing `text` (already case-folded); a scan, bounded."""

    async def due(self, found_before: Mapping[str | None, int], limit: int) -> tuple[Record, ...]:
        """Found records that were asked for since they were made (asked_at > at) and lie before the instant of
        their upstream (None: every other upstream): the ones worth a prefetch, oldest first."""

    async def lasting(self, after: str, upto: str, limit: int) -> tuple[str, ...]:
        """Fingerprints behind one and up to another, in order, of OpenPGP certificates with a local or mailflow entry,
        whether or not that has expired: what no lookup asks upstreams about again."""

    async def newest(self) -> int | None:
        """The latest cached_at, seen_at or `at` of any entry or record; None for an empty store."""

    async def stats(self) -> StoreStats:
        """Counts; may be a few seconds old."""

    def limit(self, max_size: int) -> None:
        """Another number of octets of the database above which nothing new is taken, for what is put from here on."""

    async def poll(self) -> None:
        """Notice what other processes changed since the last poll, and publish it; cheap when nothing did."""
