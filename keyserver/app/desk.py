"""The way in for the command line: the admin API on a socket in the state directory, whatever `admin.listen` says."""

from __future__ import annotations

import logging

from keyserver.app.context import CannotStart
from keyserver.app.listening import Listeners, admin_door
from keyserver.app.parts import Parts
from keyserver.config import Listener
from keyserver.state import SOCKET, ReadOnly, State, StateError

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
    door = await admin_door(parts, listeners)
    listeners.receptions.append(door)
    await door.serve(Listener(unix=state.directory / SOCKET), listening)
