"""`keyserver outlook`: what is going to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyserver.cli.options import DONE, ConfigOption, JsonOption, SetOption, load_config

if TYPE_CHECKING:
    from rich.table import Table


def outlook(
    days: Annotated[
        int | None,
        typer.Option("--days", metavar="N", min=1, max=400, help="So many ahead, and back (outlook.days, else 30)."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """What is going to fail: certificates in use that end, recipients lost, partners and how many of their recipients
    can be encrypted to, upstreams that become slower, stale revocation lists.

    Counted from the addresses that were asked for in the last N days; who asked is noted nowhere. Without a running
    service, revocation lists are as the last one left them."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        report = client.get("/api/v1/outlook", days=str(days or ""))
    if as_json:
        show.print_json(report)
        return DONE
    console, reach_ = show.console(), f"in the next {report['days']} days"
    if not report["known"]:
        print("no recipient was asked for in that time, or no history is kept")
    if report["ending"]:
        print(f"ends {reach_}:")
        console.print(_ending(report["ending"]))
    else:
        print(f"nothing that is in use ends {reach_}")
    for title, key, table in (
        ("could be encrypted to, and cannot any more:", "no_longer", _no_longer),
        ("partners, by recipients asked for:", "partners", _partners),
        ("upstreams, the last 7 days beside the 28 before:", "upstreams", _upstreams),
        ("revocation lists:", "lists", _lists),
    ):
        if report[key]:
            print(title)
            console.print(table(report[key]))
    return DONE


def _ending(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("when", "what", "fingerprint", "recipients")
    for row in rows:
        named, more = row["identities"][:3], row["recipients"] - min(3, len(row["identities"]))
        who = ", ".join(named) + (f" +{more}" if named and more else "") if named else f"{more} at {row['domain']}"
        table.add_row(
            show.when(row["until"]), show.word(row["cause"]), show.word(row["fingerprint"]), show.word(who, "bold")
        )
    return table


def _no_longer(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("recipient", "since", "why", "fingerprint")
    for row in rows:
        who = row["identities"][0] if row["identities"] else f"somebody at {row['domain']}"
        table.add_row(
            show.word(who, "bold"), show.when(row["since"]), show.word(row["reason"]), show.word(row["fingerprint"])
        )
    return table


def _partners(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("domain", "asked for", "can", "cannot", "not known", "share")
    for row in rows:
        share = f"{row['share']:.0%}" if row["yes"] + row["no"] else ""
        counts = (str(row[count]) for count in ("asked", "yes", "no", "unknown"))
        table.add_row(show.word(row["domain"] or "all others", "bold"), *counts, share)
    return table


def _upstreams(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("upstream", "median", "before", "failing", "before")
    for row in rows:
        table.add_row(
            show.word(row["upstream"], "bold"),
            show.word(f"{row['ms']} ms", "yellow" if row["slower"] else ""),
            f"{row['ms_before']} ms",
            show.word(f"{row['failed']:.0%}", "red" if row["failing"] else ""),
            f"{row['failed_before']:.0%}",
        )
    return table


def _lists(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("authority", "ends", "list", "problem")
    for row in rows:
        ends = show.when(row["ends"]) if row["ends"] else "not had yet"
        tone = "red" if row["stale"] else "yellow"
        table.add_row(
            show.word(row["authority"], "bold"), show.word(ends, tone), show.word(row["url"]), show.word(row["problem"])
        )
    return table
