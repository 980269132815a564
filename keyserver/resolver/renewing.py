"""Certificates that no lookup asks upstreams about again: local ones, and those seen in mail.

Such an entry is a hit by itself, so a revocation that its owner has published since would never be seen. Each is asked
for by its fingerprint once in `interval` seconds, for revocations and renewals alone: what comes is merged into the
copies that are there, under the user IDs that they have. Failures change nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from keyserver.hygiene import Hygiene
from keyserver.model import Certificate, Entry, Find, Found, Kind, Source, UpstreamSpec
from keyserver.policy import Terms, is_expired, told
from keyserver.query import ByFingerprint
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.rules import Rules
from keyserver.rules import InForce
from keyserver.store.base import Store
from keyserver.upstreams.base import Upstream

PLACE = "revocations"
"""Under which the history keeps up to when (Unix seconds) certificates have been asked for."""
AT_ONCE = 4  # certificates that are asked for at the same time
MOST = 200  # fingerprints read at once
BEHIND = 24  # the place in the database is never further behind than this part of an interval
_DIGITS = 12  # of a fingerprint, by which its turn is told


@dataclass(slots=True)
class Renewing:
    """Goes round once in an interval. A fingerprint is as good as random, so its first digits say when it has its turn:
    the questions are spread evenly, and nothing need be remembered but how far the round has come: in the database, for
    a restart, and for whichever node leads next."""

    store: Store
    rules: InForce[Rules]
    circuit: CircuitBreaker
    cleaner: Cleaner
    hygiene: Mapping[Kind, Hygiene]
    clock: Callable[[], int]
    via: str
    _reached: int = field(default=0, init=False)  # by this process

    async def run(self) -> int:
        """Ask for those whose turn has come since the last call; for how many. Raises StoreError.

        The place is written where somebody had his turn. Whoever goes on from one further behind passes over nothing
        but what has come since then, and so as not to ask for all of that at once it is written now and then, too."""
        now, interval = self.clock(), self.rules().revocation_interval
        written = await self.store.history.cursor(PLACE)
        since, count = max(written or 0, self._reached), 0
        if written is not None and since < now:  # else the first call, or a clock that was set back
            for after, upto in turns(max(since, now - interval), now, interval):
                count += await self._range(after, upto)
        if written is None or count or now - written > interval // BEHIND:
            await self.store.history.move(PLACE, now)
        self._reached = max(since, now)
        return count

    async def _range(self, after: str, upto: str) -> int:
        count, free = 0, asyncio.Semaphore(AT_ONCE)

        async def one(fingerprint: str) -> None:
            async with free:
                await self.renew(fingerprint)

        while fingerprints := await self.store.lasting(after, upto, MOST):
            await asyncio.gather(*map(one, fingerprints))
            count, after = count + len(fingerprints), fingerprints[-1]
            if len(fingerprints) < MOST:
                break
        return count

    async def renew(self, fingerprint: str) -> None:
        """Ask every upstream that may hear of it. Raises StoreError."""
        begun = await self.store.begin()
        snapshot = await self.store.certificate(fingerprint)
        query, rules, now = ByFingerprint(fingerprint), self.rules(), self.clock()
        entries = [e for e in snapshot.entries if e.source is not Source.KEYSERVER]
        entries = [e for e in entries if not is_expired(e, now, rules.terms)]
        if not entries or fingerprint in await self.store.blocked():
            return
        domains = self._domains(entries, now)
        for tier in rules.tiers(query).tiers:
            for spec in tier:
                if may_hear(spec, domains, rules.terms):
                    await self._ask(rules.upstreams[spec.name], query, entries, begun)

    async def _ask(self, upstream: Upstream, query: ByFingerprint, entries: Sequence[Entry], begun: int) -> None:
        def silenced() -> str:
            return self.rules().silences(upstream, query)

        outcome = await self.circuit.ask(upstream, query, upstream.spec.timeout, self.via, silenced=silenced)
        if not isinstance(outcome, Found):
            return
        now, finds = self.clock(), list[Find]()
        for raw in outcome.raw:
            for item in await self.cleaner.clean(raw.kind, raw.octets, now):
                if isinstance(item, Certificate) and item.fingerprint == query.fingerprint:
                    finds += self._updates(item, entries, now)
        with self.rules.acting():
            if finds and not silenced():
                await self.store.put(finds, [], begun, now)

    def _updates(self, found: Certificate, entries: Sequence[Entry], now: int) -> Iterator[Find]:
        """For each entry what of it is news under the user IDs that it has."""
        own = self.hygiene[found.proof.kind]
        for entry in entries:
            texts = {claim.text for claim in own.prove(entry.octets, now).claims}
            foreign = {claim.text for claim in found.proof.claims} - texts
            octets = own.cut(found.octets, foreign) if foreign and own.cut is not None else found.octets
            merged = own.merge([entry.octets, octets], b"")
            if len(merged) > self.rules().max_certificate or (merged == entry.octets and not own.revocations(octets)):
                continue
            update = Certificate(octets, own.prove(octets, now))
            yield Find(update, entry.source, entry.origin, replace=False, update=True)

    def _domains(self, entries: Sequence[Entry], now: int) -> frozenset[str]:
        """Domains of the addresses that they name."""
        claims = [claim for e in entries for claim in self.hygiene[e.kind].prove(e.octets, now).claims]
        return frozenset(c.address.rpartition("@")[2] for c in claims if c.address)


def may_hear(spec: UpstreamSpec, domains: frozenset[str], terms: Terms) -> bool:
    """May this upstream be told of a certificate that nobody has asked for? Of one with addresses only where it may be
    told one of them: our own people's are asked for nowhere else."""
    return not domains or any(not told(spec, domain, terms) for domain in domains)


def turns(since: int, now: int, interval: int) -> Iterator[tuple[str, str]]:
    """Ranges of fingerprints (behind one, up to another) whose turn comes behind one instant and up to another, no
    further apart than an interval."""
    begin, end = since % interval, now % interval
    if now - since >= interval:
        yield "", _place(interval, interval)
    elif begin < end:
        yield _place(begin, interval), _place(end, interval)
    elif end < begin:
        yield _place(begin, interval), _place(interval, interval)
        yield "", _place(end, interval)


def _place(of: int, interval: int) -> str:
    """What is behind it has its turn later."""
    if of >= interval:
        return "G"  # behind every hex digit
    return f"{of * 16**_DIGITS // interval:0{_DIGITS}X}" if of else ""
