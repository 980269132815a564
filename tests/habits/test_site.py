"""The documentation as a site: all of it is in the navigation, links and anchors lead somewhere, command lines parse.

mkdocs says the same of the built site, in the long run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from keyserver.cli import application
from reference.metrics import declared
from reference.pages import BESIDE, ROOT, inward, made

DOCS = ROOT / "docs"
PAGES = {str(file.relative_to(DOCS)): file.read_text(encoding="utf-8") for file in sorted(DOCS.rglob("*.md"))}
MADE = made()
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.compile(r"^( *)(`{3,})[^\n]*\n.*?^\1\2$", re.S | re.M)


def anchors(text: str) -> set[str]:
    """What headings are called in links, as the hosting platforms do it, and mkdocs.yml's slugify."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+)$", CODE.sub("", text), re.M):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading.replace("\\", "")).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", shown).replace(" ", "-"))
    return found


def links(text: str) -> list[str]:
    """Of a document, but not of its code."""
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text)) if not re.match(r"\w+:", target)]


SITE = {place: inward(text, place) for place, text in (PAGES | MADE).items()}
COMMANDS = get_command(application)
ANCHORS = {place: anchors(text) for place, text in SITE.items()}


@pytest.mark.parametrize("place", SITE)
def test_links_of_the_site_lead_somewhere(place: str) -> None:
    lost = []
    for target in links(SITE[place]):
        path, _, anchor = target.partition("#")
        to = Path("/", Path(place).parent, path).resolve().relative_to("/").as_posix() if path else place
        known = to in SITE or (DOCS / to).is_file()
        if not known or (anchor and anchor not in ANCHORS.get(to, ())):
            lost.append(target)
    assert not lost


@pytest.mark.parametrize("name", ["README.md", *BESIDE])
def test_links_of_the_repository_lead_somewhere(name: str) -> None:
    lost = []
    for target in links((ROOT / name).read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        to = ROOT / (path or name)
        if not to.exists() or (anchor and anchor not in anchors(to.read_text(encoding="utf-8"))):
            lost.append(target)
    assert not lost


def test_everything_is_in_the_navigation() -> None:
    _, _, nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    named = re.findall(r"^ *- (?:[^#\n]+: )?(\S+\.md)$", nav, re.M)
    assert len(named) == len(set(named))
    assert set(named) == {place for place in SITE if not place.startswith("decisions/")}


def command_lines() -> list[tuple[str, str]]:
    """(page, what stands behind `keyserver`) of every shell block, and of every command in a sentence or table."""
    found = set()
    for place, text in {"README.md": README, **PAGES}.items():
        for _, language, block in re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.S | re.M):
            if language in ("", "sh", "console"):
                plain = re.sub(r"\\\n\s*", " ", block)
                lines = re.findall(r"(?:^\s*\$?|[;|&(])\s*(?:\S*/)?keyserver ([a-z][^|;&)\n#]*)", plain, re.M)
                found |= {(place, line.strip()) for line in lines if not line.startswith("ldap:")}
        for line in re.findall(r"`keyserver ([a-z][^`]*)`", CODE.sub("", text)):
            if not re.search(r"\\\||^ldap:|^receive failed", line):  # alternatives; dirmngr.conf; what gpg says
                found.add((place, " ".join(re.sub(r"[][…]", "", line).split())))
    return sorted(found)


@pytest.mark.parametrize(("place", "line"), command_lines())
def test_command_lines_parse(place: str, line: str) -> None:
    """Every command, option and number of arguments exists; values are what their options take."""
    words = shlex.split(line)
    command: Any = COMMANDS
    context = command.context_class(command, info_name="keyserver")
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands and "show" in command.commands:
            words = ["show", *words]  # `keyserver history ADDRESS`
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=name, parent=context)
    if words:  # without any it is the command's name
        command.parse_args(context, words)


def test_commands_are_in_the_reference() -> None:
    assert "## keyserver cache purge\n" in MADE["reference/commands.md"]
    assert "`--no-undo`" in MADE["reference/commands.md"]


def test_metrics_are_in_the_reference() -> None:
    """As many as the code names, each with a meaning and the type that its name ends like."""
    found = declared()
    names = {
        name
        for file in (ROOT / "keyserver").rglob("*.py")
        for name in re.findall(r'"(keyserver_[a-z_]+)"', file.read_text())
    }
    assert {one.name.removesuffix("_total") for one in found} == {name.removesuffix("_total") for name in names}
    assert all(one.meaning and (one.kind == "counter") == one.name.endswith("_total") for one in found)
