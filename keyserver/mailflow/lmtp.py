"""The LMTP sink: takes copies of mail, answers for each recipient, and discards them once they are read."""

from __future__ import annotations

from keyserver.mailflow.direction import sender_of
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import ArrivingMail
from keyserver.mailflow.server import MailConnection, MailServer
from keyserver.mailflow.values import Envelope, Way
from keyserver.model import Malformed
from keyserver.wire import mime
from keyserver.wire.lmtp import Begin, Content, Event, Session, Transaction

IDLE = 300  # seconds (RFC 5321 section 4.5.3.2)
FIRST = 30  # seconds until the first whole command
MAX_CONNECTIONS = 200


class Connection(MailConnection):
    """A mail server's connection."""

    def __init__(self, intake: Intake, name: str, server: MailServer) -> None:
        super().__init__(server)
        self._intake = intake
        self._session = Session(name, self._write)
        self._holding: ArrivingMail | None = None
        self._transaction = Transaction()

    @property
    def patience(self) -> int:
        """Less for who has not said what he is."""
        return IDLE if self._session.greeted else FIRST

    def turn_away(self, reason: str) -> None:
        self._write(f"421 4.3.2 {reason}\r\n".encode())
        self._close()

    def begin(self) -> None:
        """The server speaks first."""
        self._write(self._session.greeting())

    def take(self, data: bytes) -> None:
        """Commands and content, as they come."""
        if self._holding is not None or b"\n" in data:  # half a command is nothing heard
            self.heard = self.server.tick
        try:
            for event in self._session.feed(data):
                self._take(event)
        except Malformed as problem:
            self._write(f"500 5.5.2 {problem}\r\n".encode())
            self._close()
        if self._session.closing:
            self._close()

    def _take(self, event: Event) -> None:
        if isinstance(event, Begin):
            self._transaction = event.transaction
            self._holding = ArrivingMail(self._intake.memory, mime.MAX_MESSAGE)
        elif self._holding is None:
            return
        elif isinstance(event, Content):
            self._holding.add(event.octets)
        else:
            holding, self._holding = self._holding, None
            said = self._transaction
            sender = sender_of(said.sender)
            envelope = Envelope(Way.LMTP, client=said.client, sender=sender, queue_id=said.queue_id[:100])
            self._intake.offer(envelope, holding)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over; a mail that was under way will come again."""
        if self._holding is not None:
            self._holding.free()
            self._holding = None
        super().connection_lost(exc)

    def _write(self, octets: bytes) -> None:
        if self.transport is not None:
            self.transport.write(octets)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()
