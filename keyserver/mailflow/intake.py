"""From mail to cache, behind the mail's back: a bounded queue, one reader, proof, policy, store.

Whoever hands in a mail is never kept waiting: what finds no room is counted and forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from keyserver.hygiene import Hygiene
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.fitting import names_others, unfit
from keyserver.mailflow.harvest import look
from keyserver.mailflow.inviting import invitable, note_returned
from keyserver.mailflow.memory import MAX_MAILS, ArrivingMail, MailMemory
from keyserver.mailflow.report import report_of
from keyserver.mailflow.values import Candidate, Caught, Envelope, Mail, Remark, Report, Rules, Seen, Way, Why
from keyserver.model import Certificate, Entry, Find, Kind, Refused, Source, Validity, Voucher
from keyserver.policy import is_old_mail, knows
from keyserver.query import name_of
from keyserver.resolver.cleaner import Cleaner
from keyserver.rules import InForce
from keyserver.store.base import Store, Stored, StoreError
from keyserver.store.snapshot import Snapshot
from keyserver.tripwire import waits

RECENT = 200  # reports that an administrator can look back on
MAX_CERTIFICATES = 8  # cached of one mail

_T = TypeVar("_T")
_LOG = logging.getLogger("keyserver.mailflow")
_RESULTS = {
    Stored.BLOCKED: Why.BLOCKED,
    Stored.DELETED: Why.DELETED,
    Stored.FULL: Why.FULL,
}


@dataclass(frozen=True, slots=True)
class Changed:
    """An address that showed another certificate than before."""

    at: int
    address: str
    fingerprint: str
    before: tuple[str, ...]
    held: bool
    message_id: str


@dataclass(frozen=True, slots=True)
class Status:
    """The mail flow at this moment, since the start of the process."""

    waiting: int  # mails
    waiting_octets: int
    verdicts: Mapping[str, int]
    shed: int
    changes: tuple[Changed, ...]  # newest first
    recent: tuple[Report, ...]  # newest first


class Intake:
    """Takes mail in. `run` is its one task; `harvest` does one mail at once, for administrators.

    chained: (certificate, intermediates, now) -> does its chain lead to a trust anchor?
    identity: how logs may show an address or message-id. fresh: hears (address, fingerprint) of each certificate that
    is newly cached for an authenticated sender and not held; it neither waits nor raises.
    """

    def __init__(
        self,
        *,
        store: Store,
        cleaner: Cleaner,
        hygiene: Mapping[Kind, Hygiene],
        rules: InForce[Rules],
        clock: Callable[[], int],
        counts: Counts,
        identity: Callable[[str], str],
        memory: MailMemory,
        fresh: Callable[[str, str], None] = lambda address, fingerprint: None,
    ) -> None:
        self._fresh = fresh
        self._store = store
        self._cleaner = cleaner
        self._hygiene = hygiene
        self.rules = rules
        self._clock = clock
        self._counts = counts
        self._identity = identity
        self.memory = memory
        self._queue: asyncio.Queue[tuple[Envelope, ArrivingMail]] = asyncio.Queue(MAX_MAILS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mailflow")
        self._turn = asyncio.Lock()  # deciding on one address and storing what was decided
        self._verdicts: Counter[str] = Counter()
        self._shed = 0
        self._changes: deque[Changed] = deque(maxlen=RECENT)
        self._recent: deque[Report] = deque(maxlen=RECENT)
        counts.watch(lambda: memory.used)

    def offer(self, envelope: Envelope, holding: ArrivingMail) -> bool:
        """Take a mail that has arrived, if there is room; never waits, never raises. Is it taken?"""
        if not holding.shed:
            try:
                self._queue.put_nowait((envelope, holding))
                return True
            except asyncio.QueueFull:
                pass
        holding.free()
        self._shed += 1
        self._counts.shed.labels(envelope.way.value).inc()
        if self._shed & (self._shed - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood must not flood the log as well
            _LOG.warning("mail not read: too much at once", extra={"facts": {"shed": self._shed}})
        return False

    async def run(self) -> None:
        """Read what is offered, one mail after the other, until cancelled."""
        while True:
            envelope, holding = await self._queue.get()
            try:
                octets = await self._in_thread(holding.take)
                await self._report(Mail(envelope, octets, holding.cut), explain=False)
            except Exception:
                _LOG.exception("a mail could not be read")
                self._counts.mails.labels(envelope.way.value, Why.FAILED.value).inc()
            finally:
                holding.free()
                self._queue.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until what was offered is read, at most so long; `run` must still be running."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            _LOG.warning("mail not read: the service is ending", extra={"facts": {"mails": self._queue.qsize()}})

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def harvest(self, octets: bytes, *, cut: bool = False, explain: bool = False) -> Report:
        """One mail from a file. `cut`: it was too large to be handed in whole; `explain`: nothing is stored."""
        return await self._report(Mail(Envelope(Way.FILE), octets, cut), explain)

    def status(self) -> Status:
        """Queue, counts, and the latest reports and changes."""
        return Status(
            waiting=self._queue.qsize(),
            waiting_octets=self.memory.used,
            verdicts=dict(self._verdicts),
            shed=self._shed,
            changes=tuple(reversed(self._changes)),
            recent=tuple(reversed(self._recent)),
        )

    async def _report(self, mail: Mail, explain: bool) -> Report:
        now = self._clock()
        begun = await self._store.begin()
        report: Report | None = None
        while report is None:
            report = await self._read(mail, self.rules(), begun, now, explain)
        self._tell(report, explain)
        return report

    async def _read(self, mail: Mail, rules: Rules, begun: int, now: int, explain: bool) -> Report | None:
        """Read, judge and store one mail; None where other rules hold by the time that something would be stored."""
        seen: Seen = await self._in_thread(look, mail, rules, now)
        if seen.failure is not None and not explain:
            await note_returned(self._store.invitations, seen.failure, now)
        caught: list[Caught] | None = []
        remarks = list(seen.remarks)
        if seen.candidates and seen.sender is not None:
            if is_old_mail(seen.dated, now):
                remarks.insert(0, Remark(Why.TOO_OLD, "the mail was received more than 180 days ago"))
            else:
                try:
                    caught = await self._certificates(seen, seen.sender, rules, remarks, begun, now, explain)
                except StoreError as trouble:
                    remarks.insert(0, Remark(Why.FAILED, f"the store cannot keep it: {trouble}"))
        if not explain:
            for one in invitable(seen, mail.envelope, caught or ()):
                self._fresh(*one)
        return None if caught is None else report_of(seen, mail.envelope, tuple(caught), tuple(remarks), explain)

    async def _certificates(
        self, seen: Seen, sender: str, rules: Rules, remarks: list[Remark], begun: int, now: int, explain: bool
    ) -> list[Caught] | None:
        """Prove, judge and store what a mail carries; None where other rules hold now than it was read by."""
        proved = await self._proved(seen.candidates, sender, rules, remarks, now)
        async with self._turn:
            with self.rules.acting() as current:
                if current is not rules:
                    return None
                pairs = [await self._judged(seen, sender, rules, c, how, others, now) for c, how, others in proved]
                if explain or not pairs:
                    return [caught for _, caught, _ in pairs]
                stored: list[Stored] = []
                for find, _, known in pairs:  # an older mail shortens nothing
                    stamp = now if seen.dated is None else max(known, min(now, seen.dated))
                    stored += await self._store.put([find], [], begun, stamp)
        done = []
        for (_, caught, _), verdict in zip(pairs, stored, strict=True):
            done.append(_stored(caught, verdict))
            if caught.changed and verdict in (Stored.NEW, Stored.CHANGED, Stored.SAME):
                self._note_change(done[-1], seen, sender, now)
        return done

    async def _proved(
        self, candidates: Iterable[Candidate], sender: str, rules: Rules, remarks: list[Remark], now: int
    ) -> list[tuple[Certificate, str, tuple[bytes, ...]]]:
        """Clean certificates that prove the sender's address; the rest becomes remarks."""
        proved: dict[str, tuple[Certificate, str, tuple[bytes, ...]]] = {}
        for candidate in candidates:
            results: Sequence[Certificate | Refused]
            if candidate.certificate is not None:
                results = [candidate.certificate]
            else:
                results = await self._cleaner.clean(candidate.kind, candidate.octets, now)
            for result in results[:MAX_CERTIFICATES]:
                if isinstance(result, Refused):
                    remarks.append(Remark(Why.REFUSED, f"{candidate.how}: {result.reason}", result.fingerprint or ""))
                elif remark := unfit(result, candidate, sender, rules.max_certificate):
                    remarks.append(remark)
                elif len(proved) < MAX_CERTIFICATES:
                    proved.setdefault(result.fingerprint, (result, candidate.how, candidate.others))
        return list(proved.values())

    async def _judged(
        self,
        seen: Seen,
        sender: str,
        rules: Rules,
        certificate: Certificate,
        how: str,
        others: tuple[bytes, ...],
        now: int,
    ) -> tuple[Find, Caught, int]:
        """What to store of one certificate, what to say of it, and when a mail last showed it (0: never)."""
        kind = certificate.proof.kind
        origin = sender.rpartition("@")[2]
        chained = await self._in_thread(self._chained, certificate, others, now)
        snapshot = await self._store.look(name_of(kind, "addr", sender))
        mine = [e for e in snapshot.entries if e.fingerprint == certificate.fingerprint]
        own = [e for e in mine if e.source is Source.MAILFLOW and e.origin == origin]
        voucher = own[0].voucher(sender) if own else None
        known = voucher is not None or any(knows(e, sender, snapshot.records, now, rules.terms) for e in mine)
        before = () if known else await self._shown_before(snapshot, sender, rules, now)
        reasons = []
        if not (seen.authenticated or chained):
            missing = "was not authenticated" + (", and no good chain vouches for it" if kind is Kind.X509 else "")
            reasons.append(f"its sender {missing}")
        entry = Entry(certificate.fingerprint, kind, b"", Source.MAILFLOW, origin, now, now)
        changed = waits(entry, snapshot.entries, snapshot.answering, rules.views, rules.terms, sender)
        if changed or (before and rules.hold_changed):
            reasons.append("the address showed another certificate before")
        if kind is Kind.X509 and names_others(certificate, sender):
            reasons.append("it names other addresses than its sender's")
        if voucher is not None and not voucher.waits:
            reasons = []  # a later mail, perhaps a forged one, takes nothing away from what is good already
        elif voucher is not None and not reasons:
            reasons.append("it has been held since an earlier mail")
        chained = chained or any(e.chained for e in own)
        find = Find(
            certificate,
            Source.MAILFLOW,
            origin,
            replace=False,
            vouchers=(
                Voucher(
                    sender,
                    authenticated=seen.authenticated,
                    held=bool(reasons),
                    seen_at=now if seen.dated is None else min(now, seen.dated),
                ),
            ),
            chained=chained,
            detail=seen.message_id,
        )
        result = Why.HELD if reasons else Why.CACHED
        caught = Caught(certificate.fingerprint, kind, how, result, not own, chained, tuple(reasons), before)
        return find, caught, min(now, max((e.seen_at for e in own), default=0))

    def _chained(self, certificate: Certificate, others: tuple[bytes, ...], now: int) -> bool:
        return self._hygiene[certificate.proof.kind].chained(certificate.octets, others, now)

    async def _shown_before(self, snapshot: Snapshot, sender: str, rules: Rules, now: int) -> tuple[str, ...]:
        """Fingerprints of other valid certificates that this address is known by."""
        found = []
        for entry in snapshot.entries:
            if not knows(entry, sender, snapshot.records, now, rules.terms):
                continue
            await asyncio.sleep(0)  # a proof takes a millisecond: others have their turn between two of them
            proof = self._hygiene[entry.kind].prove(entry.octets, now)
            if proof.validity is Validity.VALID and name_of(entry.kind, "addr", sender) in proof.weak:
                found.append(entry.fingerprint)
        return tuple(dict.fromkeys(found))

    def _note_change(self, caught: Caught, seen: Seen, sender: str, now: int) -> None:
        held = caught.result is Why.HELD
        self._changes.append(Changed(now, sender, caught.fingerprint, caught.changed, held, seen.message_id))
        self._counts.changed.inc()
        facts = {
            "address": self._identity(sender),
            "certificate": self._identity(caught.fingerprint),
            "before": " ".join(self._identity(f) for f in caught.changed[:5]),
            "held": held,
        }
        _LOG.warning("an address shows another certificate than before", extra={"facts": facts})

    def _tell(self, report: Report, explain: bool) -> None:
        """Log and count; what was only explained is neither."""
        if explain:
            return
        self._recent.append(report)
        self._verdicts[report.verdict.value] += 1
        self._counts.mails.labels(report.way.value, report.verdict.value).inc()
        for caught in report.certificates:
            self._counts.certificates.labels(caught.kind.value, caught.result.value).inc()
        if _LOG.isEnabledFor(logging.INFO):
            facts = {
                "way": report.way.value,
                "queue_id": report.queue_id,
                "message_id": self._identity(report.message_id) if report.message_id else "",
                "sender": self._identity(report.sender) if report.sender else "",
                "direction": report.direction,
                "rule": report.rule,
                "verdict": report.verdict.value,
                "certificates": len(report.certificates),
                "reason": report.text,
            }
            _LOG.info("mail", extra={"facts": {k: v for k, v in facts.items() if v != ""}})

    async def _in_thread(self, function: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _stored(caught: Caught, verdict: Stored) -> Caught:
    result = _RESULTS.get(verdict, caught.result)
    return replace(caught, result=result, reasons=caught.reasons if result is Why.HELD else ())
