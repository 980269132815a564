"""LDAP in a front: what it answers by itself, what it leaves to the core, and what becomes of it without one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver.processes.ldap import LdapFront
from keyserver.wire import ldap as wire
from keyserver.wire.ldap import Code
from keyserver.wire.ldap_filter import Equal
from support.ldap_client import Client, client_context, start_tls, until
from support.ldap_memory import BASE, Face, Memory, serving
from support.ldap_messages import write_extended
from support.openpgp import make
from support.tls import Authority

ALICE = make(["Alice <alice@example.org>"])
KEYS = f"ou=PGP Keys,{BASE}"
MAIL = Equal("gpgMailbox", b"alice@example.org")
CROWDED = 64 << 10  # octets of a core's memory: a few entries


@pytest.fixture
def memory() -> Memory:
    return Memory(ALICE.octets)


@pytest.fixture
def face(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Face]:
    monkeypatch.setattr(Face, "apart", True)
    with serving(memory) as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def front_of(face: Face) -> LdapFront:
    assert face.front is not None
    return face.front


def warmed(client: Client, face: Face) -> None:
    """Ask the same until the front answers it."""
    for _ in range(10):
        before = front_of(face).hits
        assert len(client.search(KEYS, MAIL).entries) == 1
        if front_of(face).hits > before:
            return
    raise AssertionError("it never learnt")


def test_what_is_asked_again_is_answered_by_the_front_until_it_changes(face: Face, memory: Memory) -> None:
    with Client(face.port) as client, Client(face.port) as other:
        warmed(client, face)
        noted, hits = len(memory.noted), face.server.searches.hits
        assert len(other.search(KEYS, MAIL).entries) == 1
        assert (len(memory.noted), face.server.searches.hits) == (noted, hits), "the core heard nothing of it"
        assert front_of(face).asked()
        memory.held.clear()
        face.change(memory.asked[0].name)
        assert not other.search(KEYS, MAIL).entries


def test_what_has_expired_is_asked_again(face: Face, memory: Memory) -> None:
    with Client(face.port) as client:
        warmed(client, face)
        asked = len(memory.asked)
        memory.now = memory.until
        client.search(KEYS, MAIL)
        assert len(memory.asked) == asked + 1


def test_half_a_message_ends_in_time_though_the_core_never_sees_it(face: Face) -> None:
    with Client(face.port) as client:
        client.socket.sendall(b"\x30\x20\x02")
        until(lambda: front_of(face).present == 1)
        time.sleep(0.1)
        face.pass_seconds(11)
        assert client.result().code == Code.UNAVAILABLE
        assert client.closed()
        assert face.server.counts().open == 0


def test_who_is_answered_by_the_front_is_not_idle_for_the_core(face: Face) -> None:
    with Client(face.port) as client:
        warmed(client, face)
        for _ in range(5):
            face.pass_seconds(30)
            assert len(client.search(KEYS, MAIL).entries) == 1
        face.pass_seconds(70)
        until(lambda: front_of(face).present == 0)


def test_nothing_goes_through_with_start_tls(
    memory: Memory, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Face, "apart", True)
    with serving(memory, tls=authority.server()) as face:
        with Client(face.port) as client:
            start_tls(client, client_context(Path(authority.ca_file)))
            warmed(client, face)
            client.send(write_extended(wire.START_TLS))
            assert client.result().code == Code.OPERATIONS_ERROR
            assert len(client.search(KEYS, MAIL).entries) == 1
        with Client(face.port) as injecting:
            injecting.socket.sendall(
                wire.envelope(1, write_extended(wire.START_TLS)) + wire.envelope(2, write_extended(wire.WHO_AM_I))
            )
            assert injecting.closed()


def test_without_a_core_a_connection_that_had_it_ends_and_others_may_ask_what_is_known(face: Face) -> None:
    with Client(face.port) as client, Client(face.port) as other:
        warmed(client, face)
        face.call(face.ends[1])  # the core's streams
        got = client.result()
        assert (got.code, got.oid) == (Code.UNAVAILABLE, wire.NOTICE_OF_DISCONNECTION)
        assert client.closed()
        assert len(other.search(KEYS, MAIL).entries) == 1, "hot, and true for a moment"
        time.sleep(1.2)
        assert other.search(KEYS, MAIL).code == Code.UNAVAILABLE
        assert other.closed()


def test_what_fits_into_the_front_becomes_hot_though_the_core_has_no_room_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    people = [f"person{number}@example.org" for number in range(60)]
    memory = Memory(*(make([address]).octets for address in people))
    monkeypatch.setattr(Face, "apart", True)
    with serving(memory, kept=CROWDED) as face, Client(face.port) as client:
        for address in people:
            assert len(client.search(KEYS, Equal("gpgMailbox", address.encode())).entries) == 1
        assert face.server.context.budget.evicted > len(people) // 2
        asked = len(memory.asked)
        before = front_of(face).hits
        for address in people:
            assert len(client.search(KEYS, Equal("gpgMailbox", address.encode())).entries) == 1
        assert front_of(face).hits == before + len(people)
        assert len(memory.asked) == asked


def test_absence_takes_only_its_part_of_the_front(face: Face) -> None:
    with Client(face.port) as client:
        for number in range(200):
            client.search(KEYS, Equal("gpgMailbox", b"nobody%d@example.org" % number))
        budget = front_of(face).kept.budget
        assert not len(budget.found)
        assert 0 < budget.absent.octets <= budget.absent.limit
        assert budget.evicted
