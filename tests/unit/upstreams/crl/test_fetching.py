"""Where revocation lists come from: servers of every kind of manners, and the bounds that hold against all of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.upstreams.crl import LIST, HttpPlace, LdapPlace, parse_url
from keyserver.upstreams.crl.fetching import FetchFailed, open_source
from support.crls import revocation_list
from support.directory import Slapd, base_entry
from support.scripted import (
    NOT_FOUND,
    Behaviour,
    Scripted,
    drip,
    endless,
    gzipped,
    hang,
    hang_up,
    redirect,
    reply,
)
from support.x509 import authority

CA = authority("List CA")
DN = "cn=List CA,dc=example,dc=org"
OCTETS = revocation_list(CA, range(1, 200))
MOST = 100_000


async def fetched(url: str, seconds: float = 5, most: int = MOST) -> bytes:
    source = open_source(url, most, "keyserver-test", time.monotonic, seconds=seconds)
    try:
        return await source.fetch()
    finally:
        await source.close()


async def refusal(url: str, seconds: float = 5, most: int = MOST) -> str:
    with pytest.raises(FetchFailed) as failed:
        await fetched(url, seconds, most)
    return str(failed.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://crl.example/ca.crl?x=1", HttpPlace("http://crl.example/ca.crl?x=1", "crl.example")),
        ("https://[2001:db8::1]:8443/ca.crl", HttpPlace("https://[2001:db8::1]:8443/ca.crl", "2001:db8::1")),
        ("ldap://ldap.example/cn=CA", LdapPlace("ldap.example", 389, False, "cn=CA")),
        (
            "ldaps://ldap.example:6360/cn=My%20CA,c=DE?authorityRevocationList;binary?base?objectClass=*",
            LdapPlace(
                "ldap.example", 6360, True, "cn=My CA,c=DE", "authorityRevocationList;binary", "(objectClass=*)"
            ),
        ),
    ],
)  # fmt: skip
def test_urls(url: str, place: HttpPlace | LdapPlace) -> None:
    assert parse_url(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "ftp://crl.example/ca.crl",
        "file:///etc/passwd",
        "http:///ca.crl",
        "http://me:secret@crl.example/ca.crl",
        "http://crl.{domain}/ca.crl",
        "http://crl.example/ca crl",
        "http://crl.example/ü",
        "http://crl.example/ca.crl#part",
        "ldap:///cn=CA",
        "ldap://ldap.example",
        "ldap://ldap.example/no dn",
        "ldap://ldap.example/cn=CA??sub",
        "ldap://ldap.example/cn=CA?no attribute",
        "ldap://ldap.example/cn=CA???((",
        "ldap://ldap.example/cn=CA?a?base?(a=b)?extension",
    ],
)
def test_urls_that_nothing_can_be_fetched_from(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_url(url)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with Scripted() as scripted:
        yield scripted


async def test_over_http(server: Scripted) -> None:
    server.routes["ca.crl"] = reply(200, OCTETS)
    assert await fetched(f"{server.http}/pki/ca.crl") == OCTETS
    (request,) = server.requests
    assert request.target == "/pki/ca.crl"
    server.routes["ca.crl"] = gzipped(OCTETS)
    assert await fetched(f"{server.http}/pki/ca.crl") == OCTETS
    server.routes["there"] = redirect("/pki/ca.crl")
    assert await fetched(f"{server.http}/there") == OCTETS


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (NOT_FOUND, "404"),
        (reply(403), "403"),
        (reply(500), "500"),
        (reply(503, Retry_After="60"), "503"),
        (reply(200, OCTETS, length=len(OCTETS) + 50), ""),
        (reply(200, b"\x30" * (MOST + 1)), "larger"),
        (reply(200, b"", length=1 << 40), "larger"),
        (endless(), "larger"),
        (gzipped(b"\0" * (MOST + 1)), ""),
        (redirect("http://10.0.0.1/ca.crl"), "not public"),
        (redirect("http://169.254.169.254/latest"), "not public"),
        (redirect("ldap://127.0.0.1/cn=CA"), "not an HTTP URL"),
        (redirect("file:///etc/passwd"), "not an HTTP URL"),
        (redirect("/ca.crl"), "more than"),
        (hang_up, ""),
    ],
)
async def test_over_http_badly(server: Scripted, behaviour: Behaviour, why: str) -> None:
    server.routes["*"] = behaviour
    assert why in await refusal(f"{server.http}/ca.crl")


@pytest.mark.parametrize("behaviour", [hang, drip(OCTETS)])
async def test_over_http_for_ever(server: Scripted, behaviour: Behaviour) -> None:
    server.routes["*"] = behaviour
    began = time.monotonic()
    assert "time" in await refusal(f"{server.http}/ca.crl", seconds=0.5)
    assert time.monotonic() - began < 5


async def test_where_nobody_is() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for scheme in ("http", "https", "ldap", "ldaps"):
            assert await refusal(f"{scheme}://127.0.0.1:{taken.getsockname()[1]}/cn=CA")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> object:
    entry = {
        "objectClass": ["applicationProcess", "pkiCA"],
        "cn": "List CA",
        "certificateRevocationList;binary": OCTETS,
    }
    nothing = {"objectClass": "applicationProcess", "cn": "Nothing"}
    entries = [base_entry("dc=example,dc=org"), (DN, entry), ("cn=Nothing,dc=example,dc=org", nothing)]
    with Slapd(tmp_path_factory.mktemp("slapd"), entries=entries) as slapd:
        yield slapd


async def test_over_ldap(directory: Slapd) -> None:
    for rest in ("", f"?{LIST}", "?certificateRevocationList?base", f"?{LIST}?base?(objectClass=pkiCA)"):
        assert await fetched(f"{directory.url}/{DN.replace(' ', '%20')}{rest}") == OCTETS, rest


async def test_over_ldap_badly(directory: Slapd) -> None:
    place = f"{directory.url}/{DN.replace(' ', '%20')}"
    assert "no such object" in await refusal(f"{directory.url}/cn=Nobody,dc=example,dc=org")
    assert "there is no" in await refusal(f"{directory.url}/cn=Nothing,dc=example,dc=org")
    assert "there is no" in await refusal(f"{place}?authorityRevocationList;binary")
    assert "there is no" in await refusal(f"{place}???(objectClass=person)")
    assert await refusal(f"{place.replace('ldap:', 'ldaps:')}") == "the TLS handshake failed"
    assert "sends too much" in await refusal(place, most=-(1 << 16) + 500)


async def test_over_ldap_for_ever() -> None:
    """A server that takes the connection and says nothing, or says something else than LDAP."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def talkative(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n" * 100)
        await reader.read()
        writer.close()

    for serve, why in ((silent, "in time"), (talkative, "does not speak LDAP")):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        began = time.monotonic()
        url = f"ldap://127.0.0.1:{server.sockets[0].getsockname()[1]}/cn=CA"
        assert why in await refusal(url, seconds=0.5)
        assert time.monotonic() - began < 5
        server.close()


async def test_a_large_list_over_ldap(tmp_path: Path) -> None:
    """A million octets in one value, as directories of large authorities have them."""
    octets = revocation_list(CA, range(1 << 100, (1 << 100) + 20_000))
    assert len(octets) > 500_000
    entry = {"objectClass": ["applicationProcess", "pkiCA"], "cn": "List CA", LIST: octets}
    with Slapd(tmp_path, entries=[base_entry("dc=example,dc=org"), (DN, entry)]) as slapd:
        assert await fetched(f"{slapd.url}/{DN.replace(' ', '%20')}", most=64 << 20, seconds=20) == octets
