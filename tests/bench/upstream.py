"""A scripted keyserver and origin, in a process of its own: a folder of bodies, a delay, nothing else.

`python -m bench.upstream FOLDER DELAY_MS ADDRESS PORT [CERTIFICATE KEY]` prints `port N`; with a certificate it speaks
TLS. What `search=` names (without 0x), the address that a certificate store or a Web Key Directory is asked for, is a
file in the folder; anything else is 404. Every answer may be cached for a day, so that it serves as the origin of
caches too. Of a domain `closing.…` a directory closes the connection behind each answer.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast
from urllib.parse import unquote

from bench.processes import Running
from bench.setting import MODULE_PATH
from support.processes import family

_WKD = re.compile(r"/([^/]+)/hu/[^?]*\?l=([^& ]*)")
_TERM = re.compile(r"[?&](?:search|uri|email)=([^& ]*)")
_CACHEABLE = b"Content-Type: application/pgp-keys\r\nCache-Control: public, max-age=86400\r\n"


class Scripted:
    """The upstream as its user sees it."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        delay: float,
        cpus: frozenset[int],
        place: tuple[str, int] = ("127.0.0.1", 0),
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """Started at once, ended with `stack`; `delay` in seconds; `tls`: certificate and key."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", __name__, str(folder), str(delay * 1000), place[0], str(place[1])]
        command += map(str, tls or ())
        log = folder.with_suffix(".log")
        self._running = stack.enter_context(Running(command, log, cpus=cpus, environment=MODULE_PATH))
        self._running.until(lambda: self._running.text().startswith("port "))
        self.port = int(self._running.text().split()[1])

    @property
    def url(self) -> str:
        """As an upstream of ours."""
        return f"hkp://127.0.0.1:{self.port}"

    @property
    def processes(self) -> list[int]:
        """Its process IDs."""
        return list(family(self._running.pid))

    def put(self, search: str, body: bytes) -> None:
        """Answer this search (a fingerprint, an address) with these octets."""
        (self.folder / search).write_bytes(body)


class _Connection(asyncio.Protocol):
    def __init__(self, folder: Path, delay: float) -> None:
        self._folder, self._delay = folder, delay
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._held += data
        while b"\r\n\r\n" in self._held:
            head, _, self._held = self._held.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self._delay, self._answer, head) if self._delay else self._answer(
                head
            )

    def _answer(self, head: bytes) -> None:
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        search = _search(line)
        file = self._folder / search
        try:
            status, body = "200 OK", file.read_bytes() if search and "/" not in search else b""
        except OSError:
            status, body = "404 Not Found", b"no such key\n"
        closes = line.endswith("HTTP/1.0") or search.rpartition("@")[2].startswith("closing.")
        connection = b"Connection: close\r\n" if closes else b""
        start = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode()
        self._transport.write(start + _CACHEABLE + connection + b"\r\n" + body)
        if closes:
            self._transport.close()


def _search(line: str) -> str:
    """What a request line asks for."""
    if directory := _WKD.search(line):
        return f"{unquote(directory[2])}@{directory[1]}"
    found = _TERM.search(line)
    return unquote(found[1]).removeprefix("0x") if found else ""


async def _serve(folder: Path, delay: float, address: str, port: int, *files: str) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if files else None
    if tls:
        tls.load_cert_chain(*files)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(folder, delay), address, port, backlog=1024, ssl=tls)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    folder, delay, address, port, *files = sys.argv[1:]
    uvloop.run(_serve(Path(folder), float(delay) / 1000, address, int(port), *files))
