"""`keyserver lookup`: one lookup from the shell, through the same resolver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyserver.cli.options import (
    DONE,
    NOT_FOUND,
    UNKNOWN,
    UNUSABLE,
    ConfigOption,
    JsonOption,
    SetOption,
    load_config,
)

if TYPE_CHECKING:
    from rich.console import Console

_CODES = {"usable": DONE, "absent": NOT_FOUND, "unusable": UNUSABLE, "unknown": UNKNOWN}


def lookup(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A fingerprint, a 16-digit key ID or an address.")],
    trace: Annotated[bool, typer.Option("--trace", help="Show each step, upstream by upstream, with times.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Look one certificate up as a client would have it.

    Exit codes: 0 found and usable for encryption; 1 absent; 2 wrong usage; 3 trouble with the service or the store;
    4 found but not usable (expired, revoked, cannot encrypt, held or not allowed by policy); 5 unknown, because an
    upstream failed.
    """
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        answer = client.get("/api/v1/lookup", q=query, trace="1" if trace else "")
    if as_json:
        show.print_json(answer)
    else:
        _print(show.console(), answer)
    return _CODES[answer["verdict"]]


def _print(console: Console, answer: dict[str, Any]) -> None:
    """The verdict first, then the trace, then what was found."""
    from rich.text import Text

    from keyserver.cli import show

    verdict = Text.assemble((show.safe(answer["query"]), "bold"), "  ", show.word(answer["state"]), "  ")
    verdict.append_text(Text.assemble(show.word(answer["how"]), "  ", (show.safe(answer["reason"]), "dim")))
    console.print(verdict)
    if answer["steps"]:
        console.print(show.steps(answer["steps"]))
    for certificate in answer["certificates"]:
        console.print(_certificate(certificate))


def _certificate(certificate: dict[str, Any]) -> Any:
    """One certificate of the answer with its entries, as a small tree."""
    from rich.text import Text
    from rich.tree import Tree

    from keyserver.cli import show

    uses = Text("can encrypt") if certificate["can_encrypt"] else Text("cannot encrypt", "yellow")
    kind = "OpenPGP" if certificate["kind"] == "openpgp" else "X.509"
    fingerprint = (show.safe(certificate["fingerprint"]), "bold")
    name = Text.assemble(fingerprint, "  ", kind, "  ", show.word(certificate["validity"]), "  ", uses)
    tree = Tree(name, guide_style="dim")
    for text in certificate["user_ids"]:
        tree.add(show.word(text))
    for entry in certificate["entries"]:
        line = Text(show.safe(f"{entry['source']} {entry['origin']}"), "bold")
        times = f", cached {show.when(entry['cached_at'])}, expires {show.when(entry['expires_at'])}, "
        tree.add(Text.assemble(line, times, show.word(entry["status"])))
    return tree
