"""`keyserver can-encrypt`: the verdict for each recipient, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyserver.cli.options import (
    DONE,
    NOT_FOUND,
    UNKNOWN,
    USAGE,
    CommandError,
    ConfigOption,
    JsonOption,
    SetOption,
    load_config,
)

if TYPE_CHECKING:
    from rich.table import Table

    from keyserver.cli.admin_client import AdminClient

PATH = "/api/v1/can-encrypt"
MOST_FILE = 4 << 20  # octets
_CODES = {"yes": DONE, "no": NOT_FOUND, "reject": NOT_FOUND, "unknown": UNKNOWN}


def can_encrypt(
    recipients: Annotated[
        list[str], typer.Argument(metavar="ADDRESS… | FILE.csv", help="Addresses, or files with a column of them.")
    ],
    policy: Annotated[str, typer.Option("--policy", metavar="P", help="By which policy; the first if not given.")] = "",
    kind: Annotated[
        str, typer.Option("--kind", metavar="K", help="openpgp, smime, either or both, whatever the policy says.")
    ] = "",
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Say for each recipient whether mail can be encrypted, with what, and why not.

    Exit codes: 0 all yes; 1 a no, and nothing worse; 2 wrong usage; 3 trouble with the service or the store; 5 an
    unknown, because an upstream failed.
    """
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    given = [address for text in recipients for address in _addresses(text)]
    with reach(configuration) as client:
        found = _asked(client, given, {"policy": policy, "kind": kind})
    count = {word: sum(one["verdict"] == word for one in found) for word in _CODES}
    if as_json:
        show.print_json({"verdicts": found, "summary": {"addresses": len(found), **count}})
    else:
        console = show.console()
        console.print(_table(found))
        said = [f"{number} {word}" for word, number in count.items() if number or word != "reject"]
        console.print(f"{len(found)} asked: {', '.join(said)}")
    return max(_CODES[one["verdict"]] for one in found)


def _addresses(text: str) -> list[str]:
    """What one argument means: an address, or all that a file has."""
    if "@" in text and not Path(text).is_file():
        return [text]
    from keyserver.admin.problems import Unusable
    from keyserver.admin.recipients import decoded, from_csv

    try:
        with Path(text).open("rb") as file:
            octets = file.read(MOST_FILE + 1)
        if len(octets) > MOST_FILE:
            raise CommandError(f"{text} has more than {MOST_FILE} octets", code=USAGE)
        return from_csv(decoded(octets))
    except FileNotFoundError:
        raise CommandError(f"{text} is neither an address nor a file", code=USAGE) from None
    except OSError as problem:
        raise CommandError(f"{text}: {problem.strerror or problem}", code=USAGE) from None
    except Unusable as problem:
        raise CommandError(f"{text}: {problem}", code=USAGE) from None


def _asked(client: AdminClient, given: Sequence[str], query: dict[str, str]) -> list[dict[str, Any]]:
    """The verdicts in the order given, each address once; a bar shows how far it is."""
    from keyserver.cli.progress import counting
    from keyserver.verdict.asking import normal

    order = {address: number for number, address in enumerate(dict.fromkeys(normal(text.strip()) for text in given))}
    found: list[dict[str, Any]] = []
    with counting() as progress:
        task = progress.add_task("verdicts", total=len(order))
        for one in _lines(client, given, query):
            found.append(one)
            progress.advance(task)
    if len(found) != len(order) - ("" in order):
        raise CommandError(f"the service broke off after {len(found)} of {len(order)} verdicts")
    return sorted(found, key=lambda one: order.get(one["address"], len(order)))


def _lines(client: AdminClient, given: Sequence[str], query: dict[str, str]) -> Iterator[dict[str, Any]]:
    for one in client.lines(PATH, given, query):
        if "error" in one:
            raise CommandError(str(one["error"]))
        yield one


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    from keyserver.cli import show

    table = show.grid("address", "verdict", "certificate", "reason")
    for row in rows:
        first = row["certificates"][0] if row["certificates"] else None
        more = f" +{len(row['certificates']) - 1}" if len(row["certificates"]) > 1 else ""
        origin = f"{first['source']} {first['origin']}, since {show.when(first['since'])}" if first else ""
        if first and first["by_domain"]:
            origin = f"by the gateway of {first['by_domain']}: {origin}"
        table.add_row(
            show.word(row["address"], "bold"),
            show.word(row["verdict"], _STYLES[row["verdict"]]),
            show.word(f"{first['fingerprint']}{more}" if first else ""),
            show.word(origin if first else row["reason"], "dim"),
        )
    return table


_STYLES = {"yes": "green", "no": "yellow", "reject": "yellow", "unknown": "red"}
