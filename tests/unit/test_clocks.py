"""The clock that is stored, answered and judged by, beside a database's."""

from __future__ import annotations

from dataclasses import replace

from keyserver.clocks import STEADY, Clocks
from keyserver.processes.news import Counter


class Machine:
    """Clocks that are the test's."""

    def __init__(self) -> None:
        self.own, self.counting = 1_000_000, 50.0
        self.clocks = Clocks(lambda: self.own, lambda: 0.0, lambda: self.counting)


def test_without_a_database_the_machines_clock_is_gone_by() -> None:
    machine = Machine()
    machine.own += 7
    assert machine.clocks.now() == 1_000_007


def test_with_one_nobody_moves_it_who_sets_the_machines() -> None:
    machine = Machine()
    machine.clocks.heard(2_000_000.25, machine.counting)
    machine.own += 86400
    machine.counting += 10.5
    assert machine.clocks.now() == 2_000_010


def test_what_a_hearing_may_be_off_by_moves_nothing_and_what_is_more_does() -> None:
    machine = Machine()
    machine.clocks.heard(2_000_000.2, machine.counting)
    machine.clocks.heard(2_000_000.2 - STEADY, machine.counting)
    assert machine.clocks.now() == 2_000_000, "no second comes twice"
    machine.clocks.heard(1_999_990.2, machine.counting)
    assert machine.clocks.now() == 1_999_990


def test_all_processes_go_by_what_one_of_them_heard() -> None:
    counter, machine = Counter(), Machine()
    core, front = (replace(machine.clocks, base=counter.base) for _ in range(2))
    core.heard(2_000_000.25, machine.counting)
    counter.cell[0], counter.detached[0] = 5, 1
    assert front.now() == 2_000_000
    assert machine.clocks.now() == machine.own
