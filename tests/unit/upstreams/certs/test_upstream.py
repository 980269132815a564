"""The RFC 4387 upstream against a scripted store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keyserver.faces.http.certs import read
from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.certs.upstream import Certs
from keyserver.upstreams.net import Names
from support import scripted
from support.scripted import NOT_FOUND, Scripted, redirect, reply
from support.tls import Authority
from support.x509 import person

ALICE = person("alice@example.org")
FOUND = Found((Raw(Kind.X509, ALICE.der),), method="certs")
QUERY = ByAddress("alice", "example.org", Kind.X509)
SEARCH = "/certificates/search.cgi"
DER = reply(200, ALICE.der, Content_Type="application/pkix-cert")


@pytest.fixture
async def store() -> AsyncIterator[Scripted]:
    async with Scripted({"*": DER}) as running:
        yield running


async def ask(where: Scripted | str, query: Query = QUERY, left: float = 5, **options: Any) -> Outcome:
    url = where if isinstance(where, str) else f"certs+http://127.0.0.1:{where.port}"
    upstream = Certs(UpstreamSpec("test"), url, **{"clock": time.time} | options)
    try:
        assert upstream.target(query) == "test"
        return await upstream.fetch(query, Asking(left=left, via="test-instance"))
    finally:
        await upstream.close()


def names(table: dict[str, Sequence[str]]) -> Names:
    async def lookup(host: str, port: int) -> Sequence[str]:
        return table.get(host.rstrip("."), ())

    return Names(lookup, inside=True)


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (QUERY, f"{SEARCH}?uri=alice@example.org"),
        (ByAddress("a+b&c=d#%é", "example.org", Kind.X509), f"{SEARCH}?uri=a%2Bb%26c%3Dd%23%25%C3%A9@example.org"),
        (ByFingerprint("0" * 40, Kind.X509), f"{SEARCH}?certHash={'A' * 27}"),
        (ByHash("certhash", "FBFF" * 10), f"{SEARCH}?certHash={quote('+//7//v/+//7//v/+//7//v/+/8', safe='')}"),
        (ByHash("ihash", "0" * 40), f"{SEARCH}?iHash={'A' * 27}"),
        (ByHash("shash", "0" * 40), f"{SEARCH}?sHash={'A' * 27}"),
        (ByHash("iandshash", "0" * 40), f"{SEARCH}?iAndSHash={'A' * 27}"),
        (ByHash("skidhash", "0" * 40), f"{SEARCH}?sKIDHash={'A' * 27}"),
    ],
)
async def test_request_lines(store: Scripted, query: Query, target: str) -> None:
    assert await ask(store, query) == FOUND
    (request,) = store.requests
    assert (request.method, request.target) == ("GET", target)
    assert request.headers["via"] == "1.1 test-instance"
    understood = read(target.partition("?")[2])  # by our own face
    assert understood == (ByHash("certhash", "0" * 40) if isinstance(query, ByFingerprint) else query)


@pytest.mark.parametrize(
    "query",
    [
        ByAddress("alice", "example.org"),
        ByFingerprint("A" * 40),
        ByFingerprint("A" * 64, Kind.X509),
        ByKeyId("A" * 16, Kind.X509),
        ByText("alice", Kind.X509),
        ByHash("name", "A" * 40),
        ByHash("ihash", "A" * 64),
    ],
)
async def test_what_it_has_no_words_for_is_not_sent(store: Scripted, query: Query) -> None:
    outcome = Absent("RFC 4387 has no words for that", remember=False, method="certs")
    assert await ask(store, query) == outcome
    assert not store.requests


async def test_the_path_of_the_url_is_asked(store: Scripted) -> None:
    where = f"certs+http://127.0.0.1:{store.port}/ejbca/public%20web/search"
    assert await ask(where) == FOUND
    assert store.requests[0].target == "/ejbca/public%20web/search?uri=alice@example.org"


async def test_an_internationalised_domain_is_asked_for_in_both_spellings(store: Scripted) -> None:
    joerg = ByAddress("joerg", "xn--mller-kva.example", Kind.X509)
    a_label, u_label = "joerg@xn--mller-kva.example", "joerg@müller.example"
    for routes, outcome in (
        ({u_label: DER}, FOUND),
        ({a_label: DER, u_label: reply(500)}, FOUND),
        ({}, Absent("it answered 404", method="certs")),
        ({u_label: reply(400)}, Absent("it answered 404", method="certs")),
        ({u_label: reply(500)}, Failed("it answered 500", method="certs")),
    ):
        store.requests.clear()
        store.routes = {"*": NOT_FOUND, **routes}
        assert await ask(store, joerg) == outcome
        assert sorted(r.term for r in store.requests) == [u_label, a_label]


async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with Scripted({"*": DER}, tls=authority.server()) as store:
        where = f"certs://127.0.0.1:{store.port}"
        assert await ask(where, tls_ca_file=authority.ca_file) == FOUND
        stranger = await ask(where)
        assert isinstance(stranger, Failed)
        assert stranger.fault is Fault.CONFIGURATION
        store.routes["*"] = redirect("http://127.0.0.1/")
        assert await ask(where, tls_ca_file=authority.ca_file) == Failed(
            "it redirects from TLS to plain HTTP", method="certs"
        )


async def test_without_tls_no_public_address_is_connected_to(store: Scripted) -> None:
    where = f"certs+http://pki.example.net:{store.port}"
    assert await ask(where, names=names({"pki.example.net": ["127.0.0.1"]})) == FOUND
    assert await ask(where, names=names({"pki.example.net": ["8.8.8.8", "127.0.0.1"]})) == FOUND
    for addresses in (["8.8.8.8"], ["2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b:1:808:8:800::"]):
        outcome = await ask(where, names=names({"pki.example.net": addresses}))
        assert isinstance(outcome, Failed)
        assert (outcome.fault, "public" in outcome.reason) == (Fault.CONFIGURATION, True)
    assert await ask(where, names=names({})) == Failed("no such host", method="certs")


@pytest.mark.parametrize("location", ["http://8.8.8.8/", "https://8.8.8.8/", "http://public.example.net/"])
@pytest.mark.parametrize("allow_private", [False, True])
async def test_without_tls_no_redirect_leads_outside(store: Scripted, location: str, allow_private: bool) -> None:
    store.routes["*"] = redirect(location)
    resolved = names({"public.example.net": ["8.8.8.8"]})
    outcome = await ask(store, names=resolved, allow_private=allow_private)
    assert isinstance(outcome, Failed)
    assert "public" in outcome.reason


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (scripted.hang, "no answer"),
        (scripted.reset, ""),
        (scripted.drip(ALICE.der), "no answer"),
        (reply(200, ALICE.der, length=9999), "broke off"),
        (scripted.endless(ALICE.der), "larger than 4 MiB"),
        (reply(200, b"", length=(4 << 20) + 1), "larger than 4 MiB"),
        (reply(200, "<html>Welcome</html>", Content_Type="application/pkix-cert"), "page"),
    ],
)
async def test_failures(store: Scripted, behaviour: scripted.Behaviour, words: str) -> None:
    store.routes["*"] = behaviour
    outcome = await ask(store, left=1)
    assert isinstance(outcome, Failed)
    assert words in outcome.reason
    assert outcome.method == "certs"
