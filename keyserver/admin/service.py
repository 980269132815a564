"""The administrator's operations, once, for the API and for the command line without a running service.

What they return is frozen and made of plain values, which `plain.plain` turns into what JSON can say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Protocol

from keyserver.admin.acts import Acts
from keyserver.admin.approving import EntryChoice, choices
from keyserver.admin.files import file_of
from keyserver.admin.filters import wanted_of
from keyserver.admin.finding import Finding, of_kind, read
from keyserver.admin.importing import Importing, ImportReport
from keyserver.admin.problems import Ambiguous, Candidate, NotKnown, Refusal, Undecided, Unusable
from keyserver.admin.resources import (
    CertificateResource,
    EntryResource,
    LookupResult,
    RefreshResult,
    TestResult,
    asked_of,
    keeps_back,
    looked_of,
    refreshed_of,
    row_of,
    shown_of,
)
from keyserver.hygiene import Hygiene
from keyserver.model import (
    PASSED_OVER,
    Certificate,
    Entry,
    Find,
    Found,
    Kind,
    Refused,
    Selection,
    Source,
    State,
    Step,
    View,
)
from keyserver.policy import Terms, without_effect
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query
from keyserver.resolver.circuit import UpstreamStatus
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.resolver.select import merged_all
from keyserver.store import cursors
from keyserver.store.base import Store, Stored, StoreError
from keyserver.store.listing import Budget, Count, Filter, Sort
from keyserver.store.listing import Listing as Wanted

ADMINISTRATOR = "administrator"
"""The origin of every local entry."""

MAX_LISTED = 1000  # entries in one page of a listing
_STEP = 100  # entries read at once
WORTH_TELLING = ("asked", PASSED_OVER)  # steps of the other kind of certificates that belong into a lookup's trace


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of entries; `next` continues it, None at its end. A page without entries may have a next one."""

    entries: tuple[EntryResource, ...]
    next: str | None
    count: int | None
    """How many match in all; None where nobody keeps that, but on the first page."""
    count_exact: bool  # else there are at least so many
    searched: int  # entries gone over up to here
    of: int  # of about so many
    as_of: int  # the instant at which the first page was asked for, by which status and expiry are judged


@dataclass(frozen=True, slots=True)
class Whole:
    """One certificate, merged of all its entries."""

    fingerprint: str
    entries: tuple[Entry, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Done:
    """A change of one certificate: how many entries it concerned."""

    fingerprint: str
    count: int


class Harvesting(Protocol):
    """What administration needs of the mail flow."""

    async def harvest(self, octets: bytes, *, cut: bool = False, explain: bool = False) -> object:
        """One mail's report. `cut`: it was too large to be handed in; `explain`: only say what would happen."""

    def status(self) -> object:
        """The mail flow at this moment."""


class Service:
    """The operations. Every method raises Problem for what an administrator can mend, StoreError for the store's."""

    def __init__(
        self,
        *,
        store: Store,
        resolver: Resolver,
        cleaner: Cleaner,
        hygiene: Mapping[Kind, Hygiene],
        rules: Callable[[], Rules],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        harvester: Harvesting,
        purge_expired: Callable[[], Awaitable[int]],
        acts: Acts,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._cleaner = cleaner
        self._hygiene = hygiene
        self._rules = rules
        self._clock = clock
        self._monotonic = monotonic
        self._harvester = harvester
        self.finding = Finding(store, lambda: self._terms, clock, monotonic)
        self._purge_expired = purge_expired
        self._identity = acts.identity
        self._note = acts.note

    @property
    def _terms(self) -> Terms:
        return self._rules().terms

    @property
    def _view(self) -> View:
        return self._rules().view(View())

    async def list(
        self,
        what: Filter,
        limit: int = 100,
        cursor: str | None = None,
        sort: Sort = Sort.CACHED,
        *,
        descending: bool = True,
    ) -> Listing:
        """Entries, expired, held and blocked ones too. The words in each row are those of now."""
        if not 1 <= limit <= MAX_LISTED:
            raise Unusable(f"limit is {limit}; 1 to {MAX_LISTED} are accepted")
        wanted = wanted_of(what, self._clock(), self._terms, sort, descending=descending)
        place, searched = None, 0
        if cursor is not None:
            try:
                progress = cursors.read(cursor, wanted)
            except cursors.BadCursor as problem:
                raise Unusable(str(problem)) from None
            wanted, place, searched = replace(wanted, now=progress.now), progress.place, progress.searched
        entries: list[Entry] = []
        counted: Count | None = None
        while True:
            rows = min(_STEP, limit - len(entries))
            page = await self._store.list(wanted, place, Budget(self._monotonic, rows))
            entries += page.entries
            place, searched, counted = page.next, searched + page.searched, counted or page.count
            if place is None or len(page.entries) < rows or len(entries) == limit:
                break
        blocked = frozenset(await self._store.blocked())
        now = self._clock()
        return Listing(
            entries=tuple(row_of(e, now, self._terms, self._view, blocked) for e in entries),
            next=None if place is None else cursors.written(wanted, place, searched),
            count=None if counted is None else counted.entries,
            count_exact=counted is not None and counted.exact,
            searched=searched,
            of=max(searched, page.of),
            as_of=wanted.now,
        )

    def matching(self, what: Selection) -> Wanted:
        """A listing of every entry that matches, as of now."""
        return wanted_of(Filter(what), self._clock(), self._terms)

    async def show(self, term: str) -> CertificateResource:
        """One certificate, merged of all its entries, with each of them."""
        whole = await self.whole(term)
        blocked = frozenset(await self._store.blocked())
        now = self._clock()
        rows = tuple(row_of(e, now, self._terms, self._view, blocked) for e in whole.entries)
        return shown_of(whole.certificate.proof, rows, blocked=whole.fingerprint in blocked)

    async def whole(self, term: str) -> Whole:
        """The same, unjudged."""
        fingerprint = await self.finding.find(term)
        snapshot = await self._store.certificate(fingerprint)
        merged = merged_all(snapshot, fingerprint, self._hygiene, self._clock())
        if merged is None:
            blocked = fingerprint in await self._store.blocked()
            raise NotKnown(f"{fingerprint} is {'blocked, and ' if blocked else ''}not cached")
        return Whole(fingerprint, snapshot.entries, merged)

    async def purge(self, what: Selection) -> int:
        """Delete every entry that matches; how many. An empty selection is refused: `purge_all` is the way."""
        if what == Selection():
            raise Unusable("nothing selected; a purge of everything must say so")
        chosen = {name: str(value) for name, value in asdict(what).items() if value is not None}
        purged = await self._store.purge(what, self._clock())
        self._note("purge", **chosen, entries=purged)
        return purged

    async def purge_expired(self) -> int:
        """Tidy away what has expired; how many entries and records."""
        purged = await self._purge_expired()
        self._note("purge", expired=True, entries=purged)
        return purged

    async def purge_all(self) -> int:
        """Forget everything but blocks, revocations too; how many entries."""
        purged = await self._store.purge_all(self._clock())
        self._note("purge", all=True, entries=purged)
        return purged

    async def approve(
        self, term: str, address: str | None = None, source: Source | None = None, upstream: str | None = None
    ) -> EntryChoice:
        """Approve one entry for one address, the one that `meant` finds."""
        choice = await self.meant(term, address, source, upstream)
        place = (choice.fingerprint, Source(choice.source), choice.origin)
        if not await self._store.approve(*place, choice.address, self._clock()):
            raise NotKnown(f"{choice.fingerprint} was deleted at the same moment")
        self._note("approve", choice.fingerprint, source=choice.source, address=self._identity(choice.address))
        return choice

    async def meant(
        self, term: str, address: str | None = None, source: Source | None = None, upstream: str | None = None
    ) -> EntryChoice:
        """The one entry and address for which an approval has an effect.

        Where several fit, Ambiguous or Undecided lists them and none is chosen.

        `address` defaults to `term` where that is one, else to the only one for which an approval has an effect."""
        meant = read(address or term)
        if address and not isinstance(meant, ByAddress):
            raise Unusable(f"address is {address!r}; accepted is an address such as alice@example.org")
        wanted = meant.address if isinstance(meant, ByAddress) else None
        try:
            named: Sequence[Candidate] = [Candidate(await self.finding.find(term), ())]
        except Ambiguous as several:
            named = several.candidates
        shelves = [await self._store.certificate(candidate.fingerprint) for candidate in named]
        now = self._clock()
        proved = [(e, self._hygiene[e.kind].prove(e.octets, now)) for snapshot in shelves for e in snapshot.entries]
        judged = [
            (choice, without_effect(entry, choice.address, self._view, self._terms))
            for entry, choice in choices(proved, wanted, source, upstream)
        ]
        fit = [choice for choice, why in judged if not why]
        if not judged:
            raise NotKnown(f"{term} has no such entry{f' that names {wanted}' if wanted else ''}")
        if not fit:
            raise Refusal(f"no approval changes this: {judged[0][1]}")
        fingerprints = {choice.fingerprint for choice in fit}
        if len(fingerprints) > 1:
            raise Ambiguous(term, [c for c in named if c.fingerprint in fingerprints])
        if len(fit) > 1:
            raise Undecided(fit)
        return fit[0]

    async def refresh(self, term: str) -> RefreshResult:
        """Ask the upstreams for a certificate again, whatever is cached; what is there stays if they have no news."""
        fingerprint = await self.finding.find(term)
        snapshot = await self._store.certificate(fingerprint)
        kind = snapshot.entries[0].kind if snapshot.entries else Kind.OPENPGP
        queries: list[Query] = [ByFingerprint(fingerprint, kind)]
        asked = read(term)
        if isinstance(asked, ByAddress):
            queries.append(ByAddress(asked.local, asked.domain, kind))
        searches = [search for query in queries if (search := await self._resolver.refresh(query)) is not None]
        if not searches:
            raise Refusal("no upstream may be asked for it now")
        return refreshed_of(fingerprint, searches)

    async def keep(self, term: str) -> Done:
        """Make a certificate `local`, for good: the merge of everything that is cached of it."""
        fingerprint = await self.finding.find(term)
        snapshot = await self._store.certificate(fingerprint)
        now = self._clock()
        if not snapshot.entries:
            raise NotKnown(f"{fingerprint} is not cached")
        begun = await self._store.begin()
        merged = merged_all(snapshot, fingerprint, self._hygiene, now)
        assert merged is not None  # there are entries
        chained = any(e.chained for e in snapshot.entries)
        find = Find(merged, Source.LOCAL, ADMINISTRATOR, chained=chained)
        (verdict,) = await self._store.put([find], [], begun, now)
        if verdict is Stored.BLOCKED:
            raise Refusal(f"{fingerprint} is blocked: unblock it first")
        if verdict is Stored.FULL:
            raise Refusal("cache.max_size is reached")
        if verdict is Stored.DELETED:
            raise Refusal(f"{fingerprint} was deleted at the same moment")
        self._note("keep", fingerprint)
        return Done(fingerprint, 1)

    async def block(self, term: str, reason: str = "") -> Done:
        """From now on neither cache nor answer a certificate, cached or not."""
        fingerprint = await self.finding.find(term, cached=False)
        await self._store.block(fingerprint, self._clock(), reason)
        self._note("block", fingerprint)
        return Done(fingerprint, 1)

    async def unblock(self, term: str) -> Done:
        """Take a block away."""
        fingerprint = await self.finding.find(term, cached=False)
        if not await self._store.unblock(fingerprint, self._clock()):
            raise NotKnown(f"{fingerprint} is not blocked")
        self._note("unblock", fingerprint)
        return Done(fingerprint, 1)

    async def export(self, what: Selection) -> AsyncIterator[bytes]:
        """Certificates as armor, or as PEM where `what` says X.509, each the merge of all its entries.

        What is blocked is left out."""
        what = replace(what, kind=what.kind or Kind.OPENPGP)
        blocked = frozenset(await self._store.blocked())
        wanted = self.matching(what)
        last, place = "", None
        while True:
            page = await self._store.list(wanted, place, Budget(self._monotonic))
            for entry in page.entries:
                if entry.fingerprint == last or entry.fingerprint in blocked:
                    continue
                last = entry.fingerprint
                snapshot = await self._store.certificate(entry.fingerprint)
                merged = merged_all(snapshot, entry.fingerprint, self._hygiene, self._clock())
                if merged is not None:
                    yield file_of(merged)
            place = page.next
            if place is None:
                return

    async def import_keyring(
        self, chunks: AsyncIterator[bytes], tell: Callable[[ImportReport], None] | None = None
    ) -> ImportReport:
        """Read a keyring, or X.509 certificates as PEM or DER, and store what is clean as local entries.

        Memory stays bounded whatever its size. `tell` hears how far it is after each batch."""
        importing = Importing(self._store, self._cleaner, self._clock, ADMINISTRATOR, self._rules().max_certificate)
        try:
            report = await importing.run(chunks, tell)
        except BaseException:
            self._note("import", ended="it broke off, and what was read by then is stored")
            raise
        counts = {name: getattr(report, name) for name in ("new", "changed", "same", "blocked", "refused")}
        self._note("import", **counts)
        return report

    async def harvest(self, octets: bytes, *, cut: bool = False, explain: bool = False) -> object:
        """One mail through the harvest: what was cached, or why not. `explain`: nothing is stored."""
        return await self._harvester.harvest(octets, cut=cut, explain=explain)

    def mailflow(self) -> object:
        """Queue, counts, the latest mails and the addresses that changed their certificate."""
        return self._harvester.status()

    def upstreams(self) -> Sequence[UpstreamStatus]:
        """Every upstream's health, counts and latencies."""
        return self._resolver.statuses()

    async def test(self, upstream: str, search: str) -> TestResult:
        """Ask one upstream once, whatever its health; nothing of it is kept."""
        query = read(search)
        began = self._monotonic()
        try:
            outcome = await self._resolver.test(upstream, query)
        except KeyError:
            names = ", ".join(status.name for status in self._resolver.statuses())
            raise NotKnown(f"no upstream is named {upstream}; there are: {names or 'none'}") from None
        taken = (self._monotonic() - began) * 1000
        certificates: list[Certificate | Refused] = []
        if isinstance(outcome, Found):
            for raw in outcome.raw[:64]:
                certificates += await self._cleaner.clean(raw.kind, raw.octets, self._clock())
        return asked_of(upstream, str(query), outcome, certificates, taken)

    async def lookup(
        self, search: str, *, trace: bool = False, hear: Callable[[Kind, Step], None] | None = None
    ) -> LookupResult:
        """One lookup as a client of the default view would have it, of both kinds; `trace` tells each step, `hear` is
        told each as it happens."""
        query = read(search)
        if isinstance(query, ByText) and self._rules().text_search == "off":
            raise Unusable(
                "this is text, and policy.text_search is off: give one whole address, such as alice@example.org,"
                " a fingerprint or a 16-digit key ID"
            )
        other = await self._in_x509(query)
        asked = [query] if other is None else [query, other]
        found = await asyncio.gather(
            *(self._resolver.lookup(q, self._view, hear=hear and partial(hear, q.kind)) for q in asked)
        )
        # Where nobody may be asked for the other kind, its trace would only be noise.
        answers = {
            q.kind: answer
            for q, answer in zip(asked, found, strict=True)
            if q is query or answer.state is not State.ABSENT or any(s.what in WORTH_TELLING for s in answer.steps)
        }
        blocked = frozenset[str]()  # the resolver never answers those
        now = self._clock()
        withheld = not any(a.certificates for a in answers.values()) and await self._withheld(asked, now)
        return looked_of(
            str(query), answers, trace, lambda e: row_of(e, now, self._terms, self._view, blocked), withheld=withheld
        )

    async def _withheld(self, asked: Sequence[Query], now: int) -> bool:
        """Is anything known of it that has not expired and that policy keeps from clients?"""
        try:
            shelves = [(query, await self._store.look(query.name)) for query in asked]
        except StoreError:
            return False
        return any(keeps_back(s.entries, q, self._view, now, self._terms) for q, s in shelves)

    async def _in_x509(self, query: Query) -> Query | None:
        """The same question for X.509 certificates: an address always, an ID where one is cached under it."""
        if not isinstance(query, ByAddress | ByFingerprint | ByKeyId):
            return None
        other = of_kind(query, Kind.X509)
        if isinstance(query, ByAddress):
            return other
        try:
            return other if (await self._store.look(other.name)).entries else None
        except StoreError:
            return None
