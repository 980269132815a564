"""A small LDAP client for tests: our octets out, replies taken apart. Blocking, one request after the other, or raw."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

from keyserver.wire import ldap as wire
from keyserver.wire.ber import SEQUENCE, SET, expect, header, measure, octets, whole
from keyserver.wire.ldap import Control, SearchRequest
from keyserver.wire.ldap_filter import Filter, Present
from support.ldap_messages import write_extended, write_search


@dataclass
class Got:
    """One message of the server."""

    id: int
    tag: int
    code: int = -1
    text: str = ""
    oid: str = ""
    value: bytes | None = None
    dn: str = ""
    attributes: dict[str, list[bytes]] = field(default_factory=dict)
    controls: list[Control] = field(default_factory=list)


@dataclass
class Answer:
    """Everything that answered one search."""

    entries: list[Got]
    done: Got

    @property
    def code(self) -> int:
        return self.done.code

    @property
    def dns(self) -> list[str]:
        return [entry.dn for entry in self.entries]


def parse(data: bytes) -> Got:
    """A whole message."""
    start, stop = expect(data, 0, len(data), SEQUENCE)
    id_, at = whole(data, start, stop)
    tag, start, end = header(data, at, stop)
    got = Got(id_, tag)
    if tag == wire.ENTRY:
        name, at = octets(data, start, end)
        got.dn = name.decode()
        at, last = expect(data, at, end, SEQUENCE)
        while at < last:
            inner, at = expect(data, at, last, SEQUENCE)
            key, inner = octets(data, inner, at)
            inner, values_end = expect(data, inner, at, SET)
            values = got.attributes.setdefault(key.decode(), [])
            while inner < values_end:
                value, inner = octets(data, inner, values_end)
                values.append(value)
    else:
        got.code, at = whole(data, start, end, 0x0A)
        _, at = octets(data, at, end)
        text, at = octets(data, at, end)
        got.text = text.decode()
        while at < end:
            kind, start, at = header(data, at, end)
            if kind == 0x8A:
                got.oid = data[start:at].decode()
            elif kind == 0x8B:
                got.value = data[start:at]
    if end < stop:
        got.controls = list(wire.read_controls(data, end, stop))
    return got


class Client:
    """One connection."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None, timeout: float = 10) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._have = b""
        self._id = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, operation: bytes, *controls: Control, id_: int | None = None) -> int:
        """Send one request; its message ID."""
        self._id = self._id + 1 if id_ is None else id_
        self.socket.sendall(wire.envelope(self._id, operation, controls))
        return self._id

    def read(self) -> Got | None:
        """The next message, None when the server has closed."""
        while True:
            size = measure(self._have, 0, 1 << 26)
            if size is not None and len(self._have) >= size:
                data, self._have = self._have[:size], self._have[size:]
                return parse(data)
            try:
                more = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return None
            if not more:
                return None
            self._have += more

    def result(self) -> Got:
        """The next message, which must be there."""
        got = self.read()
        assert got is not None, "the connection is closed"
        return got

    def finish(self) -> Answer:
        """Entries up to a result."""
        entries = []
        while (got := self.result()).tag == wire.ENTRY:
            entries.append(got)
        return Answer(entries, got)

    def search(
        self,
        base: str,
        filter_: Filter = Present("objectClass"),
        *attributes: str,
        scope: int = 2,
        size: int = 0,
        controls: tuple[Control, ...] = (),
        types: bool = False,
        seconds: int = 0,
    ) -> Answer:
        """Search and wait for everything."""
        self.send(write_search(SearchRequest(base, scope, size, seconds, types, filter_, attributes)), *controls)
        return self.finish()

    def closed(self) -> bool:
        """Has the server closed (waits for it)?"""
        return self.read() is None


def until(condition: object, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def client_context(ca_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file))


def start_tls(client: Client, context: ssl.SSLContext) -> None:
    client.send(write_extended(wire.START_TLS))
    assert client.result().code == 0
    client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")


__all__ = ["Answer", "Client", "Got", "client_context", "parse", "start_tls", "until"]
