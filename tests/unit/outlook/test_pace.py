"""An upstream is called slower, or failing, where its last days are worse than those before, by what the docs say."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from keyserver.outlook.pace import slower
from keyserver.store.upstreams import PACE_BOUNDS, Pace, pace_bucket

TODAY = 20_000


def pace(days_ago: int, answers: Mapping[int, int], failed: int = 0, upstream: str = "hkp") -> Pace:
    """answers: milliseconds -> how many took so long."""
    buckets = [0] * (len(PACE_BOUNDS) + 1)
    for ms, count in answers.items():
        buckets[pace_bucket(ms / 1000)] += count
    return Pace(upstream, TODAY - days_ago, tuple(buckets), failed)


def named(*rows: Pace) -> list[tuple[bool, bool]]:
    return [(one.slower, one.failing) for one in slower(rows, TODAY)]


@pytest.mark.parametrize(
    ("before", "recent", "said"),
    [
        (100, 100, False),
        (100, 250, True),
        (10, 40, False),  # four times as long, and still not 50 ms more
        (1000, 1200, False),  # 200 ms more, and still not half as long again
        (250, 100, False),
        (1000, 60_000, True),  # longer than the last bound
    ],
)
def test_slower_is_half_as_long_again_and_fifty_milliseconds(before: int, recent: int, said: bool) -> None:
    assert bool(named(pace(20, {before: 100}), pace(3, {recent: 100}))) is said


def test_medians_count_not_single_answers() -> None:
    [one] = slower([pace(30, {100: 99, 10_000: 1}), pace(0, {100: 40, 800: 60})], TODAY)
    assert (one.slower, one.failing, one.answers) == (True, False, 100)
    assert one.ms_before <= 130
    assert 700 < one.ms <= 1000
    assert named(pace(30, {100: 100}), pace(0, {100: 60, 9000: 40})) == []


def test_days_are_told_apart_at_the_seventh_and_end_at_the_thirty_fifth() -> None:
    old, new = {100: 100}, {1000: 100}
    assert named(pace(7, old), pace(6, new)) == [(True, False)]
    assert named(pace(34, old), pace(0, new)) == [(True, False)]
    assert named(pace(35, old), pace(0, new)) == []
    assert named(pace(6, old), pace(0, new)) == []
    assert named(pace(20, old), pace(-1, new)) == []  # of a clock that goes ahead


@pytest.mark.parametrize(("then", "now"), [(49, 100), (100, 49)])
def test_too_few_answers_say_nothing(then: int, now: int) -> None:
    assert named(pace(20, {100: then}), pace(1, {1000: now})) == []


@pytest.mark.parametrize(
    ("before", "recent", "said"),
    [(0, 10, True), (0, 4, False), (10, 12, False), (10, 20, True), (100, 100, False)],
)
def test_failures_count_by_their_share(before: int, recent: int, said: bool) -> None:
    rows = pace(20, {100: 100 - before}, before), pace(1, {100: 100 - recent}, recent)
    assert named(*rows) == ([(False, True)] if said else [])


def test_one_that_only_fails_now_is_named_though_it_answers_nothing() -> None:
    [one] = slower([pace(20, {100: 100}), pace(1, {}, 60)], TODAY)
    assert (one.slower, one.failing, one.failed, one.ms) == (False, True, 1.0, 0)


def test_each_upstream_by_itself() -> None:
    rows = [pace(20, {100: 60}), pace(1, {1000: 60}), pace(20, {100: 60}, 0, "b"), pace(1, {100: 60}, 0, "b")]
    assert [one.upstream for one in slower(rows, TODAY)] == ["hkp"]
