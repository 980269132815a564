"""Does something grow? Least squares over samples, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WARM = 1 / 3
"""The share of a run, at its beginning, in which caches may still fill."""

SURE = 3.0
"""Standard errors by which a slope must be above none. Samples that follow each other are alike, so that two, which
would do for independent ones, would be passed by chance too often."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How a figure moves, in its own unit: mean, change an hour, and that change's standard error."""

    mean: float
    hourly: float
    error: float
    hours: float
    """From the first sample that counts to the last."""

    def grown(self) -> float:
        """By how much over all that was sampled."""
        return self.hourly * self.hours


def slope(samples: Sequence[tuple[float, float]]) -> Slope:
    """Of (seconds, value), without the beginning. Raises ValueError for fewer than three samples that count."""
    end = max((at for at, _ in samples), default=0.0)
    points = [(at / 3600, value) for at, value in samples if at >= end * WARM]
    count = len(points)
    if count < 3:
        raise ValueError(f"{count} samples are too few for a slope")
    middle = sum(x for x, _ in points) / count
    mean = sum(y for _, y in points) / count
    spread = sum((x - middle) ** 2 for x, _ in points)
    if not spread:
        raise ValueError("all samples are of one instant")
    hourly = sum((x - middle) * (y - mean) for x, y in points) / spread
    rest = sum((y - mean - hourly * (x - middle)) ** 2 for x, y in points)
    return Slope(mean, hourly, math.sqrt(rest / (count - 2) / spread), points[-1][0] - points[0][0])


def grows(found: Slope, tolerance: float) -> bool:
    """Is it surely growing, and by more than is tolerated over the whole run?"""
    return found.hourly > SURE * found.error and found.grown() > tolerance
