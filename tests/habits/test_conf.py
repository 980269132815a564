"""Files to be copied are run by tests, each by a test of its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
FILES = sorted(file for file in CONF.rglob("*") if file.is_file() and not file.name.startswith("."))
TESTS = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests").rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(CONF)) for file in FILES])
def test_it_is_named_by_a_test_that_names_its_folder(file: Path) -> None:
    folder = [f'"{part}"' for part in file.relative_to(ROOT).parts[:-1]]
    whole = " / ".join([*folder, f'"{file.name}"'])
    assert any(whole in text or (" / ".join(folder) in text and f'"{file.name}"' in text) for text in TESTS)
