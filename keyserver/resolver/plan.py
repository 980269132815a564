"""Pure decisions of a search: whom to ask in which order, what outcomes add up to, and what they say of health."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from keyserver.model import Absent, Failed, Fault, Found, Outcome, UpstreamSpec
from keyserver.policy import Terms, hears
from keyserver.query import Query

OPENS_AFTER = 4  # failures in a row
FIRST_PAUSE = 5.0  # seconds; doubles with every further failure
LONGEST_PAUSE = 300.0
CONFIGURATION_PAUSE = 600.0  # somebody has to mend it: ask rarely
LONGEST_OBEYED = 3600.0  # of an upstream's own Retry-After


@dataclass(frozen=True, slots=True)
class Health:
    """What earlier answers say of a target; times are monotonic seconds."""

    failures: int = 0
    closed_until: float = 0.0  # nobody asks before
    reason: str = ""

    def state(self, now: float) -> str:
        """`closed` (healthy), `open` (not asked) or `half-open` (the next question is a probe)."""
        if not self.closed_until:
            return "closed"
        return "open" if now < self.closed_until else "half-open"


def after(health: Health, outcome: Outcome, now: float, jitter: float) -> Health:
    """Health after one more outcome. `jitter` in 0…1 spreads the probes of several nodes."""
    if not isinstance(outcome, Failed):
        return Health()
    if outcome.fault is Fault.LOCAL:
        return health
    failures = health.failures + 1
    spread = 0.75 + jitter / 2
    if outcome.fault is Fault.BUSY:
        pause = min(LONGEST_OBEYED, max(1.0, outcome.retry_after or 60.0))
    elif outcome.fault is Fault.CONFIGURATION:
        pause = CONFIGURATION_PAUSE * spread
    elif failures < OPENS_AFTER:
        return replace(health, failures=failures, reason=outcome.reason)
    else:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(16, failures - OPENS_AFTER)) * spread
    return Health(failures, now + pause, outcome.reason)


@dataclass(frozen=True, slots=True)
class Tiers:
    """Upstreams of a search, by priority, and those left out with the reason."""

    tiers: tuple[tuple[UpstreamSpec, ...], ...]
    left_out: Mapping[str, str]


def tiers_of(specs: Iterable[UpstreamSpec], query: Query, terms: Terms) -> Tiers:
    """Who may be told this query, lower priority numbers first."""
    left_out: dict[str, str] = {}
    by_priority: dict[int, list[UpstreamSpec]] = {}
    for spec in specs:
        if why := hears(spec, query, terms):
            left_out[spec.name] = why
        else:
            by_priority.setdefault(spec.priority, []).append(spec)
    return Tiers(tuple(tuple(by_priority[p]) for p in sorted(by_priority)), left_out)


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """Found wins; else one Failed spoils an Absent; else Absent, to be remembered only if every single one may be."""
    found = [raw for o in outcomes if isinstance(o, Found) for raw in o.raw]
    if found or any(isinstance(o, Found) for o in outcomes):
        return Found(tuple(found))
    failed = [o for o in outcomes if isinstance(o, Failed)]
    if failed:
        return failed[0]
    reasons = [o.reason for o in outcomes if isinstance(o, Absent)]
    remember = all(o.remember for o in outcomes if isinstance(o, Absent))
    return Absent(reasons[0] if len(reasons) == 1 else "every upstream said so", remember)
