"""A name server that denies every name, signed (AD), and counts; in a process of its own.

`python -m bench.nameserver ADDRESS PORT` prints `ready`. A datagram `count` is answered with the number of questions.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from bench.processes import Running
from bench.setting import MODULE_PATH

_DENIED = bytes.fromhex("81a3")  # a response; recursion, authentic data, NXDOMAIN (RFC 1035 section 4.1.1, RFC 4035)


class Denying:
    """The name server as its user sees it."""

    def __init__(self, stack: ExitStack, folder: Path, place: tuple[str, int], cpus: frozenset[int]) -> None:
        """Started at once, ended with `stack`."""
        self._place = place
        command = [sys.executable, "-m", __name__, place[0], str(place[1])]
        running = stack.enter_context(Running(command, folder / "names.log", cpus=cpus, environment=MODULE_PATH))
        running.until(lambda: running.text().startswith("ready"))

    def questions(self) -> int:
        """So many it has been asked so far."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.sendto(b"count", self._place)
            return int(asking.recv(100))


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self._count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data == b"count":
            self._transport.sendto(b"%d" % self._count, addr)
            return
        self._count += 1
        end = data.index(0, 12) + 5  # of the question: a name ends with an empty label, then type and class
        self._transport.sendto(data[:2] + _DENIED + data[4:6] + bytes(6) + data[12:end], addr)


async def _serve(address: str, port: int) -> None:
    await asyncio.get_running_loop().create_datagram_endpoint(_Datagrams, local_addr=(address, port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
