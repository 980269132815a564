"""The socketmap face: each policy is a map for Postfix, as `transport_maps = socketmap:inet:127.0.0.1:8373:encrypt`.

What is in memory is answered before the request is even read: by its octets. All else goes by turns, so that replies
leave in the order of the requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, cast

from keyserver.config.listener import Listener
from keyserver.faces.cache import Ground, Values
from keyserver.faces.context import FaceContext
from keyserver.faces.face import Face, Opening
from keyserver.faces.verdict.asking import NOT_ALLOWED, Asking, asked
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer, peer_of
from keyserver.listen.trust import UNIX
from keyserver.model import Malformed, Name, joined
from keyserver.query import parse_address
from keyserver.verdict.deciding import Verdict, Word
from keyserver.verdict.named import NamedPolicy
from keyserver.wire import socketmap as wire

MAX_CONNECTIONS = 1000
AT_ONCE = 64  # requests of one connection before others have their turn
IDLE = 300  # seconds without a request; Postfix itself ends a connection after ten
PARTIAL = 10  # seconds for a whole request, for the first one, and for reading a reply

NO_MAP = "there is no policy of this name"

_LOG = logging.getLogger("keyserver.verdict")


class Reply(NamedTuple):
    """What is said, and which names were asked for by it."""

    octets: bytes
    asked: tuple[Name, ...] = ()


class SocketmapServer(ListeningServer["SocketmapConnection"]):
    """What its connections share. `tell`, once a second: replies from memory since the last time."""

    def __init__(self, asking: Asking, per_client: int, tell: Callable[[int], None]) -> None:
        context = asking.context
        super().__init__(asking.face, total=MAX_CONNECTIONS, per_client=per_client, trust=context.trust)
        self._asking = asking
        self._context: FaceContext = context
        self._known: Values[bytes, Reply] = Values(context.budget)
        self._tell = tell
        self._hits = 0

    def maker(self, listener: Listener) -> ConnectionFactory:
        """What makes the connections of a listener; no proxy names their clients."""
        return lambda client=None: SocketmapConnection(self)

    def admit(self, connection: SocketmapConnection, client: str, transport: asyncio.BaseTransport) -> str:
        """Count a new connection in; else the reason why it has to be closed."""
        if not self._asking.may(client):
            self.refuse(NOT_ALLOWED)
            return NOT_ALLOWED
        return self.enter(connection, client, transport)

    def allows(self, client: str) -> bool:
        """May it still ask?"""
        return self._asking.may(client)

    def known(self, request: bytes) -> bytes | None:
        """The reply to a request (its whole netstring) from memory, if it is true now."""
        row = self._known.get(request)
        if row is None:
            return None
        self._hits += 1
        if row.value.asked:
            self._context.lookups.note_asked(row.value.asked, self._context.clock())
        return row.value.octets

    async def answer(self, request: bytes) -> bytes:
        """The reply to a request (what its netstring holds). Never raises."""
        name, key = wire.read(request)
        named = self._context.rules().policies.get(name)
        if named is None:
            return wire.perm(NO_MAP)
        address = parse_address(key) if "@" in key else None
        if address is None:
            return wire.NOTFOUND
        number = self._context.budget.number
        verdict = await self._asking.ask(address, named.policy)
        reply = reply_to(verdict, named)
        if verdict.keep and verdict.word is not Word.UNKNOWN:
            self._keep(wire.netstring(request), Reply(reply, asked(verdict)), verdict, number)
        return reply

    def report(self) -> None:
        """Tell the hits since the last time."""
        if self._hits:
            self._tell(self._hits)
        self._hits = 0

    def _keep(self, request: bytes, reply: Reply, verdict: Verdict, number: int) -> None:
        budget = self._context.budget
        segment = budget.found if verdict.word is Word.YES else budget.absent
        ground = Ground(verdict.names, verdict.until, number)
        self._known.keep(request, reply, len(request) + len(reply.octets), ground, segment)


def reply_to(verdict: Verdict, named: NamedPolicy) -> bytes:
    """What a map says by a verdict."""
    if verdict.word in (Word.YES, Word.REJECT):
        return wire.ok(named.told(verdict))
    if verdict.word is Word.UNKNOWN and named.tempfail:
        return wire.temp(": ".join(filter(None, (joined(verdict.missing), verdict.reason))))
    return wire.NOTFOUND


class SocketmapConnection(asyncio.Protocol):
    """A mail server's connection."""

    def __init__(self, server: SocketmapServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._client = UNIX
        self._reader = wire.Reader()
        self._asking: asyncio.Task[None] | None = None
        self._since = server.tick
        """The second at which what is going on began: silence, a request in parts, a reply that nobody reads."""
        self._first = True
        self._full = False
        self._later = False
        self._last = False
        """What has come is the last; then the connection ends."""

    # what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it in, or end it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such
        self._client = peer_of(transport)
        if self._server.admit(self, self._client, transport):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for a reply any more."""
        self._transport = None
        if self._asking is not None:
            self._asking.cancel()
        self._server.leave(self, self._client)

    def data_received(self, data: bytes) -> None:
        """Requests, or parts of one."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._reader.empty:
            if not self._waits and (reply := self._server.known(data)) is not None:
                self._write(reply)
                return
            self._since = self._server.tick
        self._reader.add(data)
        self._serve()

    def eof_received(self) -> bool:
        """What was asked for before is still answered."""
        self._last = True
        return self._waits

    def pause_writing(self) -> None:
        """It does not read what is written."""
        self._full, self._since = True, self._server.tick
        self._gate()

    def resume_writing(self) -> None:
        """It reads again."""
        self._full, self._since = False, self._server.tick
        self._serve()

    # what the server calls

    def sweep(self, tick: int) -> None:
        """End what has lasted too long, and who may not ask any more."""
        pressing = self._first or self._full or not self._reader.empty
        silent = self._asking is None and tick - self._since > (PARTIAL if pressing else IDLE)
        if silent or not self._server.allows(self._client):
            self.abort()

    async def drain(self, seconds: float) -> None:
        """End it as soon as the request under way is answered."""
        self._last = True
        if self._asking is None and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    # serving

    @property
    def _waits(self) -> bool:
        return self._full or self._later or self._asking is not None

    def _serve(self) -> None:
        """Answer what has come, in order, until a request has to wait."""
        if self._transport is None or self._transport.is_closing():
            return
        for _ in range(AT_ONCE):
            if self._waits:
                break
            try:
                request = self._reader.next()
            except Malformed as problem:
                _LOG.warning("socketmap connection closed", extra={"facts": {"reason": str(problem)}})
                self.abort()
                return
            if request is None:
                break
            if (reply := self._server.known(wire.netstring(request))) is not None:
                self._write(reply)
            else:
                self._asking = asyncio.get_running_loop().create_task(self._ask(request))
        else:
            self._later = True
            asyncio.get_running_loop().call_soon(self._go_on)
        self._gate()
        if self._last and not self._waits:
            self._transport.close()

    def _go_on(self) -> None:
        self._later = False
        self._serve()

    async def _ask(self, request: bytes) -> None:
        reply = await self._server.answer(request)
        self._asking = None
        if self._transport is not None and not self._transport.is_closing():
            self._write(reply)
            self._serve()

    def _write(self, reply: bytes) -> None:
        assert self._transport is not None
        self._transport.write(reply)
        self._first = False
        self._since = self._server.tick

    def _gate(self) -> None:
        """Read on, or stop reading."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._waits:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


async def _open(opening: Opening) -> SocketmapServer:
    verdict, context = opening.config.verdict, opening.context
    unix = verdict.socketmap_listen is not None and verdict.socketmap_listen.unix is not None
    asking = Asking(SOCKETMAP.name, context, opening.verdicts, opening.note_verdict, unix)
    return SocketmapServer(asking, opening.config.limits.connections_per_client, opening.tell)


SOCKETMAP = Face("socketmap", "inet", _open)
