"""What every measurement is given: where to work, how long, and on which processors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cpus

_TESTS = Path(__file__).parent.parent

MODULE_PATH = {"PYTHONPATH": f"{_TESTS.parent}:{_TESTS}"}
"""Environment in which our own subprocesses find the very product and benchmark that run here."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of the benchmark."""

    folder: Path
    cpus: Cpus
    quick: bool
    rounds: int
    seconds: int  # of one round
    tell: Callable[[str], None]  # remarks for people while it runs

    def scaled(self, quick: int, full: int) -> int:
        """A count that depends on how long the run may take."""
        return quick if self.quick else full

    def place(self, name: str) -> Path:
        """A new folder for one part."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder
