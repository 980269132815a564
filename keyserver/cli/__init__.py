"""The command line: thin commands over the admin API's operations.

Exit codes: 0 done; 1 not found, or an upstream failed; 2 wrong usage or configuration; 3 trouble with the service, the
store or the system; 130 interrupted; `lookup` also has 4 and 5. Heavy imports happen inside the commands: `serve` has
to be up in a moment.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from keyserver import __version__
from keyserver.cli import (
    audit,
    cache,
    can_encrypt,
    check,
    harvest,
    history,
    invite,
    lookup,
    nodes,
    outlook,
    reload,
    serve,
    settings,
    token,
    upstreams,
)
from keyserver.cli.options import SERVICE, CommandError


def _exit(code: int, **_options: object) -> None:
    """What a command returns is the exit code."""
    raise typer.Exit(code)


application = typer.Typer(
    name="keyserver",
    help="A caching keyserver frontend: HKP and LDAP in front, keyservers and directories behind.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    result_callback=_exit,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"keyserver {__version__}")
        raise typer.Exit


@application.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Options before the command."""


application.command("serve")(serve.serve)
application.command("check")(check.check)
application.command("lookup")(lookup.lookup)
application.add_typer(history.commands, name="history")
application.command("outlook")(outlook.outlook)
application.command("can-encrypt")(can_encrypt.can_encrypt)
application.add_typer(cache.commands, name="cache")
application.command("harvest")(harvest.harvest)
application.command("upstreams")(upstreams.upstreams)
application.command("nodes")(nodes.nodes)
application.command("audit")(audit.audit)
application.add_typer(token.commands, name="token")
application.command("invite")(invite.invite)
application.command("invitations")(invite.invitations)
application.command("reload")(reload.reload)
application.command("settings")(settings.settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        application(args=arguments, prog_name="keyserver")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except CommandError as trouble:
        for line in trouble.lines:
            print(line, file=sys.stderr)
        return trouble.code
    except OSError as error:
        print(error, file=sys.stderr)
        return SERVICE
    return 0
