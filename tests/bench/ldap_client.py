"""Our own LDAP load: pre-encoded searches, one at a time on each connection, in a process of its own (uvloop).

`python -m bench.ldap_client` reads one JSON object (see `Wanted`) and writes one (`Load`).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from bench.child import Child
from bench.figures import Load, percentile
from keyserver.wire.ber import measure
from keyserver.wire.ldap import DONE, Scope, SearchRequest, envelope
from keyserver.wire.ldap_filter import Present
from support.ldap_messages import gpg_get, write_search

BASE = "dc=keyserver,dc=local"
KEYS = f"ou=PGP Keys,{BASE}"
INFO = ("pgpBaseKeySpaceDN", "pgpVersion", "pgpSoftware")

_UNBIND = bytes.fromhex("30050201014200")
_LONGEST = 32 << 20
_SPELLED = 0x01000000  # seconds; a time limit in four octets, of which each search gets its own
_LIMIT = b"\x02\x04" + _SPELLED.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for.

    kept: connections stay; otherwise each is for one sequence. spelled: every search has octets of its own (another
    time limit), so that nobody can know it by its octets. sequence: gpg's three searches. pause: seconds between.
    """

    port: int
    seconds: float
    connections: int
    fingerprints: Sequence[str]
    kept: bool = True
    spelled: bool = False
    sequence: bool = False
    pause: float = 0.0


class Client:
    """A client under way; `result` waits for its end."""

    def __init__(self, wanted: Wanted, cpus: frozenset[int] = frozenset()) -> None:
        """Starts it; returns when it begins."""
        self._child = Child(__name__, asdict(wanted), cpus)

    def result(self) -> Load:
        """What it saw; `cpu` is not known to it. Raises RuntimeError when it broke."""
        return Load(**self._child.answer())


def search(fingerprint: str, time_limit: int = 15) -> bytes:
    """gpg's search for a key by its fingerprint, as a whole message."""
    return envelope(1, write_search(gpg_get(fingerprint, KEYS, time_limit)))


def opening() -> tuple[bytes, bytes]:
    """What gpg asks before its search."""
    asked = ("", ("namingContexts",)), (f"cn=pgpServerInfo,{BASE}", INFO)
    first, second = (
        SearchRequest(base, Scope.BASE, 0, 15, False, Present("objectClass"), names) for base, names in asked
    )
    return envelope(1, write_search(first)), envelope(1, write_search(second))


def ends(data: bytes | bytearray) -> int | None:
    """Where the reply ends that `data` begins with: behind its SearchResultDone. None: not yet complete."""
    at = 0
    while at < len(data) and (size := measure(data, at, _LONGEST)) is not None and at + size <= len(data):
        stop = at + size
        body = at + (2 if data[at + 1] < 0x80 else 2 + (data[at + 1] & 0x7F))
        if data[body + 2 + data[body + 1]] == DONE:
            return stop
        at = stop
    return None


class _Run:
    """What all connections share."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.times: list[float] = []
        self.errors = 0
        self.over = False
        self.first = opening() if wanted.sequence else ()
        limit = _SPELLED if wanted.spelled else 15
        self._searches = [search(fingerprint, limit) for fingerprint in wanted.fingerprints]
        self._number = 0

    def requests(self) -> Iterator[bytes]:
        """The messages of one sequence."""
        self._number += 1
        yield from self.first
        octets = self._searches[self._number % len(self._searches)]
        if self.wanted.spelled:
            octets = octets.replace(_LIMIT, b"\x02\x04" + (_SPELLED + self._number).to_bytes(4, "big"), 1)
        yield octets


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run, over: asyncio.Future[None] | None = None) -> None:
        self._run, self._over = run, over
        self._held = b""
        self._waiting: Iterator[bytes] = iter(())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._begin()

    def connection_lost(self, error: Exception | None) -> None:
        if self._over is None and not self._run.over:
            self._run.errors += 1
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _begin(self) -> None:
        self._waiting = self._run.requests()
        self._began = time.perf_counter()
        self._transport.write(next(self._waiting))

    def data_received(self, data: bytes) -> None:
        self._held = self._held + data if self._held else data
        end = ends(self._held)
        if end is None:
            return
        if end < 60 and not self._run.first:
            self._run.errors += 1  # a result without an entry
        self._held = self._held[end:]
        following = next(self._waiting, None)
        if following is not None:
            self._transport.write(following)
            return
        self._run.times.append(time.perf_counter() - self._began)
        if not self._run.wanted.kept:
            self._transport.write(_UNBIND)
            self._transport.close()
        elif self._run.over:
            self._transport.close()
        elif self._run.wanted.pause:
            asyncio.get_running_loop().call_later(self._run.wanted.pause, self._begin)
        else:
            self._begin()


async def _again(run: _Run) -> None:
    """One connection after the other."""
    loop = asyncio.get_running_loop()
    while not run.over:
        over: asyncio.Future[None] = loop.create_future()
        await loop.create_connection(lambda over=over: _Connection(run, over), "127.0.0.1", run.wanted.port)  # type: ignore[misc]
        await over


async def _measure(wanted: Wanted) -> Load:
    loop = asyncio.get_running_loop()
    run = _Run(wanted)
    print("begins", flush=True)
    began = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    for _ in range(wanted.connections):
        if wanted.kept:
            await loop.create_connection(lambda: _Connection(run), "127.0.0.1", wanted.port)
        else:
            tasks.append(asyncio.create_task(_again(run)))
    await asyncio.sleep(wanted.seconds - (time.perf_counter() - began))
    run.over = True
    seconds = time.perf_counter() - began
    times = [1e3 * t for t in run.times]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return Load(len(times), seconds, percentile(times, 0.5), percentile(times, 0.99), errors=run.errors)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(asdict(uvloop.run(_measure(Wanted(**json.loads(sys.stdin.readline())))))))
