"""Pure decisions of a search: whom to ask in which order, what outcomes add up to, and what they say of health."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from keyserver.model import Absent, Failed, Fault, Found, Name, Outcome, Rate, UpstreamSpec, View, joined
from keyserver.policy import Terms, hears, in_domains, uncounted
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query

OPENS_AFTER = 4  # different queries that failed since the last good answer
SAID_AFTER = 2  # the same, where the upstream itself says that it will not answer now
CLIENTS = 2  # networks that they must have come from, where more than one asks
SUSPECTS = 16  # failed questions that are remembered
FIRST_PAUSE = 5.0  # seconds; doubles with every further failure
LONGEST_PAUSE = 300.0
CONFIGURATION_PAUSE = 600.0  # somebody has to mend it: ask rarely
LONGEST_OBEYED = 3600.0  # of an upstream's own Retry-After
HELD_AFTER = 3  # failures in a row of one query, from which on it is asked rarely by itself
LONGEST_HOLD = 60.0


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and from which client network ("" for our own refreshes)."""

    query: Name
    client: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What earlier answers say of a target; times are monotonic seconds.

    One query that fails may be that query's own trouble, and an asker chooses what he asks: only different queries, of
    at least two client networks where there are two, say that the host is ill.
    """

    suspects: tuple[Question, ...] = ()  # what failed since the last good answer
    trips: int = 0  # how often it was closed to questions since then
    closed_until: float = 0.0  # nobody asks before
    reason: str = ""

    def state(self, now: float) -> str:
        """`closed` (healthy), `open` (not asked) or `half-open` (the next question is a probe)."""
        if not self.closed_until:
            return "closed"
        return "open" if now < self.closed_until else "half-open"


def after(
    health: Health, outcome: Outcome, now: float, jitter: float, by: Question, *, alone: bool, counted: bool = False
) -> Health:
    """Health after one more outcome. `jitter` in 0…1 spreads the probes of several nodes; `alone`: nobody but this
    question's client has asked lately; `counted`: it says how often it may be asked, so that its "not now" is about us
    and not about the question."""
    if not isinstance(outcome, Failed):
        return Health()
    if outcome.fault is Fault.LOCAL:
        return health
    suspects = (*(s for s in health.suspects if s.query != by.query or s.client != by.client), by)[-SUSPECTS:]
    seen = replace(health, suspects=suspects, reason=outcome.reason)
    told_off = counted and outcome.fault is Fault.BUSY
    ill = health.state(now) == "half-open" or told_off or _ill(suspects, outcome, alone)
    if health.state(now) == "open" or not ill:
        return seen
    if outcome.fault is Fault.BUSY:
        pause = asked_for(outcome)
    elif outcome.fault is Fault.CONFIGURATION:
        pause = CONFIGURATION_PAUSE * (0.75 + jitter / 2)
    else:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(16, health.trips)) * (0.75 + jitter / 2)
    return replace(seen, trips=health.trips + 1, closed_until=now + pause)


def asked_for(outcome: Failed) -> float:
    """The pause that an upstream asks for, in seconds."""
    return min(LONGEST_OBEYED, max(1.0, outcome.retry_after or 60.0))


def _ill(suspects: Sequence[Question], outcome: Failed, alone: bool) -> bool:
    enough = OPENS_AFTER if outcome.fault is Fault.TRANSIENT else SAID_AFTER
    clients = len({s.client for s in suspects})
    return len({s.query for s in suspects}) >= enough and (alone or clients >= CLIENTS)


@dataclass(frozen=True, slots=True)
class Hold:
    """One query that fails by itself: how often in a row, and until when (monotonic seconds) it is not asked again."""

    failures: int = 0
    until: float = 0.0


def held(hold: Hold, outcome: Failed, now: float) -> Hold:
    """After one more failure of that query. A pause that the upstream asks for is obeyed at once."""
    failures = hold.failures + 1
    if outcome.fault is Fault.BUSY:
        return Hold(failures, now + asked_for(outcome))
    if failures < HELD_AFTER:
        return Hold(failures)
    return Hold(failures, now + min(LONGEST_HOLD, FIRST_PAUSE * 2 ** min(16, failures - HELD_AFTER)))


def rate_of(spec: UpstreamSpec, query: Query) -> Rate | None:
    """How often the upstream is asked such a query; None: no limit."""
    return (isinstance(query, ByFingerprint | ByKeyId) and spec.id_rate) or spec.rate


@dataclass(frozen=True, slots=True)
class Tiers:
    """Upstreams of a search, by priority, and those left out with the reason."""

    tiers: tuple[tuple[UpstreamSpec, ...], ...]
    left_out: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Of the upstreams that may be asked, in their order."""
        return [spec.name for tier in self.tiers for spec in tier]

    @property
    def optional(self) -> frozenset[str]:
        """Of those that need not speak."""
        return frozenset(spec.name for tier in self.tiers for spec in tier if not spec.required)


def tiers_of(specs: Iterable[UpstreamSpec], query: Query, terms: Terms, view: View = View()) -> Tiers:
    """Who may be told this query for this view, lower priority numbers first."""
    left_out: dict[str, str] = {}
    by_priority: dict[int, list[UpstreamSpec]] = {}
    for spec in specs:
        why = hears(spec, query, terms)
        if isinstance(query, ByAddress):
            why = why or uncounted(spec, query.domain, view)
        elif view.by_domain:
            why = why or "only local entries count"
        if why:
            left_out[spec.name] = why
        else:
            by_priority.setdefault(spec.priority, []).append(spec)
    return Tiers(tuple(tuple(by_priority[p]) for p in sorted(by_priority)), left_out)


def lists(spec: UpstreamSpec, query: Query) -> bool:
    """Is this about an address of a domain that the upstream lists? While such a one is paused, no later priority
    speaks in its place."""
    return isinstance(query, ByAddress) and in_domains(query.domain, spec.domains)


def combine(outcomes: Mapping[str, Outcome], optional: Collection[str] = ()) -> Outcome:
    """What the upstreams said, by name. Found wins; else one Failed spoils an Absent, but for those that are `optional`
    where another has said absent; else Absent, to be remembered only if every single one may be."""
    found = [o.raw for o in outcomes.values() if isinstance(o, Found)]
    if found:
        return Found(tuple(raw for each in found for raw in each))
    absent = [o for o in outcomes.values() if isinstance(o, Absent)]
    failed = {name: o for name, o in outcomes.items() if isinstance(o, Failed)}
    missed = [o for name, o in failed.items() if not absent or name not in optional]
    if missed:
        return missed[0]
    reason = absent[0].reason if len(absent) == 1 else "every upstream said so"
    without = f", without the word of {joined(list(failed))}" if failed else ""
    return Absent(reason + without, not failed and all(o.remember for o in absent))
