"""Processes of `keyserver …` that need not import it first: forked by one that has, in each process that runs tests.

What runs is the program's own `main` in a process of its own, with its own descriptors, environment and directory; what
is left out is the second and more that Python takes to read the modules, a thousand times in a whole run. Where a start
itself is under test, the command line is run as it stands.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_MOST = 1 << 20  # octets of a command line with its environment


class Process:
    """A child of ours, as far as tests ask."""

    def __init__(self, pid: int, stderr: TextIO | None = None) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Its exit code (the negative of a signal's number), None while it runs."""
        if self.returncode is None and select.select([self._descriptor], [], [], 0)[0]:
            self._reap()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("keyserver", timeout or 0)
            self._reap()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._descriptor)

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        os.close(self._descriptor)


def start(words: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: int, stderr: int) -> int:
    """Run `keyserver WORDS` with these descriptors, and nothing to read; its process ID, which is to be waited for."""
    return _warm().start(words, environment, folder, stdout, stderr)


class _Warm:
    """This end of the process that forks."""

    def __init__(self) -> None:
        # Whoever is orphaned by the one between is ours to wait for.
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            other.set_inheritable(True)
            command = [sys.executable, "-P", __file__, str(other.fileno())]
            # It ends when our end of the socket is closed, at the latest with this process.
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: int, stderr: int
    ) -> int:
        said = json.dumps([list(words), dict(environment), str(folder)]).encode()
        socket.send_fds(self._socket, [said], [stdout, stderr])
        pid = int(self._socket.recv(16))
        deadline = time.monotonic() + 10
        while _parent(pid) != os.getpid() and time.monotonic() < deadline:  # the one between has still to end
            time.sleep(0.001)
        return pid

    def end(self) -> None:
        """No more."""
        self._socket.close()
        self._process.wait()


@functools.cache
def _warm() -> _Warm:
    warm = _Warm()
    atexit.register(warm.end)
    return warm


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _serve(number: int) -> None:
    """Fork a process for each message, until nobody can send any more."""
    import gc
    import pkgutil

    import typer.main
    import uvloop  # noqa: F401 (the service imports it when it starts)

    import keyserver.cli

    for module in pkgutil.walk_packages(keyserver.__path__, "keyserver."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
    # The tree of commands is made from its declarations at each call: once for all.
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(keyserver.cli.application)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=number) as line:
        while True:
            said, descriptors, _, _ = socket.recv_fds(line, _MOST, 2)
            if not said:
                return
            between = os.fork()
            if not between:
                child = os.fork()
                if child:
                    line.send(str(child).encode())
                    os._exit(0)
                line.close()
                _run(*json.loads(said), *descriptors)
            os.waitpid(between, 0)
            for descriptor in descriptors:
                os.close(descriptor)


def _run(words: list[str], environment: dict[str, str], folder: str, stdout: int, stderr: int) -> None:
    from keyserver.cli import main

    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["keyserver", *words]
    sys.exit(main(words))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
