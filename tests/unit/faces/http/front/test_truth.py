"""No answer is older than the last finished change: changes of every kind in any order while clients read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keyserver.changes import Changes
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.connection import HttpConnection
from keyserver.faces.http.facts import Facts, offer
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpLimits, HttpServer
from keyserver.model import Change

CERTIFICATES = ("A", "B", "C")
ADDRESSES = ("a@x", "b@x")
SEARCHES = (*CERTIFICATES, *ADDRESSES)
_REPLY = re.compile(rb"HTTP/1\.1 (\d+)[^\r]*\r\n(?:[^\r]+\r\n)*?Content-Length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n")


@dataclass
class Certificate:
    version: int
    addresses: frozenset[str]
    expires: int
    held: bool
    blocked: bool = False


@dataclass
class Keyserver:
    """The least keyserver that can put, merge, delete, block, approve, expire and reload; `say` is its whole truth."""

    changes: Changes = field(default_factory=Changes)
    entries: dict[str, Certificate] = field(default_factory=dict)
    now: int = 1_800_000_000
    ttl: int = 100
    counter: int = 0
    gates: list[asyncio.Event] = field(default_factory=list)
    slow: bool = False
    answer_held: bool = False

    def finish(self, *names: str, everything: bool = False) -> None:
        self.changes.publish(Change(self.changes.published + 1, frozenset(names), everything))

    def names(self, key: str) -> set[str]:
        entry = self.entries.get(key)
        return {key} | (set(entry.addresses) if entry else set())

    def hits(self, search: str) -> list[tuple[str, Certificate]]:
        return [
            (key, entry)
            for key, entry in sorted(self.entries.items())
            if search in self.names(key)
            and (self.answer_held or not entry.held)
            and not entry.blocked
            and entry.expires > self.now
        ]

    def say(self, search: str) -> tuple[int, bytes]:
        hits = self.hits(search)
        text = " ".join(f"{key}{entry.version}" for key, entry in hits)
        return (200, text.encode()) if hits else (404, b"nothing")

    def until(self, search: str) -> int:
        lives = [e.expires for k, e in self.entries.items() if search in self.names(k) and e.expires > self.now]
        return min([self.now + self.ttl, *lives])

    async def lookup(self, request: web.Request) -> web.Response:
        search = request.query["search"]
        number = self.changes.published
        status, body = self.say(search)
        until = self.until(search)
        names = frozenset({search}.union(*(self.names(key) for key, _ in self.hits(search))))
        if self.slow:
            gate = asyncio.Event()
            self.gates.append(gate)
            await gate.wait()
        headers = {"Cache-Control": "max-age=9", "Age": "0", "ETag": f'"{body.decode().replace(" ", "-")}"'}
        if request.method == "GET":
            offer(request, Facts(names, until, number, self.now, status == 200, search))
        return web.Response(status=status, body=body, headers=headers)


class Wire(asyncio.Transport):
    def __init__(self, front: HttpConnection) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.front = front
        self.closed = False
        self.said = b""
        front.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:  # type: ignore[type-arg]
        self.said += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.front.connection_lost, None)

    def get_write_buffer_size(self) -> int:
        return 0


class Reading(RuleBasedStateMachine):
    """Clients read over a few connections, pipelined, fast and slow; every answer is checked against the truth."""

    hits = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.keyserver = Keyserver()
        app = web.Application()
        app.router.add_get("/pks/lookup", self.keyserver.lookup)
        self.runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.loop.run_until_complete(self.runner.setup())
        assert self.runner.server is not None
        self.hot = HotAnswers(MemoryLimit(20_000, self.keyserver.changes, lambda: self.keyserver.now))
        self.server = HttpServer(self.runner.server, self.hot, HttpLimits(100))
        self.connections = [self.connect() for _ in range(2)]
        self.waiting: list[tuple[Wire, str, bytes, list[tuple[int, bytes]]]] = []

    def connect(self) -> tuple[HttpConnection, Wire]:
        front = HttpConnection(self.server)
        return front, Wire(front)

    def settle(self) -> None:
        async def turns() -> None:
            for _ in range(40):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def answers(self, wire: Wire) -> list[tuple[int, bytes]]:
        said, wire.said, found = wire.said, b"", []
        while said:
            reply = _REPLY.match(said)
            assert reply, said
            end = reply.end() + int(reply[2])
            found.append((int(reply[1]), said[reply.end() : end]))
            said = said[end:]
        return found

    def changed(self) -> None:
        """What was true at any time since a slow request began may be its answer; fast ones allow only the present."""
        for _, search, _, truths in self.waiting:
            truths.append(self.keyserver.say(search))

    @rule(searches=st.lists(st.sampled_from(SEARCHES), min_size=1, max_size=4), spelling=st.booleans())
    def read(self, searches: list[str], spelling: bool) -> None:
        self.read_now(searches, 1, spelling)

    def read_now(self, searches: Sequence[str], which: int, spelling: bool) -> None:
        front, wire = self.connections[which]
        for search in searches:
            front.data_received(self.request(search, spelling))
        self.settle()
        assert self.answers(wire) == [self.keyserver.say(search) for search in searches]

    @rule(search=st.sampled_from(SEARCHES))
    def read_slowly(self, search: str) -> None:
        self.keyserver.slow = True
        front, wire = self.connect()
        request = self.request(search, False).replace(b" HTTP", b"&slow=%d HTTP" % len(self.waiting))
        front.data_received(request)
        self.settle()
        self.keyserver.slow = False
        if wire.said:
            assert self.answers(wire) == [self.keyserver.say(search)]  # it was hot
        else:
            self.waiting.append((wire, search, request, [self.keyserver.say(search)]))

    @rule()
    def slow_answers_arrive(self) -> None:
        for gate in self.keyserver.gates:
            gate.set()
        self.keyserver.gates.clear()
        self.settle()
        waiting, self.waiting = self.waiting, []
        front, again = self.connections[1]
        for wire, search, request, truths in waiting:
            (answer,) = self.answers(wire)
            assert answer in truths
            front.data_received(request)
            self.settle()
            assert self.answers(again) == [self.keyserver.say(search)]

    def request(self, search: str, spelling: bool) -> bytes:
        return b"GET /pks/lookup?search=%b%b HTTP/1.1\r\nHost: k\r\n\r\n" % (
            search.encode(),
            b"&x" if spelling else b"",
        )

    @rule(
        key=st.sampled_from(CERTIFICATES),
        addresses=st.frozensets(st.sampled_from(ADDRESSES)),
        life=st.integers(1, 9),
        held=st.booleans(),
    )
    def put(self, key: str, addresses: frozenset[str], life: int, held: bool) -> None:
        keyserver = self.keyserver
        keyserver.counter += 1
        before = keyserver.names(key)
        keyserver.entries[key] = Certificate(keyserver.counter, addresses, keyserver.now + life, held)
        keyserver.finish(*before, *keyserver.names(key))
        self.changed()

    @rule(key=st.sampled_from(CERTIFICATES), address=st.sampled_from(ADDRESSES))
    def merge(self, key: str, address: str) -> None:
        if entry := self.keyserver.entries.get(key):
            self.keyserver.counter += 1
            entry.version = self.keyserver.counter
            entry.addresses |= {address}
            self.keyserver.finish(*self.keyserver.names(key))
            self.changed()

    @rule(key=st.sampled_from(CERTIFICATES))
    def delete(self, key: str) -> None:
        names = self.keyserver.names(key)
        self.keyserver.entries.pop(key, None)
        self.keyserver.finish(*names)
        self.changed()

    @rule(key=st.sampled_from(CERTIFICATES), blocked=st.booleans())
    def block(self, key: str, blocked: bool) -> None:
        if entry := self.keyserver.entries.get(key):
            entry.blocked = blocked
            self.keyserver.finish(*self.keyserver.names(key))
            self.changed()

    @rule(key=st.sampled_from(CERTIFICATES))
    def approve(self, key: str) -> None:
        if entry := self.keyserver.entries.get(key):
            entry.held = False
            self.keyserver.finish(*self.keyserver.names(key))
            self.changed()

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.keyserver.now += seconds
        self.changed()

    @rule(ttl=st.integers(1, 200), answer_held=st.booleans())
    def reload(self, ttl: int, answer_held: bool) -> None:
        self.keyserver.ttl, self.keyserver.answer_held = ttl, answer_held
        self.keyserver.finish(everything=True)
        self.changed()

    @invariant()
    def everything_is_true(self) -> None:
        if not self.keyserver.slow:
            self.read_now(SEARCHES, 0, False)

    @invariant()
    def bounded(self) -> None:
        assert 0 <= self.hot.budget.octets <= 20_000

    def teardown(self) -> None:
        self.slow_answers_arrive()
        Reading.hits += self.hot.counts().hits + self.hot.counts().negative_hits
        self.hot.budget.clear()
        assert self.hot.budget.octets == 0
        self.loop.run_until_complete(self.server.close(1))
        self.loop.run_until_complete(self.runner.cleanup())
        self.settle()
        self.loop.close()


def test_no_answer_is_older_than_the_last_finished_change() -> None:
    run_state_machine_as_test(
        Reading,
        settings=settings(max_examples=80, stateful_step_count=50, deadline=None, database=None,
                          suppress_health_check=list(HealthCheck)),
    )  # fmt: skip
    assert Reading.hits > 300  # memory did answer
