"""Counts by five minutes, for a week."""

from __future__ import annotations

from keyserver.traffic import KEPT, SLOT, Traffic


def test_totals_and_series_are_of_the_last_so_many_seconds() -> None:
    now = [1_800_000_000.0]
    traffic = Traffic(lambda: now[0])
    for _ in range(12):
        traffic.note("hit")
        traffic.note("miss", 2)
        now[0] += SLOT
    assert traffic.total("hit", 3600) == 11  # the slot of now is empty yet
    assert traffic.total("miss", SLOT * 2) == 2
    assert list(traffic.series("hit", 3600, 4)) == [3, 3, 3, 2]
    assert traffic.total("nothing", 3600) == 0


def test_a_week_is_kept_and_no_more() -> None:
    now = [1_800_000_000.0]
    traffic = Traffic(lambda: now[0])
    for _ in range(KEPT + 10):
        traffic.note("hit")
        now[0] += SLOT
    assert traffic.total("hit", 14 * 86400) == KEPT


def test_a_clock_that_goes_back_loses_nothing() -> None:
    now = [1_800_000_000.0]
    traffic = Traffic(lambda: now[0])
    traffic.note("hit")
    now[0] -= 86400
    traffic.note("hit")
    now[0] += 86400
    assert traffic.total("hit", 3600) == 2


def test_things_of_one_slot_are_bounded() -> None:
    traffic = Traffic(lambda: 1_800_000_000.0)
    for n in range(5000):
        traffic.note(str(n))
    assert traffic.total("1", 3600) == 1
    assert traffic.total("4999", 3600) == 0
