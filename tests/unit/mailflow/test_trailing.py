"""The trailer's milter: who gets the lines, over the real store, and a conversation that nobody can spoil."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from keyserver import smime
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.config.listener import Listener
from keyserver.mailflow import trailing
from keyserver.mailflow.server import MailServer
from keyserver.mailflow.trailer import MAX_BODY
from keyserver.mailflow.trailing import Connection, Conversation, Trailing
from keyserver.mailflow.values import Rules
from keyserver.model import Certificate, Find, Kind, Malformed, Record, Source, UpstreamSpec, Voucher
from keyserver.policy import Terms, with_subdomains
from keyserver.query import name_of
from keyserver.rules import InForce
from keyserver.store.base import StoreError
from keyserver.store.snapshot import Snapshot
from keyserver.store.sqlite import SqliteStore
from keyserver.wire import milter
from support import milter_client
from support.milter_client import Client, connect, frame, macro, negotiate
from support.openpgp import CREATED, make

URL = "https://optin.here.example/"
NOW = CREATED + 86400 * 365
OURS, STRANGER = "10.0.0.7", "192.0.2.9"
MAIL = b"From: Bob <bob@here.example>\r\nSubject: x\r\n\r\nHello\r\n"
ALICE = "alice@partner.example"
RULES = Rules(
    outbound_networks=(ipaddress.ip_network("10.0.0.0/8"),),
    internal_domains=with_subdomains(["here.example"]),
    terms=Terms(upstreams={"directory": UpstreamSpec("directory")}, internal_domains=("here.example",)),
)


@dataclass
class World:
    """Everything real behind one listener."""

    store: SqliteStore
    port: int = 0
    rules: InForce[Rules] = field(default_factory=lambda: InForce(RULES))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    hygiene: Any = None
    now: int = NOW
    link: str = URL

    def trailing(self) -> Trailing:
        return Trailing(
            store=self.store,
            hygiene=self.hygiene,
            rules=self.rules,
            link=lambda: self.link,
            clock=lambda: self.now,
            registry=self.registry,
        )

    async def known(self, address: str = ALICE, source: Source = Source.MAILFLOW, **options: Any) -> str:
        """A certificate is cached for an address; approved, held: by mail. Its fingerprint."""
        approved, held = (options.pop(name, False) for name in ("approved", "held"))
        (clean,) = self.hygiene[Kind.OPENPGP].clean(make([f"<{address}>"], **options).octets, self.now)
        assert isinstance(clean, Certificate)
        voucher = Voucher(address, authenticated=not held, held=held, approved=approved, seen_at=self.now)
        vouchers = (voucher,) if source is Source.MAILFLOW else ()
        origin = {Source.MAILFLOW: address.rpartition("@")[2], Source.KEYSERVER: "directory"}.get(source, "admin")
        record = Record(name_of(Kind.OPENPGP, "addr", address), "directory", True, self.now)
        records = [record] if source is Source.KEYSERVER else []
        await self.store.put(
            [Find(clean, source, origin, vouchers=vouchers)], records, await self.store.begin(), self.now
        )
        return clean.fingerprint

    async def changed(self, octets: bytes = MAIL, *recipients: str, client: str = OURS, **options: str) -> bytes | None:
        connection = await Client.open(self.port, address=client)
        try:
            sender = options.pop("sender", "<bob@here.example>")
            async with asyncio.timeout(10):
                return await connection.changed(octets, *(recipients or (f"<{ALICE}>",)), sender=sender, **options)
        finally:
            connection.close()

    def counted(self, result: str) -> bool:
        return f'keyserver_trailer_mails_total{{result="{result}"}} 1.0' in generate_latest(self.registry).decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    hygiene = hygiene_of(smime.Anchors([]))
    made = World(SqliteStore(tmp_path / "keyserver.db", hygiene, Changes(), max_size=1 << 30), hygiene=hygiene)
    await made.store.open()
    server = MailServer("trailer", Listener("127.0.0.1"), (), 10, partial(Connection, made.trailing()))
    ((_, port),) = await server.open(Listener("127.0.0.1"))
    made.port = int(str(port))
    try:
        yield made
    finally:
        await server.close(1)
        await made.store.close()


async def test_mail_to_somebody_known_gets_the_lines(world: World) -> None:
    await world.known()
    body = await world.changed()
    assert body is not None
    assert body.startswith(b"Hello\r\n-- \r\n")
    assert URL.encode() in body
    assert world.counted("added")


async def test_what_an_upstream_has_found_counts_as_well(world: World) -> None:
    await world.known(source=Source.KEYSERVER)
    assert await world.changed() is not None
    world.now += RULES.terms.ttl
    assert await world.changed() is None, "nothing but its own claim binds it to the address now"


async def test_somebody_unknown_gets_none(world: World) -> None:
    await world.known("carol@partner.example")
    assert await world.changed() is None
    assert world.counted("untouched")


@pytest.mark.parametrize(
    "how",
    [
        {"approved": True},
        {"held": True},
        {"source": Source.LOCAL},
        {"expires": 86400},
        {"subkey_expires": 86400},
        {"encryption": None},
    ],
)
async def test_an_invitation_would_make_no_sense(world: World, how: dict[str, Any]) -> None:
    await world.known(**how)
    assert await world.changed() is None


async def test_one_that_is_approved_speaks_for_all_of_the_address(world: World) -> None:
    await world.known()
    await world.known(approved=True)
    assert await world.changed() is None


async def test_what_is_revoked_or_blocked_by_now_counts_for_nothing(world: World) -> None:
    fingerprint = await world.known()
    await world.store.block(fingerprint, world.now, "")
    assert await world.changed() is None
    await world.store.unblock(fingerprint, world.now)
    world.now += 181 * 86400
    assert await world.changed() is None, "expired"


async def test_every_recipient_has_to_be_one(world: World) -> None:
    await world.known()
    await world.known("carol@other.example")
    two = (f"<{ALICE}>", "<Carol@Other.example>")
    assert await world.changed(MAIL, *two) is not None
    assert await world.changed(MAIL, *two, "<dave@other.example>") is None
    assert await world.changed(MAIL, *two, "<bob@here.example>") is None
    assert await world.changed(MAIL, *two, "<bob@sub.here.example>") is None
    assert await world.changed(MAIL, *two, "<nonsense>") is None
    assert await world.changed(MAIL, *two, *two) is not None


async def test_internal_recipients_never(world: World) -> None:
    await world.known("anne@here.example")
    assert await world.changed(MAIL, "<anne@here.example>") is None


async def test_many_recipients_are_not_looked_up(world: World) -> None:
    names = [f"<a{n}@partner.example>" for n in range(trailing.MAX_RECIPIENTS + 1)]
    for name in names:
        await world.known(name.strip("<>"))
    assert await world.changed(MAIL, *names[:-1]) is not None
    assert await world.changed(MAIL, *names) is None


async def test_only_outbound_mail(world: World) -> None:
    await world.known()
    assert await world.changed(client=STRANGER) is None, "a From header of ours proves nothing"
    assert await world.changed(client=STRANGER, user="bob") is not None
    assert await world.changed(sender="<>") is None, "nobody has written it"


async def test_what_a_listener_for_inbound_mail_took_is_not_ours(world: World) -> None:
    await world.known()
    inbound = frozenset({ipaddress.ip_address("192.0.2.1")})
    world.rules.replace(Rules(inbound_addresses=inbound, outbound_networks=RULES.outbound_networks, terms=RULES.terms))
    assert await world.changed() is None
    world.rules.replace(Rules(inbound_addresses=frozenset(), outbound_networks=(), terms=RULES.terms))
    assert await world.changed() is None


async def test_without_a_public_url_there_is_nothing_to_say(world: World) -> None:
    await world.known()
    world.link = ""
    assert await world.changed() is None


async def test_large_bodies_and_those_that_come_in_pieces(world: World) -> None:
    await world.known()
    lines = b"0123456789abcdef\r\n" * 10_000
    body = await world.changed(MAIL + lines)
    assert body is not None
    assert body.startswith(b"Hello\r\n" + lines + b"-- \r\n")
    assert await world.changed(MAIL + b"0123456789abcdef\r\n" * (MAX_BODY // 18 + 1)) is None


async def test_several_mails_on_one_connection(world: World) -> None:
    await world.known()
    connection = await Client.open(world.port, address=OURS)
    found = []
    for octets, recipient in (
        (MAIL, ALICE),
        (MAIL, "x@y.example"),
        (MAIL.replace(b"\r\n\r\n", b"\r\nDKIM-Signature: x\r\n\r\n"), ALICE),
        (MAIL, ALICE),
    ):
        found.append(await connection.changed(octets, f"<{recipient}>", sender="<bob@here.example>"))
    connection.close()
    assert [one is not None for one in found] == [True, False, False, True]


class Broken:
    """A store that answers as it is told."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble

    async def look(self, name: str) -> Snapshot:
        if self.trouble is not None:
            raise self.trouble
        await asyncio.sleep(3600)
        raise AssertionError


@pytest.mark.parametrize("trouble", [StoreError("full"), RuntimeError("ours"), None])
async def test_whatever_fails_the_mail_goes_on(
    world: World, trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trailing, "SECONDS", 0.1)
    world.store, whole = Broken(trouble), world.store  # type: ignore[assignment]
    world.registry = CollectorRegistry()
    server = MailServer("trailer", Listener("127.0.0.1"), (), 10, partial(Connection, world.trailing()))
    ((_, port),) = await server.open(Listener("127.0.0.1"))
    world.port, world.store = int(str(port)), whole
    assert await world.changed() is None
    assert world.counted("failed")
    await server.close(1)


LETTERS = "ABCDEHKLMNOQRTU"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(LETTERS), st.binary(max_size=40)),
            st.sampled_from([("M", b"<bob@here.example>\0"), ("R", f"<{ALICE}>\0".encode()), ("N", b""), ("E", b"x")]),
            st.sampled_from([("L", b"From\0bob@here.example\0"), ("B", b"Hello\r\n"), ("B", b"y" * 60_000)]),
        ),
        max_size=60,
    )
)
@settings(deadline=None)
def test_whatever_frames_come_each_question_has_one_answer_and_no_memory_stays(
    frames: list[tuple[str, bytes]],
) -> None:
    made = Trailing(
        store=Broken(),  # type: ignore[arg-type]
        hygiene={},
        rules=InForce(RULES),
        link=lambda: URL,
        clock=lambda: NOW,
        registry=CollectorRegistry(),
    )
    conversation = Conversation(made)
    stream = negotiate() + connect(OURS) + b"".join(frame(letter, data) for letter, data in frames)
    for one in milter.Reader().feed(stream):
        try:
            said = conversation.answer(one)
        except Malformed:
            assert one.letter == ord("O")
            continue
        if one.letter == ord("O"):
            assert said[4:5] == b"O"
        elif one.letter == ord("E"):
            assert (said == b"") == (conversation.outgoing is not None)
            assert said in (b"", milter.ACCEPT, milter.CONTINUE)
        elif one.letter == ord("N"):
            assert said in (milter.ACCEPT, milter.CONTINUE)
        elif conversation.outgoing is None:
            assert said in (b"", milter.CONTINUE)
    conversation.drop()
    assert made.memory.used == 0


def test_it_asks_for_the_right_to_change_bodies_and_for_nothing_else() -> None:
    made = Trailing(store=Broken(), hygiene={}, rules=InForce(RULES), link=lambda: URL, clock=lambda: NOW,
                    registry=CollectorRegistry())  # type: ignore[arg-type]  # fmt: skip
    (whole,) = (Conversation(made).answer(one) for one in milter.Reader().feed(negotiate()))
    version, actions, protocol = struct.unpack_from(">III", whole, 5)
    assert (version, actions) == (6, 0x2)
    assert not protocol & 0x8, "recipients are needed"
    assert len(whole) == 17
    conversation = Conversation(made)
    stream = negotiate(actions=0x1) + connect(OURS)
    stream += b"".join(milter_client.mail(MAIL, "<bob@here.example>", recipients=[f"<{ALICE}>"]))
    said = b"".join(conversation.answer(one) for one in milter.Reader().feed(stream))
    assert conversation.outgoing is None, "a mail server that lets nobody change bodies"
    assert said.endswith(milter.ACCEPT)


class Slow(SqliteStore):
    """Answers when it is let."""

    let: asyncio.Event

    async def look(self, name: str) -> Snapshot:
        await self.let.wait()
        return await super().look(name)


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[tuple[World, Trailing]]:
    hygiene = hygiene_of(smime.Anchors([]))
    store = Slow(tmp_path / "keyserver.db", hygiene, Changes(), max_size=1 << 30)
    store.let = asyncio.Event()
    made = World(store, hygiene=hygiene)
    await store.open()
    await made.known()
    decides = made.trailing()
    server = MailServer("trailer", Listener("127.0.0.1"), (), 10, partial(Connection, decides))
    ((_, port),) = await server.open(Listener("127.0.0.1"))
    made.port = int(str(port))
    try:
        yield made, decides
    finally:
        await server.close(1)
        await store.close()


async def asked(world: World, *more: bytes) -> Client:
    """A mail server that waits for the answer to the end of a mail, or does not."""
    connection = await Client.open(world.port, address=OURS)
    commands = milter_client.mail(MAIL, "<bob@here.example>", recipients=[f"<{ALICE}>"])
    end = next(n for n, c in enumerate(commands) if c[4:5] == b"N") + 1
    connection.send(*commands[:end])
    assert await connection.answer() == b"c"
    connection.send(*commands[end:], *more)
    return connection


async def freed(decides: Trailing) -> None:
    async with asyncio.timeout(5):
        while decides.memory.used:
            await asyncio.sleep(0.01)


async def test_a_mail_server_that_does_not_wait_is_hung_up_on(slow: tuple[World, Trailing]) -> None:
    world, decides = slow
    connection = await asked(world, frame("B", b"more"))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await connection.answer()
    connection.close()
    await freed(decides)


async def test_an_abort_ends_the_waiting_and_the_next_mail_has_its_own_answer(slow: tuple[World, Trailing]) -> None:
    world, decides = slow
    connection = await asked(world)
    async with asyncio.timeout(5):
        while not decides.memory.used:
            await asyncio.sleep(0.01)
    connection.send(frame("A"))
    await freed(decides)
    assert isinstance(world.store, Slow)
    world.store.let.set()
    assert await connection.changed(MAIL, f"<{ALICE}>", sender="<bob@here.example>") is not None
    connection.close()
    await freed(decides)


@pytest.mark.parametrize("last", [frame("Q"), frame("K"), b""])
async def test_who_goes_away_leaves_nothing(slow: tuple[World, Trailing], last: bytes) -> None:
    world, decides = slow
    connection = await asked(world, *([last] if last else []))
    connection.close()
    await freed(decides)


async def test_macros_of_one_mail_do_not_hold_for_the_next(world: World) -> None:
    await world.known()
    connection = await Client.open(world.port, address=STRANGER)
    options = {"sender": "<bob@here.example>"}
    first = await connection.changed(MAIL, f"<{ALICE}>", user="bob", **options)
    second = await connection.changed(MAIL, f"<{ALICE}>", **options)
    connection.close()
    assert (first is not None, second) == (True, None)


async def test_no_room_for_a_body_leaves_the_mail_alone(slow: tuple[World, Trailing]) -> None:
    world, decides = slow
    assert isinstance(world.store, Slow)
    world.store.let.set()
    assert decides.memory.take(trailing.CAPACITY)
    assert await world.changed() is None
    decides.memory.give(trailing.CAPACITY)
    assert await world.changed() is not None


async def test_long_frames_are_no_mail(world: World) -> None:
    await world.known()
    connection = await Client.open(world.port, address=OURS)
    connection.send(macro("M", {"i": "1"}), frame("M", b"<bob@here.example>\0"), frame("R", b"<" + b"x" * 70_000))
    connection.send(frame("L", b"From\0bob@here.example\0"), frame("N"))
    assert await connection.answer() == b"a"
    connection.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"\xff\xff\xff\xffB")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(1)
    writer.close()
