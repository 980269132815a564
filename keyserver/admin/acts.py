"""Who acts: every act of an administrator becomes a line in the log and a row in the audit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from cachetools import FIFOCache

from keyserver.admin.access import Role
from keyserver.admin.masking import Hash
from keyserver.store.administration import Administration, StoredAct
from keyserver.store.base import StoreError

log = logging.getLogger("keyserver.admin")

QUIET = 60  # seconds between rows that say the same of one place
_PLACES = 1000  # from which tokens were refused lately

SIGN_IN, REFUSED = "sign in", "refused"


@dataclass(frozen=True, slots=True)
class Actor:
    """Whose token, which program by its own word, and where from."""

    who: str
    way: str  # cli, api, page
    place: str  # an IP address, or the user at the other end of a Unix socket
    role: Role = Role.OPERATOR
    hash_: Hash | None = None  # set: neither addresses nor names are shown (`masking`)


_NOBODY = Actor("nobody", "", "")
ACTOR: ContextVar[Actor] = ContextVar("ACTOR", default=_NOBODY)
"""Set by whoever checked the token; each request has a context of its own."""


class Acts:
    """The one place where acts are noted.

    identity: how fingerprints and addresses may stand in the log; clock: Unix seconds."""

    def __init__(self, kept: Administration, identity: Callable[[str], str], clock: Callable[[], int]) -> None:
        self.identity = identity
        self._kept = kept
        self._clock = clock
        self._writing: set[asyncio.Task[None]] = set()
        self._refused: FIFOCache[str, tuple[int, int]] = FIFOCache(_PLACES)

    def note(self, act: str, certificate: str = "", **facts: object) -> None:
        """Note an act that has been done. The facts hold no addresses; the log shows the certificate as `identity`
        does, the audit its fingerprint."""
        actor = ACTOR.get()
        shown = {"certificate": self.identity(certificate)} if certificate else {}
        line = {"who": actor.who, "way": actor.way, "from": actor.place, "act": act, **shown, **facts}
        log.info("administration", extra={"facts": line})
        self._keep(StoredAct(self._clock(), actor.who, actor.way, actor.place, act, certificate, facts))

    def refuse(self, way: str, place: str, reason: str) -> None:
        """Note that somebody was refused; of one place once a minute, with the number since."""
        now = self._clock()
        at, count = self._refused.get(place, (now - QUIET, 0))
        count += 1
        if abs(now - at) >= QUIET:
            facts = {"reason": reason, "times": count}
            log.warning("refused", extra={"facts": {"way": way, "from": place, **facts}})
            self._keep(StoredAct(now, "nobody", way, place, REFUSED, "", facts, refusal=True))
            at, count = now, 0
        self._refused[place] = at, count

    async def written(self) -> None:
        """Until everything noted so far is in the audit, or cannot be."""
        while self._writing:
            await asyncio.wait(self._writing)

    def _keep(self, act: StoredAct) -> None:
        task = asyncio.get_running_loop().create_task(self._append(act))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _append(self, act: StoredAct) -> None:
        try:
            await self._kept.note(act)
        except StoreError as problem:
            log.error("an act could not be kept in the audit: %s", problem)
