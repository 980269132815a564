"""The milter: reads along, answers "go on" at once whatever happens inside, and never changes anything.

The mail server is asked to send as little as possible and to wait only twice, at the end of the headers and of the
mail. What the headers alone show to be outbound is accepted there: its body is not even sent.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from enum import Enum, auto

from keyserver.mailflow.direction import ip_of, sender_of
from keyserver.mailflow.harvest import headers_only
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import ArrivingMail
from keyserver.mailflow.server import MailConnection, MailServer
from keyserver.mailflow.values import Envelope, Way
from keyserver.model import Malformed
from keyserver.wire import milter, mime
from keyserver.wire.milter import Ask, Frame, Protocol

MAX_CONNECTIONS = 1000


class Stage(Enum):
    """How far a mail server has come on a connection."""

    SILENT = auto()  # nothing whole has been said
    WAITING = auto()  # negotiated, no client of the mail server yet, or none any more
    SERVING = auto()  # the mail server has a client


PATIENCE = {Stage.SILENT: 10, Stage.WAITING: 300, Stage.SERVING: 7300}
"""Seconds of silence: a mail comes as slowly as its client sends it; libmilter's own limit is 7210."""

_WANTED = (
    Protocol.NO_HELO
    | Protocol.NO_RECIPIENT
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
_MACROS = {0: "{daemon_addr} {if_addr}", 2: "{auth_authen}", 5: "i", 6: "i"}
_KEPT = frozenset({"daemon_addr", "if_addr", "auth_authen", "i"})
MAX_MACRO = 1024  # characters of a macro's value that are kept
_LOG = logging.getLogger("keyserver.mailflow")


class Conversation:
    """One connection with a mail server, without its socket: frames in, answers out."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._flags = Protocol(0)
        self._macros: dict[str, str] = {}
        self._client = ""
        self._sender = ""
        self._headers: list[bytes] = []
        self._holding: ArrivingMail | None = None
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
            _LOG.exception("a mail could not be taken")
            self.drop()
        if frame.letter not in milter.ANSWERED or self._flags & milter.SILENCED.get(Ask(frame.letter), Protocol(0)):
            return b""
        return milter.ACCEPT if accepted else milter.CONTINUE

    def drop(self) -> None:
        """Forget the mail under way."""
        if self._holding is not None:
            self._holding.free()
        self._holding = None
        self._headers = []
        self._sender = ""

    def _negotiate(self, data: bytes) -> bytes:
        version, actions, offered = milter.negotiated(data)
        self._flags = Protocol(_WANTED & offered)
        named = bool(actions & milter.SET_MACROS)
        return milter.negotiation(
            min(version, milter.VERSION),
            milter.SET_MACROS if named else 0,
            int(self._flags),
            _MACROS if named else {},
        )

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
                self._sender = milter.mail_from(frame.data)
            case Ask.HEADER:
                self._header(frame)
            case Ask.HEADERS_END:
                return self._headers_end()
            case Ask.BODY:
                self._body(frame)
            case Ask.END:
                self._body(frame)
                self._end()
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

    def _held(self) -> ArrivingMail:
        if self._holding is None:
            self._holding = ArrivingMail(self._intake.memory, mime.MAX_MESSAGE)
        return self._holding

    def _header(self, frame: Frame) -> None:
        holding = self._held()
        if frame.cut:
            holding.cut = True
            return
        field = milter.header(frame.data)
        holding.add(field)
        if holding.size <= mime.MAX_HEADERS:
            self._headers.append(field)

    def _headers_end(self) -> bool:
        holding = self._held()
        fields = mime.read_fields(b"".join(self._headers))
        self._headers = []
        holding.add(b"\r\n")
        if holding.cut or headers_only(fields, self._envelope(), self._intake.rules()) is None:
            return False
        self._end()
        return True

    def _body(self, frame: Frame) -> None:
        if self._holding is None:  # accepted at the end of its headers, or no mail at all
            return
        if frame.cut:
            self._holding.cut = True
        elif frame.data:
            self._holding.add(frame.data)

    def _end(self) -> None:
        """The mail is complete: hand it on. The macros of one mail do not hold for the next."""
        if self._holding is not None:
            holding, self._holding = self._holding, None
            self._intake.offer(self._envelope(), holding)
        self._sender = ""
        for name in ("i", "auth_authen"):
            self._macros.pop(name, None)

    def _envelope(self) -> Envelope:
        known = (self._macros.get(name, "") for name in ("daemon_addr", "if_addr"))
        return Envelope(
            way=Way.MILTER,
            local=next((address for address in known if ip_of(address) is not None), ""),
            client=self._client,
            user=self._macros.get("auth_authen", ""),
            sender=sender_of(self._sender),
            queue_id=self._macros.get("i", "")[:100],
        )


class Connection(MailConnection):
    """A mail server's connection."""

    def __init__(self, intake: Intake, server: MailServer) -> None:
        super().__init__(server)
        self._conversation = Conversation(intake)
        self._reader = milter.Reader()

    @property
    def patience(self) -> int:
        """Much in the middle of a session; little before a client of the mail server is there."""
        return PATIENCE[self._conversation.stage]

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
                if answer := self._conversation.answer(frame):
                    self.transport.write(answer)
                if self._conversation.over:
                    self.transport.close()
                    return
        except Malformed as problem:
            _LOG.warning("milter connection closed", extra={"facts": {"reason": str(problem)}})
            self.transport.abort()

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
        self._conversation.drop()
        super().connection_lost(exc)
