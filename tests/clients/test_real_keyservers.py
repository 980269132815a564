"""The HKP upstream against real keyservers from Debian: SKS, and onak (which answers 200 to everything)."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.hkp.upstream import Hkp
from support.keyservers import onak, sks
from support.openpgp import make

ALICE = make(["Alice Adams <alice@example.org>"], seed="alice", algorithm="rsa2048", encryption=None)
BOB = make(["Bob Brown <bob@example.org>"], seed="bob")
JOERG = make(["J\u00f6rg <joerg@m\u00fcller.example>"], seed="joerg")
SERVERS = {"sks": sks, "onak": onak}


@pytest.fixture(params=["sks", "onak"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hkp]:
    async with SERVERS[request.param](tmp_path, ALICE.octets, BOB.octets, JOERG.octets) as url:
        upstream = Hkp(UpstreamSpec(request.param), url, clock=time.time)
        yield upstream
        await upstream.close()


@pytest.mark.parametrize(
    "query",
    [
        ByFingerprint(ALICE.fingerprint),
        ByKeyId(ALICE.key_id),
        ByAddress("alice", "example.org"),
        ByText("alice adams"),
    ],
    ids=["fingerprint", "key ID", "address", "text"],
)
async def test_found(upstream: Hkp, query: Query) -> None:
    outcome = await upstream.fetch(query, Asking(10, "test"))
    assert outcome == Found((Raw(Kind.OPENPGP, ALICE.octets),))


@pytest.mark.parametrize(
    "query",
    [ByFingerprint("0123456789" * 4), ByKeyId("0123456789ABCDEF"), ByAddress("nobody", "example.org")],
    ids=["fingerprint", "key ID", "address"],
)
async def test_absent(upstream: Hkp, query: Query) -> None:
    outcome = await upstream.fetch(query, Asking(10, "test"))
    assert isinstance(outcome, Absent) and outcome.remember, outcome


async def test_an_internationalised_domain(upstream: Hkp) -> None:
    """They hold the address as its owner wrote it, and are asked in the form that we compare."""
    outcome = await upstream.fetch(ByAddress("joerg", "xn--mller-kva.example"), Asking(10, "test"))
    assert outcome == Found((Raw(Kind.OPENPGP, JOERG.octets),))
    outcome = await upstream.fetch(ByAddress("nobody", "xn--mnchen-3ya.example"), Asking(10, "test"))
    assert isinstance(outcome, Absent) and outcome.remember, outcome


async def test_subkeys_are_found(upstream: Hkp) -> None:
    outcome = await upstream.fetch(ByKeyId(BOB.subkeys[0].key_id), Asking(10, "test"))
    assert isinstance(outcome, Found), outcome


async def test_words_with_too_many_hits_do_not_open_a_circuit(tmp_path: Path) -> None:
    many = [make([f"Clone {n} <clone{n}@example.org>"], encryption=None).octets for n in range(10)]
    async with sks(tmp_path, *many, max_matches=5) as url:
        upstream = Hkp(UpstreamSpec("sks"), url, clock=time.time)
        outcome = await upstream.fetch(ByText("clone"), Asking(10, "test"))
        await upstream.close()
    assert outcome == Failed("it answered 500", Fault.LOCAL)


NGINX = """
daemon off; worker_processes 1; master_process off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c;
  uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;
  server {{
    listen 127.0.0.1:{port}; root {at}/www;
    location = /pks/lookup {{ gzip_static always; {headers} try_files /alice.asc =404; }}
  }}
}}
"""


async def test_a_proxy_that_compresses_unasked_and_adds_seventy_headers(tmp_path: Path) -> None:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "alice.asc").write_text(ALICE.armored)
    (tmp_path / "www" / "alice.asc.gz").write_bytes(gzip.compress(ALICE.armored.encode()))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    headers = " ".join(f"add_header X-Filler-{n} {n};" for n in range(70))
    (tmp_path / "nginx.conf").write_text(NGINX.format(at=tmp_path, port=port, headers=headers))
    process = await asyncio.create_subprocess_exec("nginx", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path))
    upstream = Hkp(UpstreamSpec("nginx"), f"hkp://127.0.0.1:{port}", clock=time.time)
    try:
        async with asyncio.timeout(10):
            while isinstance(outcome := await upstream.fetch(ByAddress("a", "b.example"), Asking(2, "t")), Failed):
                assert "refused" in outcome.reason, outcome
                await asyncio.sleep(0.05)
        assert outcome == Found((Raw(Kind.OPENPGP, ALICE.octets),))
    finally:
        await upstream.close()
        process.terminate()
        await process.wait()
