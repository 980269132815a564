"""The way in for the command line: the admin API on a socket in the state directory, whatever `admin.listen` says."""

from __future__ import annotations

import logging

from keyserver.app.context import CannotStart
from keyserver.app.listening import Listeners, admin_server
from keyserver.app.parts import Parts
from keyserver.config import Listener
from keyserver.state import SOCKET, ReadOnly, State, StateError

log = logging.getLogger("keyserver")


async def open_admin_socket(parts: Parts, listeners: Listeners, state: State) -> None:
    """Open it; a state directory that is read-only has none. Raises CannotStart."""
    try:
        listening = state.listen()
    except ReadOnly as problem:
        log.warning("%s: commands cannot reach this service; name a directory in server.state_dir", problem)
        return
    except StateError as problem:
        raise CannotStart(str(problem)) from None
    server = await admin_server(parts, listeners)
    listeners.servers.append(server)
    await server.serve(Listener(unix=state.directory / SOCKET), listening)
