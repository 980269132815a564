"""What the soak calls growing."""

from __future__ import annotations

import random

import pytest

from soak.slopes import grows, slope


def noisy(per_hour: float, seed: int = 1) -> list[tuple[float, float]]:
    chance = random.Random(seed)
    return [(at, 100 + per_hour * at / 3600 + chance.gauss(0, 3)) for at in range(0, 7200, 30)]


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    found = slope([(at, 5 + at / 60) for at in range(0, 3600, 60)])
    assert (found.hourly, found.error) == (pytest.approx(60), pytest.approx(0, abs=1e-9))
    assert found.grown() == pytest.approx(39)


def test_noise_does_not_grow_and_a_leak_does() -> None:
    assert not any(grows(slope(noisy(0, seed)), 1) for seed in range(50))
    assert all(grows(slope(noisy(10, seed)), 1) for seed in range(50))
    assert not any(grows(slope(noisy(-10, seed)), 1) for seed in range(50))


def test_what_grows_by_less_than_is_tolerated_does_not_count() -> None:
    assert not grows(slope(noisy(10)), 20)


def test_the_beginning_does_not_count() -> None:
    assert not grows(slope([(at, float(min(at, 1000))) for at in range(0, 3600, 10)]), 1)


@pytest.mark.parametrize("samples", [[], [(1.0, 1.0)], [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], [(5.0, 1.0)] * 4])
def test_too_few_samples_have_no_slope(samples: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="samples"):
        slope(samples)
