"""What administrators are shown of entries, certificates, searches and lookups. Pure; times are Unix seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keyserver.model import (
    Absent,
    Answer,
    Certificate,
    Entry,
    Failed,
    Found,
    Kind,
    Outcome,
    Proof,
    Refused,
    Source,
    State,
    Step,
    Subkey,
    UserId,
    Validity,
    View,
    Voucher,
)
from keyserver.policy import Freshness, Terms, expires_at, judge
from keyserver.query import ByAddress, Query
from keyserver.resolver.inflight import Search


@dataclass(frozen=True, slots=True)
class EntryResource:
    """One entry, and what policy says of it now."""

    fingerprint: str
    kind: str
    identities: tuple[str, ...]
    source: str
    origin: str
    cached_at: int
    expires_at: int | None  # None: never
    approved: bool  # for some address
    vouchers: tuple[Voucher, ...]  # for which addresses it speaks, and who says so
    status: str  # fresh, stale, expired, held, blocked
    reason: str  # may it be answered to the default view, and why (not)
    message_id: str  # mailflow: of the last mail that carried it
    method: str  # keyserver: by which it was found, where its protocol has several
    answered: bool = False  # to the default view


@dataclass(frozen=True, slots=True)
class CertificateResource:
    """One certificate and its entries."""

    fingerprint: str
    kind: str
    version: int
    key_id: str
    algorithm: int
    bits: int
    created: int
    expires: int | None
    validity: str
    can_encrypt: bool
    user_ids: tuple[UserId, ...]
    subkeys: tuple[Subkey, ...]
    marks: tuple[str, ...]
    blocked: bool
    entries: tuple[EntryResource, ...]


@dataclass(frozen=True, slots=True)
class RefreshResult:
    """What the upstreams said to a refresh."""

    fingerprint: str
    outcomes: Mapping[str, str]  # upstream -> found, absent or failed, with the reason
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class TestResult:
    """What one upstream said to one question."""

    upstream: str
    query: str
    outcome: str  # found, absent, failed
    reason: str
    milliseconds: float
    certificates: tuple[str, ...]  # fingerprints of what is clean
    refused: tuple[str, ...]  # why the rest is not


@dataclass(frozen=True, slots=True)
class AnsweredCertificate:
    """One certificate of an answer."""

    fingerprint: str
    kind: str
    validity: str
    can_encrypt: bool
    user_ids: tuple[str, ...]
    source: str
    entries: tuple[EntryResource, ...]


@dataclass(frozen=True, slots=True)
class LookupResult:
    """One lookup."""

    query: str
    state: str
    how: str
    reason: str
    certificates: tuple[AnsweredCertificate, ...]
    since: int
    until: int
    steps: tuple[Step, ...]
    verdict: str  # usable, unusable (known, but nobody can encrypt to it or none may be answered), absent, unknown


def row_of(entry: Entry, now: int, terms: Terms, view: View, blocked: frozenset[str]) -> EntryResource:
    """An entry as a line of a listing."""
    verdict = judge(entry, view, now, terms)
    status = verdict.freshness.value
    if entry.fingerprint in blocked:
        status = "blocked"
    elif entry.held and status != "expired":
        status = "held"
    return EntryResource(
        fingerprint=entry.fingerprint,
        kind=entry.kind.value,
        identities=entry.identities,
        source=entry.source.value,
        origin=entry.origin,
        cached_at=entry.cached_at,
        expires_at=expires_at(entry, now, terms),
        approved=entry.approved,
        vouchers=entry.vouchers,
        status=status,
        reason="blocked by an administrator" if status == "blocked" else verdict.reason,
        message_id=entry.detail if entry.source is Source.MAILFLOW else "",
        method=entry.detail if entry.source is Source.KEYSERVER else "",
        answered=verdict.answerable and status != "blocked",
    )


def shown_of(proof: Proof, rows: tuple[EntryResource, ...], *, blocked: bool) -> CertificateResource:
    """A certificate in full."""
    return CertificateResource(
        fingerprint=proof.fingerprint,
        kind=proof.kind.value,
        version=proof.version,
        key_id=proof.key_id,
        algorithm=proof.algorithm,
        bits=proof.bits,
        created=proof.created,
        expires=proof.expires,
        validity=proof.validity.value,
        can_encrypt=proof.can_encrypt,
        user_ids=proof.user_ids,
        subkeys=proof.subkeys,
        marks=proof.marks,
        blocked=blocked,
        entries=rows,
    )


def refreshed_of(fingerprint: str, searches: Sequence[Search]) -> RefreshResult:
    """What came of one or two searches for the same certificate; found beats what the other one heard."""
    outcomes: dict[str, str] = {}
    for search in searches:
        for upstream, outcome in search.outcomes.items():
            if not outcomes.get(upstream, "").startswith("found"):
                words = ("still under way",) if outcome is None else words_of(outcome)
                outcomes[upstream] = ": ".join(word for word in words if word)
    return RefreshResult(fingerprint, outcomes, tuple(step for search in searches for step in search.steps))


def asked_of(
    upstream: str, query: str, outcome: Outcome, certificates: Sequence[Certificate | Refused], milliseconds: float
) -> TestResult:
    """An upstream's word, with what is in it."""
    word, reason = words_of(outcome)
    return TestResult(
        upstream=upstream,
        query=query,
        outcome=word,
        reason=reason,
        milliseconds=round(milliseconds, 1),
        certificates=tuple(c.fingerprint for c in certificates if isinstance(c, Certificate)),
        refused=tuple(c.reason for c in certificates if isinstance(c, Refused)),
    )


def looked_of(
    query: str, answers: Mapping[Kind, Answer], trace: bool, row: Callable[[Entry], EntryResource], *, withheld: bool
) -> LookupResult:
    """The answers of one or both kinds as one; their steps only where asked for.

    withheld: is something known that policy keeps back?"""
    best = min(answers.values(), key=lambda a: _BEST.index(a.state))
    certificates = answered_of(answers, row)
    steps = [step_of(kind, step) for kind, answer in answers.items() for step in answer.steps]
    return LookupResult(
        query=query,
        state=best.state.value,
        how=best.how.value,
        reason=best.reason,
        certificates=certificates,
        since=best.since,
        until=best.until,
        steps=tuple(steps) if trace else (),
        verdict=verdict_of(best.state, certificates, withheld=withheld),
    )


def answered_of(
    answers: Mapping[Kind, Answer], row: Callable[[Entry], EntryResource]
) -> tuple[AnsweredCertificate, ...]:
    """The certificates of the answers of one or both kinds."""
    return tuple(
        AnsweredCertificate(
            fingerprint=a.certificate.fingerprint,
            kind=kind.value,
            validity=a.certificate.proof.validity.value,
            can_encrypt=a.certificate.proof.can_encrypt,
            user_ids=tuple(u.text for u in a.certificate.proof.user_ids),
            source=a.source.value,
            entries=tuple(row(e) for e in a.entries),
        )
        for kind, answer in answers.items()
        for a in answer.certificates
    )


def keeps_back(entries: Sequence[Entry], query: Query, view: View, now: int, terms: Terms) -> bool:
    """Is anything known of it that has not expired and that policy keeps from clients?"""
    verdicts = [judge(e, view, now, terms) for e in entries if _concerns(e, query)]
    return any(not v.answerable and v.freshness is not Freshness.EXPIRED for v in verdicts)


def _concerns(entry: Entry, query: Query) -> bool:
    """Is it more than a certificate's own claim that this entry has to do with the query?"""
    return not isinstance(query, ByAddress) or entry.source is not Source.MAILFLOW or bool(entry.voucher(query.address))


def step_of(kind: Kind, step: Step) -> Step:
    """One step of a trace of both kinds."""
    who = step.who if kind is Kind.OPENPGP else f"{kind}: {step.who}"
    return Step(round(step.at, 2), who, step.what, step.why)


def verdict_of(state: State, certificates: Sequence[AnsweredCertificate], *, withheld: bool) -> str:
    """What a script wants to know: can somebody encrypt?"""
    if any(c.can_encrypt and c.validity == Validity.VALID for c in certificates):
        return "usable"
    if state in (State.FAILED, State.BUSY):
        return "unknown"
    return "unusable" if certificates or withheld else "absent"


_BEST = (State.FOUND, State.FAILED, State.BUSY, State.ABSENT)


def words_of(outcome: Outcome) -> tuple[str, str]:
    """An outcome in words: which, and why."""
    if isinstance(outcome, Found):
        return "found", ""
    if isinstance(outcome, Absent):
        return "absent", outcome.reason
    assert isinstance(outcome, Failed)
    return "failed", outcome.reason
