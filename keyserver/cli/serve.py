"""`keyserver serve`: runs the service."""

from __future__ import annotations

from typing import Annotated

import typer

from keyserver.cli.options import ConfigOption, SetOption, load_config


def serve(
    config: ConfigOption = None,
    settings: SetOption = None,
    upstreams: Annotated[
        list[str] | None,
        typer.Option("--upstream", metavar="URL", help="Ask this upstream instead of the configured ones; repeatable."),
    ] = None,
) -> int:
    """Run the service until SIGTERM or SIGINT; one `ready` line per listener on stderr."""
    configuration = load_config(config, settings, upstreams)
    from keyserver import app

    return app.run(configuration)
