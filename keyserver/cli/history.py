"""`keyserver history …`: what changed and when; forgetting an address."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from keyserver.cli.options import (
    DONE,
    NOT_FOUND,
    ConfigOption,
    JsonOption,
    SetOption,
    YesOption,
    confirm,
    load_config,
)

if TYPE_CHECKING:
    from rich.table import Table

_HISTORY = "/api/v1/history"


class _Showing(TyperGroup):
    """`keyserver history alice@example.org` shows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`show` is the command where none is named."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


commands = typer.Typer(cls=_Showing, help="What changed in the cache, when and by whom; forgetting an address.")


@commands.command("show")
def show_(
    term: Annotated[
        str, typer.Argument(metavar="[ADDRESS|FINGERPRINT]", help="Or a 16-digit key ID; without it, everything.")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="So many, the latest.")] = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """What changed, latest first, and what upstreams said to this very question. Exit code 1: nothing is known."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        page = client.get(_HISTORY, q=term, limit=str(limit))
    if as_json:
        show.print_json(page)
    elif page["events"] or page["words"]:
        console = show.console()
        console.print(_events(page["events"]))
        if page["words"]:
            console.print(words(page["words"]))
    else:
        print(f"nothing is known of {show.safe(page['query'])}" if term else "nothing is known")
    return DONE if page["events"] or page["words"] else NOT_FOUND


@commands.command("forget")
def forget(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Whose traces are erased.")],
    with_cache: Annotated[
        bool, typer.Option("--with-cache", help="First delete, for good, every certificate that names it.")
    ] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Erase an address: from the history, the audit and invitations. It cannot be undone.

    Certificates that name it and are cached stay, unless --with-cache, and with them what their names say."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    also = " and delete every certificate that names it" if with_cache else ""
    confirm(f"erase {show.safe(address)} from the history{also}, for good", yes)
    with reach(configuration) as client:
        done = client.post(f"{_HISTORY}/forget", {"address": address, "with_cache": with_cache})
    if as_json:
        show.print_json(done)
        return DONE
    entries = f", {done['deleted']} entries deleted" if with_cache else ""
    print(
        f"forgotten: {done['history']} of the history, {done['invitations']} invitations, {done['acts']} acts{entries}"
    )
    if done["cached"]:
        print("still cached, and naming it:")
        for one in done["cached"]:
            print(f"  {one['fingerprint']}  {show.safe(', '.join(one['identities']))}")
        print("to delete them, too: keyserver history forget --with-cache " + shlex.quote(show.safe(address)))
    return DONE


def words(rows: list[dict[str, Any]]) -> Table:
    """What upstreams said, one line for each time that it was something else."""
    from keyserver.cli import show

    table = show.grid("upstream", "kind", "said", "from", "to")
    for row in rows:
        kind = "OpenPGP" if row["kind"] == "openpgp" else "X.509"
        word = show.word(row["word"])
        table.add_row(show.word(row["upstream"], "bold"), kind, word, show.when(row["since"]), show.when(row["last"]))
    return table


def _events(rows: list[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("when", "what", "fingerprint", "source", "of", "who")
    for row in rows:
        until = f" … {show.when(row['last'])}" if row["last"] > row["at"] else ""
        table.add_row(
            show.when(row["at"]) + until,
            show.word(f"{row['what']}: {row['text']}"),
            show.word(row["fingerprint"]),
            show.word(row["source"]),
            show.word(row["origin"]),
            show.word(row["who"], "bold"),
        )
    return table
