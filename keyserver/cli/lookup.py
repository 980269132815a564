"""`keyserver lookup`: one lookup from the shell, through the same resolver."""

from __future__ import annotations

from datetime import datetime
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
    at: Annotated[
        str,
        typer.Option("--at", metavar="TIME", help="What was answered then, such as 2026-11-20T09:00 (local time)."),
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Look one certificate up as a client would have it.

    Exit codes: 0 found and usable for encryption; 1 absent; 2 wrong usage; 3 trouble with the service or the store;
    4 found but not usable (expired, revoked, cannot encrypt, held or not allowed by policy); 5 unknown, because an
    upstream failed, or because the history does not say what would have been answered `--at` that time.
    """
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        answer = client.get("/api/v1/lookup", q=query, trace="1" if trace else "", at=_unix(at))
    if as_json:
        show.print_json(answer)
    elif at:
        _print_then(show.console(), answer)
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


def _unix(text: str) -> str:
    """A time without a zone is one of this machine's; what cannot be read is the service's to refuse."""
    try:
        return str(int(datetime.fromisoformat(text).timestamp()))
    except (ValueError, OverflowError):
        return text


def _print_then(console: Console, then: dict[str, Any]) -> None:
    """The same for an earlier time, and what is known around it."""
    from rich.text import Text

    from keyserver.cli import history, show

    head = Text.assemble((show.safe(then["query"]), "bold"), "  ", show.when(then["at"]), "  ")
    console.print(Text.assemble(head, show.word(then["state"]), "  ", (show.safe(then["reason"]), "dim")))
    if then["state"] == "unknown" and then["known_since"]:
        console.print(f"the history is whole since {show.when(then['known_since'])}")
    for row in then["kinds"] if then["state"] != "unknown" else ():
        kind = "OpenPGP" if row["kind"] == "openpgp" else "X.509"
        console.print(Text.assemble(f"  {kind}: ", show.word(row["state"]), "  ", (show.safe(row["reason"]), "dim")))
    if then["steps"]:
        console.print(show.steps(then["steps"]))
    for certificate in then["certificates"]:
        console.print(_certificate(certificate))
    for fingerprint in then["cached"]:
        console.print(f"cached then, and answered had upstreams failed: {show.safe(fingerprint)}")
    for fingerprint, why in then["passed_over"]:
        console.print(Text.assemble(show.word(fingerprint, "bold"), "  not answered: ", show.word(why)))
    for title, rows in (("what upstreams had said last", then["said"]), ("what they said next", then["later"])):
        if rows:
            console.print(Text(title, "bold"))
            console.print(history.words(rows))


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
