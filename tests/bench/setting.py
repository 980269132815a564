"""What every measurement is given: where to work, how long, and on which processors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.machine import Cpus

_TESTS = Path(__file__).parent.parent


def module_path(root: Path) -> dict[str, str]:
    """Environment in which a subprocess finds the product and benchmark of this checkout."""
    return {"PYTHONPATH": f"{root}:{root / 'tests'}"}


MODULE_PATH = module_path(_TESTS.parent)
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
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the service under test, beside those of the benchmark: values as `keyserver serve --set` takes them."""
    before: Path | None = None
    """Checkout of another commit, whose service is a contestant with its default settings."""

    certificates: int | None = None
    """In a store with very many, where the run says how many."""
    events: int | None = None
    """In a history with very many, likewise."""

    def scaled(self, quick: int, full: int) -> int:
        """A count that depends on how long the run may take."""
        return quick if self.quick else full

    def place(self, name: str) -> Path:
        """A new folder for one part."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder
