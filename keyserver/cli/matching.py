"""Acts of `keyserver cache` for all entries that a filter shows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyserver.cli.options import DONE, NOT_FOUND, USAGE, CommandError, confirm, load_config

if TYPE_CHECKING:
    from pathlib import Path

    from keyserver.cli.admin_client import AdminClient

WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="NAME=VALUE",
        help="Instead of IDs all entries for which this holds; repeatable. Names are those of `cache list`'s filters,"
        " such as domain=partner.example, status=expired, held=1, not_source=local.",
    ),
]

_CACHE = "/api/v1/cache"
_WORDS = {"text": "q", "not_text": "not_q"}


def chosen(ids: Sequence[str] | None, where: Sequence[str] | None) -> dict[str, str]:
    """The filter that `--where` gives; empty where IDs are given. Raises CommandError unless it is one of both."""
    if bool(ids) == bool(where):
        raise CommandError("which certificates? either IDs or --where NAME=VALUE", code=USAGE)
    given: dict[str, str] = {}
    for one in where or ():
        name, equals, value = one.partition("=")
        name = _WORDS.get(name, name).replace("-", "_")
        if not equals or not name or not value:
            raise CommandError(f"--where {one!r}: NAME=VALUE is accepted, such as domain=partner.example", code=USAGE)
        if name in given:
            raise CommandError(f"--where {name}=… is given twice", code=USAGE)
        given[name] = value
    return given


def act_on_all(act: str, done: str, given: dict[str, str], yes: bool, config: Path | None, settings: Any) -> int:
    """Approve, refresh, keep or block all that match; 1 where something could not be done or was left."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach

    with reach(configuration) as client:
        _ask_first(client, act, given, yes)
        outcome = client.post(f"{_CACHE}/{act}", query=given)
    print(f"{done} {outcome['done']}")
    if outcome["failed"]:
        print(f"{outcome['failed']} could not be, or are left for another time", file=sys.stderr)
    if outcome["more"]:
        print("more match than one command goes over: narrow the filter", file=sys.stderr)
    return NOT_FOUND if outcome["failed"] or outcome["more"] else DONE


def delete_all(given: dict[str, str], no_undo: bool, yes: bool, config: Path | None, settings: Any) -> int:
    """Delete all that match, however many; together they can be undone."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach

    count, act = 0, "0" if no_undo else ""
    with reach(configuration) as client:
        _ask_first(client, "delete", given, yes)
        while True:
            answer = client.delete(_CACHE, **given, undo=act)
            count, act = count + answer["deleted"], answer["undo"] or act
            if not answer["more"] or not answer["deleted"]:
                break
    print(f"deleted {count} entr{'y' if count == 1 else 'ies'}")
    if count and not no_undo:
        print(f"to bring back what was deleted, within ten minutes: keyserver cache undo {act}", file=sys.stderr)
    return DONE


def _ask_first(client: AdminClient, act: str, given: dict[str, str], yes: bool) -> None:
    page = client.get(_CACHE, **given, limit="1")
    number = f"{page['count']:,}{'' if page['count_exact'] else '+'} " if page["count"] is not None else ""
    confirm(f"{act} the {number}entries for which {' and '.join(f'{n}={v}' for n, v in given.items())}", yes)
