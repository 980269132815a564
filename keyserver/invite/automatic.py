"""Invitations without an administrator's act, where `[invite] automatic` says so: of what mail has just shown.

Only of an authenticated sender's own new certificate, once for an address and a certificate: whoever could make us
write to others would have a mail cannon.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from keyserver.store.invitations import Invitations

WAITING = 200  # that wait to be invited; more are not invited by themselves
AUTOMATIC = "automatic"
"""Who has invited then."""
_LOOKED_BACK = 1000  # earlier invitations of one address that are looked through
_LOG = logging.getLogger("keyserver.invite")


class Automatic:
    """A queue and its one task, `run`. wanted: is it switched on now? identity: how logs show what they name."""

    def __init__(
        self,
        *,
        wanted: Callable[[], bool],
        invitations: Invitations,
        identity: Callable[[str], str],
    ) -> None:
        self._wanted = wanted
        self._invitations = invitations
        self._identity = identity
        self._queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING)
        self._shed = 0

    def offer(self, address: str, fingerprint: str) -> None:
        """An authenticated sender's new certificate is cached. Never waits, never raises."""
        if not self._wanted():
            return
        try:
            self._queue.put_nowait((address, fingerprint))
        except asyncio.QueueFull:
            self._shed += 1
            if self._shed & (self._shed - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood must not flood the log as well
                _LOG.warning("not invited: too many at once", extra={"facts": {"shed": self._shed}})

    async def run(self, invite: Callable[[str, str], Awaitable[None]]) -> None:
        """Invite one after the other, until cancelled.

        invite: (address, fingerprint) -> what administrators do, with an exception for why it was not done."""
        while True:
            address, fingerprint = await self._queue.get()
            try:
                await self._one(address, fingerprint, invite)
            except Exception as problem:
                facts = {"address": self._identity(address), "certificate": self._identity(fingerprint)}
                _LOG.warning("not invited by itself: %s", problem, extra={"facts": facts})
            finally:
                self._queue.task_done()

    async def drained(self) -> None:
        """Until everything offered so far has had its turn."""
        await self._queue.join()

    async def _one(self, address: str, fingerprint: str, invite: Callable[[str, str], Awaitable[None]]) -> None:
        if not self._wanted():
            return
        earlier = await self._invitations.invitations(_LOOKED_BACK, address=address)
        if not any(one.fingerprint == fingerprint for one in earlier):
            await invite(address, fingerprint)
