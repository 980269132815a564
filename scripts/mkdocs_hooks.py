"""What mkdocs.yml asks of us: pages that are made from declarations, and documents that stand beside docs/."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from reference import commands, interface, metrics, shipped

ROOT = Path(__file__).parents[1]
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Documents of the repository's root, and their places on the site."""


def on_files(files: Files, config: Any) -> Files:
    """Adds pages that no file of docs/ holds."""
    made = {
        "reference/commands.md": commands.render(),
        "reference/api.md": interface.render(),
        "reference/metrics.md": metrics.render(),
        "reference/files.md": shipped.files(),
        "reference/decisions.md": shipped.decisions(),
        **{place: from_root((ROOT / name).read_text(encoding="utf-8")) for name, place in BESIDE.items()},
    }
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    if "MERMAID" in os.environ:
        files.append(File.generated(config, "assets/mermaid.js", abs_src_path=os.environ["MERMAID"]))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to what stands for them on the site."""
    return outward(markdown, page.file.src_uri.count("/"))


def from_root(text: str) -> str:
    """A document of the root as one of docs/: its links go one folder less deep."""
    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", lambda found: f"]({_inside(found[1])})", text)


def _inside(target: str) -> str:
    return target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"


def outward(text: str, depth: int) -> str:
    """Text with links to files of the root and of conf/ turned to pages; `depth` is that of its folder below docs/."""
    up = "../" * depth

    def turned(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        if path in BESIDE:
            return f"]({up}{BESIDE[path]}{'#' + anchor if anchor else ''})"
        if path == "README.md":
            return f"]({up}index.md)"
        return f"]({up}reference/files.md#{re.sub(r'[^a-z0-9_-]', '', path.lower())})"

    return re.sub(rf"\]\({up}\.\./((?:{'|'.join(map(re.escape, BESIDE))}|README\.md|conf/)[^)\s]*)\)", turned, text)
