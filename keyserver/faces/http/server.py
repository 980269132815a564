"""The HTTP server: what the connections of one view share, and their limits."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from keyserver.config.listener import Listener
from keyserver.faces.http.connection import HttpConnection, HttpLimits
from keyserver.faces.http.exchange import Behind
from keyserver.faces.http.hot import HotAnswers
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer
from keyserver.wire.http_hot import Answering, Block, classify, without

BLOCKS = 1024  # header blocks with a remembered verdict
MAX_BLOCK = 1024  # octets of such a block
SWEEP = 2  # seconds between looks at all connections


@dataclass(frozen=True, slots=True)
class HttpCounts:
    """What happened since the server was made; hits are counted by the hot answers."""

    open: int  # connections now
    opened: int
    refused: int  # found no room, or may not come in
    dropped: int  # too many unread requests
    timeouts: int
    cold: int  # requests that aiohttp answered for us
    foreign: int  # connections that became aiohttp's


class HttpServer(ListeningServer[HttpConnection]):
    """What the connections of one view share.

    `server` makes what answers behind it: aiohttp's protocols (`AppRunner.server` after `setup`), or what speaks to
    the process that has them. `own`: our name in `Via`. Once a second
    `tell` gets the number of hot hits since the last time. `privileged`: the administrator's, see `ListeningServer`.
    """

    def __init__(
        self,
        server: Callable[[], Behind],
        hot: HotAnswers,
        limits: HttpLimits | None = None,
        *,
        face: str = "hkp",
        own: str = "",
        tell: Callable[[int], None] | None = None,
        tls: ssl.SSLContext | None = None,
        privileged: bool = False,
    ) -> None:
        self.limits = limits or HttpLimits()
        super().__init__(
            face,
            total=self.limits.connections,
            per_client=self.limits.connections_per_client,
            trust=self.limits.trust,
            first=self.limits.head,
            sweep=SWEEP,
            tls=tls,
            privileged=privileged,
        )
        self.server = server
        self.hot = hot
        self.lines = hot.table
        self.clock = hot.clock
        self.changes = hot.changes
        self.plain: set[bytes] = set()
        """Header blocks of HTTP/1.1 after which memory may answer and the connection stays: the quickest way."""
        self.known: dict[bytes, Block] = {}
        """Header blocks with their verdicts, exact octets, but without the line in which a proxy names its client."""
        self.grace = self.limits.head - self.limits.idle
        """As if a connection had been idle before it began, so that its first head must come in the time for one."""
        self.opened = self.dropped = self.timeouts = self.cold = self.foreign = 0
        self._own = own.lower().encode()
        self._tell = tell
        self._told = 0

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener."""
        return partial(HttpConnection, self)

    def behind(self, client: str, tls: bool) -> asyncio.Protocol:
        """What answers a connection of this client, whose socket another process has."""
        return cast(asyncio.Protocol, self.server())

    def counts(self) -> HttpCounts:
        return HttpCounts(
            len(self._connections), self.opened, self.refused, self.dropped, self.timeouts, self.cold, self.foreign
        )

    # what the connections call

    def classify(self, block: bytes) -> Block:
        """The verdict on a header block, remembered where it may come again."""
        verdict = self.known.get(block)
        if verdict is None and self.trust.proxies:
            block = without(block, self.trust.header.encode())
            verdict = self.known.get(block)
        if verdict is None:
            verdict = classify(block, self._own)
            if len(block) <= MAX_BLOCK and not verdict.tags:
                if len(self.known) >= BLOCKS:
                    oldest = next(iter(self.known))
                    del self.known[oldest]
                    self.plain.discard(oldest)
                self.known[block] = verdict
                if verdict.answering is Answering.MEMORY and verdict.host and not verdict.close:
                    self.plain.add(block)
        return verdict

    def report(self) -> None:
        """Tell the hits since the last time."""
        counts = self.hot.counts()
        hits = counts.hits + counts.negative_hits
        if self._tell is not None and hits > self._told:
            self._tell(hits - self._told)
        self._told = hits
