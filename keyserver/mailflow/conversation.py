"""A conversation with a mail server by the milter protocol, as far as it is the same for all of our milters.

The mail server is asked to send as little as possible and to wait only at the end of the headers and of the mail.
Whatever happens inside, each of its questions has an answer, and the answer lets the mail go on.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Enum, auto

from keyserver.mailflow.direction import ip_of, sender_of
from keyserver.mailflow.server import MailConnection, MailServer
from keyserver.mailflow.values import Envelope, Way
from keyserver.model import Malformed
from keyserver.wire import milter
from keyserver.wire.milter import Ask, Frame, Protocol

MAX_CONNECTIONS = 1000


class Stage(Enum):
    """How far a mail server has come on a connection."""

    SILENT = auto()  # nothing whole has been said
    WAITING = auto()  # negotiated, no client of the mail server yet, or none any more
    SERVING = auto()  # the mail server has a client


PATIENCE = {Stage.SILENT: 10, Stage.WAITING: 300, Stage.SERVING: 7300}
"""Seconds of silence: a mail comes as slowly as its client sends it; libmilter's own limit is 7210."""

QUIETLY = (
    Protocol.NO_HELO
    | Protocol.NO_UNKNOWN
    | Protocol.NO_DATA
    | Protocol.LEADING_SPACE
    | Protocol.SILENT_HEADER
    | Protocol.SILENT_CONNECT
    | Protocol.SILENT_HELO
    | Protocol.SILENT_MAIL
    | Protocol.SILENT_RECIPIENT
    | Protocol.SILENT_DATA
    | Protocol.SILENT_UNKNOWN
    | Protocol.SILENT_BODY
)
"""What no milter of ours wants to be sent, or asked."""

_KEPT = frozenset({"daemon_addr", "if_addr", "auth_authen", "i"})
MAX_MACRO = 1024  # characters of a macro's value that are kept
LOG = logging.getLogger("keyserver.mailflow")


class Conversation(ABC):
    """One connection with a mail server, without its socket: frames in, answers out.

    wanted: what need not be sent or answered; actions: what may be done to mail; macros: those that are asked for,
    by stage (`milter.negotiation`)."""

    def __init__(self, wanted: Protocol, actions: int = 0, macros: Mapping[int, str] | None = None) -> None:
        self._wanted = wanted
        self._actions = actions | (milter.SET_MACROS if macros else 0)
        self._asked = macros or {}
        self._flags = Protocol(0)
        self._macros: dict[str, str] = {}
        self._client = ""
        self._sender = ""
        self.may = 0
        """Actions that the mail server allows, of those that were asked for."""
        self.over = False
        self.stage = Stage.SILENT

    def answer(self, frame: Frame) -> bytes:
        """What to say to a frame, if anything. Raises Malformed for a negotiation that is none."""
        if frame.letter == Ask.NEGOTIATE:
            self.stage = Stage.WAITING
            return self._negotiate(frame.data)
        accepted = False
        try:
            accepted = self._take(frame)
        except Exception:
            # Whatever it was, it is ours, and the mail is not to suffer for it.
            LOG.exception("a mail could not be taken")
            self.drop()
        if frame.letter not in milter.ANSWERED or self._flags & milter.SILENCED.get(Ask(frame.letter), Protocol(0)):
            return b""
        return milter.ACCEPT if accepted else milter.CONTINUE

    def drop(self) -> None:
        """Forget the mail under way."""
        self._sender = ""

    @abstractmethod
    def header(self, frame: Frame) -> None:
        """A header field."""

    @abstractmethod
    def headers_end(self) -> bool:
        """Need the mail server send no more of this mail?"""

    @abstractmethod
    def body(self, frame: Frame) -> None:
        """A piece of the body."""

    @abstractmethod
    def end(self) -> None:
        """The mail is complete."""

    @abstractmethod
    def recipient(self, frame: Frame) -> None:
        """A recipient."""

    def _negotiate(self, data: bytes) -> bytes:
        version, actions, offered = milter.negotiated(data)
        self._flags = Protocol(self._wanted & offered)
        self.may = self._actions & actions
        macros = self._asked if self.may & milter.SET_MACROS else {}
        return milter.negotiation(min(version, milter.VERSION), self.may, int(self._flags), macros)

    def _take(self, frame: Frame) -> bool:
        """Note what a frame says; True where the mail server need send no more of this mail."""
        match frame.letter:
            case Ask.MACRO:
                given = milter.macros(frame.data)[1]
                self._macros |= {name: given[name][:MAX_MACRO] for name in given.keys() & _KEPT}
            case Ask.CONNECT:
                self.drop()
                self.stage = Stage.SERVING
                self._client = milter.client(frame.data)
            case Ask.MAIL:
                self.drop()
                self._sender = milter.path(frame.data)
            case Ask.RECIPIENT:
                self.recipient(frame)
            case Ask.HEADER:
                self.header(frame)
            case Ask.HEADERS_END:
                return self.headers_end()
            case Ask.BODY:
                self.body(frame)
            case Ask.END:
                self.body(frame)
                self.end()
                return True
            case Ask.ABORT:
                self.drop()
            case Ask.QUIT_REUSE:
                self.drop()
                self._macros, self._client = {}, ""
                self.stage = Stage.WAITING
            case Ask.QUIT:
                self.drop()
                self.over = True
        return False

    def mail_over(self) -> None:
        """The macros of one mail do not hold for the next."""
        self._sender = ""
        for name in ("i", "auth_authen"):
            self._macros.pop(name, None)

    def envelope(self) -> Envelope:
        """What is known of the mail under way."""
        known = (self._macros.get(name, "") for name in ("daemon_addr", "if_addr"))
        return Envelope(
            way=Way.MILTER,
            local=next((address for address in known if ip_of(address) is not None), ""),
            client=self._client,
            user=self._macros.get("auth_authen", ""),
            sender=sender_of(self._sender),
            queue_id=self._macros.get("i", "")[:100],
        )


class MilterConnection(MailConnection):
    """A mail server's connection, on which it speaks the milter protocol."""

    def __init__(self, server: MailServer, conversation: Conversation) -> None:
        super().__init__(server)
        self.conversation = conversation
        self._reader = milter.Reader()

    @property
    def patience(self) -> int:
        """Much in the middle of a session; little before a client of the mail server is there."""
        return PATIENCE[self.conversation.stage]

    def begin(self) -> None:
        """The mail server speaks first."""
        self._acknowledge()

    def take(self, data: bytes) -> None:
        """Answer every frame that is complete."""
        assert self.transport is not None
        self._acknowledge()
        try:
            for frame in self._reader.feed(data):
                self.heard = self.server.tick
                if answer := self.answer(frame):
                    self.transport.write(answer)
                if self.conversation.over:
                    self.transport.close()
                    return
        except Malformed as problem:
            LOG.warning("milter connection closed", extra={"facts": {"reason": str(problem)}})
            self.transport.abort()

    def answer(self, frame: Frame) -> bytes:
        """What to write now. Raises Malformed where the connection cannot go on."""
        return self.conversation.answer(frame)

    def _acknowledge(self) -> None:
        """Have the kernel acknowledge at once what it receives, until it decides otherwise again.

        Most commands have no answer, and the mail server's next small write waits for the acknowledgement of the last
        one (RFC 896): delayed acknowledgements would cost every mail 40 ms."""
        found = self.transport.get_extra_info("socket") if self.transport is not None else None
        if found is not None and found.family != socket.AF_UNIX and hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                found.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; a mail that was under way is forgotten."""
        self.conversation.drop()
        super().connection_lost(exc)
