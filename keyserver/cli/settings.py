"""`keyserver settings`: the running configuration, where each value comes from, and what the file would change."""

from __future__ import annotations

from typing import Annotated

import typer

from keyserver.cli.options import DONE, NOT_FOUND, CommandError, ConfigOption, JsonOption, SetOption, rough_config
from keyserver.cli.reload import line, mistake


def settings(
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings_: SetOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each key accepts, and what it does.")] = False,
) -> int:
    """The configuration that the service goes by now; without a service the one that it would be started with."""
    configuration, trouble = rough_config(config, settings_)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    try:
        with reach(configuration, alone=trouble is None) as client:
            shown = client.get("/api/v1/settings")
    except CommandError as error:
        raise (trouble if trouble is not None and error.code == NOT_FOUND else error) from None
    if as_json:
        show.print_json(shown)
        return DONE
    columns = ("accepted", "meaning") if explain else ()
    table = show.grid("key", "value", "from", *columns)
    for row in shown["settings"]:
        origin = f"{row['origin']} {row['where']}" if row["origin"] == "environment" else row["origin"]
        told = (show.toml(row["value"]), origin, *(row[column] for column in columns))
        table.add_row(show.word(row["key"], "bold"), *map(show.word, told))
    show.console().print(table)
    for problem in shown["file"]["mistakes"]:
        print(f"mistake in {shown['file']['name']}:{mistake(problem)}")
    for change in shown["file"]["changes"]:
        how = "needs a restart" if change["restart"] else "not yet in force"
        print(f"{how}: {line(change)}")
    return DONE
