"""The way in for the command line: the admin API on a socket in the state directory, whatever `admin.listen` says."""

from __future__ import annotations

import asyncio
import logging

from keyserver.admin.api import make_api
from keyserver.app.listening import Listeners
from keyserver.app.parts import CannotStart, Parts
from keyserver.faces.http import make_runner
from keyserver.state import ReadOnly, State, StateError

log = logging.getLogger("keyserver")


async def open_desk(parts: Parts, listeners: Listeners, state: State) -> None:
    """Open it; a state directory that is read-only has none. Raises CannotStart."""
    try:
        listening = state.listen()
    except ReadOnly as problem:
        log.warning("%s: commands cannot reach this service; name a directory in server.state_dir", problem)
        return
    except StateError as problem:
        raise CannotStart(str(problem)) from None
    runner = make_runner(make_api(parts.service, parts.installation.token, parts.observer.exposition))
    await runner.setup()
    listeners.runners.append(runner)
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_unix_server(runner.server, sock=listening)
    listeners.servers.append(server)
