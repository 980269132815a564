"""What all commands share: where the configuration is, and how trouble ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyserver.config import Config

DONE, NOT_FOUND, USAGE, SERVICE = 0, 1, 2, 3
UNUSABLE, UNKNOWN = 4, 5
"""Exit codes; the last two are `lookup`'s. 130 is an interrupt."""

_WHERE = ("server", "admin", "cache.database")
"""Keys that say where a service is."""

DEFAULTS = "built-in defaults"

PLACES = (Path("conf/keyserver.toml"), Path("/etc/keyserver/keyserver.toml"))

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help=f"Configuration; else {', '.join(map(str, PLACES))} or built-in defaults."
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output; stable.")]


class CommandError(Exception):
    """Ends a command with a few clear lines on stderr and an exit code."""

    def __init__(self, *lines: str, code: int = SERVICE) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code


def confirm(what: str, yes: bool) -> None:
    """Ask on a terminal before something that reaches far. Raises Trouble where the answer is no.

    A script has nobody to ask: what was written down is done, as it always was."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print(f"This will {what}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done", code=NOT_FOUND)


def config_file(given: Path | None) -> Path | None:
    """The file to read; None, with a line that says so, where there is none: then the defaults hold."""
    found = given or next((place for place in PLACES if place.exists()), None)
    if found is None:
        print(f"neither {' nor '.join(map(str, PLACES))} exists: {DEFAULTS}, which ask no upstream", file=sys.stderr)
    return found


def read_config(file: Path | None, settings: Sequence[str] | None, upstreams: Sequence[str] | None = None) -> Config:
    """The configuration of a file (None: the defaults) with what overrides it. Raises ConfigError."""
    from keyserver.config import load
    from keyserver.upstreams.checks import mistakes

    return load(file, settings or (), os.environ, upstreams or (), mistakes)


def load_config(given: Path | None, settings: Sequence[str] | None, upstreams: Sequence[str] | None = None) -> Config:
    """The configuration; every mistake in it is a line of Trouble."""
    config, trouble = rough_config(given, settings, upstreams)
    if trouble is not None:
        raise trouble
    return config


def rough_config(
    given: Path | None, settings: Sequence[str] | None, upstreams: Sequence[str] | None = None
) -> tuple[Config, CommandError | None]:
    """The configuration without what is wrong in it, and its mistakes: a running service is found all the same.

    Raises Trouble where they concern where it is."""
    from keyserver.config import Config, ConfigError

    file = config_file(given)
    try:
        return read_config(file, settings, upstreams), None
    except ConfigError as error:
        count = len(error.problems)
        head = f"{file or DEFAULTS}: {count} mistake{'' if count == 1 else 's'}; nothing was started"
        trouble = CommandError(head, *(f"  {problem}" for problem in error.problems), code=USAGE)
        rest = error.rest
        if not isinstance(rest, Config) or any(p.key.startswith((*_WHERE, str(file))) for p in error.problems):
            raise trouble from None
        return rest, trouble
