"""The checker of histories finds planted bugs, and flags nothing where there are none: on a modelled cluster."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

import pytest

from support.history import BOUND, Crash, Delete, History, Look, Put, agree, judge

SEEDS = range(20)
BUGS = ("delete not propagated", "late put", "lost invalidation", "flush on join", "lost put", "lost revocation")
MAIL_BUGS = ("told unapproved", "lost approval")
NODES = ("a", "b", "c")


@dataclass
class World:
    """Three nodes with answers held hot, over one store; time passes by itself. `bug`: what is wrong, or nothing."""

    seed: int
    bug: str = ""
    history: History = field(default_factory=History)
    now: float = 0.0
    stored: set[str] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.hot: dict[str, tuple[frozenset[str], frozenset[str]] | None] = dict.fromkeys(NODES)
        self.unheard: dict[str, list[float]] = {node: [] for node in NODES}
        self.waiting: list[int] = []  # places of puts that mail has brought
        self.late: list[tuple[float, Put]] = []
        self.number = 0

    def run(self, steps: int = 900) -> History:
        for _ in range(steps):
            self.now += self.chance.expovariate(4.0)
            self._land()
            acts = (self.look, self.put, self.search, self.delete, self.join, self.mail, self.approve)
            self.chance.choices(acts, (20, 1, 1.5, 0.8, 0.5, 0.8, 3))[0]()
        return self.history

    def _passes(self) -> float:
        self.now += self.chance.uniform(0.001, 0.05)
        return self.now

    def look(self) -> None:
        node, start = self.chance.choice(NODES), self.now
        if self.hot[node] is None or any(at <= start for at in self.unheard[node]):
            self.hot[node] = (frozenset(self.stored), frozenset(self.revoked))
            self.unheard[node] = [at for at in self.unheard[node] if at > start]
        held = self.hot[node]
        assert held is not None
        self.history.looks.append(Look(node, start, self._passes(), held[0], held[1] if held[0] else frozenset()))

    def put(self) -> None:
        """An import; one in four is never acknowledged, and half of those are not written either."""
        self.number += 1
        version, start = f"v{self.number}", self.now
        revocation = f"r{self.number}" if self.chance.random() < 0.35 else ""
        known = self.chance.random() < 0.75
        put = Put(version, start, self._passes() if known else None, revocation=revocation)
        self.history.puts.append(put)
        lost = self.bug == "lost put" and self.chance.random() < 0.2
        if (known and not lost) or (not known and self.chance.random() < 0.5):
            self.stored.add(version)
            if revocation and not (self.bug == "lost revocation" and self.chance.random() < 0.5):
                self.revoked.add(revocation)
            self._changed()

    def search(self) -> None:
        """A find whose search takes a while: a delete meanwhile makes it void."""
        self.number += 1
        put = Put(f"v{self.number}", self.now, begun=self.now)
        self.history.puts.append(put)
        self.late.append((self.now + self.chance.uniform(0.1, 3.0), put))

    def mail(self) -> None:
        """It is approved a while later, or was deleted by then."""
        self.number += 1
        start = self.now
        self.history.puts.append(Put(f"v{self.number}", start, begun=self._passes(), shown=math.inf))
        self.waiting.append(len(self.history.puts) - 1)
        if self.bug == "told unapproved":
            self.stored.add(f"v{self.number}")
            self._changed()

    def approve(self) -> None:
        if not self.waiting:
            return
        place = self.waiting.pop(0)
        put, start = self.history.puts[place], self.now
        if any(put.start <= d.last for d in self.history.deletes):
            return
        if self.bug != "lost approval" or self.chance.random() < 0.5:
            self.stored.add(put.version)
            self._changed()
        self.history.puts[place] = replace(put, shown=start, end=self._passes())

    def _land(self) -> None:
        for at, put in [one for one in self.late if one[0] <= self.now]:
            self.late.remove((at, put))
            void = any(put.start <= d.last for d in self.history.deletes)
            if not void or self.bug == "late put":
                self.stored.add(put.version)
                self._changed()

    def delete(self) -> None:
        start, known = self.now, self.chance.random() < 0.8
        if known or self.chance.random() < 0.5:
            self.stored.clear()
            self._changed(deleted=True)
        end = self._passes()
        self.history.deletes.append(Delete(start, end if known else None, until=end))

    def join(self) -> None:
        if self.bug == "flush on join":
            self.stored.clear()
            self._changed()

    def _changed(self, deleted: bool = False) -> None:
        """Every node hears of it within the bound: until then it may say what it holds."""
        for node in NODES:
            lost = self.bug == "delete not propagated" and deleted and node == "c"
            if not lost and not (self.bug == "lost invalidation" and self.chance.random() < 0.1):
                self.unheard[node].append(self.now + self.chance.uniform(0, 0.9 * BOUND))


@pytest.mark.parametrize("seed", SEEDS)
def test_clean_histories_are_not_flagged(seed: int) -> None:
    history = World(seed).run()
    assert len(history.looks) > 200
    assert judge(history) == []


@pytest.mark.parametrize("bug", BUGS + MAIL_BUGS)
def test_planted_bugs_are_caught(bug: str) -> None:
    caught = sum(bool(judge(World(seed, bug).run())) for seed in SEEDS)
    assert caught >= 0.9 * len(SEEDS), f"{bug}: {caught} of {len(SEEDS)}"


def looked(at: float, *versions: str, **more: float) -> Look:
    return Look("a", at, at + 0.1, frozenset(versions), **more)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (History([], [], [looked(5, "v1")]), "never put"),
        (History([Put("v1", 6, 7)], [], [looked(5, "v1")]), "never put"),
        (History([Put("v1", 0, 1)], [Delete(2, 3)], [looked(4.5, "v1")]), "outlived the delete"),
        (History([Put("v1", 0, begun=1)], [Delete(2, 3)], [looked(4.5, "v1")]), "outlived the delete"),
        (History([Put("v1", 0, 1)], [], [looked(2.5)]), "is lost"),
        (History([Put("v1", 0, 1)], [Delete(5, 6)], [looked(2.5)]), "is lost"),
        (History([Put("v1", 0, 1), Put("v2", 2, 3)], [], [looked(5, "v2")]), "v1, there from 1.000 on, is lost"),
        (History([Put("v1", 0, 1, revocation="r")], [Delete(2, 3)], [looked(5, "v2")]), "the revocation r"),
        (History([Put("v1", 0, 1)], [Delete(2, 3, lifted=9), Delete(20, 30)], [looked(5, "v1")]), "though blocked"),
        (History([Put("v1", 0, 1)], [], [], [], [3.0]), "searched again"),
        (History([Put("v1", 0, begun=1, shown=6)], [], [looked(5, "v1")]), "before it was approved"),
        (History([Put("v1", 0, 7, begun=1, shown=6)], [Delete(2, 3)], [looked(9, "v1")]), "outlived the delete"),
    ],
)
def test_each_rule_alone(history: History, said: str) -> None:
    assert said in "\n".join(judge(history))


@pytest.mark.parametrize(
    "history",
    [
        History([Put("v1", 0, 1)], [Delete(2, 3)], [looked(3.9, "v1")]),  # within the bound
        History([Put("v1", 0, 1)], [Delete(2, 3)], [looked(9, "v1", bound=10.0)]),  # detached, and says so
        History([Put("v1", 0, None)], [Delete(2, 3)], [looked(9, "v1"), looked(9)]),  # it may have begun after it
        History([Put("v1", 0, 1)], [Delete(2, None)], [looked(9, "v1"), looked(9)]),  # nobody knows
        History([Put("v1", 0, 1)], [Delete(2, 3)], [looked(2.5)]),
        History([Put("v1", 0, 1, replaced=True), Put("v2", 2, replaced=True)], [], [looked(5, "v2")]),
        History([Put("v1", 0, 1, durable=False)], [], [looked(5)], [Crash(2, 3)]),
        History([Put("v1", 0, 1)], [Delete(2, 3, lifted=9)], [looked(9.5)], [], [10.0]),
        History([Put("v1", 0, begun=1, shown=6)], [], [looked(5), looked(6, "v1"), looked(9)]),
    ],
)
def test_what_explains(history: History) -> None:
    assert judge(history) == []


def test_nodes_that_disagree_at_the_end() -> None:
    assert agree([looked(1, "v1"), looked(2, "v1")]) == []
    assert "disagree" in agree([looked(1, "v1"), looked(2)])[0]
