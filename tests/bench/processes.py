"""Processes that the benchmark starts: pinned, watched (processor time, memory) and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.processes import cpu_of, family, memory_of

START = 30.0  # seconds until a server must answer


class DidNotStart(Exception):
    """A server that ended, or never listened; the text has the end of its log."""


class Running:
    """One program with its children, ended with the block."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cpus: frozenset[int] = frozenset(),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Starts it; its output goes to `log`."""

        def pin() -> None:
            if cpus:
                os.sched_setaffinity(0, cpus)

        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                preexec_fn=pin,
                start_new_session=True,
            )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the first process."""
        return self.process.pid

    def stop(self) -> None:
        """Ask it to end, then make it, with all its children."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def cpu(self) -> float:
        """Seconds of processor time of all its processes so far."""
        return sum(cpu_of(pid) for pid in family(self.pid))

    def memory(self) -> int:
        """Resident octets of all its processes; what they share counts for each."""
        return sum(memory_of(pid) for pid in family(self.pid))

    def until(self, done: Callable[[], bool]) -> None:
        """Wait until `done`. Raises DidNotStart with the end of the log."""
        end = time.monotonic() + START
        while not done():
            if self.process.poll() is not None or time.monotonic() > end:
                raise DidNotStart(f"{self.process.args!r} did not start:\n{self.text()[-2000:]}")
            time.sleep(0.02)

    def listens(self, port: int) -> None:
        """Wait until it does."""
        self.until(lambda: listening(port))

    def text(self) -> str:
        """Its output so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)  # its own session: nobody else is in that group


def listening(port: int) -> bool:
    """Does somebody listen there?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
