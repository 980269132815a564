"""Carries questions to one name server and brings back octets: UDP, TCP where an answer was cut, or TLS (RFC 7858).

Everything here is bounded by the length field of two octets; how long it may take is the caller's to bound. What comes
is matched to its question before anybody reads it: sockets are connected, so that the system drops what another sends,
IDs and ports are random, and the question must be repeated (RFC 5452 section 9).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keyserver.model import Malformed
from keyserver.upstreams.dane.server import NameServer

HEADER = 12  # octets (RFC 1035 section 4.1.1)
KEPT = 8  # TLS connections that wait for the next question
KEPT_FOR = 10.0  # seconds

_WITHOUT_QUESTION = (1, 2, 4, 5)  # FORMERR, SERVFAIL, NOTIMP, REFUSED: servers may answer these with a header alone


def answers(question: bytes, octets: bytes) -> bool:
    """Whether this is an answer to this question: a standard answer with its ID, that repeats it."""
    if len(octets) < HEADER or octets[:2] != question[:2] or octets[2] & 0xF8 != 0x80:
        return False
    if octets[4:6] == b"\0\0":
        return octets[3] & 0x0F in _WITHOUT_QUESTION
    end = HEADER
    while question[end]:
        end += 1 + question[end]
    end += 5  # the root, type and class
    return octets[4:6] == b"\0\1" and octets[HEADER:end].lower() == question[HEADER:end].lower()


def truncated(octets: bytes) -> bool:
    """Whether an answer says that it was cut (the TC bit)."""
    return bool(octets[2] & 0x02)


class Transport:
    """The way to one name server. `tls_ca_file` replaces the system's certificate authorities; ValueError if it is of
    no use."""

    def __init__(
        self, server: NameServer, monotonic: Callable[[], float], tls_ca_file: str | Path | None = None
    ) -> None:
        self._server = server
        self._monotonic = monotonic
        self._tls: ssl.SSLContext | None = None
        self._kept: list[_Connection] = []
        self._closed = False
        if tls_ca_file:
            try:
                self._tls = ssl.create_default_context(cafile=str(tls_ca_file))
            except OSError as error:
                raise ValueError(f"tls_ca_file {str(tls_ca_file)!r} is no PEM file of certificates: {error}") from None

    async def ask(self, question: bytes) -> bytes:
        """The answer to one question. Raises OSError, EOFError, Malformed; waits until there is one."""
        if self._closed:
            raise OSError("closed")
        if self._server.name:
            return await self._over_tls(question)
        octets = await self._by_datagram(question)
        if not truncated(octets):
            return octets
        connection = await self._connect()
        try:
            return await connection.ask(question)
        finally:
            connection.close()

    def close(self) -> None:
        """Close all connections; who asks afterwards gets OSError."""
        self._closed = True
        while self._kept:
            self._kept.pop().close()

    async def _by_datagram(self, question: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(question, loop.create_future())
        transport, _ = await loop.create_datagram_endpoint(
            lambda: waiting, remote_addr=(self._server.address, self._server.port)
        )
        try:
            transport.sendto(question)
            return await waiting.answer
        finally:
            transport.abort()

    async def _over_tls(self, question: bytes) -> bytes:
        """By the connection that waits for the shortest time, or by a new one."""
        while self._kept:
            connection = self._kept.pop()
            if self._monotonic() - connection.since > KEPT_FOR:
                connection.close()
                continue
            try:
                return await self._by(connection, question)
            except (OSError, EOFError, Malformed):
                break  # the server may have had enough of it; a new one tells
        return await self._by(await self._connect(), question)

    async def _by(self, connection: _Connection, question: bytes) -> bytes:
        """Ask; the connection is kept where all went well."""
        kept = False
        try:
            octets = await connection.ask(question)
            if kept := len(self._kept) < KEPT and not self._closed:
                connection.since = self._monotonic()
                self._kept.append(connection)
            return octets
        finally:
            if not kept:
                connection.close()

    async def _connect(self) -> _Connection:
        address, port, name = self._server.address, self._server.port, self._server.name
        if not name:
            return _Connection(*await asyncio.open_connection(address, port))
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # the system's authorities take a while
        return _Connection(*await asyncio.open_connection(address, port, ssl=self._tls, server_hostname=name))


class _Waiting(asyncio.DatagramProtocol):
    """For the answer to one question; other datagrams are nobody's."""

    def __init__(self, question: bytes, answer: asyncio.Future[bytes]) -> None:
        self._question = question
        self.answer = answer

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.answer.done() and answers(self._question, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


@dataclass(slots=True)
class _Connection:
    """One stream of messages, each after its length (RFC 1035 section 4.2.2)."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float = 0.0  # when it was asked last

    async def ask(self, question: bytes) -> bytes:
        self.writer.write(len(question).to_bytes(2, "big") + question)
        length = int.from_bytes(await self.reader.readexactly(2), "big")
        octets = await self.reader.readexactly(length)
        if not answers(question, octets):
            raise Malformed("an answer to another question")
        if truncated(octets):  # there is no other way to ask for the rest: what is missing is not denied
            raise Malformed("an answer that was cut")
        return octets

    def close(self) -> None:
        self.writer.transport.abort()
