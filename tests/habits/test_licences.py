"""Of everything that is shipped the licence is known, and allows what we do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
VENDORED = ROOT / "keyserver" / "admin" / "pages" / "static" / "VENDORED.md"

ALLOWED = frozenset(
    ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "LGPL-3.0-only", "MIT", "MIT-0", "PSF-2.0"]
)
"""SPDX names. The LGPL's is ldap3: its files are shipped as they are and can be replaced by others."""

SPELLED = {
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "LGPL v3": "LGPL-3.0-only",
    "MIT License": "MIT",
}
"""What packages of before SPDX names say."""


def allowed(licence: str) -> bool:
    """May this be shipped? licence: an SPDX expression without brackets."""
    return any(all(part in ALLOWED for part in choice.split(" AND ")) for choice in licence.split(" OR "))


def shipped() -> Iterator[str]:
    """What requirements.lock installs on this machine."""
    for line in re.findall(r"^([a-z0-9_.-]+==[^\\\n]+)", (ROOT / "requirements.lock").read_text(), re.M):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement.name


def licence_of(name: str) -> str:
    """As its metadata say: the expression, else the old field, else the classifier; empty where nothing does."""
    said = distribution(name).metadata
    classifiers = [text for text in said.get_all("Classifier", []) if text.startswith("License :: ")]
    old = said["License"] or "".join(text.rpartition(" :: ")[2] for text in classifiers)
    return said["License-Expression"] or SPELLED.get(old, old)


@pytest.mark.parametrize("name", list(shipped()))
def test_no_licence_forbids(name: str) -> None:
    assert allowed(licence_of(name)), licence_of(name)


def test_nor_that_of_what_lies_in_the_package() -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in VENDORED.read_text().splitlines() if ".js" in line]
    assert rows
    assert all(row[4] in ALLOWED for row in rows)


@pytest.mark.parametrize("licence", ["", "GPL-3.0-only", "MIT AND AGPL-3.0-only", "Proprietary OR SSPL-1.0"])
def test_what_is_not_named_is_not_allowed(licence: str) -> None:
    assert not allowed(licence)


def test_one_of_a_choice_is_enough() -> None:
    assert allowed("GPL-2.0-only OR MIT")
