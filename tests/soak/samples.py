"""What is measured of a service from time to time, and which growth is tolerated over a whole run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soak.slopes import grows, slope
from support.processes import descriptors_of, memory_of

MEGABYTE = 1 << 20


@dataclass
class Figure:
    """One line of the report: samples of (seconds, value), and by how much it may grow in the run."""

    unit: str
    tolerance: float
    samples: list[tuple[float, float]] = field(default_factory=list)


@dataclass
class Figures:
    """All of them by name, in the order in which they first came."""

    by_name: dict[str, Figure] = field(default_factory=dict)

    def add(self, name: str, unit: str, tolerance: float, at: float, value: float) -> None:
        """One more sample."""
        self.by_name.setdefault(name, Figure(unit, tolerance)).samples.append((at, value))

    def look(self, at: float, pids: Mapping[str, list[int]], database: Path, latencies: list[float]) -> None:
        """All that can be seen now. Raises OSError where a process has just ended."""
        for kind, among in pids.items():
            memory = sum(map(memory_of, among)) / MEGABYTE
            descriptors = sum(map(descriptors_of, among))
            threads = sum(sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) for pid in among)
            if memory:
                self.add(f"{kind}: memory", "MB", 16, at, memory)
                self.add(f"{kind}: descriptors", "", 8, at, descriptors)
                self.add(f"{kind}: threads", "", 4, at, threads)
        for name, suffix in (("write-ahead log", "-wal"), ("database", "")):
            file = database.with_name(database.name + suffix)
            if file.exists():
                self.add(name, "MB", 32, at, file.stat().st_size / MEGABYTE)
        if len(latencies) >= 20:
            self.add("hit: median", "ms", 5, at, 1000 * statistics.median(latencies))
            self.add("hit: 99th percentile", "ms", 100, at, 1000 * statistics.quantiles(latencies, n=100)[98])

    def report(self) -> Iterator[tuple[str, bool]]:
        """A line for each figure, and whether it is as it should be."""
        yield (
            f"{'figure':28} {'samples':>7} {'mean':>9} {'an hour':>9} {'± error':>9} {'grown':>8} {'may':>5}  verdict",
            True,
        )
        for name, figure in self.by_name.items():
            try:
                found = slope(figure.samples)
            except ValueError as why:
                yield f"{name:28} {why}", False
                continue
            bad = grows(found, figure.tolerance)
            line = f"{name:28} {len(figure.samples):>7} {found.mean:>9.2f} {found.hourly:>+9.3f} {found.error:>9.3f}"
            verdict = "GROWS" if bad else "flat"
            line += f" {found.grown():>+8.2f} {figure.tolerance:>5.0f}  {verdict} {figure.unit}"
            yield line.rstrip(), not bad
