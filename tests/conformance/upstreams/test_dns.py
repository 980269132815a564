"""What DANE promises whatever a name server says, by datagram, by TCP behind a cut one, and by TLS."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import pytest
from dns.rcode import Rcode

from keyserver.model import Absent, Failed, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.upstreams.dane.message import question_for
from keyserver.upstreams.dane.server import NameServer as Where
from keyserver.upstreams.dane.upstream import Dane
from support.nameserver import Asked, Behaviour, NameServer, Sent, alias, cut, record, reply
from support.protocols import ALICE, HOME, OCTETS, ask, closed
from support.tls import Authority

question = question_for(ALICE)
assert question is not None
KEY = question.name.to_text()
WAYS = pytest.mark.parametrize("way", ["udp", "tcp", "tls"])


def good(asked: Asked) -> dns.message.Message:
    return reply(asked, record(KEY, "OPENPGPKEY", OCTETS))


def changed(change: Callable[[bytes], bytes]) -> Behaviour:
    """The good answer, with other octets."""
    return lambda asked: change(good(asked).to_wire())


def more(wire: bytes) -> bytes:
    """It says that it has seven answers."""
    return wire[:6] + b"\0\7" + wire[8:]


def header(asked: Asked) -> Sent:
    return struct.pack("!6H", asked.message.id, 0x81A0, 0, 0, 0, 0)


BAD: dict[str, Behaviour] = {
    "empty": lambda asked: b"",
    "text": lambda asked: b"Welcome\r\n" * 10,
    "the question": lambda asked: asked.message.to_wire(),
    "another ID": changed(lambda wire: bytes([wire[0] ^ 1]) + wire[1:]),
    "another question": changed(lambda wire: wire.replace(b"partner", b"pardner")),
    "another kind of message": changed(lambda wire: wire[:2] + bytes([wire[2] | 0x28]) + wire[3:]),
    "a header alone": header,
    "cut within the header": changed(lambda wire: wire[:11]),
    "cut within the question": changed(lambda wire: wire[:30]),
    "cut in the middle": changed(lambda wire: wire[: len(wire) // 2]),
    "a denial that was cut": lambda asked: reply(asked, alias(KEY, "a."), rcode=Rcode.NXDOMAIN).to_wire()[:-30],
    "a denial of more records than it holds": lambda asked: more(reply(asked, rcode=Rcode.NXDOMAIN).to_wire()),
    "octets behind the end": lambda asked: reply(asked).to_wire() + b"more",
    "1000 records": lambda asked: reply(asked, record(KEY, "OPENPGPKEY", *(b"%d" % n for n in range(1000)))),
    "aliases without end": lambda asked: reply(asked, alias(KEY, "b."), alias("b.", KEY)),
    "more elsewhere, again and again": cut,
}


@contextlib.asynccontextmanager
async def spoken(way: str, behaviour: Behaviour, authority: Authority) -> AsyncIterator[tuple[Dane, NameServer]]:
    """An upstream, and its name server that behaves so to whoever comes this way."""
    tls = way == "tls"
    async with NameServer(tls=authority.server("dns.test") if tls else None) as server:
        server.says[KEY, "OPENPGPKEY"] = lambda asked: behaviour(asked) if asked.by == way else cut(asked)
        where = Where(HOME, server.port, "dns.test" if tls else "")
        upstream = Dane(UpstreamSpec("u"), where, monotonic=time.monotonic, tls_ca_file=authority.ca_file)
        try:
            yield upstream, server
        finally:
            await upstream.close()


async def once(way: str, behaviour: Behaviour, authority: Authority) -> Outcome:
    """The answer to one question, after which nothing is left open."""
    async with spoken(way, behaviour, authority) as (upstream, server):
        outcome = await ask(upstream)
        assert way in {asked.by for asked in server.asked}
        await upstream.close()
        assert await closed(server.port)
    return outcome


@WAYS
async def test_a_good_answer(authority: Authority, way: str) -> None:
    outcome = await once(way, good, authority)
    assert isinstance(outcome, Found)
    assert outcome.raw == (Raw(Kind.OPENPGP, OCTETS),)


@WAYS
@pytest.mark.parametrize("case", BAD)
async def test_a_bad_answer_is_no_absence(authority: Authority, way: str, case: str) -> None:
    assert isinstance(await once(way, BAD[case], authority), Failed)


@WAYS
@pytest.mark.parametrize("rcode", [code for code in Rcode if code < 16])
async def test_only_a_signed_denial_is_absence(authority: Authority, way: str, rcode: Rcode) -> None:
    outcome = await once(way, lambda asked: reply(asked, rcode=rcode), authority)
    if rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        assert isinstance(outcome, Failed)
        return
    assert isinstance(outcome, Absent)
    assert outcome.remember


@WAYS
@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
async def test_who_does_not_validate_denies_nothing(authority: Authority, way: str, rcode: Rcode) -> None:
    async with spoken(way, lambda asked: reply(asked, rcode=rcode, signed=False), authority) as (upstream, server):
        server.says[".", "SOA"] = lambda asked: reply(asked, signed=False)
        assert isinstance(await ask(upstream), Failed)
