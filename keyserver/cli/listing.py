"""`keyserver cache list`: the entries of the cache, chosen and in order."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from keyserver.cli.options import DONE, ConfigOption, JsonOption, SetOption, load_config

SourceOption = Annotated[str, typer.Option("--source", metavar="S", help="keyserver, mailflow or local.")]
UpstreamOption = Annotated[str, typer.Option("--upstream", metavar="U", help="What this upstream answered.")]
DomainOption = Annotated[str, typer.Option("--domain", metavar="D", help="Certificates with an address there.")]
TextOption = Annotated[
    str,
    typer.Option("--text", "-q", metavar="T", help="Part of a name or address; how a fingerprint begins; a key ID."),
]
KindOption = Annotated[str, typer.Option("--kind", metavar="K", help="openpgp or x509.")]
StatusOption = Annotated[str, typer.Option("--status", metavar="W", help="fresh, stale, held, expired or blocked.")]
NotOption = Annotated[
    list[str] | None,
    typer.Option("--not", metavar="NAME=VALUE", help="Not this source, upstream, domain, text, kind or status."),
]
HeldOption = Annotated[bool | None, typer.Option("--held/--not-held", help="What waits for an administrator, or not.")]
ApprovedOption = Annotated[bool | None, typer.Option("--approved/--not-approved", help="What was approved, or not.")]
FromOption = Annotated[str, typer.Option("--from", metavar="TIME", help="Cached then or later; UTC.")]
ToOption = Annotated[str, typer.Option("--to", metavar="TIME", help="Cached before.")]
AfterOption = Annotated[str, typer.Option("--expires-after", metavar="TIME", help="Expires then, later or never.")]
BeforeOption = Annotated[str, typer.Option("--expires-before", metavar="TIME", help="Expires before.")]
SortOption = Annotated[str, typer.Option("--sort", metavar="BY", help="cached (as it is), expires, address or source.")]
OrderOption = Annotated[str, typer.Option("--order", metavar="O", help="asc or desc; what was cached last is first.")]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many; else all.")]

_CACHE = "/api/v1/cache"
_PAGE = 1000  # entries asked for at once
_ALL = 1 << 60


def list_entries(
    source: SourceOption = "",
    upstream: UpstreamOption = "",
    domain: DomainOption = "",
    text: TextOption = "",
    kind: KindOption = "",
    status: StatusOption = "",
    without: NotOption = None,
    held: HeldOption = None,
    approved: ApprovedOption = None,
    from_: FromOption = "",
    to: ToOption = "",
    expires_after: AfterOption = "",
    expires_before: BeforeOption = "",
    sort: SortOption = "",
    order: OrderOption = "",
    limit: LimitOption = _ALL,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """List the entries of the cache: those for which everything given holds."""
    chosen = {"source": source, "upstream": upstream, "domain": domain, "q": text, "kind": kind, "status": status}
    chosen |= {"from": from_, "to": to, "expires_after": expires_after, "expires_before": expires_before}
    chosen |= {"held": _switch(held), "approved": _switch(approved), "sort": sort, "order": order}
    for one in without or []:
        name, _, value = one.partition("=")
        chosen["not_q" if name == "text" else f"not_{name}"] = value
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach

    console, count, cursor = show.console(), 0, ""
    with reach(configuration) as client:
        if as_json:
            sys.stdout.write('{"entries": [')
        while True:
            page = client.get(_CACHE, **chosen, limit=str(min(_PAGE, limit - count)), cursor=cursor)
            rows = page["entries"]
            if as_json:
                _write(rows, count)
            elif rows:
                console.print(show.entries(rows, header=not count))
            count, cursor = count + len(rows), page["next"] or ""
            if not cursor or count == limit:
                break
        if as_json:
            sys.stdout.write('\n], "next": null}\n')
        else:
            console.print(f"{count} entr{'y' if count == 1 else 'ies'}", style="dim")
    return DONE


def _write(rows: list[dict[str, Any]], before: int) -> None:
    for number, row in enumerate(rows, before):
        sys.stdout.write(f"{',' if number else ''}\n  {json.dumps(row)}")


def _switch(value: bool | None) -> str:
    return "" if value is None else str(int(value))
