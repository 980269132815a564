"""One LDAP connection: octets in, messages handled, replies out. What connections share lives in `server`."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import ssl
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol, cast

from keyserver.faces.context import FaceContext
from keyserver.faces.ldap.bind import Account, authenticate
from keyserver.faces.ldap.search import Offer, Rendered, Searches, render
from keyserver.faces.ldap.tree import SearchReply
from keyserver.listen.server import peer_of
from keyserver.listen.trust import UNIX, Trust, loopback
from keyserver.model import Malformed
from keyserver.wire import ldap as wire
from keyserver.wire.ber import measure, number
from keyserver.wire.ldap import Code, Control, Message, SearchRequest
from keyserver.wire.loop import LOOP_CONTROL, LOOP_MARK, via_value

AT_ONCE = 16  # messages handled before other connections have their turn
TURN = 0.002  # seconds after which they have it anyway
PIECE = 64 * 1024  # octets written before looking whether the client reads
PAGED_SEARCHES = 8  # for which a connection's cookies are remembered
COOKIE = 16  # octets
GUESSES = 10  # binds with wrong credentials, then the connection ends: some clients try without end

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _PagedSearch:
    """Where a paged search goes on."""

    search: SearchRequest
    offset: int


class Held(NamedTuple):
    """What a connection holds at one moment."""

    octets: int  # received and not handled yet
    searches: int  # under way
    pages: int  # cookies of paged searches
    unsent: int  # octets that the client has not read
    stalled: bool  # nothing more is written before it reads


@dataclass(frozen=True, slots=True)
class LdapLimits:
    """What one connection, and one client, may take. Times are seconds."""

    connections: int = 1024
    connections_per_client: int = 64
    trust: Trust = field(default_factory=Trust)
    outstanding: int = 32  # searches under way on one connection
    idle: int = 60  # without a message
    first: int = 10  # for the first message, the second half of one, a TLS handshake
    stalled: int = 30  # without reading what we wrote


class Shared(Protocol):
    """What the connections of one view share, as one of them sees it."""

    context: FaceContext
    limits: LdapLimits
    searches: Searches
    account: Account | None
    tls: ssl.SSLContext | None
    loop: asyncio.AbstractEventLoop
    tick: int
    """Seconds since it opened."""
    malformed: int
    """Connections ended for what they sent."""

    def enter(self, connection: Connection, client: str, transport: asyncio.BaseTransport) -> str:
        """A connection begins; else why it may not."""

    def leave(self, connection: Connection, client: str) -> None:
        """A connection is gone."""

    def admit(self) -> bool:
        """May messages be handled now?"""

    def wait(self, connection: Connection) -> None:
        """Call its `go_on` when its turn has come."""


class Connection(asyncio.Protocol):
    """The protocol of one client."""

    def __init__(self, server: Shared, tls: bool, client: str | None = None) -> None:
        self._server = server
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._offer: Offer | None = None
        self._client = client
        """Its address; before the connection is made only where a proxy named it."""
        self._identity = ""  # who has bound (RFC 4513 section 5.2.1.8), empty for anonymous
        self._guesses = 0  # binds with wrong credentials
        self._entered = False
        self._rest = bytearray()  # octets not handled yet: half a message, or whole ones that wait
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._upgrade: asyncio.Task[None] | None = None
        self._pages: dict[bytes, _PagedSearch] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._bulky = False  # is a long reply from memory being sent? The next message waits
        self._waiting = False  # whole messages wait in `_rest`
        self._greeted = False  # has one whole message come?
        self._ended = False
        self._moved = server.tick  # when something last went forward
        self._half = server.tick  # since when `_rest` holds half a message

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._offer = transport.get_extra_info("ldap_answers")
        if self._client is None:
            self._client = peer_of(transport)
        refused = self._server.enter(self, self._client, transport)
        self._entered = not refused
        if refused:
            self.dismiss(Code.UNAVAILABLE, refused)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, whoever closed."""
        self._ended = True
        for task in self._under_way.values():
            task.cancel()
        self._under_way.clear()
        self._writable.set()
        if self._entered:
            self._entered = False
            self._server.leave(self, self._client or UNIX)

    def pause_writing(self) -> None:
        """The client does not read what we wrote."""
        self._writable.clear()
        self._moved = self._server.tick
        if self._transport is not None and not self._ended:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()
        self._moved = self._server.tick
        self.go_on()

    def data_received(self, data: bytes) -> None:
        """Octets of the client."""
        if self._ended:
            return
        if self._waiting:  # more before its turn has come
            self._rest += data
            if self._transport is not None:
                self._transport.pause_reading()
            return
        if not self._rest:
            self._half = self._server.tick
        if not self._server.admit():
            self._rest += data
            self._waiting = True
            self._server.wait(self)
            return
        if self._rest:
            self._rest += data
            data = bytes(self._rest)
            self._rest.clear()
        self._consume(data)

    def _consume(self, data: bytes) -> None:
        """Handle whole messages, as many as are one connection's turn; what is left waits in `_rest`."""
        at, turn = 0, AT_ONCE
        searches, monotonic = self._server.searches, self._server.context.monotonic
        began = monotonic()
        self._waiting = False
        try:
            while (size := measure(data, at, wire.MAX_MESSAGE)) is not None and at + size <= len(data):
                if at and monotonic() - began > TURN:
                    turn = 0
                if turn == 0 or self._blocked:
                    self._waiting = True
                    break
                turn -= 1
                end = at + size
                id_at, key_at = wire.split(data, at, end)
                key = data[key_at:end]
                if key == wire.GOODBYE:
                    self._close()
                    return
                rendered = searches.known(key, self._offer)
                if rendered is not None and rendered.octets <= PIECE:
                    self._write(rendered.messages(data[id_at:key_at]))
                else:
                    self._handle(wire.decode(data, at, end), data[id_at:key_at], key, end < len(data))
                if self._ended:
                    return
                at = end
        except Malformed as problem:
            self._server.malformed += 1
            self.dismiss(Code.PROTOCOL_ERROR, str(problem))
            return
        if at:
            self._moved = self._half = self._server.tick
            self._greeted = True
        if at < len(data):
            self._rest += data[at:]
        if self._waiting and self._transport is not None:
            self._transport.pause_reading()
            if turn == 0:
                self._server.wait(self)

    @property
    def _blocked(self) -> bool:
        """Must messages wait?"""
        return self._bulky or self._upgrade is not None or not self._writable.is_set()

    def go_on(self) -> None:
        """Messages that waited have their turn; then the client is read again."""
        if self._ended or self._blocked or self._transport is None:
            return
        if self._waiting:
            data = bytes(self._rest)
            self._rest.clear()
            self._consume(data)
        if not self._waiting and not self._ended and not self._blocked:
            self._transport.resume_reading()

    # messages

    def _handle(self, message: Message, id_element: bytes, key: bytes, more: bool) -> None:
        """One request. `more`: the client has sent something behind it."""
        operation = message.operation
        match operation:
            case wire.UnbindRequest():
                self._close()
            case wire.AbandonRequest(message_id):
                if task := self._under_way.pop(message_id, None):
                    task.cancel()
            case wire.Excess(tag, reason):
                self._refuse(message.id, tag, Code.ADMIN_LIMIT, reason)
            case _ if (unknown := _unknown_critical(message)) is not None:
                text = f"the critical control {unknown[:64]} is not known here"
                self._refuse(message.id, _tag(operation), Code.CRITICAL_EXTENSION, text)
            case wire.BindRequest():
                self._bind(message.id, operation)
            case SearchRequest():
                self._search(message, operation, id_element, b"" if message.controls else key)
            case wire.ExtendedRequest():
                self._extended(message.id, operation, more)
            case wire.Other(tag):
                self._refuse(message.id, tag, Code.UNWILLING, "this directory is read-only")

    def _bind(self, message_id: int, bind: wire.BindRequest) -> None:
        """A bind ends what is under way, and makes the client anonymous where it fails (RFC 4511 section 4.2.1)."""
        for task in self._under_way.values():
            task.cancel()
        self._under_way.clear()
        said = authenticate(bind, self._server.account, confidential=self._confidential)
        self._identity = said.identity
        self._refuse(message_id, wire.BIND, said.code, said.text)
        if said.code is Code.INVALID_CREDENTIALS:
            self._guesses += 1
            if self._guesses >= GUESSES:
                self.dismiss(Code.UNWILLING, "too many binds with wrong credentials")

    @property
    def _confidential(self) -> bool:
        """Can nobody on the way read what the client sends: TLS, loopback, or a Unix socket?"""
        if self._tls or self._transport is None:
            return self._tls
        # Behind a proxy both ways count: the client's to it, and its own to us.
        return all(address == UNIX or loopback(address) for address in (peer_of(self._transport), self._client or UNIX))

    def _extended(self, message_id: int, extended: wire.ExtendedRequest, more: bool) -> None:
        if extended.oid == wire.WHO_AM_I:
            who = wire.result(wire.EXTENDED_RESPONSE, Code.SUCCESS, value=self._identity.encode())
            self._write(wire.envelope(message_id, who))
        elif extended.oid == wire.START_TLS and self._server.tls is not None:
            self._start_tls(message_id, more)
        else:
            text = "only Who am I is known here" + (", and StartTLS" if self._server.tls is not None else "")
            self._refuse(message_id, wire.EXTENDED, Code.PROTOCOL_ERROR, text)

    def _start_tls(self, message_id: int, more: bool) -> None:
        """RFC 4511 section 4.14. Octets that already stand behind the request would be read as if they had come
        through TLS: nobody honest sends them, so that connection ends."""
        if more:
            self.abort()
            return
        if self._tls or self._under_way:
            text = "TLS is on already" if self._tls else "searches are under way"
            self._refuse(message_id, wire.EXTENDED, Code.OPERATIONS_ERROR, text)
            return
        assert self._transport is not None
        response = wire.result(wire.EXTENDED_RESPONSE, Code.SUCCESS, oid=wire.START_TLS)
        self._write(wire.envelope(message_id, response))
        self._transport.pause_reading()
        self._upgrade = self._server.loop.create_task(self._handshake(self._transport))

    async def _handshake(self, transport: asyncio.Transport) -> None:
        assert self._server.tls is not None
        seconds = float(self._server.limits.first)
        try:
            elsewhere = transport.get_extra_info("start_tls")
            if elsewhere is not None:  # another process has the socket
                upgraded = await elsewhere()
            else:
                upgraded = await self._server.loop.start_tls(
                    transport, self, self._server.tls, server_side=True, ssl_handshake_timeout=seconds
                )
        except (OSError, asyncio.CancelledError):
            transport.abort()
            self.connection_lost(None)
            return
        if upgraded is None or self._ended:
            transport.abort()
            self.connection_lost(None)
            return
        self._transport, self._tls, self._upgrade = upgraded, True, None
        self._moved = self._server.tick
        self.go_on()  # the first message may have come with the handshake's last octets

    # searches

    def _search(self, message: Message, search: SearchRequest, id_element: bytes, key: bytes) -> None:
        """Answer from memory at once, or begin a task that answers."""
        searches = self._server.searches
        plan = searches.plan(search, key)
        if isinstance(plan, SearchReply):
            self._reply(id_element, message, search, plan)
            return
        offer = partial(self._offer, key) if self._offer is not None else None
        reply = searches.at_once(plan, offer)
        if reply is not None and sum(map(len, reply.entries)) <= PIECE:
            self._reply(id_element, message, search, reply)
            return
        if len(self._under_way) >= self._server.limits.outstanding:
            self._refuse(message.id, wire.SEARCH, Code.BUSY, "too many searches under way on this connection")
            return

        async def answer() -> None:
            try:
                late = reply
                if late is None:
                    looped = _looped(message, self._server.context.instance)
                    late = await searches.answer(plan, self._client, looped, search.time_limit, offer)
                await self._send(message, search, late)
            except Exception:
                _log.exception("a search failed")
                self._refuse(message.id, wire.SEARCH, Code.OTHER, "an error of ours; please try again later")
            finally:
                if self._under_way.get(message.id) is task:
                    del self._under_way[message.id]
                if reply is not None:
                    self._bulky = False
                    self.go_on()

        self._bulky = reply is not None
        task = self._server.loop.create_task(answer())
        if before := self._under_way.get(message.id):  # the same ID twice: the first is given up
            before.cancel()
        self._under_way[message.id] = task

    def _reply(self, id_element: bytes, message: Message, search: SearchRequest, reply: SearchReply) -> None:
        rendered, controls = self._render(message, search, reply)
        self._write(rendered.messages(id_element) if not controls else _with(message.id, rendered, controls))

    async def _send(self, message: Message, search: SearchRequest, reply: SearchReply) -> None:
        """As `_reply`, but no faster than the client reads."""
        rendered, controls = self._render(message, search, reply)
        *entries, done = rendered.operations
        for operation in (*entries, done):  # whole messages: other replies may come between them
            await self._writable.wait()
            self._write(wire.envelope(message.id, operation, controls if operation is done else ()))
        self._moved = self._server.tick

    def _render(
        self, message: Message, search: SearchRequest, reply: SearchReply
    ) -> tuple[Rendered, tuple[Control, ...]]:
        """The part of a reply that goes out now, and the controls of its result."""
        controls: list[Control] = []
        for control in message.controls:
            if control.oid == wire.PAGED:
                reply, paging = self._page(control, search, reply)
                controls.append(paging)
        if _looped(message, self._server.context.instance):
            controls.append(Control(LOOP_CONTROL, value=LOOP_MARK))
        return render(reply), tuple(controls)

    def _page(self, control: Control, search: SearchRequest, reply: SearchReply) -> tuple[SearchReply, Control]:
        """Paged results (RFC 2696). A cookie is good for the same search on this connection; the search is done
        again, which costs less than holding its entries for a client that may not come back."""
        try:
            size, cookie = wire.read_page(control)
        except Malformed as problem:
            return SearchReply((), Code.PROTOCOL_ERROR, f"paged results: {problem}"), wire.page_control(0, b"")
        offset = 0
        if cookie:
            page = next((self._pages.pop(c) for c in list(self._pages) if hmac.compare_digest(c, cookie)), None)
            if page is None or page.search != search:
                text = "paged results: the cookie does not belong to this search"
                return SearchReply((), Code.UNWILLING, text), wire.page_control(0, b"")
            offset = page.offset
        total, left = len(reply.entries), reply.entries[offset:]
        if size == 0 or len(left) <= size:
            last = reply if size or not cookie else SearchReply((), Code.SUCCESS)
            return SearchReply(left if size or not cookie else (), last.code, last.text), wire.page_control(total, b"")
        fresh = secrets.token_bytes(COOKIE)
        self._pages[fresh] = _PagedSearch(search, offset + size)
        while len(self._pages) > PAGED_SEARCHES:
            del self._pages[next(iter(self._pages))]
        return SearchReply(left[:size], Code.SUCCESS), wire.page_control(total, fresh)

    # the end

    def held(self) -> Held:
        """What it holds now."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return Held(len(self._rest), len(self._under_way), len(self._pages), unsent, not self._writable.is_set())

    def alive(self) -> None:
        """The client was here; another process has answered it from memory."""
        self._moved = self._server.tick

    def sweep(self, tick: int) -> None:
        """Look for what takes too long; once a second."""
        limits, waited = self._server.limits, tick - self._moved
        if self._ended or not self._writable.is_set():
            if waited > limits.stalled:
                self.abort()
        elif self._upgrade is not None or self._under_way or self._waiting:
            return
        elif self._rest and tick - self._half > limits.first:
            self.dismiss(Code.UNAVAILABLE, f"half a message for {limits.first} seconds")
        elif waited > (limits.idle if self._greeted else limits.first):
            self.dismiss(Code.UNAVAILABLE, "idle for too long")

    async def drain(self, seconds: float) -> None:
        """End as soon as nothing is under way; the server shuts down."""
        if not self._under_way and self._upgrade is None:
            self.dismiss(Code.UNAVAILABLE, "the server shuts down")
            return
        for task in self._under_way.values():
            task.add_done_callback(lambda _: self._server.loop.call_soon(self._drained))

    def _drained(self) -> None:
        if not self._under_way:
            self.dismiss(Code.UNAVAILABLE, "the server shuts down")

    def dismiss(self, code: Code, text: str) -> None:
        """Notice of disconnection, then close (RFC 4511 section 4.4.1)."""
        if not self._ended:
            self._write(wire.notice(code, text))
            self._close()

    def abort(self) -> None:
        """Close without another octet."""
        self._ended = True
        if self._upgrade is not None:
            self._upgrade.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        self._ended = True
        for task in self._under_way.values():
            task.cancel()
        self._under_way.clear()
        if self._transport is not None:
            self._transport.close()

    def _refuse(self, message_id: int, tag: int, code: Code, text: str) -> None:
        """A result and nothing else, for the request with this tag."""
        self._write(wire.envelope(message_id, wire.result(wire.RESPONSE[tag], code, text)))

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)


def _with(message_id: int, rendered: Rendered, controls: tuple[Control, ...]) -> bytes:
    """A reply whose result bears controls."""
    *entries, done = rendered.operations
    head = Rendered(tuple(entries)).messages(number(message_id))
    return head + wire.envelope(message_id, done, controls)


def _looped(message: Message, instance: str) -> bool:
    """Has this search been here before? It bears our own name then."""
    mine = via_value(instance)
    return bool(instance) and any(c.oid == LOOP_CONTROL and c.value == mine for c in message.controls)


def _unknown_critical(message: Message) -> str | None:
    """The OID of a critical control that we do not know, or that does not belong to this operation."""
    known = (wire.PAGED, LOOP_CONTROL, wire.MANAGE_DSA_IT) if isinstance(message.operation, SearchRequest) else ()
    return next((c.oid for c in message.controls if c.critical and c.oid not in known), None)


def _tag(operation: wire.Operation) -> int:
    match operation:
        case wire.BindRequest():
            return wire.BIND
        case SearchRequest():
            return wire.SEARCH
        case wire.ExtendedRequest():
            return wire.EXTENDED
        case wire.Other(tag) | wire.Excess(tag):
            return tag
    raise AssertionError("this operation has no result")
