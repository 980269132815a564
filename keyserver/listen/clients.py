"""Who is connected: connections counted by client address, within a limit that our own gateways are free of."""

from __future__ import annotations

from typing import Protocol

from keyserver.listen.trust import Trust

MANY = "too many connections"
MANY_OF_ONE = "too many connections from one address"


class Elsewhere(Protocol):
    """Other processes that count connections of the same listener."""

    def others(self, client: str) -> int:
        """Connections of this client there."""

    def note(self, client: str, change: int) -> None:
        """One more here, or one less."""


class Clients:
    """Connections of one listener.

    Our own and our proxies are free of the limit for each client, but nobody holds more than half of all."""

    def __init__(self, per_client: int, total: int, trust: Trust) -> None:
        self._per_client = per_client
        self._trust = trust
        self._counts: dict[str, int] = {}
        self._elsewhere: Elsewhere | None = None
        self.open = 0
        self.resize(total)

    def resize(self, total: int) -> None:
        """Another number of connections in all."""
        self._total = total
        self._half = (total + 1) // 2
        self._free = min(self._per_client, self._half)

    def limit(self, per_client: int) -> None:
        """Another number of connections for each client; those that are open stay."""
        self._per_client = per_client
        self.resize(self._total)

    def share(self, elsewhere: Elsewhere) -> None:
        """Count a client's connections together with other processes."""
        self._elsewhere = elsewhere

    def enter(self, client: str) -> str:
        """A connection begins; else why it may not. A Unix socket's client is the empty string."""
        mine = self._counts.get(client, 0)
        if (self._everywhere(client) >= self._free or self.open >= self._total) and (reason := self.refusal(client)):
            return reason
        self._counts[client] = mine + 1
        self.open += 1
        if self._elsewhere is not None:
            self._elsewhere.note(client, 1)
        return ""

    def refusal(self, client: str) -> str:
        """Why a connection more may not be; nothing where it may."""
        mine = self._counts.get(client, 0)
        if self._everywhere(client) >= self._free and (
            mine >= self._half or not (self._trust.trusts(client) or self._trust.proxy(client))
        ):
            return MANY_OF_ONE
        return MANY if self.open >= self._total else ""

    def leave(self, client: str) -> None:
        """A connection that had entered is gone."""
        self.open -= 1
        if self._elsewhere is not None:
            self._elsewhere.note(client, -1)
        mine = self._counts[client] - 1
        if mine:
            self._counts[client] = mine
        else:
            del self._counts[client]

    def _everywhere(self, client: str) -> int:
        mine = self._counts.get(client, 0)
        return mine if self._elsewhere is None else mine + self._elsewhere.others(client)
