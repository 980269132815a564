"""What every protocol promises of bad answers: `upstreams.base.Upstream`, tried with servers that misbehave."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from keyserver.app import hygiene_of
from keyserver.model import Absent, Failed, Fault, Found, Outcome, Refused
from support.internet import PUBLIC, Internet
from support.openpgp import armored
from support.protocols import AMPLE, BUFFERED, BY_HTTP, EVERY, OCTETS, PROTOCOLS, Stage, ask, closed, counted
from support.scripted import (
    Behaviour,
    chunked,
    drip,
    endless,
    hang,
    hang_up,
    raw,
    redirect,
    reply,
    reset,
    slow,
)

HEAD = "HTTP/1.1 200 OK\r\n"
WHATEVER_IT_SPEAKS: dict[str, Behaviour] = {
    "silence": hang,
    "the end": hang_up,
    "a reset": reset,
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "noise": raw(bytes(range(256)) * 100),
    "nothing but zeros": raw(bytes(10_000)),
    "one octet at a time": drip(b"\x30\x84\x7f\xff\xff\xff" * 100, head=False),
    "no end": endless(head="", chunk=b"\x30\x84\x7f\xff\xff\xff" * 10_000),
}
BY_WEB_SERVERS: dict[str, Behaviour] = {
    "slow": slow(60, reply(200, OCTETS)),
    "body without an end": endless(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"),
    "packets without an end": endless(OCTETS),
    "head without an end": endless(chunk=b"X: x\r\n" * 1000, head=HEAD),
    "one octet of the body at a time": drip(armored(OCTETS).encode()),
    "larger than anybody needs": reply(200, b"", length=1 << 30),
    "cut head": raw(HEAD.encode()[:-2]),
    "cut in the middle": reply(200, OCTETS, length=len(OCTETS) + 100),
    "cut chunk": chunked(OCTETS, cut=True),
    "bad chunk": raw(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "empty": reply(200),
    "text": reply(200, "Welcome"),
    "page": reply(200, "<!DOCTYPE html><html><title>Welcome</title></html>", Content_Type="text/html"),
    "json": reply(200, json.dumps({"welcome": True}), Content_Type="application/json"),
    "damaged armor": reply(200, armored(OCTETS)[:-60]),
    "bomb": reply(200, gzip.compress(b"-----BEGIN PGP " + bytes(50 << 20)), Content_Encoding="gzip"),
    "unknown coding": reply(200, OCTETS, Content_Encoding="br"),
    "no content": reply(204),
    "redirect to itself": redirect("/.well-known/x"),
    "redirect nowhere": redirect(""),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect to loopback": redirect("https://127.0.0.1/x"),
    "redirect to a private address": redirect("https://10.0.0.1/x"),
    "redirect to a private name": redirect("https://inside.partner.de/x", 307),
    "redirect to plain HTTP": redirect("http://keys.partner.de:9/x", 308),
    "redirect with a password": redirect("https://me:secret@keys.partner.de/x"),
}


def failed_in_the_end(outcome: Outcome) -> bool:
    """Did it fail, or will what it sent, which is the resolver's to prove, be refused as nothing that can be read?"""
    if not isinstance(outcome, Found):
        return isinstance(outcome, Failed)
    cleaned = [item for raw in outcome.raw for item in hygiene_of()[raw.kind].clean(raw.octets, int(time.time()))]
    return bool(cleaned) and all(isinstance(item, Refused) and item.fatal for item in cleaned)


@EVERY
@pytest.mark.parametrize("case", WHATEVER_IT_SPEAKS)
async def test_a_server_that_does_not_speak_the_protocol_has_failed(stage: Stage, protocol: str, case: str) -> None:
    spoken, sent = PROTOCOLS[protocol], []  # type: ignore[var-annotated]
    async with stage(spoken, counted(WHATEVER_IT_SPEAKS[case], sent)) as (upstream, port):
        assert isinstance(await ask(upstream, spoken.query), Failed)
        assert sum(sent) < spoken.most + BUFFERED
        await upstream.close()
        assert await closed(port)


@BY_HTTP
@pytest.mark.parametrize("case", BY_WEB_SERVERS)
async def test_a_bad_answer_is_no_absence(stage: Stage, internet: Internet, protocol: str, case: str) -> None:
    spoken, sent = PROTOCOLS[protocol], []  # type: ignore[var-annotated]
    async with stage(spoken, counted(BY_WEB_SERVERS[case], sent)) as (upstream, port):
        assert failed_in_the_end(await ask(upstream, spoken.query))
        assert sum(sent) < spoken.most + BUFFERED
        assert set(internet.connected) == {PUBLIC}
        await upstream.close()
        assert await closed(port)


@BY_HTTP
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (reply(404), Absent("")),
        (reply(410), Absent("")),
        (reply(429, Retry_After="30"), Failed("", Fault.BUSY, 30.0)),
        (reply(429), Failed("", Fault.BUSY)),
        (reply(503, Retry_After="7"), Failed("", Fault.BUSY, 7.0)),
        (reply(503), Failed("")),
        (reply(500), Failed("")),
        (reply(502, "<html>Bad Gateway</html>"), Failed("")),
        (reply(504), Failed("")),
        (reply(401), Failed("", Fault.CONFIGURATION)),
        (reply(403), Failed("", Fault.CONFIGURATION)),
    ],
)
async def test_statuses(stage: Stage, protocol: str, behaviour: Behaviour, expected: Absent | Failed) -> None:
    spoken = PROTOCOLS[protocol]
    async with stage(spoken, behaviour) as (upstream, _):
        outcome = await ask(upstream, spoken.query, left=AMPLE)
    assert type(outcome) is type(expected)
    for field in ("fault", "retry_after", "remember"):
        assert getattr(outcome, field, None) == getattr(expected, field, None)
