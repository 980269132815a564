"""What a service manager hears of us: one process and several, a path and an abstract socket, a loop that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver.notify import Manager
from support.running import Service

HANGS = (
    "import signal, sys, time; signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600)); "
    "from keyserver.cli import main; sys.exit(main())"
)
"""The service, whose loop hangs after SIGUSR1."""


class Listener:
    """A service manager's socket. messages: what came so far, each with the process that sent it."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.messages: list[tuple[int, dict[str, str]]] = []

    def hear(self, name: str, seconds: float = 20) -> dict[str, str]:
        """Wait for a message with this variable, and return it. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            octets, ancillary, _, _ = self.socket.recvmsg(4096, 1024)
            [(_, _, credentials)] = ancillary
            message = dict(line.split("=", 1) for line in octets.decode().split("\n"))
            self.messages.append((struct.unpack("iii", credentials)[0], message))
            if name in message:
                return message
        raise TimeoutError(name)

    def silent(self, name: str, seconds: float) -> bool:
        """Is there no message with this variable for so long?"""
        try:
            self.hear(name, seconds)
        except TimeoutError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@keyserver-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    listener = Listener(address)
    with contextlib.closing(listener.socket):
        yield listener


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        manager = Manager({**environment, "WATCHDOG_USEC": "1000000"}, 1, time.monotonic)
        assert (manager.watchdog is None) is (not environment.get("NOTIFY_SOCKET", "").startswith(("/", "@")))
        manager.ready(())
    gone = Manager({"NOTIFY_SOCKET": str(tmp_path / "gone")}, 1, time.monotonic)
    gone.alive()  # who is gone makes no trouble


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [("30000000", "7", 30.0), ("30000000", "8", None), ("30000000", None, 30.0), ("0", "7", None), ("x", None, None)],
)
def test_who_is_watched(microseconds: str, pid: str | None, seconds: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": microseconds, **({"WATCHDOG_PID": pid} if pid else {})}
    assert Manager(environment, 7, time.monotonic).watchdog == seconds


def test_a_manager_that_does_not_read_holds_nobody_up(listener: Listener) -> None:
    manager = Manager(os.environ, 1, time.monotonic)
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    began = time.monotonic()
    for _ in range(12):  # more than wait in a socket
        manager.alive()
    assert time.monotonic() - began < 10


def test_signs_of_life_come_from_the_loop(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        alive = asyncio.get_running_loop().create_task(manager.keep_alive())
        await asyncio.sleep(0.5)
        alive.cancel()

    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    manager = Manager(os.environ, os.getpid(), time.monotonic)
    asyncio.run(live())
    while not listener.silent("WATCHDOG", 0.3):
        pass  # the loop has ended, and nothing more comes
    assert 4 <= len(listener.messages) <= 6


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_life_of_a_service(
    listener: Listener, workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    with Service(tmp_path, settings={"server.workers": workers}) as service:
        assert service.process is not None
        ready = listener.hear("READY")
        assert ready["READY"] == "1"
        for line in service.ready:
            assert line.removeprefix("ready ") in ready["STATUS"]
        assert all("READY" in message or "WATCHDOG" in message for _, message in listener.messages)
        socket.create_connection(("127.0.0.1", service.port())).close()
        for _ in range(2):
            assert listener.hear("WATCHDOG", 1.5) == {"WATCHDOG": "1"}

        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        service.process.send_signal(signal.SIGHUP)
        reloading = listener.hear("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert listener.hear("READY")["STATUS"] == ready["STATUS"]

        service.process.send_signal(signal.SIGTERM)
        assert listener.hear("STOPPING")["STOPPING"] == "1"
        assert service.process.wait(15) == 0
        assert {pid for pid, _ in listener.messages} == {service.process.pid}, "the main process alone"


class Hanging(Service):
    """A service whose loops hang when told to."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-c", HANGS, *words]


def test_a_loop_that_hangs_gives_no_sign_of_life(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "900000")
    with Hanging(tmp_path) as service:
        assert service.process is not None
        listener.hear("READY")
        listener.hear("WATCHDOG", 0.9)
        service.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        while not listener.silent("WATCHDOG", 0.05):
            pass  # what had been said before
        assert listener.silent("WATCHDOG", 1.5)


@pytest.mark.parametrize("kind", ["core", "front"])
async def test_a_child_whose_loop_hangs_is_started_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "900000")
    listener = Listener(str(tmp_path / "notify"))
    with contextlib.closing(listener.socket), Hanging(tmp_path, settings={"server.workers": "1"}) as service:
        await asyncio.to_thread(listener.hear, "READY")
        [before] = (await service.pids())[kind]
        os.kill(before, signal.SIGUSR1)
        async with asyncio.timeout(20):
            while True:
                assert await asyncio.to_thread(listener.hear, "WATCHDOG", 5), "the supervisor itself is well"
                with contextlib.suppress(OSError, AssertionError, asyncio.TimeoutError):
                    async with asyncio.timeout(1):
                        if (await service.pids()).get(kind, []) not in ([], [before]):
                            break
        assert any("no sign of life" in line for line in service.log)
        assert [node["restarts"] for node in (await service.api("/api/v1/nodes"))["nodes"] if node["kind"] == kind] == [
            1
        ]
