"""`keyserver token …`: further tokens of the admin listener."""

from __future__ import annotations

from typing import Annotated

import typer

from keyserver.cli.options import DONE, ConfigOption, JsonOption, SetOption, load_config

commands = typer.Typer(help="Tokens of the admin listener: add, list, revoke.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what it is for.")]

_TOKENS = "/api/v1/tokens"


@commands.command("add")
def add(
    name: Name,
    role: Annotated[str, typer.Option("--role", metavar="R", help="viewer (reads) or operator (changes, asks).")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Make a token. It is shown this once: only its SHA-256 is kept."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        made = client.post(_TOKENS, {"name": name, "role": role})
    if as_json:
        show.print_json(made)
    else:
        print(made["token"])
    return DONE


@commands.command("list")
def list_(as_json: JsonOption = False, config: ConfigOption = None, settings: SetOption = None) -> int:
    """List the tokens, without what is secret."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        found = client.get(_TOKENS)
    if as_json:
        show.print_json(found)
        return DONE
    table = show.grid("name", "role", "made", "by", "browsers signed in")
    for row in found["tokens"]:
        made = show.when(row["made_at"]) if row["made_at"] is not None else show.word("admin.token_file", "dim")
        name, by = show.word(row["name"], "bold"), show.word(row["made_by"])
        table.add_row(name, show.word(row["role"]), made, by, str(row["sessions"]))
    show.console().print(table)
    return DONE


@commands.command("revoke")
def revoke(name: Name, config: ConfigOption = None, settings: SetOption = None) -> int:
    """Revoke a token at once; browsers that signed in with it are signed out."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach, segment

    with reach(configuration) as client:
        client.delete(f"{_TOKENS}/{segment(name)}")
    print(f"revoked {name}")
    return DONE
