"""A hostile LDAP client: whatever it sends, it is bounded in octets, time and count, and others are answered meanwhile.

The loop's turns are measured in processor time of its own thread, so that a busy machine does not look like an attack.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import socket
import time
from collections.abc import Iterator

import pytest

from keyserver.faces.ldap.bind import Account
from keyserver.faces.ldap.connection import GUESSES
from keyserver.faces.ldap.paging import PAGED_SEARCHES
from keyserver.faces.ldap.server import LdapLimits
from keyserver.wire import ldap as wire
from keyserver.wire.ber import OCTETS, SEQUENCE, element, size
from keyserver.wire.ldap import Code, Control, SearchRequest
from keyserver.wire.ldap_filter import And, Approx, AtLeast, Equal, Extensible, Filter, Not, Or, Present, Substrings
from support.ldap_client import Client, client_context, start_tls, until
from support.ldap_memory import BASE, Face, Memory, serving
from support.ldap_messages import write_bind, write_extended, write_filter, write_search
from support.openpgp import make
from support.tls import Authority
from support.x509 import person

pytestmark = pytest.mark.usefixtures("both_shapes")

HELD = 0.05
"""Seconds of its thread's processor time that one turn of the loop may take."""
KEYS = f"ou=PGP Keys,{BASE}"
ALICE = make(["Alice <alice@example.org>"], seed="alice")
LONG = make(
    [f"{'a' * 1900}{n} <mallory@example.org>" for n in range(12)]
    + [f"{chr(0xFDFA) * 600}{n} <mallory@example.org>" for n in range(6)],
    seed="mallory",
)
CAROL = person("mallory@example.org", emails=["mallory@example.org", *(f"m{n}@example.org" for n in range(100))])
MAIL = Equal("gpgMailbox", b"alice@example.org")


class Pulse:
    """The longest turn of a face's loop while it is looked at."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self.longest = 0.0

    async def _beat(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.longest, last = max(self.longest, now - last), now

    def __enter__(self) -> Pulse:
        gc.collect()
        gc.freeze()  # what the tests hold is not the loop's to walk
        self._task = asyncio.run_coroutine_threadsafe(self._beat(), self._face.loop)
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()
        gc.unfreeze()


@pytest.fixture
def memory() -> Memory:
    return Memory(ALICE.octets, LONG.octets, CAROL.der)


@pytest.fixture
def face(memory: Memory) -> Iterator[Face]:
    with serving(memory, text_search=True) as running:
        yield running


def answered(face: Face) -> None:
    """An honest client has its answer."""
    with Client(face.port) as client:
        assert len(client.search(KEYS, MAIL).entries) == 1


def request(filter_: Filter | bytes, base: str = BASE, attributes: tuple[str, ...] = (), id_: int = 1) -> bytes:
    """A whole search; the filter may be octets that no filter of ours writes."""
    search = SearchRequest(base, 2, 0, 0, False, Present("cn"), attributes)
    octets = write_search(search)
    if isinstance(filter_, bytes):
        inner = octets[2 if octets[1] < 0x80 else 2 + (octets[1] & 0x7F) :]
        return wire.envelope(id_, element(wire.SEARCH, inner.replace(write_filter(Present("cn")), filter_, 1)))
    return wire.envelope(id_, write_search(SearchRequest(base, 2, 0, 0, False, filter_, attributes)))


def nested(tag: int, depth: int) -> bytes:
    octets = write_filter(Present("cn"))
    for _ in range(depth):
        octets = bytes((tag,)) + size(len(octets)) + octets
    return octets


WIDE = chr(0xFDFA)  # one character that becomes eighteen
COMBINING = "a" + "\u0300\u0327" * 250
IDN = "a@" + ".".join(["é" * 15] * 6)


def many(make_one: object, number: int = 127) -> Filter:
    assert callable(make_one)
    return Or(tuple(make_one(n) for n in range(number)))


BOMBS: dict[str, bytes] = {
    "nested and": request(nested(0xA0, 13_000)),
    "nested not": request(nested(0xA2, 13_000)),
    "nested or, as deep as it may": request(nested(0xA1, 11)),
    "ten thousand parts": request(element(0xA1, write_filter(Present("cn")) * 10_000)),
    "as many parts as it may": request(many(lambda n: Equal("cn", b"x" * 400 + b"%d" % n))),
    "empty ors": request(element(0xA1, b"\xa1\x00" * 30_000)),
    "a long name": request(Equal("x" * 60_000, b"a")),
    "a long value": request(Equal("cn", b"x" * 60_000)),
    "long values": request(many(lambda n: Equal("pgpUserID", b"<" * 480), 120)),
    "wide characters": request(many(lambda n: Equal("cn", (WIDE * 330 + str(n)).encode()), 60)),
    "wide characters, as many as it may": request(many(lambda n: Equal("cn", (WIDE * 330).encode()), 60)),
    "combining characters": request(many(lambda n: Equal("displayName", COMBINING.encode()), 60)),
    "international names": request(many(lambda n: Equal("mail", f"{IDN}.x{n}".encode()), 120)),
    "international names, one": request(many(lambda n: Equal("mail", f"{IDN}.org".encode()), 120)),
    "addresses": request(many(lambda n: Equal("mail", b"a%d@xn--%s.org" % (n, b"9" * 55)))),
    "pieces": request(many(lambda n: Substrings("cn", None, tuple(b"p%d" % i for i in range(16)), None))),
    "endless pieces": request(Substrings("cn", None, tuple(b"p" for _ in range(15_000)), None)),
    "address pieces": request(
        many(lambda n: Substrings("proxyAddresses", None, tuple(b"smtp:a@e%d.x%d" % (n, i) for i in range(16)), None))
    ),
    "wrong escapes": request(many(lambda n: Substrings("pgpUserID", None, (b"%2a" * 160,), None), 120)),
    "names resolved": request(many(lambda n: Equal("anr", b"a%d@example.org" % n))),
    "extensible": request(many(lambda n: Extensible("2.5.13.2", "", b"a%d@example.org" % n, True))),
    "extensible, wide": request(many(lambda n: Extensible("2.5.13.5", "", (WIDE * 140 + str(n)).encode(), True))),
    "categories": request(many(lambda n: Equal("objectCategory", b"a=b+" * 60 + b"c=%d" % n))),
    "times": request(many(lambda n: AtLeast("modifyTimestamp", b"9" * 400))),
    "a name": request(Present("cn"), "a=b+" * 200 + "c=d"),
    "a wide name": request(Present("cn"), f"ou={WIDE * 300},{BASE}"),
    "names in hex": request(Present("cn"), ",".join(["2.5.4.3=#0c0161"] * 32)),
    "attributes": request(MAIL, attributes=tuple("x" * 500 for _ in range(100))),
    "ten thousand attributes": request(MAIL, attributes=tuple(f"a{n}" for n in range(8_000))),
    "controls": wire.envelope(
        1, write_search(SearchRequest(BASE, 2, 0, 0, False, MAIL, ())), (Control("1.2.3"),) * 2_000
    ),
}
LATE: dict[str, Filter] = {
    # true or false only when every value has been looked at
    "quadratic pieces": many(
        lambda n: Substrings("pgpUserID", None, (b"a" * 250 + b"b%d" % n + b"a" * 250,), None), 110
    ),
    "all pieces": many(lambda n: Substrings("pgpUserID", b"a", (b"a",) * 16, b"b"), 14),
    "any attribute": many(lambda n: Extensible("2.5.13.5", "", b"x%d" % n, True), 120),
    "equal": many(lambda n: Equal("pgpUserID", b"x%d" % n), 120),
    "sounds": many(lambda n: Approx("gpgMailbox", b"x%d" % n), 120),
    "not": Not(many(lambda n: Equal("proxyAddresses", b"smtp:x%d" % n), 110)),
}


@pytest.mark.parametrize("octets", BOMBS.values(), ids=BOMBS)
def test_a_bomb_in_one_message(face: Face, octets: bytes) -> None:
    assert len(octets) <= 2 * wire.MAX_MESSAGE
    with Pulse(face) as pulse, Client(face.port) as client:
        began = time.monotonic()
        for number in range(3):  # what was refused once is not remembered as good
            client.socket.sendall(octets)
            got = client.read()
            while got is not None and got.tag == wire.ENTRY:
                got = client.read()
            if got is None or got.oid:  # over the size of a message: ended
                assert len(octets) > wire.MAX_MESSAGE
                break
            assert got.code in (0, 2, 4, 11, 32, 34, 53), (number, got)
        assert time.monotonic() - began < 5
        answered(face)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


@pytest.mark.parametrize("filter_", LATE.values(), ids=LATE)
@pytest.mark.parametrize("who", [Equal("gpgMailbox", b"mallory@example.org"), Equal("mail", b"mallory@example.org")])
def test_a_filter_that_takes_long_to_judge(face: Face, who: Filter, filter_: Filter) -> None:
    """Also over a certificate that was made for it."""
    with Pulse(face) as pulse, Client(face.port) as client:
        for _ in range(3):
            assert client.search(BASE, And((who, filter_)), "1.1").code in (0, Code.ADMIN_LIMIT)
        answered(face)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


def test_a_flood_of_abandons(face: Face) -> None:
    flood = b"".join(wire.envelope(n, element(wire.ABANDON, n.to_bytes(3, "big"))) for n in range(1, 20_000))
    with Pulse(face) as pulse, Client(face.port) as client:
        client.socket.sendall(flood)
        assert len(client.search(KEYS, MAIL).entries) == 1
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


def test_searches_abandoned_at_once(face: Face) -> None:
    """Each is begun and given up: never more under way than one connection may have."""
    event = face.call(asyncio.Event)
    face.memory.wait = event
    most = face.server.limits.outstanding
    with Pulse(face) as pulse, Client(face.port) as client:
        for n in range(1, 3_000):
            search = request(Equal("gpgMailbox", b"nobody%d@example.org" % n), id_=n)
            client.socket.sendall(search + wire.envelope(9_000_000, element(wire.ABANDON, n.to_bytes(2, "big"))))
        for n in range(1, 2 * most + 1):
            client.socket.sendall(request(Equal("gpgMailbox", b"late%d@example.org" % n), id_=n))
        for _ in range(most):
            assert client.result().code == Code.BUSY
        under_way = face.call(lambda: sum(c.held().searches for c in face.server.connections))
        assert under_way == most
        face.call(event.set)
    until(lambda: face.server.counts().open == 0)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"
    answered(face)


def test_binds_without_end(face: Face) -> None:
    with Pulse(face) as pulse, Client(face.port) as client:
        client.socket.sendall(b"".join(wire.envelope(n, write_bind()) for n in range(1, 3_001)))
        assert all(client.result().code == 0 for _ in range(3_000))
        answered(face)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


def test_guesses_without_end(memory: Memory) -> None:
    """Also with the longest names and passwords."""
    account = Account("cn=gateway,dc=example,dc=org", b"s3cret")
    guess = write_bind(3, "cn=" + "é" * 450, b"p" * 60_000)
    with serving(memory, account=account) as face, Pulse(face) as pulse:
        for _ in range(5):
            with Client(face.port) as client:
                try:
                    for n in itertools.count(1):
                        client.send(guess, id_=n)
                        if (got := client.read()) is None or got.oid:
                            break
                        assert got.code == Code.INVALID_CREDENTIALS
                except (BrokenPipeError, ConnectionResetError):
                    pass
                assert n <= GUESSES + 2
        answered(face)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


INJECTED = request(MAIL, KEYS, id_=66)


@pytest.mark.parametrize(
    "behind", [INJECTED, INJECTED[:1], INJECTED[:40], b"\x16\x03\x01", wire.envelope(66, b"\x42\x00"), b"\0" * 5_000]
)
def test_octets_in_clear_behind_start_tls(memory: Memory, authority: Authority, behind: bytes) -> None:
    """In the same segment: never taken for something that came through TLS (the STARTTLS injections of CVE-2011-0411
    and its kind)."""
    start = wire.envelope(1, write_extended(wire.START_TLS))
    with serving(memory, tls=authority.server()) as face:
        with Client(face.port) as client:
            client.socket.sendall(start + behind)
            answers = []
            while (got := client.read()) is not None:
                answers.append(got)
            assert 66 not in [got.id for got in answers]
        assert memory.asked == []
        until(lambda: face.server.counts().open == 0)
        answered(face)


def test_octets_in_clear_instead_of_a_handshake(memory: Memory, authority: Authority) -> None:
    with serving(memory, tls=authority.server()) as face, Client(face.port) as client:
        client.send(write_extended(wire.START_TLS))
        assert client.result().code == 0
        client.socket.sendall(INJECTED)
        try:
            rest = client.socket.recv(10_000)
        except ConnectionResetError:
            rest = b""
        assert bytes((2, 1, 66)) not in rest  # an alert, or nothing
        assert memory.asked == []
        until(lambda: face.server.counts().open == 0)


def test_half_a_message_before_the_handshake_is_forgotten_or_ends_it(memory: Memory, authority: Authority) -> None:
    """The second half comes through TLS: the two are not one message."""
    with serving(memory, tls=authority.server()) as face, Client(face.port) as client:
        start_tls(client, client_context(authority.ca_file))
        assert len(client.search(KEYS, MAIL).entries) == 1
        client.socket.sendall(INJECTED[:20])
        time.sleep(0.05)
        client.socket.sendall(INJECTED[20:])
        assert client.finish().done.id == 66


@pytest.mark.parametrize(
    "octets", [b"\x30", INJECTED[:30], b"\x30\x83\x00\xff\xf0" + b"x" * 60_000, b"\x30\x84\x00\x00"]
)
def test_half_messages_end_in_time(face: Face, octets: bytes) -> None:
    with Client(face.port) as client:
        client.socket.sendall(octets)
        if face.front is None:
            until(lambda: face.call(lambda: sum(c.held().octets for c in face.server.connections)) == len(octets))
        else:  # the core never hears of it
            until(lambda: face.door.present == 1)
            time.sleep(0.05)
        face.pass_seconds(face.server.limits.first + 1)
        while (got := client.read()) is not None:
            assert got.oid == wire.NOTICE_OF_DISCONNECTION
        until(lambda: face.door.present == 0)


def test_a_message_that_drips_ends_in_time(face: Face) -> None:
    """An octet a second is no progress."""
    with Client(face.port) as client:
        client.search("", scope=0)
        client.socket.sendall(INJECTED[:4])
        for at in range(4, 4 + face.server.limits.first + 1):
            client.socket.sendall(INJECTED[at : at + 1])
            time.sleep(0.01)
            face.pass_seconds(1)
        assert client.result().oid == wire.NOTICE_OF_DISCONNECTION


@pytest.mark.parametrize(
    "octets",
    [b"\x30\x84\x7f\xff\xff\xff", b"\x30\x83\x01\x00\x01" + b"\x02\x01\x01", b"\x30\x88" + b"\xff" * 8, b"\x30\x80"],
)
def test_claims_are_not_believed(face: Face, octets: bytes) -> None:
    with Client(face.port) as client:
        client.socket.sendall(octets)
        assert client.result().code == Code.PROTOCOL_ERROR
        assert client.closed()
    answered(face)


def test_who_never_reads_is_not_written_for(face: Face, memory: Memory) -> None:
    """Fifty thousand searches, answers not read: what waits for the client is bounded, and so is what is read of it."""
    with Pulse(face) as pulse, socket.create_connection(("127.0.0.1", face.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0.5)
        sent, large = 0, Equal("gpgMailbox", b"mallory@example.org")
        hundred = b"".join(request(large, id_=n) for n in range(1, 101))
        try:
            while sent < 500 * len(hundred):
                sent += sock.send(hundred[sent % len(hundred) :])
        except TimeoutError:
            pass
        assert sent < 8 << 20
        waiting = face.call(lambda: [c.held().unsent for c in face.server.connections])
        assert sum(waiting) < 2 << 20, waiting
        answered(face)
        until(lambda: face.pass_seconds(face.server.limits.stalled + 1) or face.server.counts().open == 0)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


def test_pages_without_end(face: Face, memory: Memory) -> None:
    page = wire.page_control(1, b"")
    memory.held += [a for n in range(3) for a in Memory(make(["A <alice@example.org>"], seed=f"a{n}").octets).held]
    with Client(face.port) as client:
        for n in range(200):
            name = ("gpgMailbox", "GPGMAILBOX", "1.3.6.1.4.1.11591.2.4.1.3")[n % 3]
            assert client.search(KEYS, Or((Equal(name, b"alice@example.org"), Equal("cn", b"%d" % n)))).code in (0, 53)
            assert client.search(KEYS, MAIL, controls=(page,)).code == 0
        held = face.call(lambda: max(c.held().pages for c in face.server.connections))
        assert 0 < held <= PAGED_SEARCHES


def test_ten_thousand_questions_stay_within_their_memory(memory: Memory) -> None:
    allowed = 2 << 20
    with serving(memory, kept=allowed) as face, Pulse(face) as pulse, Client(face.port) as client:
        for n in range(0, 10_000, 100):
            batch = [Equal("gpgMailbox", b"nobody%d@example.org" % (n + i)) for i in range(20)]
            batch += [MAIL, Or((MAIL, Equal("cn", b"%d" % n)))]
            for filter_ in batch:
                assert client.search(KEYS, filter_, f"a{n}").code in (0, 53)
        assert face.server.context.budget.octets <= allowed
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"


def test_many_connections_of_one_stranger_leave_room(memory: Memory) -> None:
    """The total is reached by nobody alone, and what is refused is told so."""
    with serving(memory, limits=LdapLimits(connections=40, connections_per_client=8)) as face:
        clients = [Client(face.port) for _ in range(30)]
        try:
            until(lambda: face.door.refused == 22)
            assert face.door.present == 8
            refused = (
                [c for c in clients if c.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)]
                if False
                else clients[8:]
            )
            assert all(c.result().code == Code.UNAVAILABLE for c in refused)
        finally:
            for client in clients:
                client.socket.close()
        until(lambda: face.door.present == 0)
        answered(face)


def test_noise_never_ends_the_service(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(11)
    seeds = [*BOMBS.values(), INJECTED, wire.envelope(1, write_bind(3, "cn=a", b"x"))]
    small = [octets for octets in seeds if len(octets) < 4_000]
    with Pulse(face) as pulse:
        for _ in range(300):
            octets = bytearray(chance.choice(small))
            for _ in range(chance.randrange(1, 6)):
                octets[chance.randrange(len(octets))] = chance.randrange(256)
            with Client(face.port) as client:
                client.socket.sendall(bytes(octets))
        answered(face)
    assert pulse.longest < HELD, f"{pulse.longest * 1000:.0f} ms"
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


def test_an_element_longer_than_what_holds_it_is_no_message(face: Face) -> None:
    for inner in (element(0xA4, element(OCTETS, b"cn") + b"\x30\x7f"), b"\xa9\x03\x81\x7fx", b"\x87\xff"):
        with Client(face.port) as client:
            client.socket.sendall(request(inner))
            assert client.result().code == Code.PROTOCOL_ERROR
    with Client(face.port) as client:
        client.socket.sendall(bytes((SEQUENCE, 3)) + b"\x02\x01")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.closed()
