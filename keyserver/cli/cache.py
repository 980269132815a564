"""`keyserver cache …`: the key cache from the shell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyserver.cli.keyrings import export_keyring, import_keyrings
from keyserver.cli.listing import DomainOption, SourceOption, UpstreamOption, list_entries
from keyserver.cli.matching import WhereOption, act_on_all, chosen, delete_all
from keyserver.cli.migrate import migrate
from keyserver.cli.options import (
    DONE,
    NOT_FOUND,
    USAGE,
    CommandError,
    ConfigOption,
    JsonOption,
    SetOption,
    YesOption,
    confirm,
    load_config,
)

if TYPE_CHECKING:
    from keyserver.cli.admin_client import AdminClient

commands = typer.Typer(
    help="The key cache: list, show, delete, undo, purge, approve, refresh, keep, block, unblock, export, import,"
    " migrate.",
    no_args_is_help=True,
)

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Fingerprints, key IDs or addresses.")]
SomeIds = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Fingerprints, key IDs or addresses.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A fingerprint, a key ID or an address.")]

_CACHE = "/api/v1/cache"
_MANY = 10  # certificates that are deleted without asking


@commands.command("show")
def show_(id_: Id, as_json: JsonOption = False, config: ConfigOption = None, settings: SetOption = None) -> int:
    """Show one certificate and its entries."""
    configuration = load_config(config, settings)
    from keyserver.cli import show
    from keyserver.cli.admin_client import reach, segment

    with reach(configuration) as client:
        found = one_of_several(lambda: client.get(f"{_CACHE}/{segment(id_)}"))
    if as_json:
        show.print_json(found)
    else:
        _print_certificate(found)
    return DONE


def _print_certificate(found: dict[str, Any]) -> None:
    """One certificate in full."""
    from rich.table import Table

    from keyserver.cli import show

    console = show.console()
    facts = Table.grid(padding=(0, 2))
    for name, value in (
        ("fingerprint", found["fingerprint"]),
        ("kind", f"{found['kind']} v{found['version']}, algorithm {found['algorithm']}, {found['bits']} bits"),
        ("created", show.when(found["created"])),
        ("expires", show.when(found["expires"])),
        ("validity", "blocked" if found["blocked"] else found["validity"]),
        ("encryption", "yes" if found["can_encrypt"] else "no"),
        *((("remarks", ", ".join(found["marks"])),) if found["marks"] else ()),
    ):
        facts.add_row(show.word(name, "dim"), show.word(value))
    for user_id in found["user_ids"]:
        revoked = " (revoked)" if user_id["revoked"] else ""
        facts.add_row(show.word("user ID", "dim"), show.word(user_id["text"] + revoked))
    for subkey in found["subkeys"]:
        uses = ", ".join(use for use in ("revoked", "can_encrypt") if subkey[use]).replace("can_encrypt", "encryption")
        facts.add_row(show.word("subkey", "dim"), show.word(f"{subkey['fingerprint']}  {uses}".rstrip()))
    console.print(facts)
    table = show.grid("source", "origin", "cached", "expires", "status", "to clients")
    for row in found["entries"]:
        table.add_row(
            show.word(row["source"]),
            show.word(row["origin"] + (f", by {row['method']}" if row["method"] else "")),
            show.when(row["cached_at"]),
            show.when(row["expires_at"]),
            show.word("approved" if row["approved"] and row["status"] == "fresh" else row["status"]),
            show.word(row["reason"]),
        )
    console.print(table)
    for row in found["entries"]:
        for voucher in row["vouchers"]:
            said = [word for word in ("authenticated", "held", "approved") if voucher[word]]
            console.print("  ", show.word(voucher["address"], "bold"), show.word(f"{row['source']}: {', '.join(said)}"))


@commands.command("delete")
def delete(
    ids: SomeIds = None,
    source: SourceOption = "",
    where: WhereOption = None,
    no_undo: Annotated[bool, typer.Option("--no-undo", help="Erase them now, for good.")] = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Delete the entries of certificates; the next lookup asks the upstreams again. Of many it asks first.

    For ten minutes `cache undo` brings them back, all of one command together."""
    if given := chosen(ids, where):
        return delete_all(given | ({"source": source} if source else {}), no_undo, yes, config, settings)
    ids = ids or []
    if len(ids) > _MANY:
        confirm(f"delete the entries of {len(ids)} certificates", yes)
    act = ""

    def each(client: AdminClient, way: str) -> Any:
        nonlocal act
        answer = client.delete(way, source=source, undo="0" if no_undo else act)
        act = answer["undo"] or act
        return answer

    code = _each(config, settings, ids, "deleted", each)
    if act:
        print(f"to bring back what was deleted, within ten minutes: keyserver cache undo {act}", file=sys.stderr)
    return code


@commands.command("undo")
def undo(
    id_: Annotated[str, typer.Argument(metavar="[ID]", help="As `delete` has said it; without: the latest.")] = "",
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Take a delete of the last ten minutes back: entries return as they were.

    What was blocked, purged, revoked or found anew meanwhile stays as it is, and what has expired stays away."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach, segment

    with reach(configuration) as client:
        if not id_:
            waiting = client.get("/api/v1/undo")["undos"]
            if not waiting:
                raise CommandError("nothing was deleted in the last ten minutes that can be undone", code=NOT_FOUND)
            id_ = waiting[0]["id"]
        done = client.post(f"/api/v1/undo/{segment(id_)}")
    print(f"restored {done['restored']} of {done['deleted']} entr{'y' if done['deleted'] == 1 else 'ies'}")
    return DONE


@commands.command("approve")
def approve(
    id_: Annotated[str, typer.Argument(metavar="[ID]", help="A fingerprint, a key ID or an address.")] = "",
    address: Annotated[str, typer.Option("--address", metavar="A", help="For this address.")] = "",
    source: SourceOption = "",
    upstream: UpstreamOption = "",
    where: WhereOption = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Approve one entry for one address: answered for it, to every view. What may be meant is listed where several fit.

    With --where all that match, each for the addresses for which it waits. An approval lifts neither `domains` nor
    `internal_domains`."""
    given = {"address": address, "source": source, "upstream": upstream}
    named = {name: value for name, value in given.items() if value}
    if matching := chosen([id_] if id_ else [], where):
        if named:
            raise CommandError("--address, --source and --upstream are for one ID, not for --where", code=USAGE)
        return act_on_all("approve", "approved", matching, yes, config, settings)
    return _each(config, settings, [id_], "approved", lambda client, way: client.post(f"{way}/approve", named))


@commands.command("keep")
def keep(
    ids: SomeIds = None,
    where: WhereOption = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Make certificates local: they never expire."""
    if given := chosen(ids, where):
        return act_on_all("keep", "kept", given, yes, config, settings)
    return _each(config, settings, ids or [], "kept", lambda client, way: client.post(f"{way}/keep"))


@commands.command("block")
def block(
    ids: SomeIds = None,
    where: WhereOption = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept beside the block, of IDs.")] = "",
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Neither cache nor answer certificates until they are unblocked."""
    if given := chosen(ids, where):
        return act_on_all("block", "blocked", given, yes, config, settings)
    return _each(
        config, settings, ids or [], "blocked", lambda client, way: client.post(f"{way}/block", {"reason": reason})
    )


@commands.command("unblock")
def unblock(ids: Ids, config: ConfigOption = None, settings: SetOption = None) -> int:
    """Take blocks away."""
    return _each(config, settings, ids, "unblocked", lambda client, way: client.post(f"{way}/unblock"))


@commands.command("refresh")
def refresh(
    ids: SomeIds = None,
    where: WhereOption = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Ask the upstreams again now; what is cached stays unless one has news."""
    if given := chosen(ids, where):
        return act_on_all("refresh", "found news of", given, yes, config, settings)
    from keyserver.cli import show

    def ask(client: AdminClient, way: str) -> Any:
        answer = client.post(f"{way}/refresh")
        for upstream, outcome in answer["outcomes"].items():
            show.console().print("  ", show.word(upstream, "bold"), show.word(outcome))
        return answer

    return _each(config, settings, ids or [], "refreshed", ask)


@commands.command("purge")
def purge(
    expired: Annotated[bool, typer.Option("--expired", help="What has expired.")] = False,
    source: SourceOption = "",
    upstream: UpstreamOption = "",
    domain: DomainOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Everything but blocks, revocations too.")] = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Remove entries: exactly one of the options says which. Of what has not expired it asks first."""
    given = {"expired": expired, "source": source, "upstream": upstream, "domain": domain, "all": everything}
    chosen = {name: value for name, value in given.items() if value}
    if len(chosen) != 1:
        raise CommandError("purge what? exactly one of --expired, --source, --upstream, --domain, --all", code=USAGE)
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import reach

    if not expired:
        confirm(_sweep(chosen), yes)
    with reach(configuration) as client:
        count = client.post(f"{_CACHE}/purge", chosen)["purged"]
    print(f"purged {count} entr{'y' if count == 1 else 'ies'}")
    return DONE


def _sweep(chosen: dict[str, Any]) -> str:
    """What a purge would take away."""
    (name, value) = next(iter(chosen.items()))
    if name == "all":
        return "remove every entry, local ones, approvals and revocations too"
    of = {"source": "of source", "upstream": "that came from upstream", "domain": "with an address in"}[name]
    return f"remove every entry {of} {value!r}"


commands.command("list")(list_entries)
commands.command("export")(export_keyring)
commands.command("import")(import_keyrings)
commands.command("migrate")(migrate)


def _each(config: Any, settings: Any, ids: list[str], done: str, act: Any) -> int:
    """Do one thing to each certificate; what goes wrong with one does not keep the others from it."""
    configuration = load_config(config, settings)
    from keyserver.cli.admin_client import ApiError, reach, segment

    worst = DONE
    with reach(configuration) as client:
        for id_ in ids:
            try:
                answer = one_of_several(lambda id_=id_: act(client, f"{_CACHE}/{segment(id_)}"))
            except ApiError as error:
                worst = max(worst, error.code)
                print("\n".join(error.lines), file=sys.stderr)
            except CommandError as error:
                if error.code > USAGE:
                    raise
                worst = max(worst, error.code)
                print("\n".join(error.lines), file=sys.stderr)
            else:
                print(" ".join([done, answer["fingerprint"], *_for(answer)]))
    return worst


def _for(answer: dict[str, Any]) -> list[str]:
    """What an approval was for, in words."""
    return [f"({answer['source']}, {answer['origin']}) for {answer['address']}"] if "address" in answer else []


def one_of_several(ask: Any) -> Any:
    """An answer about one certificate; where an address fits several, Trouble that lists them."""
    from keyserver.cli import show
    from keyserver.cli.admin_client import ApiError

    try:
        return ask()
    except ApiError as error:
        candidates = error.document.get("certificates") or []
        lines = [
            f"  {show.safe(row['fingerprint'])}  {show.safe(', '.join(row['identities'][:3]))}" for row in candidates
        ]
        for row in error.document.get("choices") or []:
            where = f"--upstream {row['origin']}" if row["source"] == "keyserver" else f"--source {row['source']}"
            lines.append(show.safe(f"  --address {row['address']} {where}  ({row['origin']})"))
        if not lines:
            raise
        raise CommandError(*error.lines, *lines, code=error.code) from None
