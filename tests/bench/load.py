"""wrk as the load: one thread, keep-alive or a connection per request, one path or many."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Load
from bench.machine import program
from bench.processes import Running

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}

_SCRIPT = """
local requests, misses, number, missed, every = {}, {}, 0, 0, %(every)d
init = function(arguments)
  for line in io.lines(%(paths)s) do requests[#requests + 1] = %(request)s end
  if every > 0 then
    for line in io.lines(%(misses)s) do misses[#misses + 1] = wrk.format("GET", line) end
  end
end
request = function()
  number = number + 1
  if every > 0 and number %% every == 0 then
    missed = missed + 1
    return misses[missed]
  end
  return requests[(number * %(stride)d) %% #requests + 1]
end
"""

_KEPT = 'wrk.format("GET", line)'
_AS_GPG = (
    r'"GET " .. line .. " HTTP/1.0\r\nHost: " .. wrk.host .. ":" .. wrk.port .. '
    r'"\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\r\n"'
)


class Wrk:
    """Load of one kind for any server; `folder` keeps its script.

    paths: asked for in a scattered order. as_gpg: HTTP/1.0 as gpg speaks it, a connection per request. misses: paths
    taken one after the other at every `every`-th request; there must be enough of them.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        *,
        connections: int,
        seconds: int,
        cpus: frozenset[int],
        as_gpg: bool = False,
        misses: Sequence[str] = (),
        every: int = 0,
    ) -> None:
        self._connections, self._seconds = connections, seconds
        self._cpus = cpus
        self._script = folder / "wrk.lua"
        (folder / "paths").write_text("\n".join(paths) + "\n")
        (folder / "misses").write_text("\n".join(misses) + "\n")
        values = {
            "paths": f"[[{folder / 'paths'}]]",
            "misses": f"[[{folder / 'misses'}]]",
            "every": every,
            "request": _AS_GPG if as_gpg else _KEPT,
            "stride": 7919 if len(paths) % 7919 else 1,  # a prime: neighbours are not asked for in turn
        }
        self._script.write_text(_SCRIPT % values)
        self._path = paths[0]

    def __call__(self, port: int, server: Running | None = None, expect_errors: bool = False) -> Load:
        """One round. `expect_errors`: answers other than 2xx are what is measured (known negatives)."""
        command = [program("wrk"), "-t1", f"-c{self._connections}", f"-d{self._seconds}s", "--latency"]
        command += ["--timeout", "10s", "-s", str(self._script), f"http://127.0.0.1:{port}{self._path}"]
        if self._cpus:
            command = ["/usr/bin/taskset", "-c", str(min(self._cpus)), *command]
        before = server.cpu() if server else 0.0
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        after = server.cpu() if server else 0.0
        if done.returncode:
            raise RuntimeError(f"wrk: {done.stderr or done.stdout}")
        return read_wrk(done.stdout, after - before, expect_errors)


def read_wrk(text: str, cpu: float, expect_errors: bool = False) -> Load:
    """wrk's report as a load."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)\b", text)
    if total is None:
        raise RuntimeError(f"wrk said nothing that can be read: {text}")
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = sum(map(int, sockets.groups())) if sockets else 0
    if statuses and not expect_errors:
        errors += int(statuses[1])
    seconds = float(total[2]) * _UNITS[total[3]] / 1000
    return Load(int(total[1]), seconds, _latency(text, "50"), _latency(text, "99"), cpu, errors)


def _latency(text: str, percent: str) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
