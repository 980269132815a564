"""The mail flow's listeners: who may speak to them, and how long one may be silent."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

from keyserver.config.kinds import Network
from keyserver.config.listener import Listener
from keyserver.listen.arrivals import Make
from keyserver.listen.clients import MANY_OF_ONE
from keyserver.listen.reception import Reception, peer_of
from keyserver.listen.trust import UNIX, Trust

PRESSED = 60  # seconds of silence after which a connection makes room for another where all are taken


class Talk(asyncio.Protocol, ABC):
    """A mail server's connection, as far as its time goes."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.transport: asyncio.Transport | None = None
        self.client = UNIX
        self.heard = peers.tick
        """The second at which something came last."""

    @property
    @abstractmethod
    def patience(self) -> int:
        """Seconds that it may be silent now."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self.client = peer_of(transport)
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such
        if reason := self.peers.admit(self, transport):
            self.turn_away(reason)
            return
        self.begin()

    def turn_away(self, reason: str) -> None:
        """There is no room."""
        self.abort()

    def begin(self) -> None:
        """There is room."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.transport = None
        self.peers.leave(self, self.client)

    def sweep(self, tick: int) -> None:
        """End a connection that has been silent for too long."""
        if tick - self.heard > self.patience:
            self.abort()

    async def drain(self, seconds: float) -> None:
        """End it: what was not complete will come again."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End it now."""
        if self.transport is not None:
            self.transport.abort()


class Peers(Reception[Talk]):
    """The connections of one listener. Loopback and Unix sockets take everybody, other listeners only `allowed`.

    Mail servers may be silent for hours in the middle of a mail, so that who holds many silent connections could lock
    all others out: where all are taken, the one that has been silent for longest makes room."""

    def __init__(
        self, face: str, listener: Listener, allowed: Sequence[Network], most: int, talk: Callable[[Peers], Talk]
    ) -> None:
        super().__init__(face, total=most, per_client=most, trust=Trust(allowed))
        self._open_to_all = listener.loopback
        self._talk = talk

    def maker(self, listener: Listener) -> Make:
        """What makes the connections of a listener; no proxy names their clients."""
        return lambda client=None: self._talk(self)

    def admit(self, talk: Talk, transport: asyncio.BaseTransport) -> str:
        """Count a new connection in; else the reason why it has to be closed."""
        if not self._open_to_all and (talk.client == UNIX or not self.trust.trusts(talk.client)):
            self.refuse("not in mailflow.allowed_clients")
            return "not allowed"
        if reason := self._clients.refusal(talk.client):
            self._make_room(talk.client if reason == MANY_OF_ONE else None)
        return self.enter(talk, talk.client, transport)

    def _make_room(self, client: str | None) -> None:
        """End the connection that has been silent for longest, of this client where it has too many itself."""
        silent = (
            talk
            for talk in self._connections
            if (client is None or talk.client == client) and self.tick - talk.heard >= min(PRESSED, talk.patience)
        )
        longest = min(silent, key=lambda talk: talk.heard, default=None)
        if longest is not None:
            longest.abort()
            self.leave(longest, longest.client)
