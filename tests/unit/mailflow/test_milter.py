"""The milter and the LMTP sink, driven with bytes: the same at every cut, bounded, and never in a mail's way."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import smtplib
import struct
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.config import ConfigError, load
from keyserver.config.listener import Listener
from keyserver.mailflow import lmtp as lmtp_face
from keyserver.mailflow import milter as milter_face
from keyserver.mailflow.memory import ArrivingMail, MailMemory
from keyserver.mailflow.milter import Conversation
from keyserver.mailflow.server import MailServer
from keyserver.mailflow.values import Envelope, Rules
from keyserver.model import Malformed
from keyserver.policy import with_subdomains
from keyserver.rules import InForce
from keyserver.wire import lmtp, milter
from support import milter_client
from support.memory import octets_held
from support.milter_client import connect, frame, macro, negotiate

MAIL = b"From: a@b.example\r\nSubject: x\r\n folded\r\nMessage-ID: <1@b>\r\n\r\nbody\r\n.\r\nend\r\n"


@dataclass
class Fake:
    """Takes what an intake takes, and keeps it."""

    rules: InForce[Rules] = field(
        default_factory=lambda: InForce(Rules(internal_domains=with_subdomains(["here.example"])))
    )
    memory: MailMemory = field(default_factory=MailMemory)
    mails: list[tuple[Envelope, bytes, bool]] = field(default_factory=list)
    broken: bool = False

    def offer(self, envelope: Envelope, holding: ArrivingMail) -> bool:
        if self.broken:
            raise RuntimeError("a fault of ours")
        self.mails.append((envelope, holding.take(), holding.cut))
        holding.free()
        return True


def converse(stream: bytes, cuts: list[int], intake: Fake) -> bytes:
    reader, conversation = milter.Reader(), Conversation(intake)  # type: ignore[arg-type]
    said = b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for one in reader.feed(stream[start:end]):
            said += conversation.answer(one)
    return said


def test_a_mail_is_the_same_at_every_cut() -> None:
    stream = negotiate() + connect() + b"".join(milter_client.mail(MAIL)[:-2]) + macro("E", {"i": "4XYZ"})
    stream += frame("E", b"last\r\n") + frame("Q")
    expected = None
    for cut in range(len(stream)):
        intake = Fake()
        said = converse(stream, [cut], intake)
        expected = expected or (said, intake.mails)
        assert (said, intake.mails) == expected
    assert expected is not None
    said, ((envelope, octets, cut_off),) = expected
    assert octets == MAIL + b"last\r\n"
    assert not cut_off
    assert (envelope.local, envelope.client, envelope.user, envelope.sender, envelope.queue_id) == (
        "192.0.2.1", "192.0.2.9", "", "alice@partner.example", "4XYZ",
    )  # fmt: skip
    assert said.endswith(milter.CONTINUE + milter.ACCEPT)
    assert said.count(milter.CONTINUE) == 1


def test_the_negotiation_asks_for_little_and_changes_nothing() -> None:
    (answer,) = [Conversation(Fake()).answer(one) for one in milter.Reader().feed(negotiate())]  # type: ignore[arg-type]
    version, actions, protocol = struct.unpack_from(">III", answer, 5)
    assert (version, actions) == (6, 0x100)
    assert protocol == 0x1FFFFF & ~(0x1 | 0x4 | 0x10 | 0x20 | 0x40 | 0x400 | 0x800 | 0x40000)
    assert b"{daemon_addr}" in answer
    (old,) = [
        Conversation(Fake()).answer(one)  # type: ignore[arg-type]
        for one in milter.Reader().feed(negotiate(version=2, actions=0x3F, protocol=0x7F))
    ]
    assert struct.unpack_from(">III", old, 5) == (2, 0, 0x0A)
    assert len(old) == 17


def test_an_old_mail_server_hears_an_answer_to_everything() -> None:
    intake = Fake()
    commands = [connect(), frame("H", b"helo\0"), *milter_client.mail(MAIL)]
    said = converse(negotiate(version=2, actions=0, protocol=0) + b"".join(commands), [], intake)
    asked = sum(part.count(b"") > 0 for c in commands for part in [c] if c[4:5] in b"HMLNBE")
    assert said.count(b"\0\0\0\1") == asked + 1  # and the connect command behind its macros
    assert intake.mails[0][1] == MAIL


def test_several_mails_aborts_and_reused_connections() -> None:
    intake = Fake()
    one = b"".join(milter_client.mail(MAIL))
    stream = negotiate() + connect() + one
    stream += b"".join(milter_client.mail(MAIL, end=False)) + frame("A")
    stream += b"".join(milter_client.mail(MAIL, sender="<>", user="bob"))
    stream += one + frame("K") + connect("2001:db8::7", "192.0.2.2") + one
    converse(stream, [], intake)
    found = [(e.client, e.local, e.user, e.sender) for e, _, _ in intake.mails]
    alice = "alice@partner.example"
    assert found == [
        ("192.0.2.9", "192.0.2.1", "", alice),
        ("192.0.2.9", "192.0.2.1", "bob", ""),
        ("192.0.2.9", "192.0.2.1", "", alice),
        ("2001:db8::7", "192.0.2.2", "", alice),
    ]
    top = MAIL.partition(b"body")[0]
    assert [octets for _, octets, _ in intake.mails] == [MAIL, top, MAIL, MAIL], "what Bob sends is outbound"
    assert intake.memory.used == 0


def test_outbound_mail_is_accepted_at_its_headers() -> None:
    intake = Fake()
    outbound = MAIL.replace(b"a@b.example", b"a@here.example")
    said = converse(negotiate() + connect() + b"".join(milter_client.mail(outbound)[:-3]), [], intake)
    assert said.endswith(milter.ACCEPT)
    assert intake.mails[0][1] == outbound.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert intake.memory.used == 0


def test_a_huge_mail_is_answered_and_not_kept() -> None:
    intake = Fake()
    commands = milter_client.mail(MAIL)
    piece = frame("B", b"x" * 65535)
    stream = negotiate() + connect() + b"".join(commands[:-3])
    reader, conversation = milter.Reader(), Conversation(intake)  # type: ignore[arg-type]
    said = b"".join(conversation.answer(one) for one in reader.feed(stream))
    for _ in range(400):
        for one in reader.feed(piece):
            said += conversation.answer(one)
        assert intake.memory.used <= (16 << 20) + 2048
    said += b"".join(conversation.answer(one) for one in reader.feed(b"".join(commands[-2:])))
    assert said.endswith(milter.ACCEPT)
    ((_, octets, cut),) = intake.mails
    assert (octets, cut) == (b"", True)


def test_frames_that_are_too_long_have_their_answer_but_are_not_kept() -> None:
    reader = milter.Reader()
    long = struct.pack(">IB", (20 << 20) + 1, ord("L"))
    found = list(reader.feed(negotiate() + long + b"x" * 4096))
    for _ in range((20 << 8) - 1):
        found += reader.feed(b"x" * 4096)
        assert octets_held(reader) < 1 << 21
    found += reader.feed(frame("N"))
    assert [(f.letter, f.cut) for f in found] == [(ord("O"), False), (ord("L"), True), (ord("N"), False)]
    for wrong in (b"\0\0\0\0", b"\xff\xff\xff\xffO"):
        with pytest.raises(Malformed):
            list(milter.Reader().feed(wrong + b"xxxx"))
    with pytest.raises(Malformed):
        converse(frame("O", b"123"), [], Fake())
    with pytest.raises(Malformed):
        converse(negotiate(version=1), [], Fake())


def test_a_fault_of_ours_is_not_the_mail_s(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    intake = Fake(broken=True)
    one = b"".join(milter_client.mail(MAIL))
    said = converse(negotiate() + connect() + one + one, [], intake)
    assert said.count(b"\0\0\0\1") == 4


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_octets_raise_anything_else(data: st.DataObject) -> None:
    octets = bytearray(negotiate() + connect() + b"".join(milter_client.mail(MAIL)))
    for _ in range(data.draw(st.integers(0, 6))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    intake = Fake()
    with contextlib.suppress(Malformed):
        converse(bytes(octets), [], intake)
    assert intake.memory.used <= len(octets) + 1024 * 10


# LMTP


def spoken(stream: bytes, cuts: list[int]) -> tuple[bytes, list[tuple[str, bytes]]]:
    replies: list[bytes] = []
    session = lmtp.Session("here", replies.append)
    mails: list[tuple[str, bytes]] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in session.feed(stream[start:end]):
            if isinstance(event, lmtp.Begin):
                mails.append((event.transaction.sender, b""))
            elif isinstance(event, lmtp.Content):
                mails[-1] = (mails[-1][0], mails[-1][1] + event.octets)
            else:
                mails[-1] = (mails[-1][0] + " complete", mails[-1][1])
    return b"".join(replies), mails


CONTENT = b".leading\r\nbare\n.\nlf\r\n\r\n..two dots\r\n." + b"x" * 3000 + b"\r\nend\r\n"


def stuffed(content: bytes) -> bytes:
    return (b"." if content.startswith(b".") else b"") + content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def test_lmtp_is_the_same_at_every_cut() -> None:
    start = b"LHLO x\r\nMAIL FROM:<a@b.example> SIZE=1 BODY=8BITMIME\r\nRCPT TO:<x>\r\nRCPT TO:<y>\r\nDATA\r\n"
    stream = start + stuffed(CONTENT) + b"MAIL FROM:<>\r\nRCPT TO:<x>\r\nDATA\r\n.\r\nQUIT\r\n"
    expected = None
    for cut in range(len(stream)):
        found = spoken(stream, [cut])
        expected = expected or found
        assert found == expected, cut
    assert expected is not None
    replies, mails = expected
    assert mails == [("a@b.example complete", CONTENT), (" complete", b"")]
    assert replies.count(b"250 2.0.0 read") == 3, "one answer for each recipient (RFC 2033 section 4.2)"
    assert replies.endswith(b"221 2.0.0 bye\r\n")


@given(
    st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"x", b"\r\n.", b".\r\n"]), max_size=30), st.integers(1, 5)
)
def test_lmtp_content_comes_through_unchanged(pieces: list[bytes], step: int) -> None:
    content = b"".join(pieces).removesuffix(b"\r") + b"\r\n"
    stream = b"LHLO x\r\nMAIL FROM:<a>\r\nRCPT TO:<x>\r\nDATA\r\n" + stuffed(content) + b"NOOP\r\n"
    assert spoken(stream, list(range(step, len(stream), step)))[1] == [("a complete", content)]


def test_lmtp_order_of_commands_and_their_errors() -> None:
    stream = (
        b"HELO x\r\nMAIL FROM:<a>\r\nLHLO x\r\nRCPT TO:<x>\r\nDATA\r\nMAIL TO:<x>\r\nMAIL FROM:<a>\r\nMAIL FROM:<b>\r\n"
        b"DATA\r\nRSET\r\nRCPT TO:<x>\r\nVRFY x\r\nNOOP\r\nSTARTTLS\r\nXFORWARD BAD\r\n"
    )
    codes = [line[:3] for line in spoken(stream, [])[0].split(b"\r\n") if line and line[3:4] == b" "]
    assert codes == [b"500", b"503", b"250", b"503", b"503", b"501", b"250", b"503", b"503", b"250", b"503", b"252",
                     b"250", b"500", b"501"]  # fmt: skip
    with pytest.raises(Malformed):
        spoken(b"x" * 5000, [])


def test_lmtp_xforward_names_the_mail_s_own_client() -> None:
    session = lmtp.Session("here", lambda _: None)
    stream = b"LHLO x\r\nXFORWARD ADDR=192.0.2.9 IDENT=4XYZ\r\nMAIL FROM:<a>\r\nRCPT TO:<x>\r\nDATA\r\n"
    (begin,) = session.feed(stream)
    assert isinstance(begin, lmtp.Begin)
    assert (begin.transaction.client, begin.transaction.queue_id) == ("192.0.2.9", "4XYZ")


# Sockets


@pytest.fixture
async def sink() -> AsyncIterator[tuple[Fake, int]]:
    intake = Fake()
    listener = Listener("127.0.0.1")
    server = MailServer("lmtp", listener, (), 6, partial(lmtp_face.Connection, intake, "here"))  # type: ignore[arg-type]
    ((_, port),) = await server.open(listener)
    yield intake, int(str(port))
    await server.close(1)


async def test_lmtp_by_smtplib(sink: tuple[Fake, int]) -> None:
    intake, port = sink
    long = b"From: a@b.example\r\n\r\n" + b"x" * 100_000 + b"\r\n" + CONTENT.replace(b"\n.\n", b"\r\n.\r\n")

    def deliver() -> None:
        with smtplib.LMTP("127.0.0.1", port) as client:
            for _ in range(2):
                # one recipient: smtplib does not read an answer for each, as RFC 2033 wants it
                assert client.sendmail("a@b.example", ["x@here.example"], long) == {}

    await asyncio.to_thread(deliver)
    assert [octets for _, octets, _ in intake.mails] == [long] * 2


async def test_lmtp_connections_are_bounded(sink: tuple[Fake, int]) -> None:
    _, port = sink
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    greetings = [await reader.readline() for reader, _ in opened]
    assert [g[:3] for g in greetings] == [b"220"] * 3 + [b"421"]
    for _, writer in opened:
        writer.close()


@dataclass(frozen=True)
class Transport:
    peer: object

    def get_extra_info(self, name: str) -> object:
        return self.peer if name == "peername" else None

    def abort(self) -> None:
        pass


async def test_who_may_speak() -> None:
    outside = Listener("0.0.0.0")
    allowed = [ipaddress.ip_network("192.0.2.0/24")]

    def admitted(listener: Listener, peer: object) -> bool:
        connection = partial(milter_face.Connection, Fake())  # type: ignore[arg-type]
        server = MailServer("milter", listener, allowed, 10, connection)
        server.maker(listener)().connection_made(Transport(peer))  # type: ignore[arg-type]
        return len(server.connections) == 1

    assert admitted(outside, ("192.0.2.7", 1))
    assert admitted(outside, ("::ffff:192.0.2.7", 1, 0, 0))
    assert not admitted(outside, ("198.51.100.7", 1))
    assert not admitted(outside, ("127.0.0.1", 1))
    assert not admitted(outside, "")
    assert admitted(Listener("127.0.0.1"), ("127.0.0.1", 1))
    assert admitted(Listener(unix=Path("/x")), "")


@contextlib.asynccontextmanager
async def milters(most: int = 10) -> AsyncIterator[tuple[MailServer, int]]:
    listener = Listener("127.0.0.1")
    server = MailServer("milter", listener, (), most, partial(milter_face.Connection, Fake()))  # type: ignore[arg-type]
    ((_, port),) = await server.open(listener)
    try:
        yield server, int(str(port))
    finally:
        await server.close(1)


def pass_seconds(server: MailServer, seconds: int) -> None:
    for _ in range(seconds):
        server.second()


async def connections(server: MailServer, count: int) -> None:
    while len(server.connections) != count:
        await asyncio.sleep(0.01)


async def test_silence_ends_a_milter_connection_the_sooner_the_less_it_has_said() -> None:
    async with milters() as (server, port):
        silent = await asyncio.open_connection("127.0.0.1", port)
        half = await asyncio.open_connection("127.0.0.1", port)
        half[1].write(negotiate()[:-1])
        waiting = await asyncio.open_connection("127.0.0.1", port)
        waiting[1].write(negotiate())
        await waiting[0].readexactly(4)
        serving = await milter_client.Client.open(port)
        await connections(server, 4)
        serving.send(*milter_client.mail(MAIL, end=False))
        assert await serving.answer()
        for seconds, left in ((10, 4), (1, 2), (289, 2), (1, 1), (6999, 1), (1, 0)):
            pass_seconds(server, seconds)
            await asyncio.wait_for(connections(server, left), 5)
        assert await asyncio.wait_for(silent[0].read(), 5) == b""
        for _, writer in (silent, half, waiting):
            writer.close()
        serving.close()


async def test_dripping_octets_is_silence() -> None:
    async with milters() as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(11):
            writer.write(negotiate()[n : n + 1])
            await asyncio.sleep(0.01)
            pass_seconds(server, 1)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_silent_connections_lock_no_mail_server_out() -> None:
    """A thousand of them did, for two hours: each that has been silent for a minute gives its place to a new one."""
    async with milters(20) as (server, port):
        held = [await milter_client.Client.open(port) for _ in range(10)]  # they negotiate, name a client, and wait
        await connections(server, 10)
        for _ in range(2):  # nobody holds more than half
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert server.refused == 2
        pass_seconds(server, 61)
        served = [await milter_client.Client.open(port) for _ in range(10)]
        for one in served:
            assert (await one.deliver(MAIL))[1] in (b"a", b"c")
        assert server.refused == 2
        for one in (*held, *served):
            one.close()


def test_macros_are_bounded_in_number_and_octets() -> None:
    """46 MiB were kept of one connection's macros, and for as long as it stood."""
    intake = Fake()
    connection = Conversation(intake)  # type: ignore[arg-type]
    reader = milter.Reader()

    def say(*frames: bytes) -> None:
        for octets in frames:
            for one in reader.feed(octets):
                connection.answer(one)

    say(negotiate(), connect())
    tracemalloc.start()
    for n in range(200):
        say(macro("M", {f"{{name{n}.{m}}}": "x" * 900 for m in range(60)}))
    say(macro("M", {"{auth_authen}": "u" * 60_000}))
    say(frame("D", b"M" + b"a\0b\0" * 400_000))
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 64 << 10
    assert most < 4 << 20
    say(*milter_client.mail(MAIL)[:-1])
    ((envelope, _, _),) = intake.mails
    assert envelope.user == "u" * 1024  # who has authenticated has authenticated, however long the name


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        ('milter_listen = "127.0.0.1:8891"', ""),
        ('lmtp_listen = "unix:/run/keyserver/lmtp.sock"', ""),
        ('milter_listen = "0.0.0.0:8891"', "mailflow.milter_listen"),
        ('lmtp_listen = "[2001:db8::1]:8892"', "mailflow.lmtp_listen"),
        ('lmtp_listen = "0.0.0.0:8892"\nallowed_clients = ["192.0.2.25/32"]', ""),
        ("require_authenticated_sender = true", "mailflow.require_authenticated_sender"),
        ('require_authenticated_sender = true\nauthserv_id = "mx.here.example"', ""),
    ],
)
def test_the_configuration_is_checked(tmp_path: Path, lines: str, wrong: str) -> None:
    file = tmp_path / "keyserver.toml"
    file.write_text(f"[mailflow]\n{lines}\n")
    if not wrong:
        load(file)
        return
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert wrong in str(caught.value.problems[0])
