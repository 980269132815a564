"""The command line as a page, from the commands' own declarations."""

from __future__ import annotations

from collections.abc import Iterator

import click
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


def _described(name: str, command: click.Command) -> Iterator[str]:
    """A command as a heading, its help and its parameters; then those below it."""
    yield f"## {name}\n"
    if command.help:
        yield f"{_plain(command.help)}\n"
    with click.Context(command, info_name=name) as context:
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        yield f"```text\n{usage}\n```\n"
        rows = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
        rows = [(option, meaning) for option, meaning in rows if "--help" not in option]
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
