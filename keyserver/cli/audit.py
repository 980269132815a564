"""`keyserver audit`: who did what, when and from where."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from keyserver.cli.options import DONE, ConfigOption, JsonOption, SetOption, load_config

_AUDIT = "/api/v1/audit"


def audit(
    who: Annotated[str, typer.Option("--who", metavar="NAME", help="Acts with this token.")] = "",
    act: Annotated[str, typer.Option("--act", metavar="ACT", help='Acts of this kind, such as "delete".')] = "",
    certificate: Annotated[str, typer.Option("--certificate", metavar="FPR", help="Acts on this one.")] = "",
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="Not before, such as 2026-11-28 (UTC).")] = "",
    until: Annotated[str, typer.Option("--to", metavar="TIME", help="Before this time.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="So many, the latest.")] = 50,
    as_csv: Annotated[bool, typer.Option("--csv", help="All that match, as CSV.")] = False,
    as_lines: Annotated[bool, typer.Option("--jsonl", help="All that match, as JSON lines.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """What administrators did, latest first, with sign-ins and with tokens that were refused."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    given = {"who": who, "act": act, "certificate": certificate, "from": since, "to": until}
    with reach(configuration) as client:
        if as_csv or as_lines:
            for piece in client.download(_AUDIT, format="csv" if as_csv else "jsonl", **given):
                sys.stdout.buffer.write(piece)
            sys.stdout.flush()
            return DONE
        page = client.get(_AUDIT, limit=str(limit), **given)
    if as_json:
        show.print_json(page)
        return DONE
    table = show.grid("when", "who", "way", "from", "act", "what")
    for row in page["acts"]:
        facts = [row["certificate"], *(f"{name}: {value}" for name, value in row["facts"].items())]
        table.add_row(
            show.when(row["at"]),
            show.word(row["who"], "bold"),
            show.word(row["way"]),
            show.word(row["place"]),
            show.word(row["act"]),
            show.word(", ".join(filter(None, facts))),
        )
    show.console().print(table)
    return DONE
