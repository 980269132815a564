"""What a run has reached of the product, by folder, from coverage.py's JSON: `python -m covered FILE`.

Where a codec or a rule lives, it is held to a share of branches; what is lacking there is named line by line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEAST = 95.0
"""Percent of lines and branches."""

HELD = ("keyserver", "keyserver/openpgp", "keyserver/resolver", "keyserver/smime", "keyserver/wire")
"""Folders of codecs and rules, without those below them; `keyserver` itself has the policy and the queries."""


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
        folder.there += summary["num_statements"] + summary["num_branches"]
        folder.reached += summary["covered_lines"] + summary["covered_branches"]
    return dict(sorted(found.items()))


def lacking(files: Mapping[str, Any], folder: str) -> Iterator[str]:
    """The files of a folder below the bound, with the lines that nobody reached."""
    for file in sorted(files):
        summary = files[file]["summary"]
        if str(Path(file).parent) == folder and summary["percent_covered"] < LEAST:
            lines = " ".join(map(str, files[file]["missing_lines"][:20]))
            yield f"  {file}: {summary['percent_covered']:.1f} %, not reached: {lines or 'branches only'}"


def main() -> int:
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    folders = by_folder(files)
    below = [name for name in HELD if name not in folders or folders[name].percent < LEAST]
    print(f"{'folder':32} {'lines and branches':>18} {'reached':>8}")
    for name, folder in folders.items():
        mark = f" held to {LEAST:.0f} %{': BELOW' if name in below else ''}" if name in HELD else ""
        print(f"{name:32} {folder.there:>18,} {folder.percent:>7.1f}%{mark}")
        if name in HELD:
            print(*lacking(files, name), sep="\n", end="\n" if list(lacking(files, name)) else "")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
