"""Nothing that one client sends holds the core's loop: its longest turn, in processor time of its own thread, so that a
busy machine does not look like an attack.

10 ms are what a turn may take on the reference machine; HELD leaves room for a slower one, and is a fraction of what
each of these took before it was done in pieces or beside the loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyserver import openpgp
from keyserver.app import opened
from keyserver.app.listening import Listeners, open_all
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.model import Certificate, Find, Source
from keyserver.wire.ldap import Code
from keyserver.wire.ldap_filter import And, Equal, Filter, Or
from support import milter_client
from support.ldap_client import Client
from support.ldap_memory import BASE
from support.openpgp import make

HELD = 0.025
ADDRESSES = [f"a{n}@example.org" for n in range(16)]
CERTIFICATES, USER_IDS = 20, 100
MAIL = b"From: alice@partner.example\r\nTo: bob@here.example\r\n"


class Loop(asyncio.SelectorEventLoop):
    """A loop that measures its turns."""

    longest = 0.0

    def _run_once(self) -> None:
        began = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest = max(self.longest, time.thread_time() - began)


class Running:
    """The service without upstreams, on a thread and a loop of its own; as many certificates for each of sixteen
    addresses as an answer holds, each with a hundred user IDs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports: dict[str, int] = {}
        self.ready = threading.Event()
        self.loop: Loop
        self.stop: asyncio.Event

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        self.loop, self.stop = loop, asyncio.Event()
        config = Config.model_validate(
            {
                "hkp": {"listen": "127.0.0.1:0"},
                "ldap": {"listen": "127.0.0.1:0"},
                "admin": {"listen": ""},
                "mailflow": {"milter_listen": "127.0.0.1:0"},
                "cache": {"database": f"sqlite:///{self._directory / 'keyserver.db'}"},
                "smime": {"trust_anchors": "none"},
            }
        )
        async with opened(config, Clocks.system()) as parts:
            now = parts.clocks.now()
            finds = [Find(c, Source.LOCAL, "admin", replace=False) for c in certificates(now)]
            await parts.store.put(finds, [], await parts.store.begin(), now)
            listeners = Listeners(parts.clocks.monotonic)
            await open_all(parts, listeners, self._say)
            self.ready.set()
            await self.stop.wait()
            await listeners.close()

    def _say(self, line: str) -> None:
        self.ports[line.split()[1]] = int(line.rpartition(":")[2])

    def held(self, do: Callable[[], object]) -> float:
        """Seconds of the longest turn while this is done, and a moment after it."""
        time.sleep(0.05)
        self.loop.longest = 0.0
        do()
        time.sleep(0.2)
        return self.loop.longest


def certificates(now: int) -> Iterator[Certificate]:
    for number in range(CERTIFICATES):
        user_ids = [f"User {n} of {number} <a{n}@example.org>" for n in range(USER_IDS)]
        (certificate,) = openpgp.clean(make(user_ids, seed=f"holds{number}", encryption=None).octets, now)
        assert isinstance(certificate, Certificate)
        yield certificate


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    service = Running(tmp_path_factory.mktemp("holds"))

    def serve() -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(service.run())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert service.ready.wait(60)
    gc.collect()
    gc.freeze()  # what the tests hold is not the loop's to walk
    yield service
    gc.unfreeze()
    service.loop.call_soon_threadsafe(service.stop.set)
    thread.join(20)


EACH = Or(tuple(Equal("gpgMailbox", address.encode()) for address in ADDRESSES))
SEARCHES: dict[str, tuple[Filter, str]] = {
    "cold": (EACH, "1.1"),  # the first: nothing is proved yet
    "whole entries": (EACH, "*"),
    "as many parts as it may have": (
        And((EACH, Or(tuple(Equal("pgpUserID", b"x%d" % n) for n in range(100))))),
        "1.1",
    ),
}


def test_ldap(running: Running) -> None:
    for name, (filter_, attributes) in SEARCHES.items():

        def search(filter_: Filter = filter_, attributes: str = attributes) -> None:
            with Client(running.ports["ldap"]) as client:
                client.socket.settimeout(60)
                assert client.search(BASE, filter_, attributes).code in (Code.SUCCESS, Code.ADMIN_LIMIT)

        held = running.held(search)
        assert held < HELD, f"{name}: {held * 1000:.1f} ms"


def ask(port: int, octets: bytes) -> bytes:
    """What comes back before the connection ends."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(20)
        with contextlib.suppress(OSError):
            sock.sendall(octets)
        said = b""
        with contextlib.suppress(OSError):
            while data := sock.recv(1 << 20):
                said += data
    return said


def lookup(op: str, search: str, options: str = "mr") -> bytes:
    return f"GET /pks/lookup?op={op}&options={options}&search={search} HTTP/1.0\r\n\r\n".encode()


REQUESTS: dict[str, bytes] = {
    "get": lookup("get", "a20@example.org"),
    "index": lookup("index", "a21@example.org"),
    "page": lookup("vindex", "a22@example.org", ""),
    "wide text": lookup("index", "%EF%B7%BA" * 800),
    "parameters": b"GET /pks/lookup?" + b"a=b&" * 2000 + b"op=get&search=a@b.example HTTP/1.0\r\n\r\n",
    "pipelined": lookup("get", "nobody@example.org").replace(b"1.0", b"1.1\r\nHost: test") * 2000,
    "headers": b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "submission": b"POST /pks/add HTTP/1.1\r\nHost: test\r\nContent-Length: 4000000\r\n\r\n" + b"k" * 4_000_000,
    "small chunks": b"POST /pks/add HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\nx\r\n" * 50_000
    + b"0\r\n\r\n",
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_http(running: Running, request_: bytes) -> None:
    held = running.held(lambda: ask(running.ports["hkp"], request_))
    assert held < HELD, f"{held * 1000:.1f} ms"


MAILS: dict[str, bytes] = {
    "a large body": MAIL + b"\r\n" + (b"y" * 76 + b"\r\n") * 200_000,
    "many headers": MAIL + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\nhi",
    "large headers": MAIL + b"".join(b"X-%d: %s\r\n" % (n, b"z" * 60_000) for n in range(50)) + b"\r\nhi",
    "folds": MAIL + b"X: y" + b"\r\n " * 60_000 + b"z\r\n\r\nhi",
    "headers that are none": MAIL + b" \x01: y\r\n" * 20_000 + b"\r\nhi",
    "parts": MAIL + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nX: y\r\n\r\nhello\r\n" * 50_000,
}


@pytest.mark.parametrize("octets", MAILS.values(), ids=MAILS)
def test_milter(running: Running, octets: bytes) -> None:
    held = running.held(lambda: deliver(running.ports["milter"], milter_client.mail(octets)))
    assert held < HELD, f"{held * 1000:.1f} ms"


def test_milter_commands_without_end(running: Running) -> None:
    commands = [milter_client.frame("H", b"x\0")] * 20_000 + milter_client.mail(MAIL + b"\r\nhi")
    held = running.held(lambda: deliver(running.ports["milter"], commands))
    assert held < HELD, f"{held * 1000:.1f} ms"


def deliver(port: int, commands: list[bytes]) -> None:
    """A whole session, whatever the answers are."""
    quit_ = milter_client.frame("Q")
    said = ask(port, b"".join([milter_client.negotiate(), milter_client.connect(), *commands, quit_]))
    assert said[4:5] == b"O"
