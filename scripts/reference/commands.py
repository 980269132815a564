"""The command line as a page, from the commands' own declarations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from keyserver.cli import application

_HEAD = """\
# Commands

<!-- Made from keyserver/cli by scripts/reference/commands.py. -->

What each command accepts, as `--help` says it. What they are for, exit codes and how they find the service:
[Operating](../operating.md#commands).
"""


def render() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_described("keyserver", get_command(application))])


def _described(name: str, command: Any) -> Iterator[str]:
    """A command (of typer's own copy of click) as a heading, its help and its parameters; then those below it."""
    yield f"## {name}\n"
    if command.help:
        yield f"{_plain(command.help)}\n"
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    records = [one.get_help_record(context) for one in command.get_params(context)]
    rows = [(option, meaning) for option, meaning in filter(None, records) if "--help" not in option]
    if rows:
        yield "| | |\n| --- | --- |"
        yield from (f"| `{_cell(option)}` | {_cell(_plain(meaning))} |" for option, meaning in rows)
        yield ""
    for below, child in getattr(command, "commands", {}).items():
        yield from _described(f"{name} {below}", child)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do but paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n")).translate(
        {ord(mark): f"\\{mark}" for mark in "*_<>["}
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
