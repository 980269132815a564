"""The LDAP face: a read-only directory of what the cache knows (RFC 4511). One listener, one view.

This file holds what its connections share; `connection` speaks with one client, `search` answers searches, `tree` and
`entries` say what the directory looks like, `match` and `schema` what a filter means.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from keyserver.config.listener import Listener
from keyserver.faces.context import FaceContext
from keyserver.faces.ldap.bind import Account
from keyserver.faces.ldap.connection import Connection
from keyserver.faces.ldap.search import Searches
from keyserver.faces.ldap.session import LdapLimits
from keyserver.faces.ldap.tree import Tree
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer

AT_ONCE = 64  # connections served as they come in one millisecond: most of it
IN_TURN = 8  # of those that wait then, served before other listeners have their turn


@dataclass(frozen=True, slots=True)
class LdapCounts:
    """What happened since the server was made."""

    open: int  # connections now
    refused: int  # connections that found no room, or may not come in
    malformed: int  # connections ended for what they sent
    hits: int  # searches answered from memory


class LdapServer(ListeningServer[Connection]):
    """What the connections of one view share. `account`: who may bind beside anonymous clients. `tell`, once a second:
    hits since the last time."""

    def __init__(
        self,
        context: FaceContext,
        tree: Tree,
        limits: LdapLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        account: Account | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.context = context
        self.monotonic = context.monotonic
        self.limits = limits or LdapLimits()
        super().__init__(
            "ldap",
            total=self.limits.connections,
            per_client=self.limits.connections_per_client,
            trust=self.limits.trust,
            first=self.limits.first,
            tls=tls,
        )
        self.account = account
        self.searches = Searches(context, tree)
        self.loop = asyncio.get_running_loop()
        self.malformed = 0
        self._tell = tell
        self._told = 0
        self._waiting: deque[Connection] = deque()
        self._serving = False
        self._instant, self._left = 0.0, AT_ONCE

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener."""
        return partial(Connection, self, listener.tls)

    def behind(self, client: str, tls: bool) -> asyncio.Protocol:
        """What answers a connection of this client, whose socket another process has."""
        return Connection(self, tls, client)

    def counts(self) -> LdapCounts:
        searches = self.searches
        return LdapCounts(len(self._connections), self.refused, self.malformed, searches.hits)

    def admit(self) -> bool:
        """May a connection's messages be handled now, or must it `wait`? The loop belongs to other faces, too."""
        now = self.loop.time()  # uvloop's: in milliseconds, and the same for everything that one poll has brought
        if now != self._instant:
            self._instant, self._left = now, AT_ONCE
        if self._left == 0 or self._waiting:
            return False
        self._left -= 1
        return True

    def wait(self, connection: Connection) -> None:
        """Its messages are handled when those that waited before it have been."""
        self._waiting.append(connection)
        if not self._serving:
            self._serving = True
            self.loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Some that wait; then the loop looks what has come on other connections."""
        for _ in range(min(IN_TURN, len(self._waiting))):
            self._waiting.popleft().go_on()
        self._serving = bool(self._waiting)
        if self._serving:
            self.loop.call_soon(self._serve)

    def report(self) -> None:
        """Tell the hits since the last time."""
        hits = self.searches.hits
        if self._tell is not None and hits > self._told:
            self._tell(hits - self._told)
        self._told = hits
