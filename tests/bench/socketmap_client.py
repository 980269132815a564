"""Our own socketmap load: one kept connection, each question when the one before is answered, in a process of its own.

`python -m bench.socketmap_client` reads one JSON object (see `Wanted`) and writes one (`Load`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

from bench.child import Child
from bench.figures import Load, percentile
from keyserver.wire.socketmap import netstring


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask: `addresses` of the map `policy`, in a scattered order. `expected`: what each reply must be."""

    port: int
    seconds: float
    policy: str
    addresses: Sequence[str]
    expected: str


class Client:
    """A client under way; `result` waits for its end."""

    def __init__(self, wanted: Wanted, cpus: frozenset[int] = frozenset()) -> None:
        """Starts it; returns when it begins."""
        self._child = Child(__name__, asdict(wanted), cpus)

    def result(self) -> Load:
        """What it saw; `cpu` is not known to it. Raises RuntimeError when it broke."""
        return Load(**self._child.answer())


class _Connection(asyncio.Protocol):
    def __init__(self, wanted: Wanted) -> None:
        self._requests = [netstring(f"{wanted.policy} {address}".encode()) for address in wanted.addresses]
        self._expected = netstring(wanted.expected.encode())
        self._number, self._held = 0, b""
        self.times: list[float] = []
        self.errors = 0
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.errors += not self.over

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        if not self._held.endswith(b","):
            return
        self.errors += self._held != self._expected
        self._held = b""
        self.times.append(time.perf_counter() - self._began)
        if not self.over:
            self._ask()

    def _ask(self) -> None:
        self._number += 1
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._number * 7919 % len(self._requests)])


async def _measure(wanted: Wanted) -> Load:
    print("begins", flush=True)
    began = time.perf_counter()
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: _Connection(wanted), "127.0.0.1", wanted.port
    )
    await asyncio.sleep(wanted.seconds)
    client.over = True
    times = [1e3 * t for t in client.times]
    seconds = time.perf_counter() - began
    return Load(len(times), seconds, percentile(times, 0.5), percentile(times, 0.99), errors=client.errors)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(asdict(uvloop.run(_measure(Wanted(**json.loads(sys.stdin.readline())))))))
