"""Which certificate answered for an address before: noted as lookups answer, and kept answering while others are held.

What answers where nothing was remembered is written behind the answer, with others; until then it counts in this
process. Another certificate than before is written at once, as an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from keyserver.hygiene import Hygiene
from keyserver.model import Answered, Certificate, Entry, Find, Kind, Name, Source, View
from keyserver.policy import Terms, judge
from keyserver.query import ByAddress
from keyserver.resolver.select import merged_of, proves
from keyserver.store.base import Store, Stored
from keyserver.store.history import WHO, Event, What
from keyserver.store.snapshot import Snapshot
from keyserver.store.vouchers import of_rows
from keyserver.tripwire import remembered
from keyserver.usable import unusable

MOST_NOTED = 100_000  # addresses that wait to be written
_EVENTS = 256  # of a certificate, among which its entries are looked for
UNKNOWN = "?"
"""What is remembered where the store cannot say it: no certificate is that."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What answered where nothing was remembered. begun: as in `Snapshot`, so that it counts for nothing after a
    delete."""

    fingerprint: str
    at: int
    begun: int


class Remembering:
    """Of all lookups of this process."""

    def __init__(self, store: Store, hygiene: Mapping[Kind, Hygiene], clock: Callable[[], int]) -> None:
        self._store = store
        self._hygiene = hygiene
        self._clock = clock
        self._noted: dict[Name, dict[str, Noted]] = {}

    def with_noted(self, name: Name, snapshot: Snapshot) -> Snapshot:
        """With what is not written yet."""
        noted = self._noted.get(name)
        if noted is None:
            return snapshot
        mine = {memory: one.fingerprint for memory, one in noted.items() if one.begun == snapshot.begun}
        return replace(snapshot, answering={**mine, **snapshot.answering})

    async def answers(self, query: ByAddress, view: View, snapshot: Snapshot, first: Answered) -> None:
        """This certificate answers first in this view, by what the snapshot says. Raises StoreError."""
        fingerprint, before = first.certificate.fingerprint, snapshot.answering.get(view.memory, "")
        if fingerprint == before or snapshot.begun < 0:
            return
        if not before:
            if query.name in self._noted or len(self._noted) < MOST_NOTED:
                noted = Noted(fingerprint, self._clock(), snapshot.begun)
                self._noted.setdefault(query.name, {})[view.memory] = noted
            return
        await self.flush()
        facts = {
            "source": str(first.source),
            "origin": next(entry.origin for entry in first.entries if entry.source is first.source),
        }
        if old := await self._best(snapshot, before):
            facts |= {"old_source": str(old.source), "old_origin": old.origin}
        token = WHO.set("")  # whoever asks, the answer is not their doing
        try:
            await self._store.history.answers(view.memory, query.name, fingerprint, self._clock(), before, facts)
        finally:
            WHO.reset(token)

    async def flush(self) -> None:
        """Write what is noted; it counts until it is written. Raises StoreError."""
        noted = {(memory, name): one for name, views in self._noted.items() for memory, one in views.items()}
        if not noted:
            return
        await self._store.history.answer_first({what: (one.fingerprint, one.at) for what, one in noted.items()})
        for (memory, name), one in noted.items():
            views = self._noted.get(name, {})
            if views.get(memory) is one:
                del views[memory]
            if not views:
                self._noted.pop(name, None)

    async def keep(self, query: ByAddress, view: View, snapshot: Snapshot, terms: Terms) -> Snapshot:
        """The remembered certificate goes on answering while others are held: where it can still be used, its entries
        are put again as of now, from the cache or, where they had expired, from the history. What is known then.

        Nothing that was deleted comes back: a delete ends the memory, and refuses what was begun before. Raises
        StoreError."""
        before = remembered(snapshot.answering, view)
        if snapshot.begun < 0 or not before:
            return snapshot
        whole = await self._store.certificate(before)
        now = self._clock()
        entries = [entry for entry in whole.entries if entry.kind is query.kind] or await self._gone(query, before)
        renewed = [replace(entry, cached_at=now, seen_at=now) for entry in entries]
        renewed = [entry for entry in renewed if judge(entry, view, now, terms, query.address).answerable]
        own = self._hygiene[query.kind]
        merged = merged_of(renewed, whole.revocations.get(before, b""), own, now)
        if merged is None or unusable(merged.proof) or not proves(merged.proof, query):
            return snapshot
        finds = [
            Find(
                Certificate(entry.octets, own.prove(entry.octets, now)),
                entry.source,
                entry.origin,
                replace=False,
                vouchers=entry.vouchers,
                chained=entry.chained,
                detail=entry.detail,
            )
            for entry in renewed
            if entry.source is not Source.LOCAL
        ]
        verdicts = await self._store.put(finds, [], snapshot.begun, now)
        if Stored.DELETED in verdicts or Stored.BLOCKED in verdicts:
            return snapshot
        others = tuple(entry for entry in snapshot.entries if entry.fingerprint != before)
        revocations = {**snapshot.revocations, **whole.revocations}
        return replace(snapshot, entries=(*others, *renewed), revocations=revocations)

    async def _best(self, snapshot: Snapshot, fingerprint: str) -> Entry | Event | None:
        """Where a certificate came from: by what is cached, or by the history."""
        for entry in snapshot.entries:
            if entry.fingerprint == fingerprint:
                return entry
        events = await self._store.history.events(_EVENTS, fingerprint=fingerprint)
        return next((event for event in events if event.source is not None), None)

    async def _gone(self, query: ByAddress, fingerprint: str) -> Sequence[Entry]:
        """Its entries as they were before they expired."""
        history, found = self._store.history, []
        events = [e for e in await history.events(_EVENTS, fingerprint=fingerprint) if e.source is not None]
        for source, origin in dict.fromkeys((e.source, e.origin) for e in events if e.source is not None):
            mine = [e for e in events if (e.source, e.origin) == (source, origin)]
            stood = next((e for e in mine if "vouchers" in e.facts), None)
            if mine[0].what is not What.EXPIRED or stood is None:
                continue
            octets = await history.copy(fingerprint, source, origin)
            if octets is not None:
                found.append(
                    Entry(
                        fingerprint=fingerprint,
                        kind=query.kind,
                        octets=octets,
                        source=source,
                        origin=origin,
                        cached_at=0,
                        seen_at=0,
                        vouchers=of_rows(stood.facts["vouchers"]),
                        chained=bool(stood.facts["chained"]),
                        detail=str(stood.facts["detail"]),
                    )
                )
        return found
