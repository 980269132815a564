"""What was known of one name at one instant, from what the history has on record of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keyserver.hygiene import Hygiene
from keyserver.model import Entry, Kind, Name, Record, Source
from keyserver.store import vouchers
from keyserver.store.history import Event, Said, What, Word
from keyserver.store.snapshot import Snapshot
from keyserver.store.standing import Standing

HOUR = 3600  # an entry that is renewed within it is one event: it cannot have been too old in between
DAY = 86400  # the same word of an upstream within it is one
REVOKED = "revoked"  # what stands for the source where revocations are set aside

EVENT, WORD, COPY = 400, 150, 200  # octets that a row takes with its indexes, about (COPY: besides the certificate)

BEFORE = 1 << 50
"""What was there when the history began has numbers below zero: id - BEFORE for entries, and so on downwards."""

FIRST_SETTINGS = -1
"""The number of the settings with which the history begins: they are no change, so nobody is told of them."""

CANDIDATES = 256
"""Certificates of one name that are looked at: of those stored now the best, of those that were, any."""
MOST_CERTIFICATES = 64
MOST_OCTETS = 16 << 20


@dataclass(frozen=True, slots=True)
class State:
    """An entry after its last event up to then."""

    fingerprint: str
    kind: str
    source: str
    origin: str
    cached: int
    last: int  # until when that event was extended
    vouchers: str
    chained: bool
    detail: str
    octets: bytes

    def entry(self, at: int, identities: tuple[str, ...]) -> Entry:
        """As it was at that instant. Between the first and the last time of what is one event it counts as just seen:
        the time before that one was an hour ago at most."""
        cached = self.cached if at >= self.last else at
        behind = tuple(replace(v, seen_at=min(v.seen_at, cached)) for v in vouchers.read(self.vouchers))
        return Entry(
            fingerprint=self.fingerprint,
            kind=Kind(self.kind),
            octets=self.octets,
            source=Source(self.source),
            origin=self.origin,
            cached_at=cached,
            seen_at=cached,
            vouchers=behind,
            chained=bool(self.chained),
            detail=self.detail,
            identities=identities,
        )


@dataclass(frozen=True, slots=True)
class Spoken:
    """A row of what upstreams said to this query. A record that was brought back is older than since it was."""

    upstream: str
    since: int
    last: int
    word: str
    gone: int | None

    def said(self) -> Said:
        """For people."""
        return Said(self.upstream, Word(self.word), self.since, max(self.since, self.last))


def records(name: Name, words: Iterable[Spoken], at: int) -> tuple[Record, ...]:
    """Those on record at that instant; words in the order of their beginning."""
    last = {one.upstream: one for one in words if one.since <= at and one.word != Word.FAILED}
    there = [one for one in last.values() if one.gone is None or one.gone > at]
    return tuple(Record(name, one.upstream, one.word == Word.FOUND, min(one.last, at), 0) for one in there)


def said(words: Sequence[Spoken], at: int) -> tuple[tuple[Said, ...], tuple[Said, ...]]:
    """The last word of each upstream up to then, and its next one; words in the order of their beginning."""
    last = {one.upstream: one.said() for one in words if one.since <= at}
    later = {one.upstream: one.said() for one in reversed(words) if one.since > at}
    return tuple(last[key] for key in sorted(last)), tuple(later[key] for key in sorted(later))


def snapshot(
    name: Name,
    at: int,
    states: Iterable[State],
    revocations: Mapping[str, bytes],
    known: tuple[Record, ...],
    answering: Mapping[str, str],
    hygiene: Mapping[Kind, Hygiene],
) -> Snapshot:
    """As `Store.look` gave it then, or nearly: which 64 of very many certificates it was, nobody knows any more."""
    found: dict[str, list[Entry]] = {}
    places: dict[str, tuple[int, int]] = {}
    for state in states:
        names, identities = hygiene[Kind(state.kind)].index(state.octets)
        entry = state.entry(at, identities)
        found.setdefault(entry.fingerprint, []).append(entry)
        if name in names:
            place = (_rank(entry, name, known), -entry.cached_at)
            places[entry.fingerprint] = min(place, places.get(entry.fingerprint, place))
    entries: list[Entry] = []
    room = MOST_OCTETS
    for fingerprint in sorted(places, key=places.__getitem__)[:MOST_CERTIFICATES]:
        ordered = sorted(found[fingerprint], key=lambda e: (_stand(e).rank, -e.cached_at))
        entries += ordered
        room -= sum(len(entry.octets) for entry in ordered)
        if room < 0:
            break
    named = {entry.fingerprint for entry in entries}
    revoked = {fingerprint: octets for fingerprint, octets in revocations.items() if fingerprint in named}
    return Snapshot(tuple(entries), revoked, known, answering=answering)


def _stand(entry: Entry) -> Standing:
    return Standing.of(entry.source, entry.vouchers, chained=entry.chained)


def _rank(entry: Entry, name: Name, known: tuple[Record, ...]) -> int:
    stand = _stand(entry)
    _, _, address = name.partition(":addr:")
    if not address:
        return stand.rank
    found = entry.source is Source.KEYSERVER and any(r.found and r.upstream == entry.origin for r in known)
    return 1 if address in stand.vouched or (found and stand.claimed > 1) else stand.claimed


def answering(now: Iterable[tuple[str, str, int]], replaced: Iterable[Event], at: int) -> Mapping[str, str]:
    """Who had answered last at that instant: from who does now (view, fingerprint, since), and what was replaced after
    it or deleted, in order."""
    found: dict[str, tuple[str, int]] = {view: (fingerprint, since) for view, fingerprint, since in now}
    for event in reversed(tuple(replaced)):
        if event.at > at:
            since = event.facts.get("since")
            found[str(event.facts["view"])] = (str(event.facts["old"]), since if isinstance(since, int) else 0)
    return {view: fingerprint for view, (fingerprint, since) in found.items() if fingerprint and since <= at}


TURNED = (
    "SELECT origin, what FROM event{} WHERE fingerprint = '' AND source = '' AND origin > '' AND at > {}"
    " AND what IN ('paused', 'resumed') ORDER BY at, number"
)
"""Which upstreams were paused and resumed after an instant, in order."""


def paused(now: Iterable[tuple[str, int]], turned: Iterable[tuple[str, str]], at: int) -> frozenset[str]:
    """Upstreams that were paused at that instant: from those that are (since when), and by `TURNED` after it."""
    next_: dict[str, str] = {}
    for upstream, what in turned:
        next_.setdefault(upstream, what)
    still = {upstream for upstream, since in now if since <= at and upstream not in next_}
    return frozenset(still | {upstream for upstream, what in next_.items() if what == What.RESUMED})


EVENT_COLUMNS = (
    "number, at, what, fingerprint, kind, source, origin, address, who, last, facts, vouchers, chained, detail, cached"
)


def event(row: Sequence[Any]) -> Event:
    """From `EVENT_COLUMNS`."""
    number, at, what, fingerprint, kind, source, origin, address, who, last, facts, vouched, chained, detail, cached = (
        row
    )
    told = json.loads(facts)
    if cached is not None:
        told |= {"cached_at": cached, "chained": bool(chained), "detail": detail, "vouchers": json.loads(vouched)}
    return Event(
        number=number,
        at=at,
        what=What(what),
        fingerprint=fingerprint,
        kind=Kind(kind) if kind else None,
        source=Source(source) if source else None,
        origin=origin,
        address=address,
        who=who,
        last=last,
        facts=told,
    )


def canonical(settings: Mapping[str, object]) -> str:
    """Settings as they are kept and compared."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=True)


def differing(old: str | None, new: str) -> str:
    """Which settings are others, as facts of the event."""
    before: Mapping[str, object] = json.loads(old) if old is not None else {}
    after: Mapping[str, object] = json.loads(new)
    changed = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    return json.dumps({"changed": changed if old is not None else []})


def forgotten(view: str, fingerprint: str, since: int) -> str:
    """Facts of the event that a certificate is not remembered any more as what answered there."""
    return json.dumps({"view": view, "old": fingerprint, "since": since})


def address_of(name: Name) -> tuple[str, str]:
    """Kind and address of a name, empty where it is of none."""
    kind, _, address = name.partition(":addr:")
    return (kind, address) if address else ("", "")
