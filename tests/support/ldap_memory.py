"""A resolver for tests of the LDAP face: real certificates, really proved, answered from a list; and a running face."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import uvloop

from keyserver.changes import Changes
from keyserver.config.listener import Listener
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.context import FaceContext
from keyserver.faces.ldap.server import LdapServer
from keyserver.faces.ldap.session import LdapLimits
from keyserver.faces.ldap.tree import Tree
from keyserver.listen.server import ListeningServer
from keyserver.model import Answer, Answered, Certificate, Change, Entry, How, Name, Source, State, View
from keyserver.openpgp.clean import clean as clean_openpgp
from keyserver.processes.ldap import LdapFront
from keyserver.processes.news import Counter, Replica, Teller
from keyserver.processes.relay import Relay
from keyserver.processes.streams import Streams
from keyserver.query import ByText, Query
from keyserver.resolver.resolver import Resolver
from keyserver.smime.x509 import clean as clean_x509

T = TypeVar("T")
BASE = "dc=keyserver,dc=local"
NOW = int(time.time())


class Memory:
    """What a resolver with everything cached says. `upstream` holds what a first lookup would still have to find."""

    def __init__(self, *octets: bytes, now: int = NOW) -> None:
        self.now = now
        self.held: list[Answered] = []
        self.upstream: list[Answered] = []
        self.asked: list[Query] = []
        self.noted: list[Name] = []
        self.looped: list[bool] = []
        self.clients: list[str | None] = []
        self.wait: asyncio.Event | None = None
        self.state: State | None = None
        self.failing: set[str] = set()
        self.keep = True
        self.until = now + 3600
        for one in octets:
            self.add(one)

    def add(self, octets: bytes, *, upstream: bool = False) -> list[Certificate]:
        """Clean a certificate of either kind and hold what comes of it."""
        # a DER certificate is a SEQUENCE; an OpenPGP packet has bit 7 set
        cleaned = clean_openpgp(octets, self.now) if octets[0] >= 0x80 else clean_x509(octets, self.now)
        certificates = [c for c in cleaned if isinstance(c, Certificate)]
        assert certificates, cleaned
        for c in certificates:
            entry = Entry(c.fingerprint, c.proof.kind, c.octets, Source.KEYSERVER, "test", self.now, self.now)
            (self.upstream if upstream else self.held).append(Answered(c, (entry,)))
        return certificates

    async def lookup(self, query: Query, view: View, *, client: str | None = None, looped: bool = False) -> Answer:
        self.asked.append(query)
        self.looped.append(looped)
        self.clients.append(client)
        if self.wait is not None:
            await self.wait.wait()
        if self.state is not None or query.name in self.failing:
            return Answer(self.state or State.FAILED, How.MISS, "as the test says", names=frozenset({query.name}))
        found = self._find(query, self.held)
        if not found and not looped:
            found = self._find(query, self.upstream)
            self.held += found
        names = frozenset({query.name}).union(*(a.certificate.proof.index for a in found))
        state = State.FOUND if found else State.ABSENT
        return Answer(state, How.HIT, "", tuple(found), names, self.now, self.until, self.keep)

    def note_asked(self, names: Iterable[Name], now: int) -> None:
        self.noted += names

    def _find(self, query: Query, among: list[Answered]) -> list[Answered]:
        if isinstance(query, ByText):
            return [a for a in among if a.certificate.proof.kind is query.kind and _says(a, query.text)]
        return [a for a in among if query.name in a.certificate.proof.names]


def _says(answered: Answered, text: str) -> bool:
    proof = answered.certificate.proof
    names = [u.text.casefold() for u in proof.user_ids] + ([proof.x509.common_name.casefold()] if proof.x509 else [])
    return any(text in name for name in names)


class Face:
    """A running LDAP face and what stands behind it, on a thread and a loop of its own."""

    apart = False
    """Its sockets are a front's, with which it speaks as with another process."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.changes = Changes()
        self.notes: list[tuple[object, ...]] = []
        self.port = 0
        self.server: LdapServer
        self.front: LdapFront | None = None
        self.ends: list[Callable[[], None]] = []
        self.loop: asyncio.AbstractEventLoop
        self.stop: asyncio.Event

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def door(self) -> ListeningServer[Any]:
        """What has the clients' sockets."""
        return self.front or self.server

    def call(self, do: Callable[[], T]) -> T:
        """Do something on the face's loop."""

        async def done() -> T:
            return do()

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(10)

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await something on the face's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    def change(self, *names: Name, everything: bool = False) -> None:
        """A change of the store touches these names."""
        self.call(lambda: self.changes.publish(Change(0, frozenset(names), everything)))

    def pass_seconds(self, seconds: int) -> None:
        """What happens once a second happens so many times."""

        def beat() -> None:
            for _ in range(seconds):
                if self.front is not None:
                    self.front.second()
                self.server.second()

        self.call(beat)

    async def run(self, ready: threading.Event, options: dict[str, Any], ldaps: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        around = context(
            self.memory, self.changes, self.notes, options.pop("instance", ""), options.pop("kept", 32 << 20)
        )
        listener = options.pop("listener", Listener("127.0.0.1", 0, tls=ldaps))
        tls = options.get("tls")
        text = options.pop("text_search", False)
        tree = Tree(options.pop("base", BASE), start_tls=tls is not None, text_search=lambda: text)
        self.server = LdapServer(around, tree, **options)
        opened: ListeningServer[Any] = self.server
        if self.apart:
            opened = self.front = await self.parted(options, around.clock)
        bound = await opened.open(listener)
        self.port = int(cast(Any, bound[0][1])) if listener.unix is None else 0
        ready.set()
        await self.stop.wait()
        if self.front is not None:
            await self.front.close(0.2)
        await self.server.close(0.2)
        for end in self.ends:
            end()
        await asyncio.sleep(0)

    async def parted(self, options: dict[str, Any], clock: Callable[[], int]) -> LdapFront:
        """A front before the face."""
        self.server.begin()
        counter = Counter()
        replica, teller = Replica(counter), Teller(self.changes, counter, lambda _: None)
        relay = Relay(replica)
        streams = Streams({"ldap": self.server.behind}, lambda _: None, lambda: None)
        line, their_line = socket.socketpair()
        news, their_news = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        teller.admit(0, news)
        await relay.connect(their_line, their_news)
        await streams.begin(line)
        await relay.ready()
        self.ends = [teller.close, streams.close, relay.close]
        limits = options.get("limits") or LdapLimits()
        return LdapFront(relay, "ldap", MemoryLimit(1 << 20, replica, clock), limits, tls=options.get("tls"))


def context(
    memory: Memory, changes: Changes, notes: list[tuple[object, ...]], instance: str = "", kept: int = 32 << 20
) -> FaceContext:
    """A listener's surroundings."""
    return FaceContext(
        lookups=cast(Resolver, memory),
        store=cast(Any, None),
        budget=MemoryLimit(kept, changes, lambda: memory.now),
        view=View(),
        clock=lambda: memory.now,
        monotonic=time.monotonic,
        note=lambda *facts: notes.append(facts),
        instance=instance,
    )


@contextmanager
def serving(memory: Memory, *, loop: str = "uvloop", ldaps: bool = False, **options: Any) -> Iterator[Face]:
    """The face on a port of its own. `options`: those of `LdapServer` and `Tree`, `instance`, `kept` (octets),
    `listener`."""
    face = Face(memory)
    ready = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
        try:
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(face.run(ready, options, ldaps))
        except BaseException as error:
            failure.append(error)
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    if failure:
        raise failure[0]
    try:
        yield face
    finally:
        face.loop.call_soon_threadsafe(face.stop.set)
        thread.join(20)
    if failure:
        raise failure[0]
