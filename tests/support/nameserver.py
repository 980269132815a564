"""A scripted name server on 127.0.0.1: UDP and TCP on one port, or TLS, answering well or badly.

::

    async with NameServer() as server:      # it validates: the root is signed, everything else is denied, signed
        server.says[name, "OPENPGPKEY"] = records("OPENPGPKEY", octets)
        server.port, server.asked

A behaviour makes of a query what is sent: a message, octets, or several of these. `"*"` is for names without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rcode import Rcode

Sent: TypeAlias = dns.message.Message | bytes


@dataclass(frozen=True)
class Asked:
    """One query as it came."""

    message: dns.message.Message
    by: str  # "udp", "tcp", "tls"
    port: int  # where it came from

    @property
    def name(self) -> str:
        return self.message.question[0].name.to_text()

    @property
    def type(self) -> str:
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    @property
    def unchecked(self) -> bool:
        return bool(self.message.flags & dns.flags.CD)


Behaviour: TypeAlias = Callable[[Asked], Sent | Sequence[Sent] | Awaitable[Sent | Sequence[Sent]]]


def reply(
    asked: Asked,
    *sets: dns.rrset.RRset,
    signed: bool = True,
    rcode: Rcode = Rcode.NOERROR,
    error: dns.edns.EDECode | None = None,
) -> dns.message.Message:
    """An answer; `signed`: with the AD bit."""
    message = dns.message.make_response(asked.message, recursion_available=True)
    message.answer.extend(sets)
    message.flags |= dns.flags.AD if signed else 0
    message.set_rcode(rcode)
    if error is not None:
        message.use_edns(0, payload=1232, options=[dns.edns.EDEOption(error, "so it says")])
    return message


def says(*sets: dns.rrset.RRset, signed: bool = True, **options: object) -> Behaviour:
    """The same answer to everybody, cut where it does not fit a datagram."""

    def behave(asked: Asked) -> Sent:
        message = reply(asked, *sets, signed=signed, **options)  # type: ignore[arg-type]
        if asked.by == "udp" and len(message.to_wire(max_size=65535)) > 1232:
            return cut(asked)
        return message

    return behave


def cut(asked: Asked) -> Sent:
    """An empty answer that says there is more."""
    message = reply(asked)
    message.flags |= dns.flags.TC
    return message


def record(name: str, type_: str, *data: bytes) -> dns.rrset.RRset:
    """Records of these octets, whatever they are, at a name."""
    rdtype = dns.rdatatype.from_text(type_)
    rdatas = [dns.rdata.GenericRdata(dns.rdataclass.IN, rdtype, octets) for octets in data]
    found = dns.rrset.RRset(dns.name.from_text(name), dns.rdataclass.IN, rdtype)
    for rdata in rdatas:
        found.add(rdata, ttl=300)
    return found


def alias(name: str, target: str) -> dns.rrset.RRset:
    """A CNAME."""
    return dns.rrset.from_text(name, 300, "IN", "CNAME", target)


def denies(asked: Asked) -> Sent:
    """NXDOMAIN, signed; the root has an SOA."""
    if asked.name == ".":
        return reply(asked, dns.rrset.from_text(".", 300, "IN", "SOA", "a. b. 1 2 3 4 5"))
    return reply(asked, rcode=Rcode.NXDOMAIN)


def unsigned(asked: Asked) -> Sent:
    """A server that does not validate, in a world that has only the root."""
    message = denies(asked)
    assert isinstance(message, dns.message.Message)
    message.flags &= ~dns.flags.AD
    return message


class NameServer:
    """`tls`: it speaks only TLS."""

    def __init__(self, otherwise: Behaviour = denies, tls: ssl.SSLContext | None = None) -> None:
        self.says: dict[tuple[str, str], Behaviour] = {}
        self.otherwise = otherwise
        self.asked: list[Asked] = []
        self.connections = 0
        self.tail = b""  # by TCP, where a behaviour raises EOFError: the last that is sent
        self.port = 0
        self._tls = tls
        self._streams: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> NameServer:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        if not self._tls:
            loop = asyncio.get_running_loop()
            self._datagrams, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if not self._tls:
            self._datagrams.close()
        self.hang_up()
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        """Close what is open."""
        for writer in self._streams:
            writer.transport.abort()

    async def answer(self, octets: bytes, by: str, port: int) -> list[bytes]:
        """What is sent back."""
        asked = Asked(dns.message.from_wire(octets), by, port)
        self.asked.append(asked)
        behaviour = self.says.get((asked.name, asked.type), self.says.get(("*", asked.type), self.otherwise))
        found = behaviour(asked)
        if isinstance(found, Awaitable):
            found = await found
        sent = [found] if isinstance(found, bytes | dns.message.Message) else found
        return [one if isinstance(one, bytes) else one.to_wire(max_size=65535) for one in sent]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._streams.add(writer)
        by, port = "tls" if self._tls else "tcp", writer.get_extra_info("peername")[1]
        with contextlib.suppress(OSError):
            try:
                while True:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    for octets in await self.answer(await reader.readexactly(length), by, port):
                        writer.write(len(octets).to_bytes(2, "big") + octets)
                        await writer.drain()
            except EOFError:
                writer.write(self.tail)
        self._streams.discard(writer)
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        for octets in await self._server.answer(data, "udp", addr[1]):
            self._transport.sendto(octets, addr)
