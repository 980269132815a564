"""Every RFC and draft that the code cites stands in docs/standards.md with what is kept of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CITED = re.compile(r"\bRFC[ -]?(\d{3,5})\b|\b(draft-[a-z0-9]+(?:-[a-z0-9]+)+)")


def cites(text: str) -> set[str]:
    """`RFC 9580`, or a draft's name without its revision."""
    return {f"RFC {m[1]}" if m[1] else re.sub(r"-\d\d$", "", m[2]) for m in CITED.finditer(text)}


def test_every_document_cited_in_code_stands_in_standards_md() -> None:
    kept = cites((ROOT / "docs" / "standards.md").read_text(encoding="utf-8"))
    missing = [
        f"{file.relative_to(ROOT)}: {cite}"
        for file in sorted((ROOT / "keyserver").rglob("*.py"))
        for cite in sorted(cites(file.read_text(encoding="utf-8")) - kept)
    ]
    assert not missing, "\n".join(missing)


def test_drafts_are_cited_with_their_revision() -> None:
    """Sections move between revisions: a draft's section without a revision means nothing."""
    found = []
    for file in sorted((ROOT / "keyserver").rglob("*.py")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for match in re.finditer(r"\bdraft-[a-z0-9-]+", line):
                if not re.search(r"-\d\d$", match[0].rstrip("-")) and re.match(r" (?:section|§)", line[match.end() :]):
                    found.append(f"{file.relative_to(ROOT)}:{number}: {match[0]} has no revision")
    assert not found, "\n".join(found)


def test_cites_are_seen() -> None:
    assert cites("RFC 9580 section 5; RFC4511; draft-shaw-openpgp-hkp-00 section 5") == {
        "RFC 9580",
        "RFC 4511",
        "draft-shaw-openpgp-hkp",
    }
