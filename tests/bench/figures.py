"""What a measurement yields: loads (rounds of one contestant), figures (reached and asked) and rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Load:
    """One round of one contestant. Latencies in milliseconds; `cpu`: seconds that the server's processes used."""

    requests: int
    seconds: float
    p50: float
    p99: float
    cpu: float = 0.0
    errors: int = 0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """What was reached, and at least or at most what was asked for; None: nothing was."""

    value: float
    unit: str = "×"
    least: float | None = None
    most: float | None = None

    @property
    def reached(self) -> str:
        """For people."""
        return f"{_number(self.value)} {self.unit}"

    @property
    def asked(self) -> str:
        """For people; empty where nothing was asked."""
        if self.least is not None:
            return f"at least {_number(self.least)} {self.unit}"
        return f"at most {_number(self.most)} {self.unit}" if self.most is not None else ""

    @property
    def met(self) -> bool | None:
        """Is it? None where nothing was asked."""
        if self.least is not None:
            return self.value >= self.least
        return self.value <= self.most if self.most is not None else None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `figure` compares us with the subject, or is the measured value itself."""

    workload: str
    subject: str
    figure: Figure | None = None
    rate: float | None = None  # requests a second
    p50: float | None = None  # ms
    p99: float | None = None  # ms
    cpu: float | None = None  # µs of server CPU per request
    note: str = ""


Rounds = Mapping[str, Sequence[Load]]
"""By contestant, one load per round."""

OURS = "keyserver"
BEFORE = "keyserver before"
"""The same of the commit that `--before` names."""


def contest(
    contestants: Mapping[str, Callable[[], Load]], rounds: int, warm: Collection[str] = ()
) -> dict[str, list[Load]]:
    """Every contestant once per round, so that what disturbs the machine disturbs them alike.

    The order turns by one each round: nobody always comes right after the same neighbour. `warm`: who runs once more
    before, unmeasured: each of several processes has a memory of its own, and only many connections reach all.
    """
    loads: dict[str, list[Load]] = {name: [] for name in contestants}
    for name in warm:
        contestants[name]()
    names = list(contestants)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            loads[name].append(contestants[name]())
    return loads


def ratio(rounds: Rounds, ours: str, theirs: str) -> float:
    """Our rate over theirs: the median of the rounds' ratios."""
    return median(a.rate / b.rate if b.rate else 0.0 for a, b in zip(rounds[ours], rounds[theirs], strict=True))


def cpu_ratio(rounds: Rounds, ours: str, theirs: str) -> float:
    """Our processor time per request over theirs: the median of the rounds' ratios."""
    pairs = zip(rounds[ours], rounds[theirs], strict=True)
    return median(a.cpu / a.requests / (b.cpu / b.requests) for a, b in pairs if a.requests and b.requests and b.cpu)


def p99_ratio(rounds: Rounds, ours: str, theirs: str) -> float:
    """Our p99 over theirs: the median of the rounds' ratios."""
    return median(a.p99 / b.p99 for a, b in zip(rounds[ours], rounds[theirs], strict=True) if b.p99)


def row(workload: str, subject: str, loads: Sequence[Load], figure: Figure | None = None, note: str = "") -> Row:
    """A contestant's medians; errors are named, or the table would flatter whoever answers fast with nothing."""
    requests = sum(load.requests for load in loads)
    errors = sum(load.errors for load in loads)
    cpu = [1e6 * load.cpu / load.requests for load in loads if load.requests and load.cpu]
    if errors:
        note = f"{note}; {errors} of {requests} failed".removeprefix("; ")
    return Row(
        workload,
        subject,
        figure,
        rate=median(load.rate for load in loads),
        p50=median(load.p50 for load in loads),
        p99=median(load.p99 for load in loads),
        cpu=median(cpu) if cpu else None,
        note=note,
    )


def compared(workload: str, rounds: Rounds, asked: Mapping[str, float], note: str = "") -> list[Row]:
    """Our row, and one for each other with our rate over theirs beside what was asked of it."""
    rows = [row(workload, OURS, rounds[OURS], note=note)]
    for name, loads in rounds.items():
        if name != OURS:
            figure = Figure(ratio(rounds, OURS, name), f"× {name}", least=asked.get(name))
            rows.append(row(workload, name, loads, figure))
    return rows


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which so much of them lies; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.3g}"
        if abs(value) < 1
        else f"{value:.2f}".rstrip("0").rstrip(".")
    )
