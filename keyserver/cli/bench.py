"""`keyserver bench`: the service beside its peers, on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from keyserver.cli.options import DONE, SERVICE, USAGE, Trouble


def bench(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Measure this only; repeatable, or NAME,NAME.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short rounds: under two minutes, for a first look.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the table as JSON too.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the picture too.")] = None,
) -> int:
    """Measure this service beside nginx, Varnish, SKS and slapd on this machine; prints one table.

    Installs missing Debian packages when it runs as root. Nothing is asserted: the exit code is 3 when something could
    not be measured, else 0.
    """
    from keyserver.bench.picture import draw
    from keyserver.bench.run import MEASUREMENTS, run
    from keyserver.bench.table import as_json, text

    names = [name for given in only or () for name in given.split(",") if name]
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise Trouble(f"--only {', '.join(unknown)}: there is {', '.join(MEASUREMENTS)}", code=USAGE)
    report, failed = run(names, quick, lambda line: print(line, file=sys.stderr, flush=True))
    print(text(report))
    if json:
        json.write_text(as_json(report), encoding="utf-8")
    if svg:
        svg.write_text(draw(report), encoding="utf-8")
    for sentence in failed:
        print(sentence, file=sys.stderr)
    return SERVICE if failed else DONE
