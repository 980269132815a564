"""Who acts: one line in the log for every act of an administrator that changes the cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

log = logging.getLogger("keyserver.admin")


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose token, which program by its own word, and where from."""

    who: str
    way: str  # cli, api
    place: str  # an IP address, or the user at the other end of a Unix socket


_NOBODY = Actor("nobody", "", "")
ACTOR: ContextVar[Actor] = ContextVar("ACTOR")
"""Set by whoever checked the token; each request has a context of its own."""


def note(identity: Callable[[str], str], act: str, certificate: str = "", **facts: object) -> None:
    """Log one act that has been done. `identity`: how fingerprints may be shown; facts hold no addresses."""
    actor = ACTOR.get(_NOBODY)
    shown = {"certificate": identity(certificate)} if certificate else {}
    line = {"who": actor.who, "way": actor.way, "from": actor.place, "act": act, **shown, **facts}
    log.info("administration", extra={"facts": line})
