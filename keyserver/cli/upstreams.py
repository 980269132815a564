"""`keyserver upstreams`: who is asked, how they do, and what each answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyserver.cli.options import DONE, NOT_FOUND, ConfigOption, JsonOption, SetOption, load_config


def upstreams(
    test: Annotated[
        str, typer.Option("--test", metavar="QUERY", help="Ask each of them this, now; nothing of it is kept.")
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """The upstreams, their health, and with --test what each answers; exit code 1 where none has it."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach, segment

    with reach(configuration) as client:
        result = client.get("/api/v1/upstreams")
        tests = [
            client.post(f"/api/v1/upstreams/{segment(row['name'])}/test", {"query": test})
            for row in (result["upstreams"] if test else ())
        ]
    if as_json:
        show.print_json({"tests": tests} if test else result)
    elif test:
        show.console().print(_tests(tests))
    else:
        show.console().print(_health(result["upstreams"]))
    return NOT_FOUND if test and not any(row["outcome"] == "found" for row in tests) else DONE


def _health(rows: list[dict[str, Any]]) -> Any:
    from keyserver.cli import show

    table = show.grid("upstream", "priority", "state", "found", "absent", "failed", "p50", "p99", "last error")
    for row in rows:
        retry = f" (again {show.span(row['retry_in'])})" if row["retry_in"] >= 1 else ""
        table.add_row(
            show.word(row["name"], "bold"),
            str(row["priority"]),
            show.word(row["state"]),
            *(str(row[count]) for count in ("found", "absent", "failed")),
            *(f"{row[share]:.0f} ms" for share in ("p50", "p99")),
            show.word(f"{row['last_error']}{retry}", "dim"),
        )
    return table


def _tests(rows: list[dict[str, Any]]) -> Any:
    from keyserver.cli import show

    table = show.grid("upstream", "time", "outcome", "what")
    for row in rows:
        what = ", ".join([*row["certificates"], *(f"refused: {reason}" for reason in row["refused"])])
        table.add_row(
            show.word(row["upstream"], "bold"),
            f"{row['milliseconds']:.0f} ms",
            show.word(row["outcome"]),
            show.word(what or row["reason"]),
        )
    return table
