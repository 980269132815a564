"""What mkdocs.yml asks of us: pages that are made from declarations, and links that leave docs/."""

from __future__ import annotations

import os
from typing import Any

from mkdocs.structure.files import File, Files

from reference.pages import inward, made


def on_files(files: Files, config: Any) -> Files:
    """Adds what no file of docs/ holds."""
    for place, text in made().items():
        files.append(File.generated(config, place, content=text))
    if "MERMAID" in os.environ:
        files.append(File.generated(config, "assets/mermaid.js", abs_src_path=os.environ["MERMAID"]))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the repository lead to pages."""
    return inward(markdown, page.file.src_uri)
