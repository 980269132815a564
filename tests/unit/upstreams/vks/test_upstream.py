"""The VKS upstream against a scripted server with TLS."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.vks.upstream import Vks
from keyserver.upstreams.vks.url import Endpoint, parse_url
from support import scripted
from support.openpgp import armored, make_certificate
from support.scripted import NOT_FOUND, Scripted, key, redirect, reply
from support.tls import Authority

ALICE = make_certificate(["Alice <alice@example.org>"], seed="alice")
FOUND = Found((Raw(Kind.OPENPGP, ALICE),), method="vks")
QUERY = ByAddress("alice", "example.org")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[Scripted]:
    async with Scripted({"*": key(ALICE)}, tls=authority.server()) as running:
        yield running


async def ask(server: Scripted, authority: Authority, query: Query = QUERY, left: float = 5, **options: Any) -> Outcome:
    options = {"tls_ca_file": authority.ca_file} | options
    upstream = Vks(UpstreamSpec("test"), f"vks://127.0.0.1:{server.port}", clock=time.time, **options)
    try:
        assert upstream.target(query) == "test"
        return await upstream.fetch(query, Asking(left=left, via="test-instance"))
    finally:
        await upstream.close()


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (QUERY, "/vks/v1/by-email/alice%40example.org"),
        (ByAddress("a+b/c?d#%é", "example.org"), "/vks/v1/by-email/a%2Bb%2Fc%3Fd%23%25%C3%A9%40example.org"),
        (ByAddress("joerg", "xn--mller-kva.example"), "/vks/v1/by-email/joerg%40xn--mller-kva.example"),
        (ByAddress("\udcb9", "example.org"), "/vks/v1/by-email/%3F%40example.org"),
        (ByFingerprint("A" * 40), f"/vks/v1/by-fingerprint/{'A' * 40}"),
        (ByFingerprint("B" * 64), f"/vks/v1/by-fingerprint/{'B' * 64}"),
        (ByKeyId("C" * 16), f"/vks/v1/by-keyid/{'C' * 16}"),
    ],
)
async def test_request_lines(server: Scripted, authority: Authority, query: Query, target: str) -> None:
    assert await ask(server, authority, query) == FOUND
    (request,) = server.requests  # one question, in whatever spelling: each counts against the limit
    assert (request.method, request.target) == ("GET", target)
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["via"] == "1.1 test-instance"


@pytest.mark.parametrize(
    "query", [ByText("alice"), ByHash("ihash", "00"), ByAddress("a", "b.org", Kind.X509), ByKeyId("A" * 16, Kind.X509)]
)
async def test_what_it_has_no_words_for_is_not_sent(server: Scripted, authority: Authority, query: Query) -> None:
    assert await ask(server, authority, query) == Absent("VKS has no words for that", remember=False, method="vks")
    assert not server.requests


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (reply(200, ALICE), FOUND),
        (scripted.chunked(armored(ALICE).encode()), FOUND),
        (NOT_FOUND, Absent("it answered 404", method="vks")),
        (reply(404, Cache_Control="no-store"), Absent("it answered 404", remember=False, method="vks")),
        (reply(400, "Invalid"), Absent("it cannot be asked that (it answered 400)", remember=False, method="vks")),
        (reply(429), Failed("it asks for a pause (it answered 429)", Fault.BUSY, method="vks")),
        (
            reply(429, Retry_After="60"),
            Failed("it asks for a pause (it answered 429)", Fault.BUSY, 60.0, method="vks"),
        ),
        (
            reply(503, Retry_After="5"),
            Failed("it asks for a pause (it answered 503)", Fault.BUSY, 5.0, method="vks"),
        ),
        (reply(503), Failed("it answered 503", method="vks")),
        (reply(200, "<html>Please wait</html>"), Failed("it sent a page without a certificate", method="vks")),
        (reply(200), Failed("it sent an empty answer", method="vks")),
        (redirect("http://127.0.0.1/"), Failed("it redirects from TLS to plain HTTP", method="vks")),
    ],
)
async def test_verdicts(
    server: Scripted, authority: Authority, behaviour: scripted.Behaviour, outcome: Outcome
) -> None:
    server.routes["*"] = behaviour
    assert await ask(server, authority) == outcome


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (scripted.hang, "no answer"),
        (scripted.hang_up, "without an answer"),
        (scripted.drip(armored(ALICE).encode()), "no answer"),
        (reply(200, armored(ALICE), length=9999), "broke off"),
        (reply(200, armored(ALICE)[:-60]), "armor"),
        (reply(200, b"", length=(16 << 20) + 1), "larger than 16 MiB"),
    ],
)
async def test_failures(server: Scripted, authority: Authority, behaviour: scripted.Behaviour, words: str) -> None:
    server.routes["*"] = behaviour
    outcome = await ask(server, authority, left=0.5)
    assert isinstance(outcome, Failed)
    assert words in outcome.reason
    assert outcome.method == "vks"


async def test_without_a_certificate_that_we_trust_nothing_is_asked(server: Scripted, authority: Authority) -> None:
    outcome = await ask(server, authority, tls_ca_file="")
    assert isinstance(outcome, Failed)
    assert (outcome.fault, len(server.requests)) == (Fault.CONFIGURATION, 0)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("vks://keys.openpgp.org", Endpoint("keys.openpgp.org", 443)),
        ("vks://Keys.Example.ORG:8443/", Endpoint("keys.example.org", 8443)),
        ("vks://[::1]:444", Endpoint("::1", 444)),
    ],
)
def test_urls(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("vks://keys.{domain}", "one host for all domains"),
        ("vks://keys.example.org/vks/v1", "nothing may follow"),
        ("vks://keys.example.org?x=1", "nothing may follow"),
        ("vks://keys.example.org#x", "nothing may follow"),
        ("vks://user@keys.example.org", "credentials"),
        ("vks://keys.example.org:0", "port"),
        ("vks:", "names no host"),
        ("hkps://keys.example.org", "scheme"),
    ],
)
def test_urls_refused(url: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_url(url)


def test_a_proxy_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Vks(UpstreamSpec("test"), "vks://h", clock=time.time, proxy="socks5://p:1")
