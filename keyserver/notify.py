"""What the service manager that started us is told: sd_notify(3), by NOTIFY_SOCKET; where there is none, nothing is.

Several processes have one manager, whom only the process that it started tells anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping, Sequence

PATIENCE = 0.5  # seconds that a manager who does not read may hold us up
SIGNS = 3  # signs of life within the time after which it takes us for dead


class Manager:
    """The service manager."""

    def __init__(self, environment: Mapping[str, str], pid: int, monotonic: Callable[[], float]) -> None:
        """monotonic: seconds of CLOCK_MONOTONIC."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = {"/": address, "@": "\0" + address[1:]}.get(address[:1], "")  # "@": an abstract socket
        self._monotonic = monotonic
        self._serving = ""
        watched = self._address and environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        microseconds = environment.get("WATCHDOG_USEC", "") if watched else ""
        self.watchdog = int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) else None
        """Seconds without a sign of life after which we are killed; None: nobody watches."""

    def ready(self, lines: Sequence[str]) -> None:
        """We serve; `lines` say where."""
        self._serving = "serving " + ", ".join(line.removeprefix("ready ") for line in lines)
        self._tell("READY=1", f"STATUS={self._serving}")

    def reloading(self) -> None:
        """The configuration is being read again, until `reloaded`."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1e6)}", "STATUS=reading the configuration")

    def reloaded(self) -> None:
        """We serve as before, or by what was read."""
        self._tell("READY=1", f"STATUS={self._serving}")

    def stopping(self) -> None:
        """We take nothing new."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """A sign of life."""
        self._tell("WATCHDOG=1")

    async def keep_alive(self) -> None:
        """Signs of life for as long as the loop runs: a loop that hangs gives none."""
        while self.watchdog is not None:
            self.alive()
            await asyncio.sleep(self.watchdog / SIGNS)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self._address)
            sock.send("\n".join(line.replace("\n", " ") for line in lines).encode())
