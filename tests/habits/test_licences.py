"""Of everything that is shipped the licence is known, and allows what we do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from licences import ALLOWED, allowed, licence_of

ROOT = Path(__file__).parents[2]
VENDORED = ROOT / "keyserver" / "admin" / "pages" / "static" / "VENDORED.md"


def shipped() -> Iterator[str]:
    """What requirements.lock installs on this machine."""
    for line in re.findall(r"^([a-z0-9_.-]+==[^\\\n]+)", (ROOT / "requirements.lock").read_text(), re.M):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement.name


@pytest.mark.parametrize("name", list(shipped()))
def test_no_licence_forbids(name: str) -> None:
    licence = licence_of(distribution(name))
    assert allowed(licence), licence


def test_nor_that_of_what_lies_in_the_package() -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in VENDORED.read_text().splitlines() if ".js" in line]
    assert rows
    assert all(row[4] in ALLOWED for row in rows)


@pytest.mark.parametrize("licence", ["", "GPL-3.0-only", "MIT AND AGPL-3.0-only", "Proprietary OR SSPL-1.0"])
def test_what_is_not_named_is_not_allowed(licence: str) -> None:
    assert not allowed(licence)


def test_one_of_a_choice_is_enough() -> None:
    assert allowed("GPL-2.0-only OR MIT")
