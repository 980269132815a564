"""Writes the manual pages from the declarations of the commands and of the configuration.

`python -m keyserver.cli.manual FOLDER DATE` makes FOLDER/man1/keyserver.1, a page for each command beside it, and
FOLDER/man5/keyserver.toml.5. DATE stands in each page's foot.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from keyserver import __version__
from keyserver.cli import application
from keyserver.cli.options import PLACES
from keyserver.cli.roff import bold, entry, italic, page, paragraphs, plain, prose
from keyserver.config.document import heading, rows
from keyserver.config.loading import models

_EXIT = {
    "0": "Done; of `lookup`: found, and usable for encryption.",
    "1": "Not found, or an upstream failed.",
    "2": "Wrong usage, or a mistake in the configuration.",
    "3": "Trouble with the service, the store or the system.",
    "4": "Of `lookup`: found but not usable.",
    "5": "Of `lookup`: unknown, because an upstream failed.",
    "130": "Interrupted.",
}
_CONFIGURATION = """\
The service reads one file in TOML, and every key in it has a default. Durations are "90s", "15m", "1h" or "1 day",
sizes "512 KiB" or "1 MiB". Secrets never stand in the file: a key that ends in `_file` names the file that holds one.

The environment (`KEYSERVER_CACHE__TTL=12h`) and the command line (`--set cache.ttl=12h`) override single keys.
`keyserver check` names every mistake at once and says which upstream hears what; `keyserver reload` makes the service
read the file again. Of keys marked "restart" a change holds from the next start.
"""


def pages(date: str) -> dict[str, str]:
    """Each page by its name below the folder, such as "man1/keyserver.1"."""
    root = get_command(application)
    assert isinstance(root, TyperGroup)
    commands = _commands(root)
    found = {"man1/keyserver.1": _main(root, date), "man5/keyserver.toml.5": _file(date)}
    return found | {f"man1/keyserver-{name}.1": _command(name, command, date) for name, command in commands.items()}


def _commands(group: TyperGroup) -> Mapping[str, TyperCommand | TyperGroup]:
    return {name: command for name, command in group.commands.items() if isinstance(command, TyperCommand | TyperGroup)}


def _main(root: TyperGroup, date: str) -> str:
    """keyserver(1)."""
    commands = _commands(root)
    listed = (entry(f"{bold(f'keyserver-{name}')}(1)", prose(_brief(one))) for name, one in commands.items())
    codes = (entry(bold(code), prose(meaning)) for code, meaning in _EXIT.items())
    files = (entry(italic(str(place)), prose("The configuration, the first that exists.")) for place in PLACES)
    lines = [
        *(".SH SYNOPSIS", rf"{bold('keyserver')} [{italic('OPTION')}] {italic('COMMAND')} [{italic('ARGUMENT')} ...]"),
        *(".SH DESCRIPTION", *paragraphs(root.help or "")),
        *(".SH OPTIONS", *_options(root)),
        *(".SH COMMANDS", *(line for one in listed for line in one)),
        *(".SH EXIT STATUS", *(line for one in codes for line in one)),
        *(".SH ENVIRONMENT", *entry(bold("KEYSERVER_SECTION__KEY"), "Overrides one key of the configuration.")),
        *(".SH FILES", *(line for one in files for line in one)),
        *(".SH SEE ALSO", f"{bold('keyserver.toml')}(5), {bold('gpg')}(1)"),
    ]
    return page("keyserver", 1, date, __version__, _brief(root), *lines)


def _command(name: str, command: TyperCommand | TyperGroup, date: str) -> str:
    """The page of one command, or of a group of them."""
    whole = f"keyserver {name}"
    lines = [".SH SYNOPSIS"]
    if isinstance(command, TyperGroup):
        inner = {f"{whole} {below}": one for below, one in _commands(command).items()}
        lines += [line for path, one in inner.items() for line in (_synopsis(path, one), ".br")][:-1]
        lines += [".SH DESCRIPTION", *paragraphs(command.help or "")]
        for path, one in inner.items():
            lines += [f'.SH "{plain(path.upper())}"', *_described(one)]
    else:
        lines += [_synopsis(whole, command), ".SH DESCRIPTION", *paragraphs(command.help or "")]
        lines += [".SH OPTIONS", *_arguments(command), *_options(command)]
    lines += [".SH SEE ALSO", f"{bold('keyserver')}(1), {bold('keyserver.toml')}(5)"]
    return page(f"keyserver-{name}", 1, date, __version__, _brief(command), *lines)


def _described(command: TyperCommand | TyperGroup) -> list[str]:
    return [*paragraphs(command.help or ""), *_arguments(command), *_options(command)]


def _synopsis(path: str, command: TyperCommand | TyperGroup) -> str:
    names = [_named(one) for one in command.params if isinstance(one, TyperArgument)]
    return " ".join([bold(path), f"[{italic('OPTION')} ...]", *names])


def _named(argument: TyperArgument) -> str:
    name = italic((argument.metavar or (argument.name or "").upper()).rstrip("…"))
    many = f"{name} ..." if argument.nargs != 1 else name
    return many if argument.required else f"[{many}]"


def _arguments(command: TyperCommand | TyperGroup) -> Iterator[str]:
    for one in command.params:
        if isinstance(one, TyperArgument):
            yield from entry(_named(one), prose(one.help or ""))


def _options(command: TyperCommand | TyperGroup) -> Iterator[str]:
    for one in command.params:
        if isinstance(one, TyperOption) and not one.hidden:
            value = "" if one.is_flag else f" {italic(one.metavar or (one.name or '').upper())}"
            names = ", ".join(bold(name) + value for name in [*one.opts, *one.secondary_opts])
            default = one.default
            said = f" The default is {plain(str(default))}." if type(default) in (int, str) and default != "" else ""
            yield from entry(names, prose(one.help or "") + said)


def _brief(command: TyperCommand | TyperGroup) -> str:
    """What fits on one line: the first sentence, without what explains it."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"[.:;](?:\s|$)", text, maxsplit=1)[0]


def _file(date: str) -> str:
    """keyserver.toml(5)."""
    lines = [".SH DESCRIPTION", *paragraphs(_CONFIGURATION)]
    for name, model in models().items():
        lines += [f'.SH "{plain(heading(name))}"', prose(str(model.__doc__))]
        for row in rows(model):
            default = prose(row.default if row.default == "required" else f"The default is {row.default}.")
            accepted = [".br", prose(f"Accepted: {row.accepted}")] if row.accepted else []
            lines += entry(bold(row.key), prose(row.meaning), ".br", default, *accepted)
    lines += [".SH SEE ALSO", f"{bold('keyserver')}(1), {bold('keyserver-check')}(1)"]
    return page("keyserver.toml", 5, date, __version__, "configuration of the keyserver frontend", *lines)


def write(folder: Path, date: str) -> None:
    """All pages below this folder, which need not be there."""
    for name, text in pages(date).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
