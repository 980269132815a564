"""Files of conf/ as a page, and the list of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = {".toml": "toml", ".yml": "yaml", ".sql": "sql", ".json": "json", ".service": "ini"}
LONG = 40_000
"""Characters; longer files are named, not shown."""


def files() -> str:
    """Each file of conf/, folder by folder."""
    head = "# Files to copy\n\nWhat `conf/` in the repository holds, to be copied and changed.\n"
    return "\n".join([head, *_folder(ROOT / "conf")])


def _folder(folder: Path) -> Iterator[str]:
    yield f"## {folder.relative_to(ROOT)}\n"
    inside = sorted(folder.iterdir())
    for file in (one for one in inside if one.is_file()):
        text = file.read_text(encoding="utf-8")
        yield f"### {file.relative_to(ROOT)}\n"
        if len(text) > LONG:
            yield f"{len(text):,} characters, not shown here.\n"
        else:
            yield f"````{LANGUAGES.get(file.suffix, 'text')}\n{text}````\n"
    for below in (one for one in inside if one.is_dir()):
        yield from _folder(below)


def decisions() -> str:
    """The decisions by their titles."""
    lines = ["# Decisions\n", "Why things are as they are, and what would change our mind.\n"]
    for file in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}](../decisions/{file.name})")
    return "\n".join([*lines, ""])
