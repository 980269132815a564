"""Our own HTTP load, where each kind of answer needs latencies of its own: uvloop, raw, in a process of its own.

`python -m bench.client` reads one JSON object (see `Wanted`) and writes one (see `Seen`). The connections are
kept, each with one request under way; every `every`-th request is a miss, while there are any. Without hits it ends
when all misses are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

from bench.child import Child
from bench.figures import Load, percentile


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for. `pause`: seconds between a connection's requests. `rate`: requests per second of all connections
    together, each at its time; one whose connection still waits for an answer comes right after it (0: at once)."""

    port: int
    seconds: float
    connections: int
    hits: Sequence[str]
    misses: Sequence[str] = ()
    every: int = 0
    pause: float = 0.0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What came: counts, and latencies in milliseconds."""

    hits: int
    misses: int
    errors: int
    seconds: float
    hit_p50: float
    hit_p99: float
    hit_worst: float
    miss_p50: float
    miss_p99: float

    def load(self, cpu: float = 0.0) -> Load:
        """As one round, with the hits' latencies."""
        return Load(self.hits + self.misses, self.seconds, self.hit_p50, self.hit_p99, cpu, self.errors)


class Client:
    """A client under way; `result` waits for its end."""

    def __init__(self, wanted: Wanted, cpus: frozenset[int] = frozenset()) -> None:
        """Starts it."""
        self._child = Child(__name__, asdict(wanted), cpus)

    def result(self) -> Seen:
        """What it saw. Raises RuntimeError when it broke."""
        return Seen(**self._child.answer())


def ask_each(port: int, paths: Sequence[str], connections: int, cpus: frozenset[int], within: float = 300.0) -> Seen:
    """Ask for each once, as misses. Raises RuntimeError when one was not answered, or with another status than 200."""
    seen = Client(Wanted(port, within, connections, (), paths, 1), cpus).result()
    if seen.errors or seen.misses != len(paths):
        raise RuntimeError(f"port {port}: {seen.misses} of {len(paths)} answered, {seen.errors} wrong")
    return seen


class _Run:
    """What all connections share."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.hits = [_request(path) for path in wanted.hits]
        self.misses = iter([_request(path) for path in wanted.misses])
        self.number = 0
        self.times: tuple[list[float], list[float]] = ([], [])
        self.errors = 0
        self.over = False
        self.idle = 0
        self.done = asyncio.Event()

    def next(self) -> tuple[bytes, bool] | None:
        """A request, and whether it is a miss; None: nothing is left, and the connection that asks is idle."""
        self.number += 1
        if self.wanted.every and self.number % self.wanted.every == 0:
            miss = next(self.misses, None)
            if miss is not None:
                return miss, True
        if self.hits:
            return self.hits[self.number * 7919 % len(self.hits)], False
        self.idle += 1
        if self.idle == self.wanted.connections:
            self.done.set()
        return None


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, due: float) -> None:
        self._run = run
        self._due = due
        self._left = 0
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        asyncio.get_running_loop().call_at(self._due, self._ask)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.over:
            self._run.errors += 1

    def _ask(self) -> None:
        following = None if self._run.over else self._run.next()
        if following is None:
            return
        request, self._miss = following
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._head.find(b"Content-Length: ") + 16
            if not self._head.startswith(b"HTTP/1.1 200") or at < 16:
                self._run.errors += 1
            length = int(self._head[at : self._head.find(b"\r\n", at)])
            self._left = end + 4 + length - len(self._head)
            self._head = b""
        else:
            self._left -= len(data)
        if not self._left and not self._run.over:
            self._run.times[self._miss].append(time.perf_counter() - self._began)
            wanted = self._run.wanted
            if wanted.pause:
                asyncio.get_running_loop().call_later(wanted.pause, self._ask)
            elif wanted.rate:
                self._due += wanted.connections / wanted.rate
                asyncio.get_running_loop().call_at(self._due, self._ask)
            else:
                self._ask()


async def _measure(wanted: Wanted) -> Seen:
    loop = asyncio.get_running_loop()
    run = _Run(wanted)
    print("begins", flush=True)
    began = time.perf_counter()
    for number in range(wanted.connections):
        due = loop.time() + (number / wanted.rate if wanted.rate else 0.0)
        await loop.create_connection(lambda due=due: _Connection(run, due), "127.0.0.1", wanted.port)  # type: ignore[misc]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(run.done.wait(), wanted.seconds - (time.perf_counter() - began))
    run.over = True
    hits, misses = ([1e3 * t for t in times] for times in run.times)
    return Seen(
        hits=len(hits),
        misses=len(misses),
        errors=run.errors,
        seconds=time.perf_counter() - began,
        hit_p50=percentile(hits, 0.5),
        hit_p99=percentile(hits, 0.99),
        hit_worst=max(hits, default=0.0),
        miss_p50=percentile(misses, 0.5),
        miss_p99=percentile(misses, 0.99),
    )


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


if __name__ == "__main__":
    import uvloop

    print(json.dumps(asdict(uvloop.run(_measure(Wanted(**json.loads(sys.stdin.readline())))))))
