"""One search: tier by tier, each upstream through its circuit breaker; what is kept has been proved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from keyserver.hygiene import Hygiene
from keyserver.model import (
    Absent,
    Certificate,
    Entry,
    Failed,
    Fault,
    Find,
    Found,
    Kind,
    Outcome,
    Record,
    Refused,
    Source,
    Step,
    Voucher,
    joined,
)
from keyserver.policy import OnRecord
from keyserver.query import ByAddress, ByText
from keyserver.resolver.blocks import Blocks
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.failures import Failures
from keyserver.resolver.inflight import Search
from keyserver.resolver.plan import lists
from keyserver.resolver.reported import Reported
from keyserver.resolver.rules import Rules
from keyserver.resolver.select import proves
from keyserver.rules import InForce
from keyserver.store.base import Store, Stored, StoreError
from keyserver.store.history import WHO
from keyserver.tripwire import waits
from keyserver.upstreams.base import Upstream

MAX_CLEANED = 64  # certificates cleaned in one search (rule 12)


@dataclass(frozen=True, slots=True)
class Searcher:
    """The parts of a search that stay the same; `run` is one search."""

    store: Store
    rules: InForce[Rules]
    circuit: CircuitBreaker
    cleaner: Cleaner
    hygiene: Mapping[Kind, Hygiene]
    clock: Callable[[], int]
    monotonic: Callable[[], float]
    via: str
    watch: Reported = field(default_factory=Reported)  # over writing
    blocks: Blocks = field(default_factory=Blocks)
    failures: Failures = field(default_factory=Failures)

    async def run(self, search: Search, known: OnRecord) -> None:
        """Ask until something is proven; settle as soon as waiters can be answered; go on for stragglers.

        A fingerprint (or key ID) settles at the first proven answer with a user ID, an address when its tier has
        answered or its time is up. A certificate without user IDs is found, and nothing that can be handed out yet: the
        others are asked, too. A tier with a successor gets at most half of what is left.
        """
        WHO.set("")  # whoever asks, what is found is the upstream's word
        end = self.monotonic() + self.rules().deadline
        stragglers: set[asyncio.Task[None]] = set()
        whole_tier = isinstance(search.query, ByAddress | ByText)
        try:
            for number, tier in enumerate(search.asks):
                left = max(0.0, end - self.monotonic())
                last = number + 1 == len(search.asks)
                share = left if last else left / 2
                ask = [u for u in tier if not self._said_absent(search, u.spec.name, known)]
                if last and len(ask) == 1 and all(task.done() for task in stragglers):  # nothing to wait for beside it
                    await self._one(search, ask[0])
                    break
                asked = {asyncio.ensure_future(self._one(search, upstream)) for upstream in ask}
                stragglers |= asked
                await self._until_answered(search, asked, self.monotonic() + share, whole_tier)
                if search.proven or search.overtaken or self._kept_waiting(search, tier):
                    break
            while stragglers and not search.proven:
                _, stragglers = await asyncio.wait(stragglers, return_when=asyncio.FIRST_COMPLETED)
            search.settled.set()
            if stragglers:
                await asyncio.wait(stragglers)
        finally:
            for task in stragglers:
                task.cancel()
            await asyncio.gather(*stragglers, return_exceptions=True)

    async def _until_answered(
        self, search: Search, tasks: set[asyncio.Task[None]], until: float, whole_tier: bool
    ) -> None:
        while tasks and (whole_tier or not search.proven):
            left = until - self.monotonic()
            if left <= 0:
                return
            done, tasks = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a programming error must not look like silence

    def _kept_waiting(self, search: Search, tier: Sequence[Upstream]) -> bool:
        """Is one of these paused that lists the domain, and that says nothing now? Then others do not speak for it."""
        specs = [upstream.spec for upstream in tier]
        silent = [s.name for s in specs if lists(s, search.query) and self.circuit.paused(s.name)]
        silent = [name for name in silent if isinstance(search.outcomes.get(name), Failed)]
        for name in silent:
            self._tell(search, name, "paused", "it lists the domain: no later priority is asked")
        return bool(silent)

    def _said_absent(self, search: Search, name: str, known: OnRecord) -> bool:
        record = known.living.get(name)
        if search.refresh or record is None or record.found:
            search.outcomes[name] = None
            return False
        ago = max(0, self.clock() - record.at)
        search.outcomes[name] = Absent(f"said so {ago} s ago")
        self._tell(search, name, "absent", f"remembered, said so {ago} s ago")
        return True

    async def _one(self, search: Search, upstream: Upstream) -> None:
        """Ask one upstream, prove, keep."""
        spec, name = upstream.spec, upstream.spec.name
        if not self.circuit.barred(upstream, search.query):
            self._tell(search, name, "asked", f"priority {spec.priority}, for up to {spec.timeout:g} s")
        via = f"{search.via},{self.via}" if search.via else self.via

        async def answered() -> bool:
            return isinstance(search.query, ByAddress) and await self._answered(name, search.query.domain)

        def silenced() -> str:
            return self.rules().silences(upstream, search.query)

        left = max(self.rules().deadline, spec.timeout)
        outcome = await self.circuit.ask(
            upstream, search.query, left, via, client=search.client, answered=answered, silenced=silenced
        )
        finds: list[Find] = []
        if isinstance(outcome, Found):
            outcome, finds = await self._prove(search, upstream, outcome)
        with self.rules.acting():  # what is stored now was judged by them
            if why := silenced():
                outcome, finds = Failed(f"not believed: {why}", Fault.LOCAL), []
            await self._conclude(search, name, outcome, finds)

    async def _conclude(self, search: Search, name: str, outcome: Outcome, finds: Sequence[Find]) -> None:
        """Keep what an upstream's answer holds, and say so."""
        now = self.clock()
        records: list[Record] = []
        if isinstance(outcome, Found):
            records = [Record(search.query.name, name, True, now)]
        elif isinstance(outcome, Absent) and outcome.remember and not search.refresh:
            records = [Record(search.query.name, name, False, now)]
        self._tell(search, name, *_words(outcome))
        if finds or records:
            await self._keep(search, name, finds, records, now)
        elif isinstance(outcome, Failed):
            self.failures.note(search.query.name, (name,), now)
        search.records += records
        search.outcomes[name] = outcome
        if isinstance(outcome, Found) and any(_complete(find.certificate) for find in finds):
            search.proven = True

    async def _prove(self, search: Search, upstream: Upstream, answer: Found) -> tuple[Outcome, list[Find]]:
        """What an answer really holds: Found with what proves the query, Absent, or Failed where it is garbage.

        Where some of it is damaged and the rest proves nothing, the damaged part may have been what was asked for."""
        name, now, raws = upstream.spec.name, self.clock(), answer.raw
        good: list[Certificate] = []
        others: list[str] = []
        refused: list[Refused] = []
        for raw in raws:
            if search.cleaned >= MAX_CLEANED:
                self._tell(search, name, "cut", f"more than {MAX_CLEANED} certificates")
                break
            for item in await self.cleaner.clean(raw.kind, raw.octets, now):
                search.cleaned += 1
                if isinstance(item, Refused):
                    refused.append(item)
                elif len(item.octets) > (most := self.rules().max_certificate):
                    refused.append(Refused(f"larger than {most} octets", item.fingerprint))
                elif proves(item.proof, search.query) and (upstream.spec.nameless or _complete(item)):
                    good.append(item)
                elif not item.proof.user_ids and await self._known(item.fingerprint):
                    others.append(f"{item.fingerprint} has no user IDs")
                    await self._update(search, name, item)
                else:
                    others.append(item.fingerprint)
        for item in refused[:8]:
            self._tell(search, name, "refused", f"{item.fingerprint or 'certificate'}: {item.reason}")
        for damage in answer.damaged:
            self._tell(search, name, "damaged", damage)
        for c in good:
            self.hygiene[c.proof.kind].learn(c.octets, c.proof, now)
        if good:
            whole = not answer.damaged and not any(item.fatal for item in refused)
            finds = await self._finds(search, upstream, good[:MAX_CLEANED], answer, now, whole=whole)
            return Found((), method=answer.method), finds
        if others:
            # Which ones is for the trace only: an outcome's reason is logged.
            self._tell(search, name, "dropped", f"does not prove the query: {joined(others)}")
        # Whoever asks chooses what is asked: what cannot be read there says nothing of the host's health.
        if answer.damaged:
            return Failed(f"it sent damaged armor: {answer.damaged[0]}", Fault.LOCAL, method=answer.method), []
        if unread := next((item for item in refused if item.fatal), None):
            return Failed(unread.reason, Fault.LOCAL), []
        if others:
            return Absent("what it sent does not prove the query", method=answer.method), []
        if refused:
            return Absent(f"refused: {refused[0].reason}"), []
        return Failed("no certificate in the answer", Fault.LOCAL), []

    async def _finds(
        self,
        search: Search,
        upstream: Upstream,
        certificates: Sequence[Certificate],
        answer: Found,
        now: int,
        *,
        whole: bool,
    ) -> list[Find]:
        """Certificates on their way into the store, X.509 ones with the verdict on their chains. A template's hosts
        each speak for the address that they were asked for.

        `whole`: all of the answer could be read. What came beside damage may be cut short, and replaces nothing."""

        def chains() -> list[bool]:
            of_each = [self.hygiene[c.proof.kind] for c in certificates]
            middle = [i for raw in answer.raw for i in self.hygiene[raw.kind].intermediates(raw.octets)][:MAX_CLEANED]
            return [own.chained(c.octets, middle, now) for own, c in zip(of_each, certificates, strict=True)]

        x509 = any(c.proof.kind is Kind.X509 for c in certificates)
        verdicts = [False] * len(certificates)
        rules = None
        while x509 and rules is not self.rules():  # trust anchors are of the rules
            rules = self.rules()
            verdicts = await asyncio.to_thread(chains)
        finds = [
            Find(
                c,
                Source.KEYSERVER,
                upstream.spec.name,
                whole and bool(c.proof.user_ids),
                chained=chained,
                detail=answer.method,
            )
            for c, chained in zip(certificates, verdicts, strict=True)
        ]
        return [replace(find, vouchers=self._behind(search, upstream, find, now)) for find in finds]

    def _behind(self, search: Search, upstream: Upstream, find: Find, now: int) -> tuple[Voucher, ...]:
        """What stands behind a find for the address that was asked for: its own host, or that it waits there for an
        administrator because another certificate answered before."""
        query, rules, template = search.query, self.rules(), upstream.spec.template
        if not isinstance(query, ByAddress):
            return ()
        known, views, entry = search.known, rules.views.values(), _entry(find, now)
        held = rules.holds and waits(entry, known.entries, known.answering, views, rules.terms, query.address)
        return (Voucher(query.address, authenticated=template, held=held, seen_at=now),) if template or held else ()

    async def _answered(self, name: str, domain: str) -> bool:
        """Has this upstream ever had something for the domain? Without the store nobody can say that it had not."""
        try:
            return await self.store.answered(name, domain)
        except StoreError:
            return True

    async def _known(self, fingerprint: str) -> bool:
        try:
            return bool((await self.store.certificate(fingerprint)).entries)
        except StoreError:
            return False

    async def _update(self, search: Search, name: str, certificate: Certificate) -> None:
        """A certificate without user IDs proves no address, but brings its subkeys and revocations to one known."""
        find = Find(certificate, Source.KEYSERVER, name, replace=False)
        search.wrote = True
        try:
            with self.rules.acting() as rules:
                if name in rules.upstreams:
                    await self.store.put([find], [], search.begun, self.clock())
        except StoreError as problem:
            self._tell(search, "cache", "not updated", str(problem))

    async def _keep(
        self, search: Search, name: str, finds: Sequence[Find], records: Sequence[Record], now: int
    ) -> None:
        """On disk before anybody is answered; what cannot be kept is answered uncached."""
        search.wrote = search.wrote or bool(finds)
        try:
            verdicts = await self.store.put(finds, records, search.begun, now)
            if Stored.FULL in verdicts:
                self.watch.trouble("cache.max_size is reached: new finds are answered but not cached")
            elif finds:
                self.watch.well()
        except StoreError as problem:
            self.watch.trouble(f"nothing can be cached: {problem}")
            self._tell(search, "cache", "not cached", str(problem))
            blocked = [find.certificate.fingerprint in self.blocks for find in finds]
            verdicts = tuple(Stored.BLOCKED if one else Stored.FULL for one in blocked)
        for find, verdict in zip(finds, verdicts, strict=True):
            certificate = find.certificate
            if verdict is Stored.FULL:
                search.uncached.append(_entry(find, now))
                revoked = self.hygiene[certificate.proof.kind].revocations(certificate.octets)
                if revoked:
                    search.revocations[certificate.fingerprint] = revoked
            self._tell(search, "cache", verdict, f"{certificate.fingerprint} from {name}")

    def _tell(self, search: Search, who: str, what: str, why: str = "") -> None:
        search.tell(Step((self.monotonic() - search.started) * 1000, who, what, why))


def _complete(certificate: Certificate) -> bool:
    """May it stand as an answer by itself? An OpenPGP certificate without user IDs only updates what clients hold."""
    return certificate.proof.kind is not Kind.OPENPGP or certificate.proof.names_somebody


def _entry(find: Find, now: int) -> Entry:
    """A find as the entry that it would be."""
    certificate = find.certificate
    return Entry(
        fingerprint=certificate.fingerprint,
        kind=certificate.proof.kind,
        octets=certificate.octets,
        source=find.source,
        origin=find.origin,
        cached_at=now,
        seen_at=now,
        vouchers=find.vouchers,
        chained=find.chained,
        identities=tuple(u.text for u in certificate.proof.user_ids),
    )


def _words(outcome: Outcome) -> tuple[str, str]:
    by = f", by {outcome.method}" if outcome.method else ""
    if isinstance(outcome, Found):
        return "found", f"proves the query{by}"
    return ("absent" if isinstance(outcome, Absent) else "failed"), outcome.reason + by
