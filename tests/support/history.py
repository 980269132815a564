"""Judges what clients of several nodes did and were told of ONE certificate, on one time line.

    history = History()
    history.puts.append(Put("v1", start=0.0, end=0.1))
    history.looks.append(Look("a", start=2.0, end=2.1, versions=frozenset({"v1"})))
    assert judge(history) == []

Every put writes a version that no other put writes (a user ID of its own), so an answer says by itself which puts are
behind it. What one certificate is asked and told is judged without the others: caches promise nothing across them.
An outcome that nobody knows obliges nothing, but may explain what is seen until `until`, when it cannot happen any
more. Times are seconds of a clock that all share (processes of one machine share CLOCK_MONOTONIC).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

BOUND = 1.0
"""Seconds within which what is acknowledged on one node holds on all of them."""

SEARCH = 5.0
"""Seconds that a search may last: of two that overlap either may be written last."""


@dataclass(frozen=True, slots=True)
class Put:
    """A version that somebody wrote, or an upstream gave."""

    version: str
    start: float
    end: float | None = None
    """When it was acknowledged; None: nobody knows whether it was written."""
    begun: float = math.inf
    """An instant at which its search or its write had surely begun; `end` where that is earlier."""
    durable: bool = True
    """Does it survive a crash of the server?"""
    shown: float = -math.inf
    """An instant before which nobody may be told of it: what mail has shown waits for its approval."""
    replaced: bool = False
    """Does a later version of an upstream take its place? What an administrator imports is merged instead."""
    revocation: str = ""
    """What it revokes, which nothing ever takes back."""

    @property
    def surely_begun(self) -> float:
        """See `begun`."""
        return self.begun if self.end is None else min(self.begun, self.end)


@dataclass(frozen=True, slots=True)
class Delete:
    """Somebody deleted it, or hid it by a block until `lifted`, an instant at which that may have ended."""

    start: float
    end: float | None = None
    """When it was acknowledged; None: nobody knows whether it happened."""
    until: float = math.inf
    lifted: float | None = None

    @property
    def last(self) -> float:
        """The latest instant at which it may have taken effect, or may still have had one."""
        last = self.until if self.end is None else self.end
        return last if self.lifted is None else max(last, self.lifted)


@dataclass(frozen=True, slots=True)
class Look:
    """A definite answer of a node. Without versions: it knows nothing."""

    node: str
    start: float
    end: float
    versions: frozenset[str] = frozenset()
    revocations: frozenset[str] = frozenset()
    bound: float = BOUND
    """Seconds of the past that this answer need not know of: more where the node says that it is detached."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The server lost what was not durable, within this time."""

    start: float
    end: float


@dataclass(slots=True)
class History:
    """All that happened to one certificate, in any order."""

    puts: list[Put] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    """When an upstream was asked for it, while the database could be reached by all nodes."""


@dataclass(frozen=True, slots=True)
class _Life:
    """What is certain of a version."""

    put: Put
    gone: float
    """When a delete that it must not outlive was acknowledged."""
    held: float
    """Until when nothing can have taken it away."""


def judge(history: History) -> list[str]:
    """What is wrong, a line each."""
    lives = {put.version: _life(history, put) for put in history.puts}
    known = [life for life in lives.values() if life.put.end is not None]
    finds = {put.version: put.start for put in history.puts if put.replaced}
    blocks = [delete for delete in history.deletes if delete.lifted is not None]
    wrong = []
    for look in history.looks:
        found = (*_too_much(lives, blocks, look), *_too_little(known, finds, look))
        wrong += [f"{_told(look)}: {what}" for what in found]
    for at in history.searches:
        if held := [life.put for life in known if _there(life, at, at, BOUND)]:
            wrong.append(f"searched again at {at:.3f}, though {held[0].version} was there from {held[0].end:.3f} on")
    return wrong


def agree(looks: Iterable[Look]) -> list[str]:
    """What is wrong with the last answers of all nodes, when nothing has changed for longer than the bound."""
    last = list(looks)
    if len({(look.versions, look.revocations) for look in last}) > 1:
        return ["the nodes disagree at the end: " + "; ".join(map(_told, last))]
    return []


def _life(history: History, put: Put) -> _Life:
    over = [d.end for d in history.deletes if d.end is not None and d.lifted is None and put.surely_begun < d.start]
    taken = [d.start for d in history.deletes if d.last >= put.start]
    if not put.durable:
        taken += [crash.start for crash in history.crashes if crash.end >= put.start]
    return _Life(put, min(over, default=math.inf), min(taken, default=math.inf))


def _too_much(lives: dict[str, _Life], blocks: Sequence[Delete], look: Look) -> Iterable[str]:
    knows = look.start - look.bound  # what was over by then
    for version in look.versions:
        life = lives.get(version)
        if life is None or life.put.start > look.end:
            yield f"{version} was never put"
        elif look.end < life.put.shown:
            yield f"{version} was told before it was approved"
        elif life.gone < knows:
            yield f"{version}, begun by {life.put.surely_begun:.3f}, outlived the delete that ended at {life.gone:.3f}"
    for block in blocks if look.versions else ():
        if block.end is not None and block.lifted is not None and block.end < knows and look.end < block.lifted:
            yield f"answered though blocked since {block.end:.3f}"


def _too_little(known: Sequence[_Life], finds: Mapping[str, float], look: Look) -> Iterable[str]:
    """known: versions whose put was acknowledged; finds: those that take each other's place, and when they began."""
    for life in known:
        put = life.put
        if put.version not in look.versions and _there(life, look.start, look.end, look.bound):
            later = look.versions & finds.keys() if put.replaced else frozenset()
            if not any(finds[other] > put.start - SEARCH for other in later):
                yield f"{put.version}, there from {put.end:.3f} on, is lost"
        missing = put.revocation and look.versions and put.revocation not in look.revocations
        if missing and put.end is not None and put.end + look.bound < look.start:
            yield f"the revocation {put.revocation}, there from {put.end:.3f} on, is lost"


def _there(life: _Life, start: float, end: float, bound: float) -> bool:
    """Must a question asked at `start` and answered at `end` know this version?"""
    return life.put.end is not None and life.put.end + bound < start and end < life.held


def _told(look: Look) -> str:
    said = ", ".join(sorted(look.versions | look.revocations)) or "nothing"
    return f"{look.node} at {look.start:.3f}-{look.end:.3f} told {said}"
