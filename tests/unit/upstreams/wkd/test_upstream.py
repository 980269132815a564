"""The Web Key Directory upstream against web hosts of all kinds, with directories and without."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.net import GONE_KEPT, Names, Service
from keyserver.upstreams.wkd.upstream import MAX_BODY, Wkd
from scenarios.world import World
from support import scripted
from support.internet import PUBLIC, Internet, names
from support.openpgp import armored, make, make_certificate
from support.scripted import NOT_FOUND, Behaviour, Scripted, gzipped, redirect, reply
from support.tls import Authority

ADVANCED, DIRECT = "openpgpkey.partner.de", "partner.de"
ALICE, BOB = ByAddress("alice", DIRECT), ByAddress("bob", DIRECT)
OCTETS = make_certificate(["Alice <alice@partner.de>"], seed="alice")
RAW = (Raw(Kind.OPENPGP, OCTETS),)
DIRECTORY = reply(200, OCTETS, Content_Type="application/octet-stream")
PAGE = reply(200, "<!DOCTYPE html><title>Welcome</title>", Content_Type="text/html")
TARGET = "/.well-known/openpgpkey/partner.de/hu/kei1q4tipxxu1yj79k9kfukdhfy631xe?l=alice"
BOTH: dict[str, Sequence[str] | OSError] = {ADVANCED: [PUBLIC], DIRECT: [PUBLIC]}
NO_SUBDOMAIN: dict[str, Sequence[str] | OSError] = {DIRECT: [PUBLIC]}


async def kept() -> bool:
    """Something of the domain is in the cache."""
    return True


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Scripted]:
    """The web host of partner.de, under both of its names."""
    async with Scripted({"*": NOT_FOUND, "alice": DIRECTORY}, authority.server(ADVANCED, DIRECT)) as running:
        yield running


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


class Asked(Wkd):
    """One whose names are a table, and whose clock is set by hand."""

    def __init__(self, server: Scripted, authority: Authority, table: dict[str, Any], **options: Any) -> None:
        self.now = 1000.0
        self.resolved: list[str] = []
        options = {"names": names(table, asked=self.resolved), "tls_ca_file": authority.ca_file} | options
        super().__init__(
            UpstreamSpec("wkd", template=True),
            clock=time.time,
            monotonic=lambda: self.now,
            port=server.port,
            **options,
        )

    async def __aenter__(self) -> Asked:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ask(self, query: Query = ALICE, left: float = 5, answered: Any = None) -> Outcome:
        return await self.fetch(query, Asking(left, "test", *([answered] if answered else [])))


async def once(server: Scripted, authority: Authority, table: dict[str, Any], **options: Any) -> Outcome:
    """One question for Alice."""
    answered = options.pop("answered", None)
    async with Asked(server, authority, table, **options) as upstream:
        return await upstream.ask(answered=answered)


# What is asked, and of whom


async def test_the_advanced_method(server: Scripted, authority: Authority, internet: Internet) -> None:
    outcome = await once(server, authority, BOTH)
    assert outcome == Found(RAW, method=f"wkd advanced {ADVANCED}")
    (request,) = server.requests
    assert request.target == TARGET
    assert request.headers["host"] == f"{ADVANCED}:{server.port}"
    assert request.headers["via"] == "1.1 test"
    assert internet.connected == [PUBLIC]


async def test_the_direct_method_where_the_subdomain_has_no_address(server: Scripted, authority: Authority) -> None:
    assert await once(server, authority, NO_SUBDOMAIN) == Found(RAW, method=f"wkd direct {DIRECT}")
    (request,) = server.requests
    assert request.target == TARGET.replace("/partner.de", "")
    assert request.headers["host"] == f"{DIRECT}:{server.port}"


async def test_the_example_of_the_draft(authority: Authority) -> None:
    """Section 3.1: Joe.Doe@Example.ORG, with its local part as we know it."""
    tls = authority.server("openpgpkey.example.org")
    async with Scripted({"joe.doe": DIRECTORY}, tls) as server:
        table = {"openpgpkey.example.org": [PUBLIC]}
        async with Asked(server, authority, table, special_use=frozenset()) as upstream:
            assert isinstance(await upstream.ask(ByAddress("joe.doe", "example.org")), Found)
        assert server.requests[0].target == (
            "/.well-known/openpgpkey/example.org/hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q?l=joe.doe"
        )


@pytest.mark.parametrize("local", ["a+b", "a/b", "a&l=c", "a#b", "a%b", '"a b"', "jörg", "a?b"])
async def test_a_local_part_is_sent_unchanged(server: Scripted, authority: Authority, local: str) -> None:
    async with Asked(server, authority, BOTH) as upstream:
        assert isinstance(await upstream.ask(ByAddress(local, DIRECT)), Absent)
    assert server.requests[0].term == local
    assert server.requests[0].target.count("/") == 5


async def test_port_443_by_default(internet: Internet) -> None:
    spec = UpstreamSpec("wkd", template=True)
    ports: list[int] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        ports.append(port)
        return []

    upstream = Wkd(spec, clock=time.time, monotonic=time.monotonic, names=Names(lookup))
    assert isinstance(await upstream.fetch(ALICE, Asking(5, "test")), Absent)
    await upstream.close()
    assert ports == [443, 443]


@pytest.mark.parametrize(
    ("query", "remember"),
    [
        (ByFingerprint("A" * 40), False),
        (ByKeyId("A" * 16), False),
        (ByText("alice"), False),
        (ByAddress("alice", DIRECT, Kind.X509), False),
        (ByAddress("alice", "partner.test"), True),
        (ByAddress("alice", "localhost"), True),
        (ByAddress("alice", "10.0.0.1"), True),
    ],
)
async def test_what_no_directory_is_asked(server: Scripted, authority: Authority, query: Query, remember: bool) -> None:
    async with Asked(server, authority, BOTH) as upstream:
        outcome = await upstream.ask(query)
        assert isinstance(outcome, Absent) and outcome.remember is remember
        assert not upstream.resolved
    assert not server.connections


async def test_health_is_of_the_domain(server: Scripted, authority: Authority) -> None:
    async with Asked(server, authority, BOTH) as upstream:
        assert upstream.target(ALICE) == "wkd/partner.de"
        assert upstream.target(ByAddress("a", "b.test")) == upstream.target(ByKeyId("A" * 16)) == "wkd"


# The direct method is no way around


@pytest.mark.parametrize("behaviour", [NOT_FOUND, reply(410), reply(500), reply(403), PAGE, scripted.reset])
async def test_a_subdomain_that_is_there_has_the_word(
    server: Scripted, authority: Authority, behaviour: Behaviour
) -> None:
    server.routes["*"] = behaviour
    async with Asked(server, authority, BOTH) as upstream:
        outcome = await upstream.ask(BOB)
        assert not isinstance(outcome, Found)
        assert outcome.method == f"wkd advanced {ADVANCED}"
        assert DIRECT not in upstream.resolved


@pytest.mark.parametrize(
    ("at", "kind"),
    [([PUBLIC], Absent), (["10.0.0.1"], Absent), (OSError("SERVFAIL"), Failed)],
    ids=["another certificate", "private", "no answer of a name server"],
)
async def test_nor_where_the_subdomain_cannot_be_asked(
    server: Scripted, authority: Authority, at: Sequence[str] | OSError, kind: type[Outcome]
) -> None:
    """Wildcards in DNS give every domain such a name; its web host has no certificate for it."""
    async with Scripted({"*": DIRECTORY}, authority.server(DIRECT)) as other:
        assert isinstance(await once(other, authority, {ADVANCED: at, DIRECT: [PUBLIC]}), kind)
        assert not other.requests


# What answers mean


@pytest.mark.parametrize(
    "behaviour",
    [DIRECTORY, reply(200, armored(OCTETS)), gzipped(OCTETS), reply(200, OCTETS, Content_Type="text/html")],
    ids=["binary", "armored", "gzip", "of another type"],
)
async def test_found(server: Scripted, authority: Authority, behaviour: Behaviour) -> None:
    server.routes["alice"] = behaviour
    outcome = await once(server, authority, BOTH)
    assert isinstance(outcome, Found) and outcome.raw == RAW


@pytest.mark.parametrize(
    ("behaviour", "remember"),
    [
        (NOT_FOUND, True),
        (reply(410), True),
        (reply(404, "<html>", Cache_Control="no-store, private"), True),
        (reply(400), False),
        (PAGE, True),
        (reply(200, " \n<html>not found</html>"), True),
    ],
)
async def test_absent(server: Scripted, authority: Authority, behaviour: Behaviour, remember: bool) -> None:
    server.routes["alice"] = behaviour
    outcome = await once(server, authority, BOTH)
    assert isinstance(outcome, Absent) and outcome.remember is remember


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        (reply(500, "Error: module not found"), Fault.TRANSIENT),
        (reply(502, "<html>no keys found</html>"), Fault.TRANSIENT),
        (reply(406, "not found"), Fault.TRANSIENT),
        (reply(403), Fault.CONFIGURATION),
        (reply(429, Retry_After="60"), Fault.BUSY),
        (reply(200, ""), Fault.TRANSIENT),
        (reply(200, "Welcome"), Fault.TRANSIENT),
        (redirect("http://partner.de/x"), Fault.TRANSIENT),
        (scripted.hang_up, Fault.TRANSIENT),
        (reply(200, OCTETS, length=len(OCTETS) + 1), Fault.TRANSIENT),
    ],
)
async def test_failed(server: Scripted, authority: Authority, behaviour: Behaviour, fault: Fault) -> None:
    server.routes["alice"] = behaviour
    outcome = await once(server, authority, BOTH)
    assert isinstance(outcome, Failed) and outcome.fault is fault, outcome
    assert outcome.method == f"wkd advanced {ADVANCED}"
    assert "partner" not in outcome.reason and "alice" not in outcome.reason


async def test_a_page_of_a_directory_is_no_absence(server: Scripted, authority: Authority) -> None:
    """It has sent a certificate, of which something is kept, or to this very process."""
    server.routes["*"] = PAGE
    async with Asked(server, authority, BOTH) as upstream:
        assert isinstance(await upstream.ask(BOB), Absent)
        outcome = await upstream.ask(BOB, answered=kept)
        assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL
        assert isinstance(await upstream.ask(ALICE), Found)
        assert isinstance(await upstream.ask(BOB), Failed)


@pytest.mark.parametrize("announced", [True, False])
async def test_256_kib(server: Scripted, authority: Authority, announced: bool) -> None:
    for more in (0, 1):
        body = OCTETS + b"\xb4" * (MAX_BODY - len(OCTETS) + more)
        server.routes["alice"] = reply(200, body) if announced else scripted.chunked(body, 10_000)
        outcome = await once(server, authority, BOTH)
        if more:
            assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL and "256 KiB" in outcome.reason
        else:
            assert isinstance(outcome, Found)


# Hosts that are not there


async def test_a_domain_without_hosts_is_asked_of_name_servers_once_for_all_addresses(
    server: Scripted, authority: Authority
) -> None:
    async with Asked(server, authority, {}) as upstream:
        outcome = await upstream.ask(ALICE)
        assert outcome == Absent("no such host", method=f"wkd direct {DIRECT}")
        assert upstream.resolved == [ADVANCED, DIRECT]
        for number in range(5):
            assert await upstream.ask(ByAddress(f"n{number}", DIRECT)) == outcome
        assert upstream.resolved == [ADVANCED, DIRECT]
        upstream.now += GONE_KEPT
        await upstream.ask(BOB)
        assert upstream.resolved == [ADVANCED, DIRECT] * 2


@pytest.mark.parametrize("table", [BOTH, NO_SUBDOMAIN, {DIRECT: ["127.0.0.1"]}, {ADVANCED: ["127.0.0.1"]}])
async def test_so_is_one_whose_hosts_answer_nobody(
    server: Scripted, authority: Authority, internet: Internet, table: dict[str, Any]
) -> None:
    await server.stop()
    async with Asked(server, authority, table) as upstream:
        first = await upstream.ask(ALICE)
        assert isinstance(first, Absent) and first.remember
        resolved, connected = list(upstream.resolved), list(internet.connected)
        assert await upstream.ask(BOB) == first
        assert (upstream.resolved, internet.connected) == (resolved, connected)


async def test_an_absence_that_a_host_has_said_is_of_one_address(server: Scripted, authority: Authority) -> None:
    for behaviour in (NOT_FOUND, PAGE):
        server.routes["*"] = behaviour
        async with Asked(server, authority, BOTH) as upstream:
            assert isinstance(await upstream.ask(BOB), Absent)
            assert isinstance(await upstream.ask(ALICE), Found)


async def test_a_missing_subdomain_is_remembered_while_the_domain_answers(
    server: Scripted, authority: Authority
) -> None:
    async with Asked(server, authority, NO_SUBDOMAIN) as upstream:
        for _ in range(3):
            assert isinstance(await upstream.ask(answered=kept), Found)
        assert upstream.resolved == [ADVANCED, DIRECT]
        upstream.now += GONE_KEPT
        assert isinstance(await upstream.ask(), Found)
        assert upstream.resolved.count(ADVANCED) == 2


async def test_a_host_that_has_answered_can_fail(server: Scripted, authority: Authority) -> None:
    async with Asked(server, authority, BOTH) as upstream:
        assert isinstance(await upstream.ask(), Found)
        await server.stop()
        assert isinstance(await upstream.ask(), Failed)
    for table in (BOTH, NO_SUBDOMAIN, {}):
        async with Asked(server, authority, table) as upstream:
            assert isinstance(await upstream.ask(answered=kept), Failed), "what it said is in the cache"
            assert isinstance(await upstream.ask(), Absent), "which says nothing of a host that never did"


async def test_time_that_is_up(server: Scripted, authority: Authority) -> None:
    server.routes["alice"] = scripted.hang
    for table in (BOTH, NO_SUBDOMAIN):
        async with Asked(server, authority, table) as upstream:
            began = time.monotonic()
            assert isinstance(await upstream.ask(left=0.4), Failed)
            assert time.monotonic() - began < 1.4
            assert isinstance(await upstream.ask(left=-1), Failed)


# Connections, and where they lead


@pytest.mark.parametrize("table", [BOTH, NO_SUBDOMAIN])
async def test_a_connection_is_kept_for_the_next_address(
    server: Scripted, authority: Authority, internet: Internet, table: dict[str, Any]
) -> None:
    async with Asked(server, authority, table) as upstream:
        for _ in range(3):
            assert isinstance(await upstream.ask(ALICE), Found)
            assert isinstance(await upstream.ask(BOB), Absent)
    assert (len(server.requests), server.connections) == (6, 1)
    assert len(internet.connected) == 1


async def test_no_private_host_is_asked_unless_allowed(server: Scripted, authority: Authority) -> None:
    for at in ("127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "192.168.1.1"):
        for table in ({ADVANCED: [at]}, {DIRECT: [at]}):
            outcome = await once(server, authority, table)
            assert isinstance(outcome, Absent) and outcome.reason == "no public address"
    assert not server.connections
    assert isinstance(await once(server, authority, {ADVANCED: ["127.0.0.1"]}, allow_private=True), Found)


async def test_srv_records_are_not_looked_for(server: Scripted, authority: Authority) -> None:
    """An older draft had `_openpgpkey._tcp`; the present one has not."""
    services = {f"_openpgpkey._tcp.{DIRECT}": [Service("elsewhere.de", server.port)]}
    async with Asked(server, authority, {}, names=names({"elsewhere.de": [PUBLIC]}, services)) as upstream:
        assert isinstance(await upstream.ask(), Absent)
    assert not server.connections


# Whose word it is


async def test_only_user_ids_with_the_asked_address_are_believed(
    tmp_path: Path, server: Scripted, authority: Authority
) -> None:
    world = World(tmp_path)
    texts = ["Alice <alice@partner.de>", "Alice", "Bob <bob@partner.de>", "The boss <ceo@other.de>"]
    alice = make(texts, seed="many names")
    world.certificates["alice"] = alice
    server.routes = {"*": NOT_FOUND, "alice": reply(200, alice.octets), "carol": reply(200, alice.octets)}
    world.upstream("wkd", template=True)
    async with Asked(server, authority, BOTH) as upstream:
        world.upstreams["wkd"] = upstream  # type: ignore[assignment]
        await world.start()
        try:
            await world.play("get alice@partner.de -> found MISS alice")
            await world.play("shows alice@partner.de -> 'Alice <alice@partner.de>' 'Alice'")
            await world.play("get bob@partner.de -> absent")
            await world.play("get ceo@other.de -> absent")
            await world.play("get carol@partner.de -> absent")
            answer = await world.get("carol@partner.de")
        finally:
            await world.stop()
    assert answer.how == "HIT"
