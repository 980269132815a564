"""The milter of the trailer: outbound plain text to people of whom a certificate is known gets a few more lines.

It may change bodies and nothing else, and changes none in doubt: every other mail, every failure and every second too
long ends in "accept". The harvest's milter is another one, and stays one that never changes mail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter

from keyserver.hygiene import Hygiene
from keyserver.mailflow import conversation
from keyserver.mailflow.conversation import LOG, MilterConnection
from keyserver.mailflow.conversation import MAX_CONNECTIONS as MAX_CONNECTIONS
from keyserver.mailflow.direction import sender_of
from keyserver.mailflow.memory import ArrivingMail, MailMemory
from keyserver.mailflow.server import MailServer
from keyserver.mailflow.trailer import MAX_BODY, is_ours, untouchable, with_trailer
from keyserver.mailflow.values import Rules
from keyserver.model import Entry, Kind, Malformed, Source
from keyserver.policy import approved_for, in_domains, knows
from keyserver.query import name_of, parse_address
from keyserver.rules import InForce
from keyserver.store.base import Store, StoreError
from keyserver.store.snapshot import Snapshot
from keyserver.usable import unusable
from keyserver.wire import milter, mime
from keyserver.wire.milter import Ask, Frame

MAX_RECIPIENTS = 10  # a mail to more of them is left alone
MAX_PROVED = 8  # certificates that are looked at for one recipient
SECONDS = 3.0  # that a mail waits at most
CAPACITY = 32 << 20  # octets of all bodies on their way
_NEXT_MAIL = (Ask.ABORT, Ask.QUIT, Ask.QUIT_REUSE)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A mail of ours whose headers leave room for a trailer."""

    fields: mime.Fields
    recipients: tuple[str, ...]  # normalised
    holding: ArrivingMail  # its body
    queue_id: str


class Trailing:
    """Decides on mails. link: what the trailer leads to; empty: no mail gets one. clock: Unix seconds."""

    def __init__(
        self,
        *,
        store: Store,
        hygiene: Mapping[Kind, Hygiene],
        rules: InForce[Rules],
        link: Callable[[], str],
        clock: Callable[[], int],
        registry: CollectorRegistry,
    ) -> None:
        self.rules = rules
        self.link = link
        self.memory = MailMemory(CAPACITY)
        self._store = store
        self._hygiene = hygiene
        self._clock = clock
        self._counted = Counter("keyserver_trailer_mails", "Outbound mails by what became of them", ["result"],
                                registry=registry)  # fmt: skip

    async def body(self, mail: Outgoing) -> bytes | None:
        """The body that the mail is to have; None: the one that it has. Never raises, and takes SECONDS at most."""
        result, body = "untouched", None
        try:
            async with asyncio.timeout(SECONDS):
                if await self._all_invitable(mail.recipients):
                    body = with_trailer(mail.fields, mail.holding.take(), self.link())
                    result = "untouched" if body is None else "added"
        except (StoreError, TimeoutError) as trouble:
            result = "failed"
            LOG.warning("a mail goes without trailer: %s", trouble or "the store takes too long")
        except Exception:
            result = "failed"
            LOG.exception("a mail goes without trailer")
        self._counted.labels(result).inc()
        LOG.debug("trailer", extra={"facts": {"queue_id": mail.queue_id, "result": result}})
        return body

    async def _all_invitable(self, addresses: Iterable[str]) -> bool:
        for address in addresses:
            if not await self._invitable(address):
                return False
        return True

    async def _invitable(self, address: str) -> bool:
        """Is a certificate known that mail to this address could be encrypted with, but for somebody's consent?"""
        now, found = self._clock(), False
        for kind in Kind:
            name = name_of(kind, "addr", address)
            snapshot = await self._store.look(name)
            if any(entry.source is Source.LOCAL or approved_for(entry, address) for entry in snapshot.entries):
                return False
            terms = self.rules().terms
            fit = [e for e in snapshot.entries if knows(e, address, snapshot.records, now, terms)]
            for entry in [] if found else fit[:MAX_PROVED]:
                await asyncio.sleep(0)  # a proof takes a millisecond: others have their turn between two of them
                found = found or self._usable(entry, snapshot, name, now)
        return found

    def _usable(self, entry: Entry, snapshot: Snapshot, name: str, now: int) -> bool:
        hygiene = self._hygiene[entry.kind]
        octets = hygiene.merge([entry.octets], snapshot.revocations.get(entry.fingerprint, b""))
        proof = hygiene.prove(octets, now)
        return name in proof.weak and not unusable(proof)


class Conversation(conversation.Conversation):
    """One connection with a mail server, without its socket. The end of a mail that may get a trailer has no answer
    here: it becomes `outgoing`, for somebody to take and to answer."""

    def __init__(self, trailing: Trailing) -> None:
        super().__init__(conversation.QUIETLY, milter.CHANGE_BODY)
        self._trailing = trailing
        self.outgoing: Outgoing | None = None
        self._recipients: list[str] = []
        self._headers: list[bytes] = []
        self._size = 0
        self._fit = True
        self._fields = mime.Fields()
        self._holding: ArrivingMail | None = None

    def drop(self) -> None:
        """Forget the mail under way."""
        for holding in (self._holding, self.outgoing.holding if self.outgoing is not None else None):
            if holding is not None:
                holding.free()
        self._holding = self.outgoing = None
        self._recipients, self._headers = [], []
        self._size, self._fit = 0, True
        super().drop()

    def answer(self, frame: Frame) -> bytes:
        """As for every milter, but nothing yet where `outgoing` is."""
        said = super().answer(frame)
        return said if self.outgoing is None else b""

    def recipient(self, frame: Frame) -> None:
        """One more; internal ones and those that cannot be read make the mail unfit."""
        address = parse_address(sender_of(milter.path(frame.data)))
        internal = self._trailing.rules().internal_domains
        if frame.cut or address is None or in_domains(address.rpartition("@")[2], internal):
            self._fit = False
        elif address not in self._recipients:
            self._recipients.append(address)
        self._fit = self._fit and len(self._recipients) <= MAX_RECIPIENTS
        if not self._fit:
            self._recipients = []

    def header(self, frame: Frame) -> None:
        """A header field."""
        self._size += len(frame.data)
        if frame.cut or self._size > mime.MAX_HEADERS or len(self._headers) >= mime.MAX_FIELDS:
            self._fit, self._headers = False, []
        if self._fit:
            self._headers.append(milter.header(frame.data))

    def headers_end(self) -> bool:
        """Do they, and the envelope, show that this mail gets nothing?"""
        self._fields, self._headers = mime.read_fields(b"".join(self._headers)), []
        envelope = self.envelope()
        if (
            not (self._fit and self._recipients and envelope.sender and self.may and self._trailing.link())
            or not is_ours(envelope, self._trailing.rules())
            or untouchable(self._fields)
        ):
            self._over()
            return True
        self._holding = ArrivingMail(self._trailing.memory, MAX_BODY)
        return False

    def body(self, frame: Frame) -> None:
        """A piece of the body."""
        if self._holding is None:
            return
        if frame.cut:
            self._holding.cut = True
        elif frame.data:
            self._holding.add(frame.data)

    def end(self) -> None:
        """The mail is complete."""
        holding, self._holding = self._holding, None
        if holding is not None and (holding.cut or holding.shed):
            holding.free()
        elif holding is not None:
            self.outgoing = Outgoing(self._fields, tuple(self._recipients), holding, self.envelope().queue_id)
        self._over()

    def _over(self) -> None:
        self._recipients, self._size, self._fit = [], 0, True
        self.mail_over()


class Connection(MilterConnection):
    """A mail server's connection."""

    conversation: Conversation

    def __init__(self, trailing: Trailing, server: MailServer) -> None:
        super().__init__(server, Conversation(trailing))
        self._trailing = trailing
        self._deciding: asyncio.Task[None] | None = None

    def answer(self, frame: Frame) -> bytes:
        """What to write now. The answer to the end of a mail may come later, and a mail server waits for it."""
        if self._deciding is not None:
            if frame.letter not in _NEXT_MAIL:
                raise Malformed("a command before the answer to the end of a mail")
            self._stop()
        said = super().answer(frame)
        if (outgoing := self.conversation.outgoing) is not None:
            self.conversation.outgoing = None
            self._deciding = asyncio.get_running_loop().create_task(self._decide(outgoing))
            self._deciding.add_done_callback(lambda _: outgoing.holding.free())
        return said

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for an answer any more."""
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._deciding is not None:
            self._deciding.cancel()
            self._deciding = None

    async def _decide(self, mail: Outgoing) -> None:
        body = await self._trailing.body(mail)
        self._deciding = None
        if self.transport is not None:
            self.transport.write((b"" if body is None else milter.new_body(body)) + milter.ACCEPT)
