"""The HKP upstream against a scripted keyserver that answers well, badly, slowly, or not at all."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import aiohttp
import pytest
from yarl import URL

from keyserver import __version__
from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking, Upstream
from keyserver.upstreams.hkp.upstream import Endpoint, Hkp, lookups, parse_url
from keyserver.upstreams.http import client as http
from keyserver.upstreams.http.client import explain
from keyserver.upstreams.net import Names, NoSuchHost, Service
from support import scripted
from support.internet import PUBLIC, Internet, names
from support.openpgp import armored, make_certificate
from support.scripted import NOT_FOUND, Scripted, chunked, drip, endless, gzipped, key, redirect, reply, slow
from support.tls import Authority

ALICE = make_certificate(["Alice <alice@example.org>"], seed="alice")
Ask: TypeAlias = Callable[..., Awaitable[Outcome]]
FOUND = Found((Raw(Kind.OPENPGP, ALICE),))
ALICE_QUERY = ByAddress("alice", "example.org")
PARTNER = ByAddress("alice", "partner.de")
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted({"*": key(ALICE)}) as running:
        yield running


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def ask(upstream: Hkp, query: Query = ALICE_QUERY, left: float = 5) -> Outcome:
    """One question; the upstream is closed behind it."""
    try:
        return await upstream.fetch(query, Asking(left=left, via="test-instance"))
    finally:
        await upstream.close()


@pytest.fixture(params=["fresh", "kept"])
def either(request: pytest.FixtureRequest, server: Scripted) -> Ask:
    """`ask`, on a connection of its own, which aiohttp asks, and on one that is kept from another question."""

    async def asked(upstream: Hkp, query: Query = ALICE_QUERY, left: float = 5, at: Scripted = server) -> Outcome:
        if request.param == "kept":
            routes, at.routes = at.routes, {"*": key(ALICE)}
            assert await upstream.fetch(query, Asking(left=5, via="test-instance")) == FOUND
            at.routes = routes
            at.requests.clear()
        return await ask(upstream, query, left)

    return asked


def hkp(url: str | Scripted, **options: Any) -> Hkp:
    """An upstream, for a URL or a scripted server."""
    return Hkp(UpstreamSpec("test"), url if isinstance(url, str) else url.url, **{"clock": time.time} | options)


def failed(outcome: Outcome, fault: Fault = Fault.TRANSIENT, words: str = "") -> None:
    """Assert that it failed, why, and in which words."""
    assert isinstance(outcome, Failed), outcome
    assert outcome.fault is fault, outcome
    assert words in outcome.reason, outcome


# What is asked


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (ByFingerprint("A" * 40), f"/pks/lookup?op=get&options=mr&search=0x{'A' * 40}"),
        (ByFingerprint("B" * 64), f"/pks/lookup?op=get&options=mr&search=0x{'B' * 64}"),
        (ByKeyId("C" * 16), f"/pks/lookup?op=get&options=mr&search=0x{'C' * 16}"),
        (ALICE_QUERY, "/pks/lookup?op=get&options=mr&search=alice%40example.org&exact=on"),
        (ByAddress("a+b&c=d#%é", "example.org"), None),
        (ByText("\udcb9"), "/pks/lookup?op=get&options=mr&search=%3F"),
        (ByText("alice & bob/+ü"), "/pks/lookup?op=get&options=mr&search=alice%20%26%20bob%2F%2B%C3%BC"),
    ],
)
async def test_request_lines(server: Scripted, query: Query, target: str | None) -> None:
    assert await ask(hkp(server), query) == FOUND
    request = server.requests[0]
    assert target is None or request.target == target
    assert request.method == "GET"
    term = str(query).encode(errors="replace").decode()
    assert request.term == (term if isinstance(query, ByAddress | ByText) else f"0x{term}")
    assert request.headers["via"] == "1.1 test-instance"
    assert request.headers["user-agent"] == f"keyserver/{__version__}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"


JOERG = ByAddress("joerg", "xn--mller-kva.example")
A_LABEL, U_LABEL = "joerg@xn--mller-kva.example", "joerg@m\u00fcller.example"


async def test_an_internationalised_domain_is_asked_for_in_both_spellings(server: Scripted) -> None:
    bob = make_certificate(["Bob <bob@example.org>"], seed="bob")
    for routes, outcome in (
        ({U_LABEL: key(ALICE)}, FOUND),
        ({A_LABEL: key(ALICE)}, FOUND),
        ({A_LABEL: key(ALICE), U_LABEL: key(ALICE)}, FOUND),
        ({A_LABEL: key(ALICE), U_LABEL: key(bob)}, Found((*FOUND.raw, Raw(Kind.OPENPGP, bob)))),
        ({A_LABEL: key(ALICE), U_LABEL: reply(500)}, FOUND),
        ({}, Absent("it answered 404")),
        ({U_LABEL: reply(400)}, Absent("it answered 404")),  # it cannot even be asked that
        ({A_LABEL: reply(400), U_LABEL: NOT_FOUND}, Absent("it cannot be asked that (it answered 400)", False)),
        ({U_LABEL: reply(404, Cache_Control="no-store")}, Absent("it answered 404", remember=False)),
    ):
        server.requests.clear()
        server.routes = {"*": NOT_FOUND, **routes}
        assert await ask(hkp(server), JOERG) == outcome, routes
        assert sorted(r.term for r in server.requests) == sorted([A_LABEL, U_LABEL])
        assert all(r.target.endswith("&exact=on") for r in server.requests)
    for broken in (A_LABEL, U_LABEL):
        server.routes = {"*": NOT_FOUND, broken: reply(500)}
        failed(await ask(hkp(server), JOERG), words="500")
        server.routes = {"*": key(ALICE), broken: scripted.hang}
        assert await ask(hkp(server), JOERG, left=0.5) == FOUND


async def test_other_domains_are_asked_for_once(server: Scripted) -> None:
    for domain in ("example.org", "xn--yp8ha.example", "xn--a.example"):  # no IDNA 2008 label behind the last two
        server.requests.clear()
        assert await ask(hkp(server), ByAddress("a", domain)) == FOUND
        assert [r.term for r in server.requests] == [f"a@{domain}"]


@pytest.mark.parametrize("query", [ByHash("ihash", "00"), ByAddress("a", "b.org", Kind.X509), ByText("a", Kind.X509)])
async def test_what_hkp_has_no_words_for_is_not_sent(server: Scripted, query: Query) -> None:
    assert await ask(hkp(server), query) == Absent("HKP has no words for that", remember=False)
    assert not server.requests


async def test_connections_are_reused_and_bounded_by_need(server: Scripted) -> None:
    server.routes = {"*": [key(ALICE), NOT_FOUND]}
    upstream = hkp(server)
    try:
        for _ in range(5):
            assert isinstance(await upstream.fetch(ALICE_QUERY, Asking(5, "t")), Found | Absent)
    finally:
        await upstream.close()
    assert (len(server.requests), server.connections) == (5, 1)


async def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(server: Scripted) -> None:
    upstream = hkp(server)
    try:
        assert await upstream.fetch(ALICE_QUERY, Asking(5, "t")) == FOUND
        await server.stop()
        async with Scripted({"*": key(ALICE)}, port=server.port):
            assert await upstream.fetch(ALICE_QUERY, Asking(5, "t")) == FOUND
    finally:
        await upstream.close()


def test_it_is_an_upstream() -> None:
    upstream: Upstream = hkp("hkp://keys.example.net")
    assert upstream.target(ALICE_QUERY) == "test"
    template = hkp("hkp://keys.{domain}")
    assert template.target(PARTNER) == "test/keys.partner.de"
    assert template.target(ByKeyId("0" * 16)) == template.target(ByAddress("a", "b.localhost")) == "test"


# What comes back


@pytest.mark.parametrize(
    "behaviour",
    [
        key(ALICE),
        chunked(armored(ALICE).encode(), 100),
        slow(0.05, key(ALICE)),
        reply(200, ALICE, Content_Type="text/html"),
        scripted.raw(b"HTTP/1.0 200 OK\r\n\r\n" + armored(ALICE).encode()),
        scripted.raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + ALICE),
        drip(ALICE, every=0.0),
        gzipped(armored(ALICE).encode()),
        reply(203, ALICE),
        scripted.raw(HEAD + b"X-Filler: x\r\n" * 110 + b"Content-Length: %d\r\n\r\n" % len(ALICE) + ALICE),
    ],
    ids=["plain", "chunked", "slow", "binary", "HTTP/1.0", "100", "drip", "gzip", "203", "headers"],
)
async def test_found(server: Scripted, behaviour: scripted.Behaviour, either: Ask) -> None:
    server.routes["*"] = behaviour
    assert await either(hkp(server)) == FOUND


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (slow(9, key(ALICE)), "no answer"),
        (scripted.hang, "no answer"),
        (drip(armored(ALICE).encode()), "no answer"),
        (drip(b"", head=False), "no answer"),
        (scripted.hang_up, "without an answer"),
        (scripted.reset, ""),
        (reply(200, armored(ALICE), length=9999), "broke off"),
        (chunked(armored(ALICE).encode(), cut=True), "broke off"),
        (reply(200, "<html><body>Welcome</body></html>"), "page"),
        (reply(200, ""), "empty"),
        (reply(204), "204"),
        (reply(500, "Internal Server Error"), "500"),
        (reply(502, "x" * 1_000_000), "502"),
        (scripted.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), ""),
        (scripted.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "not proper HTTP"),
        (scripted.raw(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "Duplicate Content-Length"),
        (scripted.raw(HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), "Duplicate Content-Length"),
        (scripted.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not proper HTTP"),
        (scripted.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n"), "not proper HTTP"),
        (scripted.raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 500 + b"\r\n"), "Too many headers"),
        (endless(chunk=b"X: x\r\n" * 1000, head="HTTP/1.1 200 OK\r\n"), "not proper HTTP"),
        (endless(chunk=b"x" * 1000, head="HTTP/1.1 200 "), "not proper HTTP"),
        (endless(chunk=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, head=""), ""),
    ],
)
async def test_failed(server: Scripted, behaviour: scripted.Behaviour, words: str, either: Ask) -> None:
    server.routes["*"] = behaviour
    began = time.monotonic()
    failed(await either(hkp(server), left=0.5), Fault.TRANSIENT, words)
    assert time.monotonic() - began < 1.5


async def test_damage_beside_a_good_block(server: Scripted, either: Ask) -> None:
    bob = make_certificate(["Bob <bob@example.org>"], seed="bob")
    server.routes["*"] = reply(200, armored(bob)[:-40] + "\n" + armored(ALICE))
    outcome = await either(hkp(server))
    assert isinstance(outcome, Found) and outcome.raw == FOUND.raw and "END" in outcome.damaged[0]
    server.routes["*"] = reply(200, armored(ALICE)[:-40])
    failed(await either(hkp(server)), Fault.LOCAL, "armor")


async def test_what_was_wrong_with_an_answer_is_said_without_its_octets(server: Scripted, either: Ask) -> None:
    server.routes["*"] = scripted.raw(HEAD + b"Content-Length: \x1b[2J@example.org\r\n\r\n")
    outcome = await either(hkp(server))
    failed(outcome, words="not proper HTTP: Invalid")
    assert "example" not in str(outcome) and "2J" not in str(outcome)


@pytest.mark.parametrize(
    "behaviour",
    [
        endless(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"),
        reply(200, b"", length=http.MAX_BODY + 1),
        chunked(b"A" * (http.MAX_BODY + 1), 1 << 20),
    ],
    ids=["endless", "announced", "chunked"],
)
async def test_more_than_16_mib_is_our_own_limit(server: Scripted, behaviour: scripted.Behaviour, either: Ask) -> None:
    server.routes["*"] = behaviour
    failed(await either(hkp(server), left=10), Fault.LOCAL, "16 MiB")


async def test_an_answer_just_below_the_limit_is_read(server: Scripted, either: Ask) -> None:
    text = armored(ALICE).encode()
    server.routes["*"] = reply(200, text + b" " * (http.MAX_BODY - len(text)))
    assert await either(hkp(server), left=10) == FOUND


async def test_large_answers_are_judged_two_at_a_time(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    big = armored(ALICE).encode() + b" " * (2 << 20)
    server.routes = {"*": reply(200, big), "slow": drip(big)}
    upstream = hkp(server)
    head = b"HTTP/1.1 200 OK\r\n\r\n" + big

    async def stuck(request: scripted.Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await asyncio.Event().wait()

    server.routes["slow"] = stuck
    try:
        holding = [asyncio.create_task(upstream.fetch(ByText("slow"), Asking(1.5, "t"))) for _ in range(2)]
        await asyncio.sleep(0.5)
        failed(await upstream.fetch(ALICE_QUERY, Asking(0.3, "t")), Fault.LOCAL, "large")
        for outcome in await asyncio.gather(*holding):
            failed(outcome)
        assert await upstream.fetch(ALICE_QUERY, Asking(5, "t")) == FOUND
    finally:
        await upstream.close()


async def test_busy_and_absent_reach_the_outcome(server: Scripted, either: Ask) -> None:
    server.routes["*"] = reply(429, Retry_After="30")
    assert await either(hkp(server)) == Failed("it asks for a pause (it answered 429)", Fault.BUSY, 30.0)
    server.routes["*"] = reply(503, Retry_After="Fri, 15 Jan 2027 08:01:30 GMT")
    outcome = await either(hkp(server, clock=lambda: 1_800_000_000))
    assert isinstance(outcome, Failed) and outcome.retry_after == 90
    server.routes["*"] = reply(404, Cache_Control="no-store")
    assert await either(hkp(server)) == Absent("it answered 404", remember=False)
    server.routes["*"] = NOT_FOUND
    assert await either(hkp(server)) == Absent("it answered 404")


async def test_refused_connections_and_unknown_configured_hosts_fail(server: Scripted) -> None:
    await server.stop()
    failed(await ask(hkp(server)), Fault.TRANSIENT, "refused")
    failed(await ask(hkp("hkp://keys.nowhere.de", names=names({}))), Fault.TRANSIENT, "no such host")
    broken = names({"keys.nowhere.de": OSError("SERVFAIL")})
    failed(await ask(hkp("hkp://keys.nowhere.de", names=broken)), Fault.TRANSIENT, "could not be resolved")


async def test_cancelling_is_passed_on_and_leaves_nothing_open(server: Scripted) -> None:
    server.routes["*"] = scripted.hang
    upstream = hkp(server)
    task = asyncio.create_task(upstream.fetch(ALICE_QUERY, Asking(5, "t")))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await upstream.close()
    failed(await upstream.fetch(ALICE_QUERY, Asking(5, "t")), Fault.LOCAL, "closed")


async def test_time_that_is_already_up(server: Scripted) -> None:
    failed(await ask(hkp(server), left=0), Fault.TRANSIENT, "no answer")
    failed(await ask(hkp(server), left=-1), Fault.TRANSIENT, "no answer")


# Redirects


async def test_redirects_are_followed_three_times(server: Scripted, either: Ask) -> None:
    server.routes = {
        "*": redirect("/pks/lookup?search=one", 301),
        "one": redirect(f"{server.http}/pks/lookup?search=two", 302),
        "two": redirect("?search=three%20%2B", 307),
        "three +": key(ALICE),
    }
    assert await either(hkp(server)) == FOUND
    assert server.requests[-1].target == "/pks/lookup?search=three%20%2B"
    assert all(r.headers["via"] == "1.1 test-instance" for r in server.requests)
    server.routes["three +"] = redirect("?search=four", 308)
    failed(await either(hkp(server)), Fault.TRANSIENT, "more than 3 times")


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "not an HTTP URL"),
        ("ftp://127.0.0.1/x", "not an HTTP URL"),
        ("file:///etc/passwd", "not an HTTP URL"),
        ("hkp://127.0.0.1/", "not an HTTP URL"),
        ("http://", "URL"),
        ("http:///x", "URL"),
        ("http://[::1", "not a URL"),
        ("http://a:99999/", "not a URL"),
        ("http://127.1/", "not an HTTP URL"),
        ("http://2130706433/", "not an HTTP URL"),
        ("http://0x7f000001/", "not an HTTP URL"),
        ("http://user:secret@127.0.0.1/", "credentials"),
        ("http://user@127.0.0.1/", "credentials"),
    ],
)
async def test_redirects_that_lead_nowhere(server: Scripted, location: str, words: str, either: Ask) -> None:
    server.routes["*"] = redirect(location)
    failed(await either(hkp(server)), Fault.TRANSIENT, words)
    assert len(server.requests) == 1


async def test_never_from_tls_to_plain(server: Scripted, authority: Authority, either: Ask) -> None:
    async with Scripted({"*": redirect(f"{server.http}/pks/lookup?search=x")}, authority.server("127.0.0.1")) as tls:
        failed(await either(hkp(tls, tls_ca_file=authority.ca_file), at=tls), Fault.TRANSIENT, "TLS to plain")
    assert not server.requests


async def test_from_plain_to_tls(server: Scripted, authority: Authority) -> None:
    async with Scripted({"*": key(ALICE)}, authority.server("127.0.0.1")) as tls:
        server.routes["*"] = redirect(f"{tls.http}/pks/lookup?search=x")
        assert await ask(hkp(server, tls_ca_file=authority.ca_file)) == FOUND
        failed(await ask(hkp(server)), Fault.CONFIGURATION, "certificate")


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


@pytest.mark.parametrize("inside", ["127.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "192.168.1.1", "inside.de", "localhost"])
async def test_never_from_a_public_host_inside(server: Scripted, internet: Internet, inside: str, either: Ask) -> None:
    table = names({"keys.public.de": [PUBLIC], "inside.de": ["10.0.0.1"], "localhost": ["127.0.0.1"]})
    server.routes["*"] = redirect(f"http://{inside}:{server.port}/pks/lookup?search=x")
    failed(await either(hkp(f"hkp://keys.public.de:{server.port}", names=table)), Fault.TRANSIENT, "public")
    assert internet.connected == [PUBLIC]
    assert len(server.requests) == 1


async def test_nor_by_way_of_another_public_host(server: Scripted, internet: Internet, either: Ask) -> None:
    table = names({"keys.home.de": ["10.0.0.1"], "keys.public.de": [PUBLIC], "inside.de": ["10.0.0.2"]})
    server.routes = {
        "*": redirect(f"http://keys.home.de:{server.port}/pks/lookup?search=home"),
        "home": redirect(f"http://keys.public.de:{server.port}/pks/lookup?search=public"),
        "public": redirect(f"http://inside.de:{server.port}/pks/lookup?search=end"),
        "end": key(ALICE),
    }
    failed(await either(hkp(f"hkp://keys.home.de:{server.port}", names=table)), Fault.TRANSIENT, "no public address")
    assert internet.connected == ["10.0.0.1", "10.0.0.1", PUBLIC]
    assert await either(hkp(f"hkp://keys.home.de:{server.port}", names=table, allow_private=True)) == FOUND


async def test_any_host_to_itself_and_to_others_inside_by_leave_only(
    server: Scripted, internet: Internet, either: Ask
) -> None:
    table = names({"keys.public.de": [PUBLIC], "keyserver": ["10.0.0.1"], "other": ["10.0.0.2"]})
    for host in ("keys.public.de", "keyserver"):
        server.routes = {"*": redirect(f"http://{host}:{server.port}/pks/lookup?search=x"), "x": key(ALICE)}
        assert await either(hkp(f"hkp://{host}:{server.port}", names=table)) == FOUND
    server.routes["*"] = redirect(f"http://other:{server.port}/pks/lookup?search=x")
    failed(await either(hkp(f"hkp://keyserver:{server.port}", names=table)), Fault.TRANSIENT, "no public address")
    assert await either(hkp(f"hkp://keyserver:{server.port}", names=table, allow_private=True)) == FOUND
    server.routes["*"] = redirect(f"http://10.0.0.9:{server.port}/pks/lookup?search=x")
    failed(await either(hkp(f"hkp://keyserver:{server.port}", names=table)), Fault.TRANSIENT, "not public")
    assert "10.0.0.9" not in internet.connected


async def test_from_public_to_public(server: Scripted, internet: Internet, either: Ask) -> None:
    table = names({"keys.public.de": [PUBLIC], "other.de": ["10.0.0.1", "9.9.9.9"]})
    server.routes = {"*": redirect(f"http://other.de:{server.port}/pks/lookup?search=x"), "x": key(ALICE)}
    assert await either(hkp(f"hkp://keys.public.de:{server.port}", names=table)) == FOUND
    assert internet.connected == [PUBLIC, "9.9.9.9"]


# TLS


async def test_tls_with_our_own_authority(authority: Authority) -> None:
    table = names({"keys.partner.de": ["127.0.0.1"]})
    async with Scripted({"*": key(ALICE)}, authority.server("keys.partner.de"), "keys.partner.de") as tls:
        assert await ask(hkp(tls, names=table, tls_ca_file=authority.ca_file)) == FOUND


@pytest.mark.parametrize(
    ("name", "expired", "trusted", "words"),
    [
        ("other.partner.de", False, True, "another name"),
        ("keys.partner.de", True, True, "expired"),
        ("keys.partner.de", False, False, "issuer"),
    ],
)
async def test_tls_certificates_that_are_no_good(
    authority: Authority, name: str, expired: bool, trusted: bool, words: str
) -> None:
    table = names({"keys.partner.de": ["127.0.0.1"]})
    async with Scripted({"*": key(ALICE)}, authority.server(name, expired=expired), "keys.partner.de") as tls:
        outcome = await ask(hkp(tls, names=table, tls_ca_file=authority.ca_file if trusted else None))
        failed(outcome, Fault.CONFIGURATION, words)
        assert not tls.requests
        assert "partner" not in str(outcome)  # reasons are logged, hosts of templates come from addresses


async def test_tls_spoken_to_a_plain_server(server: Scripted) -> None:
    failed(await ask(hkp(f"hkps://127.0.0.1:{server.port}"), left=0.3), Fault.TRANSIENT)


def test_a_ca_file_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(ValueError, match="not a readable PEM file"):
            hkp("hkps://keys.example.net", tls_ca_file=path)


# Templates


def template(server: Scripted, table: dict[str, Sequence[str] | OSError], **options: Any) -> Hkp:
    """`keys.{domain}` on the scripted server's port."""
    return hkp(f"hkp://keys.{{domain}}:{server.port}", names=names(table), **options)


async def test_templates_ask_the_domain_of_the_address(server: Scripted, internet: Internet) -> None:
    assert await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER) == FOUND
    assert server.requests[0].headers["host"] == f"keys.partner.de:{server.port}"
    assert internet.connected == [PUBLIC]


async def test_templates_are_not_asked_for_anything_else(server: Scripted) -> None:
    for query in (ByFingerprint("A" * 40), ByKeyId("A" * 16), ByText("partner.de")):
        assert await ask(template(server, {}), query) == Absent("it is asked for addresses only", remember=False)
    for domain in ("localhost", "partner.test", "10.0.0.1", "b.internal"):
        outcome = await ask(template(server, {f"keys.{domain}": ["127.0.0.1"]}), ByAddress("a", domain))
        assert isinstance(outcome, Absent) and outcome.remember
    assert not server.requests


async def test_template_hosts_that_are_not_there_are_absent(server: Scripted) -> None:
    assert await ask(template(server, {}), PARTNER) == Absent("no such host")
    private = {"keys.partner.de": ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]}
    assert await ask(template(server, private), PARTNER) == Absent("no public address")
    assert not server.requests and not server.connections
    failed(
        await ask(template(server, {"keys.partner.de": OSError("SERVFAIL")}), PARTNER), words="could not be resolved"
    )


async def test_template_hosts_may_be_private_when_allowed(server: Scripted) -> None:
    assert await ask(template(server, {"keys.partner.de": ["127.0.0.1"]}, allow_private=True), PARTNER) == FOUND
    open_names = template(server, {"keys.partner.test": ["127.0.0.1"]}, allow_private=True, special_use=frozenset())
    assert await ask(open_names, ByAddress("a", "partner.test")) == FOUND


async def test_a_template_host_that_once_answered_can_fail(server: Scripted, internet: Internet) -> None:
    upstream = template(server, {"keys.partner.de": [PUBLIC], "keys.other.de": [PUBLIC]})
    try:
        assert await upstream.fetch(PARTNER, Asking(5, "t")) == FOUND
        await server.stop()
        failed(await upstream.fetch(PARTNER, Asking(5, "t")), words="refused")
        never = await upstream.fetch(ByAddress("a", "other.de"), Asking(5, "t"))
        assert never == Absent("nothing answers at its host, and never did")
    finally:
        await upstream.close()


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EMFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM])
async def test_our_own_trouble_is_nobodys_absence_and_nobodys_fault(
    server: Scripted, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise aiohttp.ClientConnectorError(SimpleNamespace(ssl=False, host="h", port=1), OSError(number, "x"))  # type: ignore[arg-type]

    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", fail)
    outcome = await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER)
    failed(outcome, Fault.LOCAL, os.strerror(number))
    named = await ask(hkp(f"hkp://keys.partner.de:{server.port}", names=names({"keys.partner.de": [PUBLIC]})))
    failed(named, Fault.LOCAL, os.strerror(number))


async def test_a_router_that_says_unreachable_proves_no_absence(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        number = errno.EHOSTUNREACH
        raise aiohttp.ClientConnectorError(SimpleNamespace(ssl=False, host="h", port=1), OSError(number, "x"))  # type: ignore[arg-type]

    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", fail)
    failed(await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER), Fault.TRANSIENT)


async def test_a_host_of_which_something_is_kept_has_answered_before(server: Scripted, internet: Internet) -> None:
    async def kept() -> bool:
        return True

    await server.stop()
    upstream = template(server, {"keys.partner.de": [PUBLIC]})
    try:
        failed(await upstream.fetch(PARTNER, Asking(5, "t", kept)), words="refused")
        other = await upstream.fetch(ByAddress("a", "other.de"), Asking(5, "t", kept))
        failed(other, words="no such host")
        assert isinstance(await upstream.fetch(PARTNER, Asking(5, "t")), Absent)
    finally:
        await upstream.close()


async def test_a_template_host_that_swallows_connections_is_absent(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def swallow(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", swallow)
    outcome = await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER, left=1.1)
    assert outcome == Absent("nothing answers at its host, and never did")
    hurried = await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER, left=0.2)
    failed(hurried, words="no answer")


async def test_a_template_host_that_connects_and_says_nothing_fails(server: Scripted, internet: Internet) -> None:
    server.routes["*"] = scripted.hang
    failed(await ask(template(server, {"keys.partner.de": [PUBLIC]}), PARTNER, left=0.3), words="no answer")


async def test_template_hosts_need_a_certificate_for_their_name(authority: Authority, internet: Internet) -> None:
    async with Scripted({"*": key(ALICE)}, authority.server("keys.partner.de")) as tls:
        url = f"hkps://keys.{{domain}}:{tls.port}"
        table = names({"keys.partner.de": [PUBLIC], "keys.other.de": [PUBLIC]})
        assert await ask(hkp(url, names=table, tls_ca_file=authority.ca_file), PARTNER) == FOUND
        other = await ask(hkp(url, names=table, tls_ca_file=authority.ca_file), ByAddress("a", "other.de"))
        assert other == Absent("nothing answers at its host, and never did")
        assert len(tls.requests) == 1


async def test_no_rebinding_between_check_and_connection(server: Scripted, internet: Internet, either: Ask) -> None:
    answers = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]]
    asked = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    upstream = hkp(f"hkp://keys.{{domain}}:{server.port}", names=Names(lookup))
    assert await either(upstream, PARTNER) == FOUND
    assert asked == ["keys.partner.de."]
    assert internet.connected == [PUBLIC]


# SRV, default ports, proxy


async def test_srv_records_when_the_url_has_no_port(server: Scripted, internet: Internet) -> None:
    services = {"_pgpkey-http._tcp.pool.de": [Service("gone.de", 1), Service("a.pool.de", server.port)]}
    table = names({"a.pool.de": [PUBLIC], "pool.de": ["9.9.9.9"]}, services)
    assert await ask(hkp("hkp://pool.de", names=table)) == FOUND
    assert server.requests[0].headers["host"] == "pool.de:11371"
    assert internet.connected == [PUBLIC]
    assert await ask(hkp(f"hkp://pool.de:{server.port}", names=table)) == FOUND
    assert internet.connected == [PUBLIC, "9.9.9.9"]


async def test_srv_keeps_the_pools_name_for_tls(authority: Authority, internet: Internet) -> None:
    async with Scripted({"*": key(ALICE)}, authority.server("pool.de")) as tls:
        table = names({"a.pool.de": [PUBLIC]}, {"_pgpkey-https._tcp.pool.de": [Service("a.pool.de", tls.port)]})
        assert await ask(hkp("hkps://pool.de", names=table, tls_ca_file=authority.ca_file)) == FOUND


async def test_srv_records_of_each_domains_key_host_by_tls(authority: Authority, internet: Internet) -> None:
    """`hkps://keys.{domain}` as GnuPG asks `hkps://keys.partner.de`: its service, and the certificate for its name."""
    tls = authority.server("keys.partner.de", "keys.moved.de")
    async with Scripted({"*": key(ALICE)}, tls) as server:
        services = {
            f"_pgpkey-https._tcp.keys.{domain}": [Service(f"{host}.hoster.de", server.port)]
            for domain, host in {"partner.de": "a", "moved.de": "inside", "other.de": "a"}.items()
        }
        services["_pgpkey-http._tcp.keys.plain.de"] = [Service("a.hoster.de", server.port)]
        table = names({"a.hoster.de": [PUBLIC], "inside.hoster.de": ["10.0.0.1"], "keys.moved.de": [PUBLIC]}, services)
        upstream = hkp("hkps://keys.{domain}", names=table, tls_ca_file=authority.ca_file)
        try:
            for _ in range(2):
                assert await upstream.fetch(PARTNER, Asking(5, "t")) == FOUND
            assert server.requests[0].headers["host"] == "keys.partner.de"
            assert (server.connections, internet.connected) == (1, [PUBLIC]), "it is kept"
            for domain, reason in {
                "moved.de": "no public address",
                "other.de": "nothing answers at its host, and never did",  # its certificate is for others
                "plain.de": "no such host",
            }.items():
                assert await upstream.fetch(ByAddress("a", domain), Asking(5, "t")) == Absent(reason)
        finally:
            await upstream.close()
        assert len(server.requests) == 2
        assert internet.connected == [PUBLIC, PUBLIC]


async def test_srv_targets_of_templates_are_guarded(server: Scripted, internet: Internet) -> None:
    services = {
        "_pgpkey-http._tcp.keys.partner.de": [Service("inside.partner.de", server.port)],
        "_pgpkey-http._tcp.keys.none.de": [Service(".", 0)],
    }
    table = names({"inside.partner.de": ["127.0.0.1"], "keys.none.de": [PUBLIC]}, services)
    assert await ask(hkp("hkp://keys.{domain}", names=table), PARTNER) == Absent("no public address")
    none = await ask(hkp("hkp://keys.{domain}", names=table), ByAddress("a", "none.de"))
    assert none == Absent("its domain says that there is no keyserver")
    assert not internet.connected


async def test_srv_records_of_a_public_host_lead_to_no_private_address(server: Scripted, internet: Internet) -> None:
    """Whoever runs its name server chose the port, too."""
    for inside in ("inside.de", "127.0.0.1", "pool.de"):
        services = {"_pgpkey-http._tcp.pool.de": [Service(inside, server.port)]}
        table = names({"inside.de": ["10.0.0.1"], "pool.de": ["127.0.0.1"]}, services)
        assert not isinstance(await ask(hkp("hkp://pool.de", names=table)), Found)  # itself, at its own port
        assert await ask(hkp("hkp://pool.de", names=table, allow_private=True)) == FOUND
    assert len(server.requests) == 3


async def test_of_srv_targets_the_public_ones_are_asked(server: Scripted, internet: Internet) -> None:
    services = {"_pgpkey-http._tcp.pool.de": [Service("inside.de", 22), Service("a.pool.de", server.port)]}
    table = names({"inside.de": ["10.0.0.1"], "a.pool.de": [PUBLIC], "pool.de": [PUBLIC]}, services)
    assert await ask(hkp("hkp://pool.de", names=table)) == FOUND
    assert internet.connected == [PUBLIC]


async def test_a_redirect_behind_a_private_proxy(server: Scripted) -> None:
    table = names({"proxy": ["127.0.0.1"]})
    proxy = f"http://proxy:{server.port}"
    for location in ("/pks/lookup?search=x", "http://keys.example.net/pks/lookup?search=x"):
        server.routes = {"*": redirect(location), "x": key(ALICE)}
        assert await ask(hkp("hkp://keys.example.net", proxy=proxy, names=table)) == FOUND
    server.routes["*"] = redirect("http://keys.example.net:22/pks/lookup?search=x")
    failed(await ask(hkp("hkp://keys.example.net", proxy=proxy, names=table)), words="port")


async def test_a_name_that_turns_inside_while_it_redirects(server: Scripted, internet: Internet, either: Ask) -> None:
    """Public at the first question, private at the second, as its own name server likes it."""
    answers = iter([[PUBLIC], ["127.0.0.1"]])

    async def lookup(host: str, port: int) -> Sequence[str]:
        return next(answers)

    server.routes = {"*": redirect(f"http://keys.public.de:{server.port}/?search=x"), "x": key(ALICE)}
    failed(await either(hkp(f"hkp://keys.public.de:{server.port}", names=Names(lookup))), words="no public address")
    assert internet.connected == [PUBLIC]


async def test_a_proxy_is_asked_instead(server: Scripted) -> None:
    target = "http://keys.example.net:11371/pks/lookup?op=get&options=mr&search=alice%40example.org&exact=on"
    assert await ask(hkp("hkp://keys.example.net", proxy=server.http)) == FOUND
    assert server.requests[0].target == target
    server.routes["*"] = redirect("http://keys.other.net/pks/lookup?search=x")
    failed(await ask(hkp("hkp://keys.example.net", proxy=server.http)), words="behind a proxy")
    server.routes = {"*": redirect("/pks/lookup?search=x"), "x": key(ALICE)}
    assert await ask(hkp("hkp://keys.example.net", proxy=server.http)) == FOUND


async def test_proxy_troubles(server: Scripted) -> None:
    server.routes["*"] = reply(407)
    for url in ("hkp://keys.example.net", "hkps://keys.example.net"):
        failed(await ask(hkp(url, proxy=server.http)), Fault.CONFIGURATION, "proxy wants credentials")
    server.routes["*"] = reply(502)
    failed(await ask(hkp("hkps://keys.example.net", proxy=server.http)), Fault.TRANSIENT, "502")
    await server.stop()
    failed(await ask(hkp("hkp://keys.example.net", proxy=server.http)), Fault.TRANSIENT, "proxy")


@pytest.mark.parametrize(
    ("proxy", "url", "words"),
    [
        ("socks5://127.0.0.1:1", "hkp://a.de", "http://host:port"),
        ("https://127.0.0.1:1", "hkp://a.de", "http://host:port"),
        ("127.0.0.1:3128", "hkp://a.de", "http://host:port"),
        ("http://proxy.de:3128/x", "hkp://a.de", "http://host:port"),
        ("http://[::1", "hkp://a.de", "http://host:port"),
        ("http://me:secret@proxy.de:3128", "hkp://a.de", "credentials"),
        ("http://proxy.de:3128", "hkp://keys.{domain}", "do not go together"),
    ],
)
def test_proxies_that_are_refused(proxy: str, url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hkp(url, proxy=proxy)


# URLs


@pytest.mark.parametrize(
    ("text", "endpoint", "asked"),
    [
        ("hkp://keys.example.net", Endpoint("hkp", "keys.example.net"), "http://keys.example.net:11371/pks/lookup"),
        ("hkps://keys.example.net/", Endpoint("hkps", "keys.example.net"), "https://keys.example.net/pks/lookup"),
        ("HKP://Keys.Example.NET:80", Endpoint("hkp", "keys.example.net", 80), "http://keys.example.net/pks/lookup"),
        ("hkp://127.0.0.1:1234", Endpoint("hkp", "127.0.0.1", 1234), "http://127.0.0.1:1234/pks/lookup"),
        ("hkp://[::1]:1234", Endpoint("hkp", "::1", 1234), "http://[::1]:1234/pks/lookup"),
        ("hkp://keyserver", Endpoint("hkp", "keyserver"), "http://keyserver:11371/pks/lookup"),
        ("hkp://schlüssel.de", Endpoint("hkp", "xn--schlssel-95a.de"), "http://xn--schlssel-95a.de:11371/pks/lookup"),
        ("hkps://keys.{domain}", Endpoint("hkps", "keys.{domain}"), None),
        ("hkps://{domain}.keys.de:99", Endpoint("hkps", "{domain}.keys.de", 99), None),
    ],
)
def test_urls(text: str, endpoint: Endpoint, asked: str | None) -> None:
    assert parse_url(text) == endpoint
    assert endpoint.template == (asked is None)
    if asked:
        assert lookups(endpoint, endpoint.host) == URL(asked)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "hkp://"),
        ("keys.example.net", "scheme"),
        ("https://keys.example.net", "scheme 'https'"),
        ("vks://keys.openpgp.org", "scheme 'vks'"),
        ("hkp://", "names no host"),
        ("hkp://:11371", "names no host"),
        ("hkp://user:secret@keys.de", "no credentials"),
        ("hkp://user@keys.de", "no credentials"),
        ("hkp://keys.de/base", "nothing may follow"),
        ("hkp://keys.de?x=1", "nothing may follow"),
        ("hkp://keys.de#x", "nothing may follow"),
        ("hkp://keys.de:99999", "not a URL"),
        ("hkp://keys.de:x", "not a URL"),
        ("hkp://keys.de:0", "1 to 65535"),
        ("hkp://[::1", "not a URL"),
        ("hkp://user:secret@[::1", "not a URL"),
        ("hkp://127.1", "neither a host name"),
        ("hkp://a b.de", "neither a host name"),
        ("hkp://-a.de", "neither a host name"),
        ("hkp://keys-{domain}", "as whole labels"),
        ("hkp://{domain}.{domain}", "as whole labels"),
        ("hkp://keys.{user}", "as whole labels"),
        ("hkp://a..{domain}", "as whole labels"),
    ],
)
def test_urls_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_url(text)
    assert "secret" not in str(caught.value)


# Whatever the client library raises


def exceptions() -> list[BaseException]:
    """One of every exception class that aiohttp has, and what lies below it."""
    request = aiohttp.RequestInfo(URL("http://a/"), "GET", {}, URL("http://a/"))  # type: ignore[arg-type]
    where = SimpleNamespace(host="a", port=1, ssl=True, is_ssl=True)
    refused = OSError(errno.ECONNREFUSED, "refused")
    arguments: dict[str, tuple[Any, ...]] = {"ClientConnectorCertificateError": (where, ssl.CertificateError("bad"))}
    made: list[BaseException] = [
        OSError("x"), refused, ssl.SSLError("x"), TimeoutError(), ValueError("x"), RuntimeError("x"), AssertionError(),
        MemoryError(), KeyError("x"), UnicodeError("x"), EOFError(), NoSuchHost(),
    ]  # fmt: skip
    for name, kind in inspect.getmembers(aiohttp.client_exceptions, inspect.isclass):
        if not issubclass(kind, Exception) or kind.__module__ != "aiohttp.client_exceptions":
            continue
        candidates = [arguments.get(name, ()), (), ("x",), (where, refused), ("a", where, refused), (request, ())]
        for given in [*candidates, (b"", b"", "a", 1)]:
            try:
                error = kind(*given)
                str(error)
            except (TypeError, AttributeError, ValueError):
                continue
            made.append(error)
            break
        else:
            raise AssertionError(f"cannot make a {name}")
    return made


@pytest.mark.parametrize("error", exceptions(), ids=lambda e: type(e).__name__)
async def test_every_exception_becomes_failed(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "get", broken)
    outcome = await ask(hkp("hkp://keys.example.net"))
    assert isinstance(outcome, Failed) and outcome.reason
    assert await ask(hkp("hkp://keys.{domain}"), PARTNER) == outcome or isinstance(error, TimeoutError | OSError)
    assert explain(error) == outcome or isinstance(error, TimeoutError)
