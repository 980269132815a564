"""`keyserver reload`: the running service reads its configuration again."""

from __future__ import annotations

import sys

from keyserver.cli.options import DONE, ConfigOption, JsonOption, SetOption, rough_config


def reload(as_json: JsonOption = False, config: ConfigOption = None, settings: SetOption = None) -> int:
    """Read the configuration again (as SIGHUP does): all of it, or nothing where it has a mistake; exit code 2 then.

    Environment and command line stay those that the service was started with."""
    configuration = rough_config(config, settings)[0]
    from keyserver.cli import show
    from keyserver.cli.admin_client import ApiError, reach

    with reach(configuration, alone=False) as client:
        try:
            done = client.post("/api/v1/reload")
        except ApiError as refusal:
            refusal.lines = (*refusal.lines, *map(mistake, refusal.document.get("mistakes", ())))
            raise
    if as_json:
        show.print_json(done)
        return DONE
    for change in done["changed"]:
        print(f"changed {line(change)}")
    if not done["changed"]:
        print("nothing changed")
    for change in done["restart"]:
        print(f"needs a restart: {line(change)}", file=sys.stderr)
    return DONE


def line(change: dict[str, object]) -> str:
    """A key, and its value before and after."""
    from keyserver.cli import show

    before, after = (show.toml(change[side]) for side in ("before", "after"))
    return f"{change['key']}: {before} -> {after}"


def mistake(problem: dict[str, str]) -> str:
    """A mistake as `check` shows it."""
    from keyserver.config import Problem

    return f"  {Problem(**problem)}"
