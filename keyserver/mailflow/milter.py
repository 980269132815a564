"""The milter of the harvest: reads along, answers "go on" at once, and never changes anything.

What the headers alone show to be outbound is accepted there: its body is not even sent.
"""

from __future__ import annotations

from keyserver.mailflow import conversation
from keyserver.mailflow.conversation import MAX_CONNECTIONS as MAX_CONNECTIONS
from keyserver.mailflow.conversation import MilterConnection
from keyserver.mailflow.harvest import headers_only
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import ArrivingMail
from keyserver.mailflow.server import MailServer
from keyserver.wire import milter, mime
from keyserver.wire.milter import Frame, Protocol

_WANTED = conversation.QUIETLY | Protocol.NO_RECIPIENT
_MACROS = {0: "{daemon_addr} {if_addr}", 2: "{auth_authen}", 5: "i", 6: "i"}


class Conversation(conversation.Conversation):
    """One connection with a mail server, without its socket: frames in, answers out."""

    def __init__(self, intake: Intake) -> None:
        super().__init__(_WANTED, macros=_MACROS)
        self._intake = intake
        self._headers: list[bytes] = []
        self._holding: ArrivingMail | None = None

    def drop(self) -> None:
        """Forget the mail under way."""
        if self._holding is not None:
            self._holding.free()
        self._holding = None
        self._headers = []
        super().drop()

    def _held(self) -> ArrivingMail:
        if self._holding is None:
            self._holding = ArrivingMail(self._intake.memory, mime.MAX_MESSAGE)
        return self._holding

    def recipient(self, frame: Frame) -> None:
        """A recipient: of no interest, and sent only by mail servers that cannot leave them out."""

    def header(self, frame: Frame) -> None:
        """A header field."""
        holding = self._held()
        if frame.cut:
            holding.cut = True
            return
        field = milter.header(frame.data)
        holding.add(field)
        if holding.size <= mime.MAX_HEADERS:
            self._headers.append(field)

    def headers_end(self) -> bool:
        """Do they show that nothing is to be harvested here?"""
        holding = self._held()
        fields = mime.read_fields(b"".join(self._headers))
        self._headers = []
        holding.add(b"\r\n")
        if holding.cut or headers_only(fields, self.envelope(), self._intake.rules()) is None:
            return False
        self.end()
        return True

    def body(self, frame: Frame) -> None:
        """A piece of the body."""
        if self._holding is None:  # accepted at the end of its headers, or no mail at all
            return
        if frame.cut:
            self._holding.cut = True
        elif frame.data:
            self._holding.add(frame.data)

    def end(self) -> None:
        """The mail is complete: hand it on."""
        if self._holding is not None:
            holding, self._holding = self._holding, None
            self._intake.offer(self.envelope(), holding)
        self.mail_over()


class Connection(MilterConnection):
    """A mail server's connection."""

    def __init__(self, intake: Intake, server: MailServer) -> None:
        super().__init__(server, Conversation(intake))
