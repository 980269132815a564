"""`keyserver invite` and `keyserver invitations`: asking owners to opt in, and what became of it."""

from __future__ import annotations

from typing import Annotated

import typer

from keyserver.cli.listing import SourceOption, UpstreamOption
from keyserver.cli.options import (
    DONE,
    ConfigOption,
    JsonOption,
    SetOption,
    load_config,
)

_INVITATIONS = "/api/v1/invitations"


def invite(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Whose owner is asked.")],
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", metavar="FPR", help="About this certificate, where several fit.")
    ] = "",
    source: SourceOption = "",
    upstream: UpstreamOption = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Ask the owner of a cached certificate, by an encrypted mail, to opt in. What may be meant is listed where several
    fit."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach
    from keyserver.cli.cache import one_of_several

    given = {"address": address, "fingerprint": fingerprint, "source": source, "upstream": upstream}
    body = {name: value for name, value in given.items() if value}
    with reach(configuration) as client:
        made = one_of_several(lambda: client.post(_INVITATIONS, body))
    if as_json:
        show.print_json(made)
    else:
        print("invited", show.safe(made["address"]), "about", show.safe(made["fingerprint"]))
    return DONE


def invitations(
    address: Annotated[str, typer.Option("--address", metavar="A", help="To this address.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="So many, the latest.")] = 50,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Who was invited, latest first, and what became of it."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        page = client.get(_INVITATIONS, limit=str(limit), **({"address": address} if address else {}))
    if as_json:
        show.print_json(page)
        return DONE
    table = show.grid("when", "address", "certificate", "stage", "since", "by", "why")
    for row in page["invitations"]:
        table.add_row(
            show.when(row["made_at"]),
            show.word(row["address"], "bold"),
            show.word(row["fingerprint"]),
            show.word(row["stage"]),
            show.when(row["changed_at"]),
            show.word(row["made_by"]),
            show.word(row["note"]),
        )
    show.console().print(table)
    return DONE
