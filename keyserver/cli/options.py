"""What all commands share: where the configuration is, and how trouble ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyserver.config import Config, Problem, UpstreamSection

DONE, NOT_FOUND, USAGE, SERVICE = 0, 1, 2, 3
"""Exit codes; 130 is an interrupt."""

PLACES = (Path("conf/keyserver.toml"), Path("/etc/keyserver/keyserver.toml"))

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help=f"Configuration; else {' or '.join(map(str, PLACES))}."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key; repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output; stable.")]


class Trouble(Exception):
    """Ends a command with a few clear lines on stderr and an exit code."""

    def __init__(self, *lines: str, code: int = SERVICE) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code


def config_file(given: Path | None) -> Path:
    """The file to read. Raises Trouble where there is none."""
    if given is not None:
        return given
    for place in PLACES:
        if place.exists():
            return place
    raise Trouble(f"no configuration: neither {' nor '.join(map(str, PLACES))} exists; use --config FILE", code=USAGE)


def load_config(
    given: Path | None,
    settings: Sequence[str] | None,
    upstreams: Sequence[str] | None = None,
    protocols: Callable[[UpstreamSection], Iterable[Problem]] = lambda upstream: (),
) -> Config:
    """The configuration; every mistake in it is a line of Trouble. protocols: as in `config.load`."""
    from keyserver.config import ConfigError, load

    file = config_file(given)
    try:
        return load(file, settings or (), os.environ, upstreams or (), protocols=protocols)
    except ConfigError as error:
        count = len(error.problems)
        head = f"{file}: {count} mistake{'' if count == 1 else 's'}; nothing was started"
        raise Trouble(head, *(f"  {problem}" for problem in error.problems), code=USAGE) from None
