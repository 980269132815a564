"""`keyserver nodes`: the nodes that share the cache, and the processes of the running service."""

from __future__ import annotations

from keyserver.cli.options import DONE, NOT_FOUND, ConfigOption, JsonOption, SetOption, load_config


def nodes(as_json: JsonOption = False, config: ConfigOption = None, settings: SetOption = None) -> int:
    """The nodes that share the cache: version, since when, last seen, lag, role, settings that differ. And this
    service's processes: since when they run, what they do, how often each was started again; exit code 1 where no
    service runs."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        found = client.get("/api/v1/nodes")
    rows = found["nodes"]
    if as_json:
        show.print_json(found)
    elif rows:
        if found["cluster"]:
            show.console().print(show.cluster(found["cluster"]))
        table = show.grid("kind", "pid", "since", "connections", "hot answers", "restarts")
        for row in rows:
            table.add_row(
                show.word(row["kind"], "bold"),
                str(row["pid"]),
                show.when(row["since"]),
                *(str(row[count]) for count in ("connections", "hot_answers", "restarts")),
            )
        show.console().print(table)
    else:
        print("no service runs")
    return DONE if rows else NOT_FOUND
