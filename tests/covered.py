"""What tests reach of the product, in the processes they run in: by lines and branches.

As a plugin of pytest (`-p tests.covered`) it notes what each process of the run has reached below var/coverage;
`python -m tests.covered` prints that by folder. Where a codec or a rule lives, a folder is held to a share of both, and
what is lacking there is named line by line.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LEAST = 95.0
"""Percent of lines and branches."""

HELD = (
    "keyserver",
    "keyserver/openpgp",
    "keyserver/resolver",
    "keyserver/smime",
    "keyserver/verdict",
    "keyserver/wire",
)
"""Folders of codecs and rules, without those below them; `keyserver` itself has the policy and the queries."""

ROOT = Path(__file__).resolve().parent.parent
NOTED = ROOT / "var" / "coverage"
_MEASURED = pytest.StashKey[Any]()


def _meter(source: list[str] | None) -> Any:
    """SlipCover, which takes each probe out again when it is passed. `source`: what to name if unreached."""
    import slipcover

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["slipcover"]
    return slipcover.Slipcover(branch=True, immediate=True, source=source, exclude_also=settings["exclude-also"])


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before any of the product is imported; a process that only hands out tests reaches nothing of its own."""
    if early_config.known_args_namespace.numprocesses and "PYTEST_XDIST_WORKER" not in os.environ:
        return
    import slipcover

    meter = early_config.stash[_MEASURED] = _meter(None)
    slipcover.ImportManager(meter, slipcover.FileMatcher(sources=[ROOT / "keyserver"])).__enter__()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note it."""
    if meter := session.config.stash.get(_MEASURED, None):
        NOTED.mkdir(parents=True, exist_ok=True)
        (NOTED / f"{os.getpid()}.json").write_text(json.dumps(meter.get_coverage()))


def noted() -> Mapping[str, Any]:
    """All that was noted, file by file."""
    import slipcover

    whole = _meter([str(ROOT / "keyserver")]).get_coverage()
    for file in sorted(NOTED.glob("*.json")):
        slipcover.merge_coverage(whole, json.loads(file.read_text()))
    files: Mapping[str, Any] = whole["files"]
    return files


@dataclass
class Folder:
    """Lines and branches of one folder: there, and reached."""

    there: int = 0
    reached: int = 0

    @property
    def percent(self) -> float:
        """Reached of what is there; a folder without anything is reached."""
        return 100 * self.reached / self.there if self.there else 100.0


def by_folder(files: Mapping[str, Any]) -> dict[str, Folder]:
    """Sums by folder, sorted."""
    found: dict[str, Folder] = {}
    for file in sorted(files):
        summary = files[file]["summary"]
        folder = found.setdefault(str(Path(file).parent), Folder())
        reached = summary["covered_lines"] + summary["covered_branches"]
        folder.there += reached + summary["missing_lines"] + summary["missing_branches"]
        folder.reached += reached
    return dict(sorted(found.items()))


def lacking(files: Mapping[str, Any], folder: str) -> Iterator[str]:
    """The files of a folder below the bound, with the lines that nobody reached."""
    for file in sorted(files):
        summary = files[file]["summary"]
        if str(Path(file).parent) == folder and summary["percent_covered"] < LEAST:
            lines = " ".join(map(str, files[file]["missing_lines"][:20]))
            yield f"  {file}: {summary['percent_covered']:.1f} %, not reached: {lines or 'branches only'}"


def main() -> int:
    files = noted()
    folders = by_folder(files)
    below = [name for name in HELD if name not in folders or folders[name].percent < LEAST]
    print(f"{'folder':32} {'lines and branches':>18} {'reached':>8}")
    for name, folder in folders.items():
        mark = f" held to {LEAST:.0f} %{': BELOW' if name in below else ''}" if name in HELD else ""
        print(f"{name:32} {folder.there:>18,} {folder.percent:>7.1f}%{mark}")
        if name in HELD:
            for line in lacking(files, name):
                print(line)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
