"""`keyserver upstreams`: who is asked, how they do, and what each answers."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from keyserver.cli.options import (
    DONE,
    NOT_FOUND,
    USAGE,
    CommandError,
    ConfigOption,
    JsonOption,
    SetOption,
    load_config,
)


def upstreams(
    test: Annotated[
        str, typer.Option("--test", metavar="QUERY", help="Ask each of them this, now; nothing of it is kept.")
    ] = "",
    pause: Annotated[
        str, typer.Option("--pause", metavar="NAME", help="Ask this one no more; it counts as failed.")
    ] = "",
    resume: Annotated[str, typer.Option("--resume", metavar="NAME", help="Ask a paused one again.")] = "",
    told: Annotated[bool, typer.Option("--told", help="How much each was told, and of which domains.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """The upstreams, their health, and with --test what each answers; exit code 1 where none has it.

    A pause lasts until --resume, over restarts. What a paused upstream said before holds as long as it would have."""
    if sum(map(bool, (test, pause, resume, told))) > 1:
        raise CommandError("only one of --test, --pause, --resume, --told", code=USAGE)
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach, segment

    with reach(configuration) as client:
        if pause or resume:
            done = client.post(f"/api/v1/upstreams/{segment(pause or resume)}/{'pause' if pause else 'resume'}")
            show.print_json(done) if as_json else print("paused" if pause else "resumed", show.safe(done["upstream"]))
            return DONE
        if told:
            disclosed = client.get("/api/v1/upstreams/told")
            show.print_json(disclosed) if as_json else _print_told(disclosed["upstreams"])
            return DONE
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
        if row["paused_at"] is not None:
            retry = f" paused {show.when(row['paused_at'])}; it counts as failed until --resume"
        table.add_row(
            show.word(row["name"], "bold"),
            str(row["priority"]),
            show.word(row["state"]),
            *(str(row[count]) for count in ("found", "absent", "failed")),
            *(f"{row[share]:.0f} ms" for share in ("p50", "p99")),
            show.word(f"{row['last_error']}{retry}".strip(), "dim"),
        )
    return table


def _print_told(rows: list[dict[str, Any]]) -> None:
    from keyserver.cli import show

    if not rows:
        print("no upstream was told anything yet")
    for row in rows:
        kinds = {kind: row[kind] for kind in ("addresses", "fingerprints", "key_ids", "other") if row[kind]["count"]}
        counts = ", ".join(f"{_counted(count)} {kind.replace('_ids', ' IDs')}" for kind, count in kinds.items())
        name, since = show.word(row["upstream"], "bold"), show.when(row["since"])
        show.console().print(name, show.word(f"since {since}: {row['questions']} questions; {counts}"))
        table = show.grid("domain", "addresses", "questions")
        for domain in row["domains"]:
            table.add_row(show.word(domain["domain"]), _counted(domain["addresses"]), str(domain["questions"]))
        others = row["other_domains"]
        if others["questions"]:
            what = show.word(f"{_counted(others['domains'])} others", "dim")
            table.add_row(what, _counted(others["addresses"]), str(others["questions"]))
        if table.row_count:
            show.console().print(table)


def _counted(count: dict[str, Any]) -> str:
    """`12`, or `about 12000 (± 3 %)`."""
    if not count["error"]:
        return str(count["count"])
    return f"about {count['count']} (\N{PLUS-MINUS SIGN} {count['error'] * 100:.0f} %)"


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
