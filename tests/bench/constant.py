"""A bare uvloop server that writes a constant to whatever arrives: what is left when LDAP, keys and cache are not.

`python -m bench.constant FILE` prints `port N`; the file has the octets.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from bench.peers import Peer
from bench.processes import Running
from bench.setting import MODULE_PATH

CONSTANT = "bare uvloop server"


def constant(stack: ExitStack, folder: Path, reply: bytes, cpus: frozenset[int]) -> Peer:
    """Started at once, ended with `stack`."""
    (folder / "reply").write_bytes(reply)
    command = [sys.executable, "-m", __name__, str(folder / "reply")]
    running = stack.enter_context(Running(command, folder / "log", cpus=cpus, environment=MODULE_PATH))
    running.until(lambda: running.text().startswith("port "))
    return Peer(CONSTANT, int(running.text().split()[1]), running)


class _Connection(asyncio.Protocol):
    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._reply)


async def _serve(reply: bytes) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(reply), "127.0.0.1", 0, backlog=1024)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(Path(sys.argv[1]).read_bytes()))
