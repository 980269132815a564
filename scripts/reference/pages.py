"""Which pages are made, and where documents of the repository's root stand on the site."""

from __future__ import annotations

import re
from pathlib import Path

from reference import commands, interface, metrics, shipped

ROOT = Path(__file__).parents[2]
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Documents of the root, and their places on the site."""


def made() -> dict[str, str]:
    """Text of each page that no file of docs/ holds, by its place there."""
    return {
        "reference/commands.md": commands.render(),
        "reference/api.md": interface.render(),
        "reference/metrics.md": metrics.render(),
        "reference/files.md": shipped.files(),
        "reference/decisions.md": shipped.decisions(),
        **{place: _from_root((ROOT / name).read_text(encoding="utf-8")) for name, place in BESIDE.items()},
    }


def _from_root(text: str) -> str:
    """A document of the root as one of docs/: its links begin in another folder."""

    def turned(found: re.Match[str]) -> str:
        target = found[1]
        return f"]({target.removeprefix('docs/') if target.startswith('docs/') else f'../{target}'})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", turned, text)


def inward(text: str, place: str) -> str:
    """A page's text with links that leave docs/ turned to what stands for them: pages of the site."""
    up = "../" * place.count("/")

    def turned(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        if path in BESIDE:
            return f"]({up}{BESIDE[path]}{'#' + anchor if anchor else ''})"
        if path == "README.md":
            return f"]({up}index.md)"
        return f"]({up}reference/files.md#{re.sub(r'[^a-z0-9_-]', '', path.lower())})"

    names = "|".join(map(re.escape, BESIDE))
    return re.sub(rf"\]\({re.escape(up)}\.\./((?:{names}|README\.md|conf/)[^)\s]*)\)", turned, text)
