"""Real daemons between our service and others: haproxy, nginx, pgbouncer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATHS = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


def program(name: str) -> str:
    """Where it is; the test fails where it is not."""
    found = shutil.which(name, path=PATHS)
    assert found, f"this test needs {name} (Debian: the package of that name, or nginx-light)"
    return found


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """One that listens on this port, until the block ends."""
    path = program(command[0])
    with log.open("w") as said:
        process = subprocess.Popen([path, *command[1:]], stdout=said, stderr=said)
    try:
        ends = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < ends, log.read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)
