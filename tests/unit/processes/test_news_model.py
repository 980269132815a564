"""Deleted is deleted in several processes: fronts with hot answers and a core that changes things, as a state machine.

Fronts live in this process; their sockets and numbers are real. Whatever a front could do while a change is being
told, it does between any two steps of the telling. No answer from memory contradicts a change that has returned, and a
front that lives always reaches the counter when it looks: or it would forget everything at every change.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from keyserver.changes import Changes
from keyserver.faces.cache import Ground, MemoryLimit, Values
from keyserver.faces.http.facts import Facts
from keyserver.faces.http.hot import HotAnswers
from keyserver.model import NO_NAMES, Change
from keyserver.processes.news import Counter, Replica, Teller
from keyserver.wire.http_hot import ResponseHead

NAMES = ("alice", "bob", "carol")
FRONTS = 3
FOREVER = 1 << 40

Asks = list[tuple[int, str] | None]

names = st.sampled_from(NAMES)
fronts = st.integers(0, FRONTS - 1)
asks = st.one_of(st.just([None] * 9), st.lists(st.one_of(st.none(), st.tuples(fronts, names)), max_size=9))
"""Who asks at which step of the telling; None: everybody for everything."""


class Cell(list[int]):
    """The shared counter: others run before and after it is raised."""

    meanwhile: Callable[[], None]

    def __setitem__(self, place: Any, number: Any) -> None:
        self.meanwhile()
        super().__setitem__(place, number)
        self.meanwhile()


class Pipe(socket.socket):
    """The core's end of a news socket: others run before and after a message is sent."""

    meanwhile: Callable[[], None]

    def send(self, *words: Any) -> int:
        self.meanwhile()
        sent = super().send(*words)
        self.meanwhile()
        return sent


@dataclass
class Front:
    replica: Replica
    hot: HotAnswers
    kept: Values[str, int | None]
    asleep: bool = False  # its loop does not run: it reads nothing by itself
    out: bool = False  # the core has given it up; it may still be asked until it is dead
    under_way: list[tuple[str, int | None, int, int]] = field(default_factory=list)  # name, value, number, until


def line(name: str) -> bytes:
    return f"GET /{name} HTTP/1.1\r\n".encode()


class Fronts(RuleBasedStateMachine):
    replica: type[Replica] = Replica
    teller: type[Teller] = Teller

    @initialize()
    def start(self) -> None:
        self.now = 1_000
        self.known: dict[str, int | None] = dict.fromkeys(NAMES)
        self.old: dict[str, int | None] = dict(self.known)
        self.next_value = 1
        self.meant: Asks = []
        self.cell = Cell([0])
        self.cell.meanwhile = self.meanwhile
        self.counter = cast(Counter, type("", (), {"cell": self.cell, "detached": [0]})())
        self.core()
        self.fronts: list[Front] = []
        for number in range(FRONTS):
            self.fronts.append(self.made())
            self.admit(number)

    def core(self) -> None:
        self.changes = Changes()
        self.told = self.teller(self.changes, self.counter, self.late, 0.0)

    def made(self) -> Front:
        replica = self.replica(self.counter)
        clock = lambda: self.now  # noqa: E731
        budget = MemoryLimit(1 << 20, replica, clock)
        return Front(replica, HotAnswers(budget), Values(budget))

    def admit(self, number: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)  # a few messages
        pipe = Pipe(fileno=ours.detach())
        pipe.meanwhile = self.meanwhile
        front = self.fronts[number]
        front.under_way.clear()
        front.out = False
        self.told.admit(number, pipe)
        front.replica.attach(theirs)

    def late(self, number: int) -> None:
        self.fronts[number].out = True

    def meanwhile(self) -> None:
        """What others do at this very moment."""
        if getattr(self, "meant", None):
            who = self.meant.pop()
            for number, name in [who] if who is not None else itertools.product(range(FRONTS), NAMES):
                self.look(number, name, allowed=(self.known, self.old))

    def look(self, number: int, name: str, allowed: tuple[dict[str, int | None], ...]) -> None:
        front = self.fronts[number]
        answer = front.hot.find(line(name))
        if answer is not None:
            assert answer.body in [str(known[name]).encode() for known in allowed], "stale, over HTTP"
        row = front.kept.get(name)
        if row is not None:
            assert row.value in [known[name] for known in allowed], "stale, over LDAP"
        assert front.out or front.replica.published >= self.cell[0], "it looked and did not get there"

    # what happens

    @rule(number=fronts, name=names)
    def asked(self, number: int, name: str) -> None:
        self.look(number, name, (self.known,))

    @rule(
        touched=st.sets(names, min_size=1),
        gone=st.booleans(),
        everything=st.booleans(),
        others=asks,
        before=st.sampled_from((0, 0, 0, 8)),
        after=st.booleans(),
    )
    def changed(
        self,
        touched: set[str],
        gone: bool,
        everything: bool,
        others: list[tuple[int, str] | None],
        before: int,
        after: bool,
    ) -> None:
        """Deleted, blocked, approved, filled again: the store has committed, then tells. `before`: changes of others,
        more than a socket holds."""
        for _ in range(before):
            self.changes.publish(Change(7, frozenset({"somebody else"})))
        self.old = dict(self.known)
        for name in touched:
            self.known[name] = None if gone else self.next_value
            self.next_value += 1
        self.meant = list(others)
        self.changes.publish(Change(7, frozenset() if everything else frozenset(touched), everything))
        self.meant = []
        self.old = dict(self.known)
        for number, name in itertools.product(range(FRONTS), NAMES) if after else ():
            self.look(number, name, (self.known,))

    @rule(number=fronts, name=names, left=st.integers(1, 30))
    def cold(self, number: int, name: str, left: int) -> None:
        """The core looks for a front; its reply is under way for as long as it likes."""
        front = self.fronts[number]
        if not front.out:
            front.under_way.append((name, self.known[name], self.changes.published, self.now + left))

    @rule(number=fronts, which=st.integers(0, 9))
    def arrives(self, number: int, which: int) -> None:
        front = self.fronts[number]
        if not front.under_way:
            return
        name, value, since, until = front.under_way.pop(which % len(front.under_way))
        body = str(value).encode()
        status, length = 404 if value is None else 200, b"%d" % len(body)
        named = {b"content-length": [length]}
        reply = ResponseHead(40, b"1.1", status, b"", ((b"Content-Length", length),), named, len(body))
        front.hot.fill(
            line(name),
            reply,
            body,
            Facts(names=frozenset({name}), since=0, until=until, number=since, positive=value is not None),
        )
        front.kept.keep(name, value, 10, Ground(frozenset({name}), until, since), front.kept.budget.found)

    @rule(number=fronts)
    def refilled(self, number: int) -> None:
        """With everything, at once."""
        for name in NAMES:
            self.cold(number, name, 30)
            self.arrives(number, -1)

    @rule(seconds=st.integers(1, 40))
    def passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(number=fronts)
    def sleeps(self, number: int) -> None:
        self.fronts[number].asleep = not self.fronts[number].asleep

    @rule(number=fronts)
    def dies(self, number: int) -> None:
        self.told.dismiss(number)
        self.fronts[number].replica.detach()
        self.fronts[number] = self.made()
        self.admit(number)

    @rule(told=st.integers(0, FRONTS), name=names)
    def core_dies(self, told: int, name: str) -> None:
        """In the midst of a change that was never acknowledged, with some fronts told."""
        self.known[name] = self.next_value
        self.next_value += 1
        for number in list(range(FRONTS))[told:]:
            self.told.dismiss(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cell, "__setitem__", lambda *_: None)
            self.changes.publish(Change(7, frozenset({name})))
        self.told.close()
        self.core()
        for number in range(FRONTS):
            self.admit(number)

    @invariant()
    def loops_run(self) -> None:
        """A front whose loop runs reads what is there."""
        for front in getattr(self, "fronts", ()):
            if not front.asleep:
                front.replica.catch_up()

    def teardown(self) -> None:
        if hasattr(self, "fronts"):
            self.told.close()
            for front in self.fronts:
                front.replica.detach()


TestFronts = Fronts.TestCase
TestFronts.settings = settings(max_examples=60, stateful_step_count=40)


class CounterFirst(Teller):
    """Planted: the counter is raised before the messages are sent."""

    def _tell(self, change: Change) -> None:
        self._cell[0] = self._changes.published
        super()._tell(change)


class Credulous(Replica):
    """Planted: takes the counter's word for having read everything, and misses nothing."""

    def catch_up(self) -> None:
        self.over = self.sock is None
        while not self.over and (message := received(self.sock)):
            number, change = json.loads(message)[0], json.loads(message)[1:]
            self.publish(Change(7, frozenset(change[1:]), everything=len(change) < 2))
            self.published = number
        self.published = max(self.published, self.told[0])


def received(sock: socket.socket | None) -> bytes:
    try:
        return sock.recv(1 << 16) if sock is not None else b""
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("planted", "seen"),
    [
        ({"teller": CounterFirst}, "it looked and did not get there"),
        ({"replica": Credulous, "teller": CounterFirst}, "stale"),
    ],
)
def test_planted_bugs_are_caught(planted: dict[str, Any], seen: str) -> None:
    broken = type("Broken", (Fronts,), planted)
    with pytest.raises(AssertionError, match=seen):
        run_state_machine_as_test(broken, settings=settings(max_examples=400, phases=[Phase.generate]))


def test_a_front_that_was_given_up_forgets_what_it_could_not_be_told_of() -> None:
    machine = Fronts()
    machine.start()
    machine.sleeps(1)
    for name in NAMES:
        machine.cold(1, name, 30)
        machine.arrives(1, 0)
    assert machine.fronts[1].hot.find(line("bob")) is not None
    while not machine.fronts[1].out:
        machine.changed({"alice"}, gone=False, everything=False, others=[], before=0, after=False)
        machine.loops_run()
    machine.asked(1, "alice")
    assert machine.fronts[1].hot.find(line("bob")) is None
    assert not machine.fronts[0].out
    assert machine.fronts[0].replica.published == machine.cell[0]
    machine.teardown()


def test_a_change_of_many_names_is_one_of_all_and_one_of_none_stays_that() -> None:
    counter = Counter()
    replica = Replica(counter)
    heard: list[Change] = []
    replica.subscribe(heard.append)
    changes = Changes()
    teller = Teller(changes, counter, lambda _: None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    teller.admit(0, ours)
    replica.attach(theirs)
    heard.clear()
    many = frozenset(f"a:{n}@example.org" for n in range(5_000))
    changes.publish(Change(1, many))
    changes.publish(Change(2, frozenset({"a:\udcff@example.org"})))
    changes.publish(NO_NAMES)
    replica.catch_up()
    assert heard[0].everything
    assert heard[1] == Change(2, frozenset({"a:\udcff@example.org"}))
    assert heard[2] == NO_NAMES
    assert replica.published == counter.cell[0] == 3
    teller.close()
    replica.detach()


def test_fronts_know_at_once_that_changes_are_not_heard() -> None:
    counter, changes = Counter(), Changes()
    changes.detached[0] = 1
    replica = Replica(counter)
    Teller(changes, counter, lambda front: None)
    assert replica.detached[0] == 1
    changes.detached[0] = 0
    assert (replica.detached[0], replica.told[0]) == (0, 0)
