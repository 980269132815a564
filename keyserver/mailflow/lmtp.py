"""The LMTP sink: takes copies of mail, answers for each recipient, and discards them once they are read."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from keyserver.mailflow.direction import sender_of
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.peers import Idle, Peers
from keyserver.mailflow.room import Holding
from keyserver.mailflow.verdict import Envelope, Way
from keyserver.model import Malformed
from keyserver.wire import mime
from keyserver.wire.lmtp import Begin, Content, Event, Session, Transaction

IDLE = 300.0  # seconds (RFC 5321 section 4.5.3.2)
MAX_CONNECTIONS = 200
_LOG = logging.getLogger("keyserver.mailflow")


class Connection(asyncio.Protocol):
    """A mail server's connection."""

    def __init__(self, intake: Intake, peers: Peers, name: str) -> None:
        self._intake = intake
        self._peers = peers
        self._session = Session(name, self._write)
        self._transport: asyncio.Transport | None = None
        self._idle: Idle | None = None
        self._holding: Holding | None = None
        self._transaction = Transaction()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        transport = cast(asyncio.Transport, transport)  # uvloop's are not registered as such
        if reason := self._peers.admit(transport):
            transport.write(f"421 4.3.2 {reason}\r\n".encode())
            transport.close()
            return
        self._transport = transport
        self._idle = Idle(IDLE, transport.close)
        transport.write(self._session.greeting())

    def data_received(self, data: bytes) -> None:
        """Commands and content, as they come."""
        if self._transport is None or self._idle is None:
            return
        self._idle.alive()
        try:
            for event in self._session.feed(data):
                self._take(event)
        except Malformed as problem:
            self._write(f"500 5.5.2 {problem}\r\n".encode())
            self._transport.close()
        if self._session.closing:
            self._transport.close()

    def _take(self, event: Event) -> None:
        if isinstance(event, Begin):
            self._transaction = event.transaction
            self._holding = Holding(self._intake.room, mime.MAX_MESSAGE)
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
        self._peers.leave(self._transport)
        if self._idle is not None:
            self._idle.stop()

    def _write(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)
