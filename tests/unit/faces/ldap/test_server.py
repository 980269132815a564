"""The LDAP server over its socket: every event of RFC 4511 that a read-only directory meets, limits, memory, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver.config.listener import Listener
from keyserver.faces.ldap.bind import Account, authenticate
from keyserver.faces.ldap.connection import GUESSES
from keyserver.faces.ldap.server import LdapLimits
from keyserver.listen.trust import loopback
from keyserver.model import State
from keyserver.wire import ldap as wire
from keyserver.wire.ber import element
from keyserver.wire.ldap import Code, Control, SearchRequest
from keyserver.wire.ldap_filter import And, Equal, Not, Or, Present
from keyserver.wire.loop import LOOP_CONTROL, LOOP_MARK, via_value
from support.ldap_client import Client, client_context, parse, start_tls, until
from support.ldap_memory import BASE, Face, Memory, serving
from support.ldap_messages import gpg_get, write_bind, write_extended, write_search
from support.openpgp import make
from support.tls import Authority
from support.x509 import person

KEYS, PEOPLE = f"ou=PGP Keys,{BASE}", f"ou=People,{BASE}"
ALICE = make(["Alice <alice@example.org>"], seed="alice")
MAIL = Equal("gpgMailbox", b"alice@example.org")


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def memory() -> Memory:
    return Memory(ALICE.octets)


@pytest.fixture
def face(memory: Memory, loop: str) -> Iterator[Face]:
    with serving(memory, loop=loop) as running:
        yield running


@pytest.fixture
def client(face: Face) -> Iterator[Client]:
    with Client(face.port) as connected:
        yield connected


def octets(search: SearchRequest, id_: int = 1) -> bytes:
    return wire.envelope(id_, write_search(search))


# --- operations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "tag", "code"),
    [
        (write_bind(), 0x61, Code.SUCCESS),
        (write_bind(2), 0x61, Code.PROTOCOL_ERROR),
        (write_bind(3, "cn=a"), 0x61, Code.UNWILLING),
        (write_bind(3, "cn=a", b"secret"), 0x61, Code.INVALID_CREDENTIALS),
        (element(wire.BIND, b"\x02\x01\x03\x04\x00" + element(0xA3, element(4, b"PLAIN"))), 0x61, Code.AUTH_METHOD),
        (write_extended(wire.WHO_AM_I), 0x78, Code.SUCCESS),
        (write_extended("1.2.3.4"), 0x78, Code.PROTOCOL_ERROR),
        (write_extended(wire.START_TLS), 0x78, Code.PROTOCOL_ERROR),  # no certificate configured
        (element(wire.DELETE, b"cn=a"), 0x6B, Code.UNWILLING),
        (element(wire.ADD, element(4, b"cn=a"), element(0x30)), 0x69, Code.UNWILLING),
        (element(wire.MODIFY, element(4, b"cn=a"), element(0x30)), 0x67, Code.UNWILLING),
        (element(wire.RENAME, element(4, b"cn=a"), element(4, b"cn=b"), b"\x01\x01\xff"), 0x6D, Code.UNWILLING),
        (element(wire.COMPARE, element(4, b"cn=a"), element(0x30)), 0x6F, Code.UNWILLING),
    ],
)
def test_every_operation_has_its_result(client: Client, request_: bytes, tag: int, code: Code) -> None:
    client.send(request_, id_=300)
    got = client.result()
    assert (got.id, got.tag, got.code) == (300, tag, code)
    assert client.search("", scope=0).code == 0  # and the connection goes on


def test_who_am_i_is_nobody(client: Client) -> None:
    client.send(write_extended(wire.WHO_AM_I))
    assert client.result().value == b""


def test_unbind_closes(client: Client) -> None:
    client.send(b"\x42\x00")
    assert client.closed()


@pytest.mark.parametrize(
    "message", [b"GET / HTTP/1.0\r\n\r\n", b"\x30\x84\x7f\xff\xff\xff", b"\x30\x05\x02\x01\x00\x42\x00"]
)
def test_what_is_no_ldap_gets_a_notice_and_the_door(client: Client, face: Face, message: bytes) -> None:
    client.socket.sendall(message)
    got = client.result()
    assert (got.id, got.tag, got.code, got.oid) == (0, 0x78, Code.PROTOCOL_ERROR, wire.NOTICE_OF_DISCONNECTION)
    assert client.closed()
    assert face.server.counts().malformed == 1


def test_what_came_before_the_garbage_is_answered(client: Client) -> None:
    client.socket.sendall(octets(SearchRequest("", 0, 0, 0, False, Present("objectClass"), ()), 1) + b"garbage")
    assert client.finish().code == 0
    assert client.result().oid == wire.NOTICE_OF_DISCONNECTION


def test_a_critical_control_that_nobody_knows_is_refused(client: Client, face: Face) -> None:
    unknown = Control("1.2.3.4", True)
    answer = client.search(KEYS, MAIL, controls=(unknown,))
    assert (answer.code, answer.entries) == (Code.CRITICAL_EXTENSION, [])
    client.send(write_bind(), unknown)
    assert client.result().code == Code.CRITICAL_EXTENSION
    client.send(write_bind(), Control(wire.PAGED, True))  # known, but not for a bind
    assert client.result().code == Code.CRITICAL_EXTENSION
    assert face.memory.asked == []
    assert len(client.search(KEYS, MAIL, controls=(Control("1.2.3.4"), Control(wire.MANAGE_DSA_IT, True))).entries) == 1


def test_a_filter_over_the_limits_is_refused_and_the_connection_lives(client: Client) -> None:
    deep = Present("cn")
    for _ in range(20):
        deep = Not(deep)  # type: ignore[assignment]
    assert client.search(KEYS, deep).code == Code.ADMIN_LIMIT
    assert client.search(KEYS, MAIL).code == 0


@pytest.mark.parametrize(
    ("base", "code"), [("dc=elsewhere", Code.NO_SUCH_OBJECT), ("=", Code.INVALID_DN), (BASE, Code.UNWILLING)]
)
def test_searches_that_find_nothing_say_why(client: Client, base: str, code: Code) -> None:
    assert client.search(base).code == code


def test_an_absent_certificate_is_success_without_entries_and_no_object_as_a_base(client: Client) -> None:
    answer = client.search(KEYS, Equal("gpgMailbox", b"nobody@example.org"))
    assert (answer.code, answer.entries) == (0, [])
    assert client.search(f"gpgFingerprint={'A' * 40},{KEYS}", scope=0).code == Code.NO_SUCH_OBJECT
    assert client.search(f"gpgFingerprint={ALICE.fingerprint},{KEYS}", scope=0).code == 0
    subkey = ALICE.subkeys[0].fingerprint  # finds the certificate, but is not its name
    assert client.search(f"gpgFingerprint={subkey},{KEYS}", scope=0).code == Code.NO_SUCH_OBJECT


@pytest.mark.parametrize(("state", "code"), [(State.FAILED, Code.UNAVAILABLE), (State.BUSY, Code.BUSY)])
def test_failure_and_overload_have_their_codes(client: Client, memory: Memory, state: State, code: Code) -> None:
    memory.state = state
    answer = client.search(KEYS, MAIL)
    assert (answer.code, answer.entries) == (code, [])
    memory.state = None
    assert len(client.search(KEYS, MAIL).entries) == 1  # and was not remembered


def test_a_miss_goes_upstream_and_a_loop_does_not(memory: Memory, loop: str) -> None:
    memory.upstream, memory.held = memory.held, []
    with serving(memory, loop=loop, instance="frontend.example") as face, Client(face.port) as client:
        own = Control(LOOP_CONTROL, False, via_value("frontend.example"))
        answer = client.search(KEYS, MAIL, controls=(own,))
        assert (answer.code, answer.entries) == (0, [])
        assert [(c.oid, c.value) for c in answer.done.controls] == [(LOOP_CONTROL, LOOP_MARK)]
        other = Control(LOOP_CONTROL, False, via_value("another.example"))
        answer = client.search(KEYS, MAIL, controls=(other,))
        assert len(answer.entries) == 1
        assert answer.done.controls == []
    assert memory.looped == [True, False]


def test_an_error_of_ours_ends_one_search_only(
    client: Client, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    until, memory.until = memory.until, None  # type: ignore[assignment]
    assert client.search(KEYS, MAIL).code == Code.OTHER
    memory.until = until
    assert client.search(KEYS, MAIL).code == 0
    assert "a search failed" in caplog.text


# --- several at once ---------------------------------------------------------------------------------------------


def held_back(face: Face) -> asyncio.Event:
    """Lookups wait for this."""
    event = face.call(asyncio.Event)
    face.memory.wait = event
    return event


def test_a_quick_search_overtakes_a_slow_one(client: Client, face: Face) -> None:
    event = held_back(face)
    slow = client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ("1.1",))))
    root = client.send(write_search(SearchRequest("", 0, 0, 0, False, Present("objectClass"), ())))
    assert client.finish().done.id == root
    face.call(event.set)
    assert client.finish().done.id == slow


def test_an_abandoned_search_is_not_answered(client: Client, face: Face) -> None:
    event = held_back(face)
    slow = client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ("1.1",))))
    until(lambda: face.memory.asked)
    client.send(element(wire.ABANDON, bytes((slow,))))
    client.send(element(wire.ABANDON, b"\x7f"))  # nobody's
    face.call(event.set)
    assert client.search("", scope=0).done.id == slow + 3


def test_a_bind_ends_what_is_under_way(client: Client, face: Face) -> None:
    event = held_back(face)
    client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ("1.1",))))
    bind = client.send(write_bind())
    face.call(event.set)
    assert client.result().id == bind
    assert client.search("", scope=0).done.id == bind + 1


def test_more_searches_than_a_connection_may_have_are_refused(memory: Memory, loop: str) -> None:
    with serving(memory, loop=loop, limits=LdapLimits(outstanding=4)) as face, Client(face.port) as client:
        event = held_back(face)
        searches = [SearchRequest(KEYS, 2, 0, n, False, MAIL, ("1.1",)) for n in range(1, 7)]
        client.socket.sendall(b"".join(octets(s, n) for n, s in enumerate(searches, 1)))
        assert {(client.result().id, Code.BUSY), (client.result().id, Code.BUSY)} == {(5, Code.BUSY), (6, Code.BUSY)}
        face.call(event.set)
        assert {client.finish().done.id for _ in range(4)} == {1, 2, 3, 4}


def test_a_search_out_of_time_says_so(client: Client, face: Face) -> None:
    held_back(face)
    began = time.monotonic()
    answer = client.search(KEYS, MAIL, seconds=1)
    assert answer.code == Code.TIME_LIMIT
    assert time.monotonic() - began < 3


def test_what_was_found_in_time_is_sent(client: Client, face: Face) -> None:
    face.memory.failing = {"openpgp:addr:bob@example.org"}
    answer = client.search(KEYS, Or((MAIL, Equal("gpgMailbox", b"bob@example.org"))))
    assert (len(answer.entries), answer.code) == (1, Code.UNAVAILABLE)


def test_a_client_that_leaves_takes_its_searches_along(face: Face) -> None:
    held_back(face)
    with Client(face.port) as client:
        client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ("1.1",))))
        until(lambda: face.memory.asked)
    until(lambda: face.server.counts().open == 0)
    until(lambda: not [t for t in asyncio.all_tasks(face.loop) if "answer" in repr(t.get_coro())])


def test_any_cut_of_the_stream_gives_the_same_answer(face: Face) -> None:
    first = octets(gpg_get(ALICE.fingerprint, KEYS), 1)
    stream = first + octets(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ("pgpCertID",)), 2)
    for cut in range(1, len(stream), 7):
        with Client(face.port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.socket.sendall(stream[:cut])
            if cut >= len(first):
                assert client.finish().done.id == 1
            client.socket.sendall(stream[cut:])
            answers = [client.finish() for _ in range(1 if cut >= len(first) else 2)]
            assert answers[-1].done.id == 2
            assert answers[-1].entries[0].attributes == {"pgpCertID": [ALICE.key_id.encode()]}


def test_a_flood_of_small_requests_is_answered_in_order(face: Face) -> None:
    root = SearchRequest("", 0, 0, 0, False, Present("objectClass"), ())
    with Client(face.port) as client:
        client.socket.sendall(b"".join(octets(root, n) for n in range(1, 2001)))
        assert [client.finish().done.id for _ in range(2000)] == list(range(1, 2001))


def test_who_waits_for_a_turn_is_answered_in_order(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyserver.faces.ldap.server.AT_ONCE", 0)
    root = SearchRequest("", 0, 0, 0, False, Present("objectClass"), ())
    clients = [Client(face.port) for _ in range(40)]
    for client in clients:
        stream = b"".join(octets(root, n) for n in range(1, 30)) + octets(root, 30)
        client.socket.sendall(stream[:-5])
        client.socket.sendall(stream[-5:])
    for client in clients:
        with client:
            assert [client.finish().done.id for _ in range(30)] == list(range(1, 31))
            client.send(write_search(root), id_=31)
            assert client.finish().done.id == 31
            client.socket.sendall(b"\x00")
            assert client.result().oid == wire.NOTICE_OF_DISCONNECTION


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_same_octets_are_answered_from_memory_with_any_id(client: Client, face: Face) -> None:
    search = write_search(gpg_get(ALICE.fingerprint, KEYS))
    answers = []
    for id_ in (1, 200, 70000, 2**31 - 1):
        client.send(search, id_=id_)
        answers.append(client.finish())
    assert [a.done.id for a in answers] == [1, 200, 70000, 2**31 - 1]
    assert all([e.id for e in a.entries] == [a.done.id] for a in answers)
    assert len({repr(a.entries[0].attributes) for a in answers}) == 1
    assert len(face.memory.asked) == 1
    assert face.server.counts().hits == 3
    assert face.memory.noted == [f"openpgp:fpr:{ALICE.fingerprint}"] * 3  # they count as asked for


def test_another_spelling_is_answered_without_a_lookup(client: Client, face: Face) -> None:
    assert len(client.search(KEYS, MAIL, "pgpKey").entries) == 1
    answer = client.search(KEYS.upper(), Or((Equal("GPGMAILBOX", b"Alice@EXAMPLE.org"),)), "pgpUserID")
    assert answer.entries[0].attributes == {"pgpUserID": [b"Alice <alice@example.org>"]}
    assert len(face.memory.asked) == 1


def test_another_time_limit_is_the_same_question(client: Client, face: Face) -> None:
    for seconds in (1, 1, 2, 3000, 70000, 2**31 - 1):
        assert len(client.search(KEYS, MAIL, seconds=seconds).entries) == 1
    assert face.server.counts().hits == 5
    assert client.search(KEYS, MAIL, size=1, types=True).entries[0].attributes["pgpUserID"] == []


def test_another_order_or_spelling_of_attributes_is_the_same_question(client: Client, face: Face) -> None:
    names = ("pgpUserID", "pgpCertID", "nonsense")
    answers = [client.search(KEYS, MAIL, *names, size=size) for size in (0, 0, 100, 1000)]
    answers += [client.search(KEYS, MAIL, *reversed(names)), client.search(KEYS, MAIL, "PGPUSERID", "pgpcertid")]
    assert len({repr(answer.entries[0].attributes) for answer in answers}) == 1
    assert set(answers[0].entries[0].attributes) == {"pgpUserID", "pgpCertID"}
    assert set(client.search(KEYS, MAIL, "pgpCertID").entries[0].attributes) == {"pgpCertID"}
    assert client.search(KEYS, MAIL, *names, types=True).entries[0].attributes["pgpUserID"] == []
    assert client.search(KEYS, And((MAIL, Equal("pgpRevoked", b"1"))), *names).entries == []
    assert len(face.memory.asked) == 1


def test_a_search_with_controls_is_not_taken_for_one_without(client: Client) -> None:
    for _ in range(4):
        assert client.search(KEYS, MAIL).done.controls == []
    answer = client.search(KEYS, MAIL, controls=(wire.page_control(10, b""),))
    assert [control.oid for control in answer.done.controls] == [wire.PAGED]


def test_refused_searches_are_refused_each_time(client: Client) -> None:
    for _ in range(3):
        assert client.search(KEYS, Present("cn")).code == 53
        assert client.search("cn=nowhere", MAIL).code == 32
        assert client.search(KEYS, Equal("gpgMailbox", b"x" * 1025)).code == 11


def test_large_certificates_are_made_into_entries_beside_the_loop(memory: Memory) -> None:
    users = [f"Big {'x' * 200} <big{n}@example.org>" for n in range(250)]
    memory.add(make(users, seed="large", third_party=0).octets)
    with serving(memory) as face, Client(face.port) as client:
        first = client.search(KEYS, Equal("gpgMailbox", b"big7@example.org"))
        assert len(first.entries[0].attributes["gpgMailbox"]) == 250
        for _ in range(3):
            again = client.search(KEYS, Equal("gpgMailbox", b"big7@example.org"))
            assert again.entries[0].attributes == first.entries[0].attributes
        assert len(memory.asked) == 1


@pytest.mark.parametrize("name", ["openpgp:addr:alice@example.org", f"openpgp:fpr:{ALICE.fingerprint}", "everything"])
def test_a_change_of_any_name_takes_it_away(client: Client, face: Face, name: str) -> None:
    for _ in range(3):  # the third time from memory, rendered
        assert len(client.search(KEYS, MAIL).entries) == 1
    face.memory.held.clear()
    face.change("openpgp:addr:somebody@example.org")
    assert len(client.search(KEYS, MAIL).entries) == 1
    if name == "everything":
        face.change(everything=True)
    else:
        face.change(name)
    assert client.search(KEYS, MAIL).entries == []


def test_it_ends_at_its_instant(client: Client, face: Face) -> None:
    for _ in range(3):  # the third time from memory, rendered
        assert len(client.search(KEYS, MAIL).entries) == 1
    face.memory.held.clear()
    face.memory.now = face.memory.until - 1
    assert len(client.search(KEYS, MAIL).entries) == 1
    face.memory.now = face.memory.until
    assert client.search(KEYS, MAIL).entries == []


def test_what_raced_with_a_change_is_not_kept(client: Client, face: Face) -> None:
    event = held_back(face)
    client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ())))
    until(lambda: face.memory.asked)
    face.change("openpgp:addr:alice@example.org")
    face.call(event.set)
    assert len(client.finish().entries) == 1
    client.search(KEYS, MAIL)
    assert len(face.memory.asked) == 2


def test_what_may_not_be_kept_is_not(client: Client, face: Face) -> None:
    face.memory.keep = False
    client.search(KEYS, MAIL)
    client.search(KEYS, MAIL)
    assert len(face.memory.asked) == 2


def test_memory_is_bounded(loop: str) -> None:
    made = [make([f"U <u{n}@example.org>"], seed=f"u{n}") for n in range(60)]
    held = Memory(*(m.octets for m in made))
    with serving(held, loop=loop, kept=128 << 10) as face, Client(face.port) as client:
        for m in made:
            assert len(client.search(KEYS, Equal("gpgFingerprint", m.fingerprint.encode())).entries) == 1
        assert face.server.context.budget.octets <= 128 << 10
        asked = len(held.asked)
        client.search(KEYS, Equal("gpgFingerprint", made[-1].fingerprint.encode()))
        assert len(held.asked) == asked  # the latest is still there
        client.search(KEYS, Equal("gpgFingerprint", made[0].fingerprint.encode()))
        assert len(held.asked) == asked + 1  # the first had to go


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(loop: str) -> Iterator[Client]:
    """Seven certificates of one address."""
    held = Memory(*(make(["A <a@example.org>"], seed=f"a{n}").octets for n in range(7)))
    with serving(held, loop=loop) as face, Client(face.port) as client:
        yield client


A = Equal("gpgMailbox", b"a@example.org")


def test_pages_give_everything_once(crowd: Client) -> None:
    seen, cookie, sizes = [], b"", []
    while True:
        answer = crowd.search(KEYS, A, "1.1", controls=(wire.page_control(3, cookie, critical=True),))
        assert answer.code == 0
        seen += answer.dns
        sizes.append(len(answer.entries))
        total, cookie = wire.read_page(answer.done.controls[0])
        assert total == 7
        if not cookie:
            break
    assert sizes == [3, 3, 1]
    assert len(set(seen)) == 7


def test_a_page_that_holds_everything_ends_at_once(crowd: Client) -> None:
    answer = crowd.search(KEYS, A, controls=(wire.page_control(100, b""),))
    assert len(answer.entries) == 7
    assert wire.read_page(answer.done.controls[0]) == (7, b"")


def test_a_cookie_is_good_once_for_its_own_search_and_connection(crowd: Client) -> None:
    answer = crowd.search(KEYS, A, controls=(wire.page_control(3, b""),))
    _, cookie = wire.read_page(answer.done.controls[0])
    port = crowd.socket.getpeername()[1]
    with Client(port) as other:
        assert other.search(KEYS, A, controls=(wire.page_control(3, cookie),)).code == Code.UNWILLING
    assert crowd.search(KEYS, MAIL, controls=(wire.page_control(3, cookie),)).code == Code.UNWILLING
    assert crowd.search(KEYS, A, controls=(wire.page_control(3, cookie),)).code == Code.UNWILLING
    assert crowd.search(KEYS, A, controls=(Control(wire.PAGED, True, b"junk"),)).code == Code.PROTOCOL_ERROR


def test_a_paged_search_can_be_given_up(crowd: Client) -> None:
    answer = crowd.search(KEYS, A, controls=(wire.page_control(3, b""),))
    _, cookie = wire.read_page(answer.done.controls[0])
    stopped = crowd.search(KEYS, A, controls=(wire.page_control(0, cookie),))
    assert (stopped.code, stopped.entries) == (0, [])
    assert wire.read_page(stopped.done.controls[0])[1] == b""


def test_size_limit(crowd: Client) -> None:
    answer = crowd.search(KEYS, A, size=4)
    assert (len(answer.entries), answer.code) == (4, Code.SIZE_LIMIT)


# --- limits ------------------------------------------------------------------------------------------------------


def test_connections_of_one_client_are_limited_unless_trusted(memory: Memory, loop: str) -> None:
    from ipaddress import ip_network

    from keyserver.listen.trust import Trust

    with serving(memory, loop=loop, limits=LdapLimits(connections_per_client=2)) as face:
        with Client(face.port) as one, Client(face.port) as two, Client(face.port) as three:
            assert one.search("", scope=0).code == two.search("", scope=0).code == 0
            assert three.result().code == Code.UNAVAILABLE
            assert three.closed()
        until(lambda: face.server.counts().open == 0)
        with Client(face.port) as again:
            assert again.search("", scope=0).code == 0
    trusted = LdapLimits(connections_per_client=1, trust=Trust([ip_network("127.0.0.0/8")]))
    with serving(memory, loop=loop, limits=trusted) as face, Client(face.port) as one, Client(face.port) as two:
        assert one.search("", scope=0).code == two.search("", scope=0).code == 0


def test_connections_in_all_are_limited(memory: Memory, loop: str) -> None:
    with (
        serving(memory, loop=loop, limits=LdapLimits(connections=1)) as face,
        Client(face.port) as one,
        Client(face.port) as two,
    ):
        assert one.search("", scope=0).code == 0
        assert two.result().code == Code.UNAVAILABLE


def test_silence_ends_a_connection(face: Face) -> None:
    with Client(face.port) as silent, Client(face.port) as half, Client(face.port) as idle:
        assert idle.search("", scope=0).code == 0
        half.socket.sendall(b"\x30\x20\x02\x01")
        until(lambda: face.server.counts().open == 3)
        until(lambda: any(c.held().octets for c in face.server.connections))
        face.pass_seconds(11)
        assert silent.result().oid == wire.NOTICE_OF_DISCONNECTION
        assert half.result().text.startswith("half a message")
        assert half.closed()
        assert idle.search("", scope=0).code == 0
        face.pass_seconds(61)
        assert idle.result().oid == wire.NOTICE_OF_DISCONNECTION


def test_a_search_under_way_is_not_idle(client: Client, face: Face) -> None:
    event = held_back(face)
    client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ())))
    until(lambda: face.memory.asked)
    face.pass_seconds(100)
    face.call(event.set)
    assert len(client.finish().entries) == 1


def test_who_does_not_read_is_not_served_without_end(face: Face, memory: Memory) -> None:
    memory.add(make([f"Big <big{n}@example.org>" for n in range(200)], seed="big", third_party=0).octets)
    big = SearchRequest(KEYS, 2, 0, 0, False, Equal("gpgMailbox", b"big0@example.org"), ())
    with Client(face.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.socket.sendall(b"".join(octets(big, n) for n in range(1, 400)))
        until(lambda: any(c.held().stalled for c in face.server.connections))
        (connection,) = face.server.connections
        assert face.call(connection.held).unsent < 2 << 20
        assert [client.finish().done.id for _ in range(20)]  # it goes on when read
        until(lambda: connection.held().stalled)
        face.pass_seconds(31)
        until(lambda: face.server.counts().open == 0)


def test_closing_waits_for_what_is_under_way(memory: Memory, loop: str) -> None:
    with serving(memory, loop=loop) as face, Client(face.port) as busy, Client(face.port) as idle:
        assert idle.search("", scope=0).code == 0
        event = held_back(face)
        busy.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ())))
        until(lambda: face.memory.asked)
        closing = asyncio.run_coroutine_threadsafe(face.server.close(5), face.loop)
        assert idle.result().code == Code.UNAVAILABLE
        face.call(event.set)
        assert len(busy.finish().entries) == 1
        assert busy.result().code == Code.UNAVAILABLE
        closing.result(5)


# --- TLS ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def test_ldaps(memory: Memory, loop: str, authority: Authority) -> None:
    with (
        serving(memory, loop=loop, tls=authority.server(), ldaps=True) as face,
        Client(face.port, client_context(authority.ca_file)) as client,
    ):
        assert len(client.search(KEYS, MAIL).entries) == 1
        client.send(write_extended(wire.START_TLS))
        assert client.result().code == Code.OPERATIONS_ERROR  # it is on already


def test_start_tls(memory: Memory, loop: str, authority: Authority) -> None:
    with serving(memory, loop=loop, tls=authority.server()) as face, Client(face.port) as client:
        assert client.search("", scope=0).code == 0
        start_tls(client, client_context(authority.ca_file))
        assert len(client.search(KEYS, MAIL).entries) == 1
        root = client.search("", Present("objectClass"), "supportedExtension", scope=0)
        assert wire.START_TLS.encode() in root.entries[0].attributes["supportedExtension"]
        start = client.send(write_extended(wire.START_TLS))
        assert (client.result().id, start) == (start, start)
    # and the client's end of TLS ends the connection in good order
    assert not [w for w in memory.noted if "error" in w]


def test_start_tls_with_another_authority_is_refused_by_the_client(
    memory: Memory, loop: str, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger", "Stranger CA")
    with serving(memory, loop=loop, tls=authority.server()) as face:
        with Client(face.port) as client, pytest.raises(ssl.SSLCertVerificationError):
            start_tls(client, client_context(stranger.ca_file))
        until(lambda: face.server.counts().open == 0)


def test_octets_behind_start_tls_close_the_connection(memory: Memory, loop: str, authority: Authority) -> None:
    with serving(memory, loop=loop, tls=authority.server()) as face, Client(face.port) as client:
        injected = octets(SearchRequest("", 0, 0, 0, False, Present("objectClass"), ()), 2)
        client.socket.sendall(wire.envelope(1, write_extended(wire.START_TLS)) + injected)
        assert client.closed()
        until(lambda: face.server.counts().open == 0)


def test_start_tls_waits_for_nothing(memory: Memory, loop: str, authority: Authority) -> None:
    with serving(memory, loop=loop, tls=authority.server()) as face, Client(face.port) as client:
        held_back(face)
        client.send(write_search(SearchRequest(KEYS, 2, 0, 0, False, MAIL, ())))
        until(lambda: face.memory.asked)
        client.send(write_extended(wire.START_TLS))
        assert client.result().code == Code.OPERATIONS_ERROR


def test_a_handshake_that_never_comes_ends(memory: Memory, loop: str, authority: Authority) -> None:
    with (
        serving(memory, loop=loop, tls=authority.server(), limits=LdapLimits(first=1)) as face,
        Client(face.port) as client,
        Client(face.port) as garbage,
    ):
        for one in (client, garbage):
            one.send(write_extended(wire.START_TLS))
            assert one.result().code == 0
        garbage.socket.sendall(b"no TLS at all")
        until(lambda: face.server.counts().open == 0)


# --- who has bound -----------------------------------------------------------------------------------------------

ACCOUNT = Account("cn=Mail Gateway,dc=example,dc=org", b"s3cret")
NAME = ACCOUNT.name
BINDS = [
    ("", b"", Code.SUCCESS, ""),
    (NAME, b"s3cret", Code.SUCCESS, f"dn:{NAME}"),
    ("CN=mail  gateway , 0.9.2342.19200300.100.1.25=EXAMPLE,dc=org", b"s3cret", Code.SUCCESS, f"dn:{NAME}"),
    ("cn=\uff2dail\\20Gateway,dc=#16076578616d706c65,domainComponent=org", b"s3cret", Code.SUCCESS, f"dn:{NAME}"),
    (NAME, b"S3cret", Code.INVALID_CREDENTIALS, ""),
    (NAME, b"s3cret\0", Code.INVALID_CREDENTIALS, ""),
    ("cn=Other,dc=example,dc=org", b"s3cret", Code.INVALID_CREDENTIALS, ""),
    ("Mail Gateway", b"s3cret", Code.INVALID_CREDENTIALS, ""),
    ("", b"s3cret", Code.INVALID_CREDENTIALS, ""),
    (NAME, b"", Code.UNWILLING, ""),
    ("x" * 9000, b"s3cret", Code.INVALID_CREDENTIALS, ""),
]


def bind(client: Client, name: str, password: bytes) -> tuple[int, str]:
    """The bind's code, and who we are then."""
    client.send(write_bind(3, name, password))
    code = client.result().code
    client.send(write_extended(wire.WHO_AM_I))
    return code, (client.result().value or b"").decode()


@pytest.mark.parametrize(("name", "password", "code", "identity"), BINDS)
def test_who_may_bind(memory: Memory, name: str, password: bytes, code: Code, identity: str) -> None:
    with serving(memory, account=ACCOUNT) as face, Client(face.port) as client:
        assert bind(client, name, password) == (code, identity)
        assert len(client.search(KEYS, MAIL).entries) == 1  # everybody may read


def test_a_bind_that_fails_takes_back_the_one_before(memory: Memory) -> None:
    with serving(memory, account=ACCOUNT) as face, Client(face.port) as client:
        assert bind(client, NAME, b"s3cret")[1]
        assert bind(client, NAME, b"wrong") == (Code.INVALID_CREDENTIALS, "")
        assert bind(client, NAME, b"s3cret")[1]
        assert bind(client, "", b"") == (Code.SUCCESS, "")


@pytest.mark.parametrize(("name", "password"), [(NAME, b"s3cret"), (NAME, b"wrong"), ("cn=x", b"s3cret")])
def test_a_password_in_clear_from_elsewhere_is_not_looked_at(name: str, password: bytes) -> None:
    said = authenticate(wire.BindRequest(3, name, True, password), ACCOUNT, confidential=False)
    assert (said.code, said.identity) == (Code.CONFIDENTIALITY_REQUIRED, "")
    assert authenticate(wire.BindRequest(3, "", True, b""), ACCOUNT, confidential=False).code is Code.SUCCESS
    assert authenticate(wire.BindRequest(3, name, True, b""), ACCOUNT, confidential=False).code is Code.UNWILLING
    assert (
        authenticate(wire.BindRequest(3, name, True, password), None, confidential=False).code
        is Code.INVALID_CREDENTIALS
    )


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def test_confidential_is_tls_loopback_and_unix(memory: Memory, loop: str, authority: Authority, tmp_path: Path) -> None:
    wild, path = Listener("0.0.0.0", 0), tmp_path / "s"
    here = own_address()
    with serving(memory, loop=loop, account=ACCOUNT, listener=wild, tls=authority.server()) as face:
        with Client(face.port) as client:
            assert bind(client, NAME, b"s3cret")[0] == Code.SUCCESS
        with Client(face.port) as client:
            client.socket.close()
            client.socket = socket.create_connection((here, face.port), 10)
            assert bind(client, NAME, b"s3cret") == (Code.CONFIDENTIALITY_REQUIRED, "")
            start_tls(client, client_context(authority.ca_file))
            assert bind(client, NAME, b"s3cret")[0] == Code.SUCCESS
    with (
        serving(memory, loop=loop, account=ACCOUNT, listener=Listener(unix=path)),
        socket.socket(socket.AF_UNIX) as sock,
    ):
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(wire.envelope(1, write_bind(3, NAME, b"s3cret")))
        assert parse(sock.recv(1000)).code == Code.SUCCESS


@pytest.mark.parametrize(
    ("client", "ours"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("10.0.0.1", False),
    ],
)
def test_what_loopback_is(client: str, ours: bool) -> None:
    assert loopback(client) is ours


def test_guessing_ends_the_connection(memory: Memory) -> None:
    with serving(memory, account=ACCOUNT) as face, Client(face.port) as client:
        for number in range(GUESSES):
            client.send(write_bind(3, NAME, b"guess %d" % number))
            assert client.result().code == Code.INVALID_CREDENTIALS
        assert client.result().oid == wire.NOTICE_OF_DISCONNECTION
        assert client.closed()


def test_passwords_are_in_no_representation() -> None:
    assert "s3cret" not in repr(ACCOUNT)
    message = wire.envelope(1, write_bind(3, NAME, b"s3cret"))
    assert "s3cret" not in repr(wire.decode(message, 0, len(message)))


# --- S/MIME ------------------------------------------------------------------------------------------------------


def test_a_certificate_is_found_by_address_and_named_as_thunderbird_compares(memory: Memory, client: Client) -> None:
    made = person("carol@example.org")
    memory.add(made.der)
    answer = client.search(BASE, Equal("mail", b"carol@example.org"), "usercertificate;binary", size=2)
    assert answer.entries[0].attributes == {"userCertificate;binary": [made.der]}


def test_parse_reads_what_we_write() -> None:
    got = parse(wire.notice(52, "x"))
    assert (got.id, got.code, got.oid) == (0, 52, wire.NOTICE_OF_DISCONNECTION)
