"""DANE against a scripted name server that answers well, badly, slowly, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest
from dns.edns import EDECode
from dns.rcode import Rcode

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.dane.message import question_for
from keyserver.upstreams.dane.server import NameServer as Where
from keyserver.upstreams.dane.upstream import DOUBTED_FOR, VALIDATES_FOR, Dane
from support.nameserver import Asked, NameServer, Sent, alias, cut, denies, record, reply, says, unsigned
from support.openpgp import make_certificate
from support.ports import free_port
from support.tls import Authority

ALICE = make_certificate(["Alice <alice@partner.de>"], seed="alice")
QUERY = ByAddress("alice", "partner.de")
SMIME = ByAddress("alice", "partner.de", Kind.X509)
FROM = "from 127.0.0.1"


def name_of(query: ByAddress) -> str:
    question = question_for(query)
    assert question is not None
    return question.name.to_text()


KEY, CERT = name_of(QUERY), name_of(SMIME)
FOUND = Found((Raw(Kind.OPENPGP, ALICE),), method=f"dane AD {FROM}")
ABSENT = Absent("the domain denies it, signed (NXDOMAIN)", method=f"dane AD {FROM}")
UNSIGNED = Absent("the domain is not signed: nothing in it counts", method=f"dane {FROM}")
DOUBT = f"the name server does not validate DNSSEC ({FROM})"


class Clock:
    """Moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with NameServer() as running:
        running.says[KEY, "OPENPGPKEY"] = says(record(KEY, "OPENPGPKEY", ALICE))
        yield running


def dane(server: NameServer | int, *, name: str = "", **options: Any) -> Dane:
    port = server if isinstance(server, int) else server.port
    return Dane(UpstreamSpec("dns"), Where("127.0.0.1", port, name), **{"monotonic": time.monotonic} | options)


async def ask(upstream: Dane, query: Query = QUERY, left: float = 5) -> Outcome:
    return await upstream.fetch(query, Asking(left=left, via="test-instance"))


async def once(server: NameServer | int, query: Query = QUERY, left: float = 5, **options: Any) -> Outcome:
    """One question; the upstream is closed behind it."""
    upstream = dane(server, **options)
    try:
        return await ask(upstream, query, left)
    finally:
        await upstream.close()


def failed(outcome: Outcome, words: str, fault: Fault = Fault.TRANSIENT) -> None:
    assert isinstance(outcome, Failed), outcome
    assert words in outcome.reason, outcome
    assert outcome.fault is fault, outcome


# What is asked, and of whose health that is


async def test_one_question_with_its_flags(server: NameServer) -> None:
    assert await once(server) == FOUND
    assert await once(server, SMIME) == ABSENT
    openpgp, smime = server.asked
    assert (openpgp.name, openpgp.type, openpgp.by) == (KEY, "OPENPGPKEY", "udp")
    assert (smime.name, smime.type) == (CERT, "SMIMEA")
    assert openpgp.message.flags & dns.flags.AD
    assert openpgp.message.ednsflags & dns.flags.DO
    assert openpgp.message.payload == 1232


async def test_ids_and_ports_are_others_each_time(server: NameServer) -> None:
    upstream = dane(server)
    for _ in range(20):
        assert await ask(upstream) == FOUND
    assert len({asked.message.id for asked in server.asked}) > 15
    assert len({asked.port for asked in server.asked}) > 15


@pytest.mark.parametrize(
    "query",
    [
        ByFingerprint("A" * 40),
        ByKeyId("A" * 16),
        ByText("alice"),
        ByHash("certHash", "A" * 40),
    ],
    ids=lambda query: type(query).__name__,
)
async def test_only_addresses_are_asked_for(server: NameServer, query: Query) -> None:
    upstream = dane(server)
    outcome = await ask(upstream, query)
    assert isinstance(outcome, Absent)
    assert not outcome.remember
    assert upstream.target(query) == "dns"
    assert not server.asked


@pytest.mark.parametrize("domain", ["localhost", "host", "printer.local", "a.onion", "mail.example", "x.internal"])
async def test_domains_that_are_not_in_the_public_dns_are_not_asked_for(server: NameServer, domain: str) -> None:
    upstream = dane(server)
    assert isinstance(await ask(upstream, ByAddress("a", domain)), Absent)
    assert upstream.target(ByAddress("a", domain)) == "dns"
    assert not server.asked


async def test_health_belongs_to_the_domain(server: NameServer) -> None:
    assert dane(server).target(QUERY) == "dns/partner.de"


# Signed answers


async def test_several_certificates_and_one_twice(server: NameServer) -> None:
    bob = make_certificate(["Bob <alice@partner.de>"], seed="bob")
    server.says[KEY, "OPENPGPKEY"] = says(record(KEY, "OPENPGPKEY", ALICE, bob, ALICE, b""))
    outcome = await once(server)
    assert isinstance(outcome, Found)
    assert {raw.octets for raw in outcome.raw} == {ALICE, bob}


async def test_a_certificate_where_an_alias_leads(server: NameServer) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(alias(KEY, "a.other.de."), record("a.other.de.", "OPENPGPKEY", ALICE))
    assert await once(server) == FOUND


async def test_records_of_another_name_are_nobodys(server: NameServer) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(record("a.other.de.", "OPENPGPKEY", ALICE))
    assert await once(server) == Absent("the domain denies it, signed (NOERROR)", method=f"dane AD {FROM}")


async def test_smimea_counts_where_it_is_a_whole_certificate_of_a_person(server: NameServer) -> None:
    whole, authority, hashed = b"\3\0\0DER", b"\2\0\0CA", b"\3\0\1" + bytes(32)
    server.says[CERT, "SMIMEA"] = says(record(CERT, "SMIMEA", hashed, authority, whole, b"\3\0\1short"))
    outcome = await once(server, SMIME)
    assert outcome == Found((Raw(Kind.X509, b"DER"),), ("a record that cannot be read",), method=f"dane AD {FROM}")
    server.says[CERT, "SMIMEA"] = says(record(CERT, "SMIMEA", hashed, authority))
    assert await once(server, SMIME) == Absent(
        "its records hold no whole certificate of a person", method=f"dane AD {FROM}"
    )
    server.says[CERT, "SMIMEA"] = says(record(CERT, "SMIMEA", b"\3\0\1short"))
    failed(await once(server, SMIME), "a record that cannot be read", Fault.LOCAL)


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
async def test_a_signed_denial_is_absence(server: NameServer, rcode: Rcode) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(rcode=rcode)
    assert await once(server) == Absent(f"the domain denies it, signed ({rcode.name})", method=f"dane AD {FROM}")
    assert len(server.asked) == 1


# Answers without a signature


@pytest.mark.parametrize("rcode", [Rcode.NXDOMAIN, Rcode.NOERROR])
async def test_an_unsigned_domain_says_nothing(server: NameServer, rcode: Rcode) -> None:
    """Its data is ignored, and its denial believed: the server validates, as the root shows."""
    sets = [record(KEY, "OPENPGPKEY", ALICE)] if rcode is Rcode.NOERROR else []
    server.says[KEY, "OPENPGPKEY"] = says(*sets, signed=False, rcode=rcode)
    assert await once(server) == UNSIGNED
    assert [(asked.name, asked.type) for asked in server.asked] == [(KEY, "OPENPGPKEY"), (".", "SOA")]


async def test_nothing_unsigned_counts_where_the_server_does_not_validate() -> None:
    async with NameServer(unsigned) as server:
        for behaviour in (says(record(KEY, "OPENPGPKEY", ALICE), signed=False), unsigned):
            server.says[KEY, "OPENPGPKEY"] = behaviour
            failed(await once(server), DOUBT)


async def test_what_the_root_showed_is_remembered_a_day_or_a_minute() -> None:
    clock = Clock()

    def roots(server: NameServer) -> int:
        return sum(asked.name == "." for asked in server.asked)

    async with NameServer(unsigned) as server:
        upstream = dane(server, monotonic=clock)
        for _ in range(3):
            failed(await ask(upstream), DOUBT)
        assert roots(server) == 1
        server.otherwise = denies
        server.says[KEY, "OPENPGPKEY"] = says(signed=False)
        clock.now += DOUBTED_FOR - 1
        failed(await ask(upstream), DOUBT)
        clock.now += 1
        for _ in range(3):
            assert await ask(upstream) == UNSIGNED
        assert roots(server) == 2
        server.otherwise = unsigned
        clock.now += VALIDATES_FOR - 1
        assert await ask(upstream) == UNSIGNED
        clock.now += 1
        failed(await ask(upstream), DOUBT)
        assert roots(server) == 3
        server.says[CERT, "SMIMEA"] = says()  # a signed answer to anything shows it, too
        assert isinstance(await ask(upstream, SMIME), Absent)
        assert await ask(upstream) == UNSIGNED
        assert roots(server) == 3


async def test_many_unsigned_answers_at_once_ask_for_the_root_once(server: NameServer) -> None:
    server.says["*", "OPENPGPKEY"] = says(signed=False)
    upstream = dane(server)
    queries = [ByAddress("a", f"n{n}.de") for n in range(100)]
    assert set(await asyncio.gather(*(ask(upstream, query) for query in queries))) == {UNSIGNED}
    assert len(server.asked) == 101


@pytest.mark.parametrize("rcode", [Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NXDOMAIN])
async def test_no_word_of_the_root_is_no_word_at_all_and_not_remembered(server: NameServer, rcode: Rcode) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(signed=False)
    server.says[".", "SOA"] = says(rcode=rcode)
    upstream = dane(server)
    failed(await ask(upstream), f"cannot be seen to validate DNSSEC: {rcode.name}")
    del server.says[".", "SOA"]
    assert await ask(upstream) == UNSIGNED


# Failures


@pytest.mark.parametrize("code", [EDECode.DNSSEC_BOGUS, EDECode.SIGNATURE_EXPIRED, EDECode.RRSIGS_MISSING])
async def test_bogus_by_the_servers_own_words(server: NameServer, code: EDECode) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(rcode=Rcode.SERVFAIL, error=code)
    failed(await once(server), f"signatures are bogus ({code.name.replace('_', ' ').lower()})")
    assert len(server.asked) == 1


async def test_bogus_and_broken_are_told_apart_by_a_second_question(server: NameServer) -> None:
    def only_unchecked(asked: Asked) -> Sent:
        return reply(
            asked, record(KEY, "OPENPGPKEY", ALICE), rcode=Rcode.NOERROR if asked.unchecked else Rcode.SERVFAIL
        )

    server.says[KEY, "OPENPGPKEY"] = only_unchecked
    failed(await once(server), "signatures are bogus: it answers only where nobody checks")
    for broken in (
        says(rcode=Rcode.SERVFAIL),
        says(rcode=Rcode.SERVFAIL, error=EDECode.NO_REACHABLE_AUTHORITY),
    ):
        server.says[KEY, "OPENPGPKEY"] = broken
        failed(await once(server), "name servers are broken")


@pytest.mark.parametrize("rcode", [Rcode.REFUSED, Rcode.FORMERR, Rcode.NOTIMP, Rcode.YXDOMAIN, Rcode.BADVERS])
async def test_other_answers_are_failures_with_or_without_the_bit(server: NameServer, rcode: Rcode) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(rcode=rcode)
    failed(await once(server), f"answered {rcode.name}")


async def test_refused_with_a_bare_header(server: NameServer) -> None:
    server.says[KEY, "OPENPGPKEY"] = lambda asked: struct.pack("!6H", asked.message.id, 0x8185, 0, 0, 0, 0)
    failed(await once(server), "answered REFUSED")


async def test_nobody_there() -> None:
    failed(await once(free_port()), "no connection to the name server: Connection refused")


async def test_silence(server: NameServer) -> None:
    server.says[KEY, "OPENPGPKEY"] = lambda asked: []
    began = time.monotonic()
    failed(await once(server, left=0.3), "no answer in time")
    assert 0.25 < time.monotonic() - began < 2


async def test_silence_about_the_root(server: NameServer) -> None:
    server.says[KEY, "OPENPGPKEY"] = says(signed=False)
    server.says[".", "SOA"] = lambda asked: []
    failed(await once(server, left=0.3), "no answer in time")


# Hostile ones


async def test_datagrams_that_answer_nothing_are_passed_over(server: NameServer) -> None:
    good = says(record(KEY, "OPENPGPKEY", ALICE))

    def behave(asked: Asked) -> list[Sent]:
        answer = good(asked)
        assert isinstance(answer, dns.message.Message)
        wire = answer.to_wire()
        other_id = bytes([wire[0] ^ 1]) + wire[1:]
        other_question = wire.replace(b"partner", b"pardner")
        return [b"", b"garbage", other_id, other_question, asked.message.to_wire(), wire]

    server.says[KEY, "OPENPGPKEY"] = behave
    assert await once(server) == FOUND
    server.says[KEY, "OPENPGPKEY"] = lambda asked: list(behave(asked)[:-1])
    failed(await once(server, left=0.3), "no answer in time")


async def test_a_datagram_from_elsewhere_is_not_heard(server: NameServer) -> None:
    """It has the right ID and question, and comes from another address or port of this machine."""
    forged = make_certificate(["Mallory <alice@partner.de>"], seed="mallory")

    async def behave(asked: Asked) -> Sent:
        wire = reply(asked, record(KEY, "OPENPGPKEY", forged)).to_wire()
        for address in ("127.0.0.1", "127.0.0.2"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
                spoofer.bind((address, 0))
                spoofer.sendto(wire, ("127.0.0.1", asked.port))
        await asyncio.sleep(0.05)
        return reply(asked, record(KEY, "OPENPGPKEY", ALICE))

    server.says[KEY, "OPENPGPKEY"] = behave
    assert await once(server) == FOUND


async def test_what_does_not_fit_a_datagram_comes_by_tcp_up_to_64_kib(server: NameServer) -> None:
    for size in (2_000, 20_000, 65_535 - 12 - (len(KEY) + 1 + 4) - 12 - 11):
        octets = ALICE + bytes(size - len(ALICE))
        server.says[KEY, "OPENPGPKEY"] = says(record(KEY, "OPENPGPKEY", octets))
        server.asked.clear()
        assert await once(server) == Found((Raw(Kind.OPENPGP, octets),), method=f"dane AD {FROM}")
        assert [asked.by for asked in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize(
    ("sent", "words", "fault"),
    [
        (b"", "an answer to another question", Fault.LOCAL),
        (b"garbage" * 10, "an answer to another question", Fault.LOCAL),
        ("another ID", "an answer to another question", Fault.LOCAL),
        ("cut short", "closed the connection", Fault.TRANSIENT),
        ("one octet", "closed the connection", Fault.TRANSIENT),
        ("1000 records", "more than 256 records", Fault.LOCAL),
        ("loop", "aliases without end", Fault.LOCAL),
        ("damaged", "a record that cannot be read", Fault.LOCAL),
    ],
)
async def test_bad_answers_by_tcp(server: NameServer, sent: str | bytes, words: str, fault: Fault) -> None:
    def behave(asked: Asked) -> Sent | list[Sent]:
        if asked.by == "udp":
            return cut(asked)
        good = reply(asked, record(KEY, "OPENPGPKEY", ALICE)).to_wire()
        match sent:
            case bytes():
                return sent
            case "another ID":
                return bytes([good[0] ^ 1]) + good[1:]
            case "1000 records":
                return reply(asked, record(KEY, "OPENPGPKEY", *(struct.pack("!H", n) for n in range(1000))))
            case "loop":
                return reply(asked, alias(KEY, "b."), alias("b.", KEY))
            case "damaged":
                return good[:-20]
        raise EOFError

    server.says[KEY, "OPENPGPKEY"] = behave
    if sent in ("cut short", "one octet"):
        server.tail = b"\xff\xff" + b"x" * 100 if sent == "cut short" else b"\xff"
    failed(await once(server), words, fault)


async def test_a_stream_without_end(server: NameServer) -> None:
    """What it says it sends is read, and nothing more."""
    server.says[KEY, "OPENPGPKEY"] = lambda asked: cut(asked) if asked.by == "udp" else [b"x" * 65535] * 500
    failed(await once(server), "an answer to another question", Fault.LOCAL)


async def test_a_stream_that_drips(server: NameServer) -> None:
    async def behave(asked: Asked) -> Sent | list[Sent]:
        if asked.by == "udp":
            return cut(asked)
        await asyncio.sleep(30)
        return []

    server.says[KEY, "OPENPGPKEY"] = behave
    began = time.monotonic()
    failed(await once(server, left=0.3), "no answer in time")
    assert time.monotonic() - began < 2


async def test_no_more_sockets_than_places(server: NameServer) -> None:
    at_once = most = 0

    async def behave(asked: Asked) -> Sent:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return denies(asked)

    server.says["*", "OPENPGPKEY"] = behave
    upstream = dane(server)
    outcomes = await asyncio.gather(*(ask(upstream, ByAddress("a", f"n{n}.de")) for n in range(200)))
    assert set(outcomes) == {ABSENT}
    assert 16 < most <= 32


async def test_who_asks_after_the_close_fails(server: NameServer) -> None:
    upstream = dane(server)
    await upstream.close()
    failed(await ask(upstream), "no connection")
    assert not server.asked


# DNS over TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_over_tls_on_a_connection_that_is_kept(authority: Authority) -> None:
    async with NameServer(tls=authority.server("dns.test")) as server:
        server.says[KEY, "OPENPGPKEY"] = says(record(KEY, "OPENPGPKEY", ALICE))
        clock = Clock()
        upstream = dane(server, name="dns.test", tls_ca_file=authority.ca_file, monotonic=clock)
        for _ in range(3):
            assert await ask(upstream) == FOUND
        assert (server.connections, {asked.by for asked in server.asked}) == (1, {"tls"})
        server.hang_up()
        assert await ask(upstream) == FOUND, "what was kept is gone: a new one"
        assert server.connections == 2
        clock.now += 11
        assert await ask(upstream) == FOUND
        assert server.connections == 3, "what waited long is not trusted to be there"
        assert {*await asyncio.gather(*(ask(upstream) for _ in range(20)))} == {FOUND}
        await upstream.close()


async def test_over_tls_leftovers_are_no_answer_to_the_next_question(authority: Authority) -> None:
    async with NameServer(tls=authority.server("dns.test")) as server:
        good = says(record(KEY, "OPENPGPKEY", ALICE))

        def twice(asked: Asked) -> list[Sent]:
            answer = good(asked)
            assert isinstance(answer, dns.message.Message)
            return [answer, answer]

        server.says[KEY, "OPENPGPKEY"] = twice
        upstream = dane(server, name="dns.test", tls_ca_file=authority.ca_file)
        assert await ask(upstream) == FOUND
        assert await ask(upstream, SMIME) == ABSENT
        assert server.connections == 2
        await upstream.close()


@pytest.mark.parametrize(
    ("names", "expired", "words"),
    [(["other.test"], False, "Hostname mismatch"), (["dns.test"], True, "certificate has expired")],
)
async def test_a_server_that_is_another_one(authority: Authority, names: list[str], expired: bool, words: str) -> None:
    async with NameServer(tls=authority.server(*names, expired=expired)) as server:
        options = {"name": "dns.test", "tls_ca_file": authority.ca_file}
        failed(await once(server, **options), words, Fault.CONFIGURATION)
        assert not server.asked


async def test_a_server_that_the_system_does_not_know(authority: Authority) -> None:
    async with NameServer(tls=authority.server("dns.test")) as server:
        failed(await once(server, name="dns.test"), "TLS certificate is not good", Fault.CONFIGURATION)


async def test_a_server_that_speaks_no_tls(server: NameServer) -> None:
    failed(await once(server, name="dns.test", left=0.5), "")


def test_a_file_that_is_no_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ValueError, match="no PEM file"):
        dane(1, name="dns.test", tls_ca_file=tmp_path / "ca.pem")
