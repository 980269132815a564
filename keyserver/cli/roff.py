"""Text as manual pages have it: man(7), for man-db and mandoc alike."""

from __future__ import annotations

import re

_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def plain(text: str) -> str:
    """Text that shows as it is. Hyphens stay what can be copied into a shell, and no line is taken for a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def bold(text: str) -> str:
    """Words to be typed as they are."""
    return rf"\fB{plain(text)}\fR"


def italic(text: str) -> str:
    """Words that stand for others."""
    return rf"\fI{plain(text)}\fR"


def prose(text: str) -> str:
    """One paragraph as docstrings have it, on lines of any length; `marked` words and **strong** ones bold."""
    joined = " ".join(text.split())
    parts, end = [], 0
    for found in _MARKED.finditer(joined):
        parts += [plain(joined[end : found.start()]), bold(found[1] or found[2])]
        end = found.end()
    return "".join([*parts, plain(joined[end:])])


def paragraphs(text: str) -> list[str]:
    """Lines of several paragraphs, which empty lines part."""
    found = [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    return [line for part in found for line in (".PP", prose(part))][1:]


def entry(term: str, *meaning: str) -> list[str]:
    """Lines of one term, in roff already, and what it means."""
    return [".TP", term, *meaning]


def page(name: str, section: int, date: str, version: str, brief: str, *lines: str) -> str:
    """A whole page. date: as it is to be shown; brief: what `apropos` says."""
    head = f'.TH "{plain(name.upper())}" "{section}" "{date}" "keyserver {version}"'
    return "\n".join([head, ".SH NAME", rf"{plain(name)} \- {prose(brief)}", *lines, ""])
