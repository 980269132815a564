"""When the wall clock may be believed, by two clocks handed in."""

import pytest

from keyserver.resolver.clockwatch import WAIT, ClockWatch

NOW = 1_800_000_000.0


def test_a_steady_clock_is_believed_for_years_and_slewing_is_no_jump() -> None:
    watch = ClockWatch(NOW, 5.0)
    for hour in range(10_000):
        drift = hour * 0.5  # half a second an hour
        assert watch.look(NOW + hour * 3600 + drift, 5.0 + hour * 3600)
    assert watch.complaint == ""


@pytest.mark.parametrize("jump", [30 * 86400.0, 120.0, -120.0, -30 * 86400.0])
def test_after_a_jump_nothing_is_deleted_for_a_day(jump: float) -> None:
    watch = ClockWatch(NOW, 0.0)
    assert not watch.look(NOW + 3 + jump, 3.0)
    assert not watch.look(NOW + 6, 6.0), "three seconds later it is back: that is a jump, too"
    assert "jumped" in watch.complaint
    assert not watch.look(NOW + WAIT, WAIT)
    assert watch.look(NOW + WAIT + 6, WAIT + 6)
    assert watch.complaint == ""


def test_an_administrators_word_is_enough() -> None:
    watch = ClockWatch(NOW, 0.0)
    assert not watch.look(NOW + 1e6, 1.0)
    watch.trust()
    assert watch.look(NOW + 1e6 + 1, 2.0)


@pytest.mark.parametrize(
    ("newest", "why"),
    [(None, ""), (NOW - 3600, ""), (NOW + 30, ""), (NOW - 2 * WAIT, "last written 2 days ago"), (NOW + 7200, "future")],
)
def test_at_start_the_store_is_asked(newest: float | None, why: str) -> None:
    watch = ClockWatch(NOW, 0.0)
    watch.newest(None if newest is None else int(newest), NOW, 0.0)
    assert why in watch.complaint and bool(why) == bool(watch.complaint)
    assert watch.look(NOW, 0.0) is not bool(why)
