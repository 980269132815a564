"""One LDAP connection: octets in, messages handled, replies out. What connections share lives in `server`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol

from keyserver.faces.context import FaceContext
from keyserver.faces.ldap.bind import Account, authenticate
from keyserver.faces.ldap.paging import Pages
from keyserver.faces.ldap.search import Offer, Rendered, Searches, render
from keyserver.faces.ldap.session import Session, Shared
from keyserver.faces.ldap.tree import SearchReply
from keyserver.listen.server import peer_of
from keyserver.listen.trust import UNIX, loopback
from keyserver.model import Malformed
from keyserver.wire import ldap as wire
from keyserver.wire.ber import number
from keyserver.wire.ldap import Code, Control, Message, SearchRequest
from keyserver.wire.loop import LOOP_CONTROL, LOOP_MARK, via_value

PIECE = 64 * 1024  # octets written before looking whether the client reads
GUESSES = 10  # binds with wrong credentials, then the connection ends: some clients try without end

_log = logging.getLogger(__name__)


class Held(NamedTuple):
    """What a connection holds at one moment."""

    octets: int  # received and not handled yet
    searches: int  # under way
    pages: int  # cookies of paged searches
    unsent: int  # octets that the client has not read
    stalled: bool  # nothing more is written before it reads


class Answering(Shared, Protocol):
    """What the connections of one view share."""

    context: FaceContext
    searches: Searches
    account: Account | None
    malformed: int
    """Connections ended for what they sent."""


class Connection(Session[Answering]):
    """The protocol of one client."""

    def __init__(self, server: Answering, tls: bool, client: str | None = None) -> None:
        super().__init__(server, tls, client)
        self._offer: Offer | None = None
        self._identity = ""  # who has bound (RFC 4513 section 5.2.1.8), empty for anonymous
        self._guesses = 0  # binds with wrong credentials
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._pages = Pages()
        self._writable = asyncio.Event()
        self._writable.set()
        self._bulky = False  # is a long reply from memory being sent? The next message waits

    # transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._offer = transport.get_extra_info("ldap_answers")
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone, whoever closed."""
        self._give_up()
        self._writable.set()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        """The client does not read what we wrote."""
        self._writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()
        super().resume_writing()

    # messages

    @property
    def _blocked(self) -> bool:
        return self._bulky or self._full or self._upgrade is not None

    @property
    def _busy(self) -> bool:
        return bool(self._under_way) or super()._busy

    def _known(self, request: bytes) -> Rendered | None:
        rendered = self._server.searches.known(request, self._offer)
        return rendered if rendered is not None and rendered.octets <= PIECE else None

    def _malformed(self, octets: bytes, problem: Malformed) -> None:
        self._server.malformed += 1
        self.dismiss(Code.PROTOCOL_ERROR, str(problem))

    def _handle(self, octets: bytes, id_element: bytes, request: bytes, more: bool) -> None:
        message = wire.decode(octets, 0, len(octets))
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
                self._search(message, operation, id_element, b"" if message.controls else request)
            case wire.ExtendedRequest():
                self._extended(message.id, operation, more)
            case wire.Other(tag):
                self._refuse(message.id, tag, Code.UNWILLING, "this directory is read-only")

    def _bind(self, message_id: int, bind: wire.BindRequest) -> None:
        """A bind ends what is under way, and makes the client anonymous where it fails (RFC 4511 section 4.2.1)."""
        self._give_up()
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
        self._upgrade = self._server.loop.create_task(self._handshake())

    async def _secured(self, transport: asyncio.Transport) -> asyncio.Transport | None:
        elsewhere: Callable[[], Awaitable[asyncio.Transport | None]] | None = transport.get_extra_info("start_tls")
        # another process may have the socket
        return await (elsewhere() if elsewhere is not None else super()._secured(transport))

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
                reply, paging = self._pages.cut(control, search, reply)
                controls.append(paging)
        if _looped(message, self._server.context.instance):
            controls.append(Control(LOOP_CONTROL, value=LOOP_MARK))
        return render(reply), tuple(controls)

    # the end

    def held(self) -> Held:
        """What it holds now."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return Held(len(self._rest), len(self._under_way), len(self._pages), unsent, self._full)

    def alive(self) -> None:
        """The client was here; another process has answered it from memory."""
        self._moved = self._server.tick

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

    def _close(self) -> None:
        self._give_up()
        super()._close()

    def _give_up(self) -> None:
        """Nobody waits for what is under way."""
        for task in self._under_way.values():
            task.cancel()
        self._under_way.clear()

    def _refuse(self, message_id: int, tag: int, code: Code, text: str) -> None:
        """A result and nothing else, for the request with this tag."""
        self._write(wire.envelope(message_id, wire.result(wire.RESPONSE[tag], code, text)))


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
