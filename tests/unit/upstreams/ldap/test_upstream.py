"""LDAP upstreams against a real slapd, and against servers that behave as no server should."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText
from keyserver.upstreams.base import Asking
from keyserver.upstreams.ldap.kinds import Style, escape, openpgp_filter, parent, x509_filter
from keyserver.upstreams.ldap.link import Entrance, Link, LinkError, ldap3
from keyserver.upstreams.ldap.upstream import Ldap, parse_url
from keyserver.upstreams.net import Names, NoSuchHost
from keyserver.wire.loop import LOOP_CONTROL
from support.directory import (
    Entry,
    Slapd,
    base_entry,
    commercial_info,
    key_entry,
    person,
    reference,
    server_info,
)
from support.openpgp import make
from support.tls import Authority

ORG, OLD = "dc=example,dc=org", "dc=old,dc=org"
KEYS, OLD_KEYS = f"ou=keys,{ORG}", f"ou=keys,{OLD}"
ACTIVE = "OU=ACTIVE,O=PGP KEYSPACE,C=US"
PEOPLE = f"ou=people,{ORG}"
BOTH = frozenset({Kind.OPENPGP, Kind.X509})

ALICE = make(["Alice <alice@example.org>"], seed="ldap alice", signing=True)
BOB = make(["Bob <bob@example.org>"], seed="ldap bob")
CAROL = make(["Carol <carol@example.org>"], seed="ldap carol", version=6)
SIGNER = ec.generate_private_key(ec.SECP256R1())


@functools.cache
def der(number: int) -> bytes:
    """An X.509 certificate; slapd stores nothing else under userCertificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Test {number}")])
    builder = x509.CertificateBuilder(name, name, SIGNER.public_key(), number + 1)
    builder = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2036, 1, 1, tzinfo=UTC)
    )
    return builder.sign(SIGNER, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


DER = [der(n) for n in range(100, 104)]


def address(text: str, kind: Kind = Kind.OPENPGP) -> ByAddress:
    local, domain = text.rsplit("@", 1)
    return ByAddress(local, domain, kind)


def octets(outcome: Outcome) -> list[bytes]:
    assert isinstance(outcome, Found), outcome
    return [raw.octets for raw in outcome.raw]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


Make = Callable[..., Ldap]


@pytest.fixture
async def upstream(threads: ThreadPoolExecutor) -> AsyncIterator[Make]:
    made = []

    def build(url: str, **options: Any) -> Ldap:
        spec = UpstreamSpec("directory", kinds=options.pop("kinds", BOTH), template="{domain}" in url)
        made.append(Ldap(spec, url, **{"threads": threads, "monotonic": time.monotonic} | options))
        return made[-1]

    yield build
    for each in made:
        await each.close()


async def ask(upstream: Ldap, query: Any, left: float = 5.0, via: str = "tests") -> Outcome:
    """One question, which must keep its time."""
    began = time.monotonic()
    outcome = await upstream.fetch(query, Asking(left, via))
    assert time.monotonic() - began < left + 0.5
    return outcome


# --- slapd -----------------------------------------------------------------------------------------------------------


def entries() -> list[Entry]:
    made = [base_entry(ORG), base_entry(KEYS), base_entry(PEOPLE), server_info(ORG, KEYS)]
    subkeys = [s.fingerprint for s in ALICE.subkeys]
    made.append(key_entry(KEYS, ALICE.fingerprint, ALICE.armored, ["alice@example.org"], subkeys=subkeys))
    made.append(key_entry(KEYS, BOB.fingerprint, BOB.octets, ["bob@example.org", "b*b(x)\\@example.org"]))
    made.append(key_entry(KEYS, "D" * 40, ALICE.armored, ["disabled@example.org"], disabled=True))
    made.append(key_entry(KEYS, "E" * 40, "no armor at all", ["broken@example.org"]))
    made.append(person(PEOPLE, "dora@example.org", userCertificate__binary=DER[:3], userSMIMECertificate=b"\x30\x00"))
    made.append(person(PEOPLE, "plain@example.org"))
    made += [
        person(PEOPLE, f"many{n}@example.org", mail="many@example.org", userCertificate__binary=der(n))
        for n in range(70)
    ]
    made.append(person(PEOPLE, "erna@example.org", description="erna@example.org", userCertificate__binary=DER[3]))
    joerg = "joerg@m\u00fcller.example"
    made.append(person(PEOPLE, "joerg@a.example", description=joerg, userCertificate__binary=DER[2]))
    made.append(person(PEOPLE, "ulf@xn--mller-kva.example", userCertificate__binary=DER[1]))
    made.append(key_entry(KEYS, "F" * 40, BOB.octets, [joerg]))
    made.append(reference(f"ou=elsewhere,{ORG}", "ldap://127.0.0.1:9/dc=elsewhere"))
    made += [base_entry(OLD), base_entry(OLD_KEYS), server_info(OLD, OLD_KEYS, version="1")]
    made.append(key_entry(OLD_KEYS, ALICE.fingerprint, ALICE.armored, ["alice@example.org"], subkeys=subkeys, schema=1))
    made.append(key_entry(OLD_KEYS, BOB.fingerprint, BOB.armored, schema=1, pgpUserID="bob@example.org"))
    made.append(key_entry(OLD_KEYS, CAROL.fingerprint, CAROL.armored, ["carol@example.org"], schema=1))
    return made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Slapd]:
    with Slapd(tmp_path_factory.mktemp("slapd"), entries(), authority=authority, password="secret") as running:
        yield running


async def test_schema_2(slapd: Slapd, upstream: Make) -> None:
    up = upstream(slapd.url)
    for query in (
        ByFingerprint(ALICE.fingerprint),
        ByFingerprint(ALICE.subkeys[0].fingerprint),
        ByKeyId(ALICE.key_id),
        ByKeyId(ALICE.subkeys[1].key_id),
        address("alice@example.org"),
        ByText("somebody <alice@"),
    ):
        assert octets(await ask(up, query)) == [ALICE.octets], query
    assert octets(await ask(up, address("bob@example.org"))) == [BOB.octets]  # stored in binary
    for query in (ByFingerprint("0" * 40), ByKeyId("0" * 16), address("nobody@example.org"), ByFingerprint("0" * 64)):
        outcome = await ask(up, query)
        assert isinstance(outcome, Absent)
        assert outcome.remember
    assert isinstance(await ask(up, address("disabled@example.org")), Absent)
    assert isinstance(await ask(up, address("broken@example.org")), Failed)


async def test_schema_1_by_the_base_in_the_url_and_by_the_one_above_the_keyspace(slapd: Slapd, upstream: Make) -> None:
    for base in (OLD, OLD_KEYS):
        up = upstream(f"{slapd.url}/{base}")
        for query in (
            ByFingerprint(ALICE.fingerprint),
            ByFingerprint(ALICE.subkeys[0].fingerprint),
            ByKeyId(ALICE.key_id),
            ByKeyId(ALICE.subkeys[1].key_id),
            address("alice@example.org"),
        ):
            assert octets(await ask(up, query)) == [ALICE.octets], query
        assert octets(await ask(up, address("bob@example.org"))) == [BOB.octets]  # a user ID without brackets
        assert octets(await ask(up, ByFingerprint(CAROL.fingerprint))) == [CAROL.octets]  # v6: the ID comes first
        assert isinstance(await ask(up, address("lice@example.org")), Absent)


@pytest.mark.parametrize("hidden", [False, True])
async def test_commercial_keyserver(tmp_path: Path, upstream: Make, hidden: bool) -> None:
    first = key_entry(ACTIVE, ALICE.fingerprint, ALICE.armored, ["alice@example.org"], schema=1)
    again = (f"cn=second user id,{ACTIVE}", {**first[1], "cn": "second user id", "pgpUserID": "A. <a@example.org>"})
    second = key_entry(ACTIVE, BOB.fingerprint, None, ["bob@example.org"], schema=1, pgpKeyV2=BOB.armored)
    tree = [commercial_info(ACTIVE), base_entry("O=PGP KEYSPACE,C=US"), base_entry(ACTIVE), first, again, second]
    with Slapd(tmp_path, tree, root_dse=None if hidden else {}) as server:
        up = upstream(server.url)
        assert octets(await ask(up, address("alice@example.org"))) == [ALICE.octets]
        assert octets(await ask(up, ByFingerprint(ALICE.fingerprint))) == [ALICE.octets]  # two entries, one key
        assert octets(await ask(up, ByKeyId(BOB.key_id))) == [BOB.octets]
        assert isinstance(await ask(up, address("nobody@example.org")), Absent)


async def test_people(slapd: Slapd, upstream: Make) -> None:
    up = upstream(f"{slapd.url}/{ORG}")
    found = await ask(up, address("dora@example.org", Kind.X509))
    assert octets(found) == [*DER[:3], b"\x30\x00"]
    assert isinstance(found, Found)
    assert {raw.kind for raw in found.raw} == {Kind.X509}
    assert isinstance(await ask(up, address("plain@example.org", Kind.X509)), Absent)
    many = octets(await ask(up, address("many@example.org", Kind.X509)))
    assert sorted(many) == sorted(der(n) for n in range(70))  # two pages
    anywhere = upstream(slapd.url)
    assert octets(await ask(anywhere, address("dora@example.org", Kind.X509)))[0] == DER[0]
    own = upstream(
        f"{slapd.url}/{PEOPLE}",
        filter="(|(description={address})(&(cn={local})(mail=*{domain})))",
        attributes=["userCertificate;binary"],
    )
    assert octets(await ask(own, address("erna@example.org", Kind.X509))) == [DER[3]]
    assert octets(await ask(own, address("dora@example.org", Kind.X509))) == DER[:3]
    for query in (ByFingerprint("A" * 64, Kind.X509), ByHash("ihash", "00"), ByText("dora", Kind.X509)):
        outcome = await ask(up, query)
        assert isinstance(outcome, Absent)
        assert not outcome.remember


async def test_openpgp_in_entries_of_people(slapd: Slapd, upstream: Make) -> None:
    up = upstream(f"{slapd.url}/{KEYS}", filter="(gpgMailbox={address})", attributes=["pgpKey"])
    assert octets(await ask(up, address("bob@example.org"))) == [BOB.octets]
    assert isinstance(await ask(up, address("bob@example.org", Kind.X509)), Absent)


async def test_a_server_without_keyspace(tmp_path: Path, upstream: Make) -> None:
    with Slapd(tmp_path, [base_entry(ORG), person(ORG, "dora@example.org", userCertificate__binary=DER[0])]) as server:
        up = upstream(server.url)
        outcome = await ask(up, address("dora@example.org"))
        assert isinstance(outcome, Absent)
        assert "no OpenPGP keyspace" in outcome.reason
        assert octets(await ask(up, address("dora@example.org", Kind.X509))) == DER[:1]
        elsewhere = upstream(f"{server.url}/dc=nowhere")
        assert isinstance(await ask(elsewhere, address("dora@example.org", Kind.X509)), Absent)  # result 32


async def test_active_directory(tmp_path: Path, upstream: Make, authority: Authority) -> None:
    tree = [
        base_entry(ORG),
        person(ORG, "d@example.org", proxyAddresses="smtp:x@example.org", userCertificate__binary=DER),
    ]
    extra = {"supportedCapabilities": "1.2.840.113556.1.4.800", "defaultNamingContext": ORG}
    with Slapd(tmp_path, tree, root_dse=extra, authority=authority, password="secret", anonymous=False) as server:
        options = {"tls_ca_file": authority.ca_file, "bind_dn": server.admin}
        up = upstream(server.tls_url, bind_password="secret", **options)
        assert octets(await ask(up, address("x@example.org", Kind.X509))) == DER
        wrong = await ask(upstream(server.tls_url, bind_password="guessed", **options), address("x@example.org"))
        assert isinstance(wrong, Failed)
        assert wrong.fault is Fault.CONFIGURATION
        assert "invalid credentials" in wrong.reason
        stranger = upstream(server.url)
        assert isinstance(await ask(stranger, address("x@example.org", Kind.X509)), Absent)


@pytest.mark.parametrize(
    "local", ["*", "a*", "b*b(x)\\", "x)(mail=*", "x\x00", "\\2a", "x)(|(objectClass=*", "é", "a\\"]
)
async def test_nothing_in_an_address_acts_in_a_filter(slapd: Slapd, upstream: Make, local: str) -> None:
    expected = [BOB.octets] if local == "b*b(x)\\" else []
    for url in (slapd.url, f"{slapd.url}/{OLD}"):
        outcome = await ask(upstream(url), ByAddress(local, "example.org"))
        assert isinstance(outcome, Absent) if not expected or OLD in url else octets(outcome) == expected
    outcome = await ask(upstream(f"{slapd.url}/{ORG}"), ByAddress(local, "example.org", Kind.X509))
    assert isinstance(outcome, Absent)
    own = upstream(f"{slapd.url}/{ORG}", filter="(|(cn={local})(mail={address}))")
    assert isinstance(await ask(own, ByAddress(local, "example.org", Kind.X509)), Absent)


async def test_size_limit_keeps_what_came(tmp_path: Path, upstream: Make) -> None:
    people = [person(ORG, f"m{n}@example.org", mail="m@example.org", userCertificate__binary=der(n)) for n in range(9)]
    with Slapd(tmp_path, [base_entry(ORG), *people], directives=["sizelimit 5"]) as server:
        assert len(octets(await ask(upstream(f"{server.url}/{ORG}"), address("m@example.org", Kind.X509)))) == 5


async def test_referral_as_the_result_is_not_followed(tmp_path: Path, upstream: Make) -> None:
    knocks = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        writer.transport.abort()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with Slapd(tmp_path, [base_entry(ORG)], referral=f"ldap://127.0.0.1:{port}/") as server:
            outcome = await ask(upstream(f"{server.url}/dc=elsewhere"), address("a@example.org", Kind.X509))
    assert isinstance(outcome, Failed)
    assert "referral" in outcome.reason
    assert knocks == 0


async def test_slapd_stopped_and_back(slapd: Slapd, tmp_path: Path, upstream: Make) -> None:
    with Slapd(tmp_path, [base_entry(ORG), base_entry(KEYS), server_info(ORG, KEYS)]) as server:
        up = upstream(server.url)
        assert isinstance(await ask(up, address("a@example.org")), Absent)
        server.stop()
        outcome = await ask(up, address("a@example.org"))
        assert isinstance(outcome, Failed)
        assert outcome.fault is Fault.TRANSIENT
        server.start()
        assert isinstance(await ask(up, address("a@example.org")), Absent)
        server.stop()
        server.start()  # the kept connection is dead: a new one is made within the same question
        assert isinstance(await ask(up, address("a@example.org")), Absent)


@pytest.mark.parametrize("starttls", [False, True])
async def test_tls(slapd: Slapd, upstream: Make, authority: Authority, tmp_path: Path, starttls: bool) -> None:
    def over(server: Slapd, ca: Authority | None, host: str = "127.0.0.1") -> Ldap:
        url = (server.url if starttls else server.tls_url).replace("127.0.0.1", host)
        return upstream(url, starttls=starttls, tls_ca_file=ca.ca_file if ca else "")

    query = address("alice@example.org")
    good = over(slapd, authority)
    for _ in range(3):
        assert octets(await ask(good, query)) == [ALICE.octets]
    assert octets(await ask(over(slapd, authority, "localhost"), query)) == [ALICE.octets]

    other = Authority(tmp_path / "other", "Other CA")
    for refused in (over(slapd, other), over(slapd, None)):
        outcome = await ask(refused, query)
        assert isinstance(outcome, Failed)
        assert outcome.fault is Fault.CONFIGURATION
        assert "certificate" in outcome.reason
    bad = {"name": authority.issue(["ldap.example.net", "10.0.0.1"]), "expired": authority.issue(begins=-9, ends=-1)}
    for case, shown in bad.items():
        with Slapd(tmp_path / case, [base_entry(ORG)], authority=authority, certificate=shown) as server:
            outcome = await ask(over(server, authority), query)
            assert isinstance(outcome, Failed), case
            assert outcome.fault is Fault.CONFIGURATION, case
            assert case in outcome.reason or "mismatch" in outcome.reason


async def test_bind_over_starttls(slapd: Slapd, upstream: Make, authority: Authority) -> None:
    options = {"starttls": True, "tls_ca_file": authority.ca_file, "bind_dn": slapd.admin}
    assert octets(await ask(upstream(slapd.url, bind_password="secret", **options), address("bob@example.org")))
    outcome = await ask(upstream(slapd.url, bind_password="wrong", **options), address("bob@example.org"))
    assert isinstance(outcome, Failed)
    assert outcome.fault is Fault.CONFIGURATION


async def test_starttls_that_the_server_does_not_have(tmp_path: Path, upstream: Make, authority: Authority) -> None:
    with Slapd(tmp_path, [base_entry(ORG)]) as server:
        up = upstream(server.url, starttls=True, tls_ca_file=authority.ca_file)
        outcome = await ask(up, address("alice@example.org"))
    assert isinstance(outcome, Failed)
    assert "StartTLS" in outcome.reason


async def test_many_at_once(slapd: Slapd, upstream: Make) -> None:
    up = upstream(slapd.url)
    outcomes = await asyncio.gather(
        *(ask(up, address(f"{who}@example.org")) for _ in range(20) for who in ("alice", "bob"))
    )
    assert [octets(o) for o in outcomes] == [[ALICE.octets], [BOB.octets]] * 20


# --- scripted servers ------------------------------------------------------------------------------------------------


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return bytes([tag]) + b"\x84" + len(content).to_bytes(4, "big") + content


def message(number: bytes, operation: bytes, controls: bytes = b"") -> bytes:
    return tlv(0x30, tlv(0x02, number), operation, controls)


def result(code: int, tag: int = 0x65, extra: bytes = b"") -> bytes:
    return tlv(tag, b"\x0a\x01" + bytes([code]), b"\x04\x00\x04\x00", extra)


def entry(dn: str, **attributes: list[bytes]) -> bytes:
    listed = (
        tlv(0x30, tlv(0x04, name.encode()), tlv(0x31, *(tlv(0x04, v) for v in values)))
        for name, values in attributes.items()
    )
    return tlv(0x64, tlv(0x04, dn.encode()), tlv(0x30, *listed))


def control(oid: str, value: bytes) -> bytes:
    return tlv(0xA0, tlv(0x30, tlv(0x04, oid.encode()), tlv(0x04, value)))


class Peer:
    """One connection of a scripted server: reads requests, writes whatever."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> tuple[bytes, bytes]:
        """The next request's message id and all of it."""
        head = await self.reader.readexactly(2)
        length = head[1]
        if length > 0x7F:
            more = await self.reader.readexactly(length & 0x7F)
            length = int.from_bytes(more, "big")
        body = await self.reader.readexactly(length)
        return body[2 : 2 + body[1]], body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Peer], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A server on loopback that follows a script on each connection; its URL."""

    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await script(Peer(reader, writer))
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ldap://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await server.wait_closed()


async def keyspace(peer: Peer) -> bytes:
    """Plays a schema 2 server up to the search for keys; that one's message id."""
    while True:
        number, body = await peer.request()
        if b"namingContexts" in body:
            await peer.send(message(number, entry("", namingContexts=[ORG.encode()])) + message(number, result(0)))
        elif b"cn=pgpServerInfo" in body:
            info = {"pgpBaseKeySpaceDN": [KEYS.encode()], "pgpSoftware": [b"gnupg"], "pgpVersion": [b"2 ntds"]}
            await peer.send(message(number, entry("cn=pgpServerInfo", **info)) + message(number, result(0)))
        else:
            return number


def answering(answer: Callable[[bytes], bytes]) -> Script:
    """A script that answers every search for keys with what `answer` makes of its message id."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.send(answer(await keyspace(peer)))

    return script


async def never(peer: Peer) -> None:
    await peer.reader.read(-1)


async def drip(peer: Peer) -> None:
    number, _ = await peer.request()
    for octet in message(number, result(0)) * 100:
        await peer.send(bytes([octet]))
        await asyncio.sleep(0.1)


async def flood(peer: Peer) -> None:
    number = await keyspace(peer)
    data = message(number, entry("cn=x", pgpKey=[b"x" * 100_000]))
    while True:
        await peer.send(data)


async def flood_of_small_entries(peer: Peer) -> None:
    number = await keyspace(peer)
    data = message(number, entry("")) * 1000
    while True:
        await peer.send(data)


async def references_without_end(peer: Peer) -> None:
    number = await keyspace(peer)
    data = message(number, tlv(0x73, tlv(0x04, b"ldap://127.0.0.1/"))) * 1000
    while True:
        await peer.send(data)


async def claim(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"\x30\x84\x7f\xff\xff\xff")
    while True:
        await peer.send(b"x" * 65536)


async def http(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await never(peer)


async def hang_up(peer: Peer) -> None:
    await peer.request()


def _raw(data: Callable[[bytes], bytes]) -> Script:
    async def script(peer: Peer) -> None:
        await peer.send(data(await keyspace(peer)))
        await never(peer)

    return script


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = tlv(0x30, data)
    return data


BROKEN: dict[str, Script] = {
    "drip": drip,
    "never": never,
    "flood": flood,
    "flood of small entries": flood_of_small_entries,
    "references without end": references_without_end,
    "claimed 2 GB": claim,
    "http": http,
    "hang up": hang_up,
    "indefinite length": _raw(lambda n: b"\x30\x80" + message(n, result(0))),
    "length of 126 octets": _raw(lambda n: b"\x30\xfe" + b"\xff" * 126),
    "long integer": _raw(lambda n: message(b"\x01" * 1_000_000, result(0))),
    "long result code": _raw(lambda n: message(n, tlv(0x65, tlv(0x0A, b"\x01" * 10_000), b"\x04\x00\x04\x00"))),
    "integer as a value": _raw(
        lambda n: message(
            n, tlv(0x64, b"\x04\x00", tlv(0x30, tlv(0x30, b"\x04\x01x", tlv(0x31, b"\x02\x04\x7f\xff\xff\xff"))))
        )
    ),
    "integer as a cookie": _raw(
        lambda n: (
            message(
                n, result(0), control("1.2.840.113556.1.4.319", tlv(0x30, b"\x02\x01\x00", b"\x02\x04\x7f\xff\xff\xff"))
            )
            + message(n, result(52))
        )
    ),
    "nested": _raw(lambda n: message(n, tlv(0x64, nested(5000)))),
    "nested result": _raw(lambda n: message(n, result(0, extra=nested(200)))),
    "a million values": _raw(
        lambda n: message(n, tlv(0x64, b"\x04\x00", tlv(0x30, tlv(0x30, b"\x04\x01x", tlv(0x31, b"\x04\x00" * 10**6)))))
    ),
    "element longer than its message": _raw(lambda n: b"\x30\x0c\x02\x01\x01\x65\x84\x7f\xff\xff\xff\x00\x00\x00"),
    "another message id": _raw(lambda n: message(b"\x7f\x00\x00\x00", result(0))),
    "unknown result code": _raw(lambda n: message(n, result(113))),
    "bind answer": _raw(lambda n: message(n, result(0, 0x61))),
    "unknown operation": _raw(lambda n: message(n, tlv(0x7E, b"\x04\x00"))),
    "notice of disconnection": _raw(lambda n: message(b"\x00", result(52, 0x78, tlv(0x8A, b"1.3.6.1.4.1.1466.20036")))),
    "empty message": _raw(lambda n: b"\x30\x00"),
    "latin-1": _raw(lambda n: message(n, tlv(0x65, b"\x0a\x01\x50", b"\x04\x01\xe9", b"\x04\x01\xe9"))),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_and_hostile_servers(upstream: Make, case: str) -> None:
    async with scripted(BROKEN[case]) as url:
        up = upstream(url)
        before, memory = time.thread_time_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = time.process_time()
        outcome = await ask(up, address("alice@example.org"), 1.5)
        assert isinstance(outcome, Absent if case == "integer as a cookie" else Failed)
        others = time.process_time() - cpu - (time.thread_time_ns() - before) / 1e9  # not this thread: the scripts
        assert others < 0.8
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 60 * 1024  # KiB


def test_mutated_answers_raise_link_errors_only_and_cost_little() -> None:
    dice = random.Random(7)
    cookie = control("1.2.840.113556.1.4.319", tlv(0x30, b"\x02\x01\x05", b"\x04\x03abc"))
    good = 0
    for _ in range(500):
        ours, theirs = socket.socketpair()
        link = Link(ours, "x", time.monotonic)
        link.arm(time.monotonic() + 2, 1 << 20)
        link.enter(Entrance())
        number = (ldap3.Server._message_counter + 1).to_bytes(4, "big")
        data = bytearray(
            message(number, entry("cn=x", pgpKey=[b"abc", b"\xff" * 30])) + message(number, result(0), cookie)
        )
        for _ in range(dice.choice([0, 1, 1, 2, 3, 8])):
            at = dice.randrange(len(data))
            match dice.randrange(3):
                case 0:
                    data[at] = dice.choice([0, 1, 2, 4, 0x0A, 0x30, 0x31, 0x64, 0x65, 0x7F, 0x80, 0x84, 0xA0, 0xFF])
                case 1:
                    del data[at : at + dice.randrange(1, 9)]
                case 2:
                    data[at:at] = dice.randbytes(dice.randrange(1, 6))
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        cpu = time.thread_time()
        with contextlib.suppress(LinkError):
            good += link.search("dc=x", "SUBTREE", "(a=b)", ["pgpKey"]).code == 0
        assert time.thread_time() - cpu < 0.2, data.hex()
        link.close()
        theirs.close()
    assert 50 < good < 450


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        *((code, "configuration") for code in (7, 8, 13, 48, 49)),
        (51, "busy"),
        *((code, "transient") for code in (4, 10, 50, 52, 53)),
    ],
)
async def test_result_codes(upstream: Make, code: int, fault: str) -> None:
    async with scripted(answering(lambda n: message(n, result(code)))) as url:
        outcome = await ask(upstream(url), address("alice@example.org"))
    assert isinstance(outcome, Failed)
    assert outcome.fault == fault
    assert str(code) in outcome.reason


async def test_busy_while_its_kind_is_found_out_is_not_remembered(upstream: Make) -> None:
    said = [51]

    async def script(peer: Peer) -> None:
        while said:
            number, _ = await peer.request()
            await peer.send(message(number, result(said.pop())))
        await peer.send(message(await keyspace(peer), result(0)))

    async with scripted(script) as url:
        up = upstream(url)
        first = await ask(up, address("alice@example.org"))
        assert isinstance(first, Failed)
        assert first.fault is Fault.BUSY
        outcome = await ask(up, address("alice@example.org"))
    assert isinstance(outcome, Absent)
    assert "keyspace" not in outcome.reason


async def test_ranges_references_and_odd_names(upstream: Make) -> None:
    def answer(n: bytes) -> bytes:
        values = {"PGPKEY;range=0-1499": [ALICE.octets], "x": [b"\xff"], "pgpkeyV2": [BOB.armored.encode()]}
        return (
            message(n, tlv(0x73, tlv(0x04, b"ldap://127.0.0.1:9/")))
            + message(n, entry("cn=\xe9", **values))
            + message(n, tlv(0x79, tlv(0x80, b"1.2.3")))
            + message(n, result(4))
        )

    async with scripted(answering(answer)) as url:
        assert octets(await ask(upstream(url), address("alice@example.org"))) == [ALICE.octets, BOB.octets]


async def test_no_more_entries_than_asked_for(upstream: Make) -> None:
    def answer(n: bytes) -> bytes:
        keys = (message(n, entry("", pgpKey=[b"\x99" + number.to_bytes(2, "big")])) for number in range(500))
        return b"".join(keys) + message(n, result(0))

    async with scripted(answering(answer)) as url:
        assert len(octets(await ask(upstream(url), address("alice@example.org")))) == 100


async def test_loops_are_marked_both_ways(upstream: Make) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        while True:
            number, body = await peer.request()
            seen.append(LOOP_CONTROL.encode() in body and b"frontend-7" in body)
            if b"gpgMailbox" in body:
                await peer.send(message(number, result(0), control(LOOP_CONTROL, b"loop")))
            elif b"namingContexts" in body:
                await peer.send(message(number, entry("", namingContexts=[b"dc=x"])) + message(number, result(0)))
            else:
                info = {"pgpBaseKeySpaceDN": [b"dc=x"], "pgpSoftware": [b"GnuPG"], "pgpVersion": [b"2"]}
                await peer.send(message(number, entry("", **info)) + message(number, result(0)))

    async with scripted(script) as url:
        outcome = await ask(upstream(url), address("alice@example.org"), via="frontend-7")
    assert isinstance(outcome, Absent)
    assert not outcome.remember
    assert seen == [False, False, True]


async def test_connections_and_kinds_are_kept(upstream: Make) -> None:
    connections, requests = 0, 0

    async def script(peer: Peer) -> None:
        nonlocal connections, requests
        connections += 1
        while True:
            number = await keyspace(peer)
            requests += 1
            await peer.send(message(number, result(0)))

    now = [1000.0]
    async with scripted(script) as url:
        up = upstream(url, monotonic=lambda: now[0])
        for _ in range(5):
            assert isinstance(await ask(up, address("alice@example.org")), Absent)
        assert (connections, requests) == (1, 5)
        now[0] += 3601  # its kind is found out again
        assert isinstance(await ask(up, address("alice@example.org")), Absent)
        assert connections == 1


async def test_a_kept_connection_that_was_closed_is_replaced(upstream: Make) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(message(await keyspace(peer), result(0)))

    async with scripted(script) as url:
        up = upstream(url)
        for _ in range(3):
            assert isinstance(await ask(up, address("alice@example.org")), Absent)
            await asyncio.sleep(0.02)


async def test_octets_behind_the_starttls_answer_are_an_injection(upstream: Make, authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        number, _ = await peer.request()
        await peer.send(message(number, result(0, 0x78)) + message(number, result(0)))
        await never(peer)

    async with scripted(script) as url:
        up = upstream(url, starttls=True, tls_ca_file=authority.ca_file)
        outcome = await ask(up, address("alice@example.org"), 1.5)
    assert isinstance(outcome, Failed)


async def test_tls_handshake_that_never_ends(upstream: Make, authority: Authority) -> None:
    async with scripted(never) as url:
        up = upstream(url.replace("ldap:", "ldaps:"), tls_ca_file=authority.ca_file)
        outcome = await ask(up, address("alice@example.org"), 1.0)
    assert isinstance(outcome, Failed)
    assert "TLS" in outcome.reason


async def test_a_cancelled_question_frees_its_thread_and_socket(upstream: Make, threads: ThreadPoolExecutor) -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        begun.set()
        await peer.reader.read(-1)
        ended.set()

    async with scripted(script) as url:
        task = asyncio.create_task(upstream(url).fetch(address("alice@example.org"), Asking(60.0, "")))
        await asyncio.wait_for(begun.wait(), 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 1)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(1):
        gate = [loop.run_in_executor(threads, time.sleep, 0.05) for _ in range(4)]  # all four are free
        await asyncio.gather(*gate)


async def test_busy_threads_are_our_own_limit(upstream: Make) -> None:
    with ThreadPoolExecutor(1) as one:
        async with scripted(never) as url:
            first = asyncio.create_task(ask(upstream(url, threads=one), address("alice@example.org"), 1.5))
            await asyncio.sleep(0.2)
            outcome = await ask(upstream(url, threads=one), address("alice@example.org"), 0.5)
            assert isinstance(outcome, Failed)
            assert outcome.fault is Fault.LOCAL
            assert isinstance(await first, Failed)


async def test_closed(slapd: Slapd, upstream: Make) -> None:
    up = upstream(slapd.url)
    assert isinstance(await ask(up, address("alice@example.org")), Found)
    await up.close()
    assert isinstance(await ask(up, address("alice@example.org")), Failed)


# --- templates -------------------------------------------------------------------------------------------------------


class Zone:
    """Names that exist, and how often each was looked up."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = {name.replace("_", "."): value for name, value in hosts.items()}
        self.asked: list[str] = []

    async def __call__(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        found = self.hosts.get(name.rstrip("."))
        if found is None:
            raise NoSuchHost("no such host")
        if found == "trouble":
            raise OSError("the name server fails")
        return found.split()


def template(upstream: Make, url: str, zone: Zone, **options: Any) -> Ldap:
    port = url.rsplit(":", 1)[1]
    return upstream(f"ldap://keys.{{domain}}:{port}", names=Names(zone), special_use=frozenset({"test"}), **options)


async def test_template(slapd: Slapd, upstream: Make) -> None:
    zone = Zone(keys_example_org="127.0.0.1", keys_private_org="10.0.0.1 127.0.0.1", keys_bad_org="trouble")
    up = template(upstream, slapd.url, zone, allow_private=True)
    query = address("alice@example.org")
    assert octets(await ask(up, query)) == [ALICE.octets]
    assert up.target(query) == "directory/keys.example.org"
    assert up.target(ByKeyId(ALICE.key_id)) == "directory"
    assert zone.asked == ["keys.example.org."]  # no search list
    outcome = await ask(up, ByFingerprint(ALICE.fingerprint))
    assert isinstance(outcome, Absent)
    assert not outcome.remember
    for domain in ("gone.org", "gone.org"):
        assert isinstance(await ask(up, address(f"a@{domain}")), Absent)
    assert zone.asked.count("keys.gone.org.") == 1
    assert isinstance(await ask(up, address("a@bad.org")), Failed)
    for domain in ("localhost", "10.0.0.1", "a.test"):
        assert isinstance(await ask(up, address(f"a@{domain}")), Absent)
    guarded = template(upstream, slapd.url, zone)
    for domain in ("example.org", "private.org"):
        outcome = await ask(guarded, address(f"a@{domain}"))
        assert isinstance(outcome, Absent)
        assert "public" in outcome.reason


async def test_a_template_host_that_once_answered_can_fail(tmp_path: Path, upstream: Make) -> None:
    zone = Zone(keys_example_org="127.0.0.1", keys_other_org="127.0.0.1")
    now = [0.0]
    with Slapd(tmp_path, [base_entry(ORG)]) as server:
        up = template(upstream, server.url, zone, allow_private=True, monotonic=lambda: now[0])
        assert isinstance(await ask(up, address("a@example.org")), Absent)
        server.stop()
        assert isinstance(await ask(up, address("a@example.org")), Failed)
        for _ in range(3):  # never answered
            assert isinstance(await ask(up, address("a@other.org")), Absent)
        assert zone.asked.count("keys.other.org.") == 1
        now[0] += 901
        assert isinstance(await ask(up, address("a@other.org")), Absent)
        assert zone.asked.count("keys.other.org.") == 2


async def test_silence_is_not_absence(upstream: Make) -> None:
    async with scripted(never) as url:
        up = template(upstream, url, Zone(keys_example_org="127.0.0.1"), allow_private=True)
        assert isinstance(await ask(up, address("a@example.org"), 1.3), Failed)


async def test_templates_do_not_hold_all_threads(slapd: Slapd, upstream: Make) -> None:
    zone = Zone(**{f"keys_d{n}_org": "127.0.0.1" for n in range(8)})
    async with scripted(never) as url:
        up = template(upstream, url, zone, allow_private=True)
        slow = [asyncio.create_task(ask(up, address(f"a@d{n}.org"), 1.5)) for n in range(8)]
        await asyncio.sleep(0.2)
        assert octets(await ask(upstream(slapd.url), address("alice@example.org"), 0.8)) == [ALICE.octets]
        assert all(isinstance(outcome, Failed) for outcome in await asyncio.gather(*slow))


# --- pure parts ------------------------------------------------------------------------------------------------------


def test_parse_url() -> None:
    found = parse_url("ldap://LDAP.example.org/ou=people,dc=example,dc=org")
    assert (found.host, found.port, found.base) == ("ldap.example.org", 389, "ou=people,dc=example,dc=org")
    assert parse_url("ldaps://[::1]:1636/o=A%20B").base == "o=A B"
    assert (parse_url("ldaps://ldap.example.org").port, parse_url("ldap://keys.{domain}").template) == (636, True)
    assert parse_url("ldap://ldap.münchen.example").host == "ldap.xn--mnchen-3ya.example"


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("hkp://a.example", {}, "scheme"),
        ("ldap://", {}, "no host"),
        ("ldap://a.example:0", {}, "port"),
        ("ldap://a.example:99999", {}, "Port"),
        ("ldap://user:pw@a.example", {}, "credentials"),
        ("ldap://a.example/dc=x??sub?(mail=a)", {}, "filter"),
        ("ldap://a.example/not a dn", {}, "base DN"),
        ("ldap://a.example/dc=%ff", {}, "UTF-8"),
        ("ldap://a.example/dc={domain}", {}, "base DN"),
        ("ldap://a_b.{domain}", {}, "{domain}"),
        ("ldap://x{domain}", {}, "{domain}"),
        ("ldap://bad host", {}, "neither"),
        ("ldaps://a.example", {"starttls": True}, "starttls"),
        ("ldap://a.example", {"bind_dn": "cn=x"}, "TLS"),
        ("ldaps://keys.{domain}", {"bind_dn": "cn=x"}, "credentials"),
    ],
)
def test_parse_url_refuses(url: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("{", r"\{")):
        parse_url(url, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"filter": "(mail=x)"},
        {"filter": "(mail={address}"},
        {"filter": "mail={address}"},
        {"filter": "(mail={address}{x})"},
        {"attributes": ["user certificate"]},
        {"bind_dn": "cn=x"},
        {"bind_password": "x"},
        {"tls_ca_file": "/nonexistent"},
    ],
)
def test_impossible_settings(threads: ThreadPoolExecutor, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Ldap(UpstreamSpec("x"), "ldaps://ldap.example.org", threads=threads, monotonic=time.monotonic, **options)


def test_parent_and_escape() -> None:
    assert parent(r"cn=a\,b,ou=c,dc=d") == "ou=c,dc=d"
    assert parent('cn="a,b",dc=d') == "dc=d"
    assert parent("dc=d") == ""
    assert escape("a*b(c)\\\0é@x.org") == r"a\2ab\28c\29\5c\00\c3\a9@x.org"


def test_addresses_are_asked_for_in_both_spellings_of_their_domain() -> None:
    text = openpgp_filter(ByAddress("a", "xn--mnchen-3ya.example"), Style.GNUPG_2)
    assert text == r"(&(|(gpgMailbox=a@xn--mnchen-3ya.example)(gpgMailbox=a@m\c3\bcnchen.example))(!(pgpDisabled=1)))"


async def test_a_domain_in_u_labels_is_found_in_a_directory(slapd: Slapd, upstream: Make) -> None:
    joerg = address("joerg@xn--mller-kva.example", Kind.X509)
    assert x509_filter(joerg, "", False) == (r"(|(mail=joerg@xn--mller-kva.example)(mail=joerg@m\c3\bcller.example))")
    up = upstream(f"{slapd.url}/{PEOPLE}", filter="(&(description={local}@{domain})(sn=*))")
    assert octets(await ask(up, joerg)) == [DER[2]]
    up = upstream(f"{slapd.url}/{PEOPLE}", filter="(description={address})", attributes=["userCertificate;binary"])
    assert octets(await ask(up, joerg)) == [DER[2]]
    up = upstream(f"{slapd.url}/{PEOPLE}")  # `mail` there is IA5: the other spelling finds nothing, and harms nothing
    assert octets(await ask(up, address("ulf@xn--mller-kva.example", Kind.X509))) == [DER[1]]
    up = upstream(f"{slapd.url}/{KEYS}", filter="(gpgMailbox={address})", attributes=["pgpKey"])
    assert octets(await ask(up, address("joerg@xn--mller-kva.example"))) == [BOB.octets]


def test_tls_contexts_verify(threads: ThreadPoolExecutor) -> None:
    context = Ldap(
        UpstreamSpec("x"), "ldaps://ldap.example.org", threads=threads, monotonic=time.monotonic
    ).entrance.context
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
