"""gpg itself: how long `--recv-keys` takes, against us and against nginx."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

from bench.figures import OURS, Figure, Row, percentile
from bench.machine import Missing, program
from bench.peers import NGINX
from bench.service import lookup
from bench.world import World

NOISE = 1.05  # two rows of one server differ by as much


def receive(world: World) -> list[Row]:
    """A hit by gpg, wall time, one server after the other."""
    try:
        program("dirmngr")
        homes = {OURS: _Home(world.setting.place("gpg-a"), world.service.port)}
        if NGINX in world.peers:
            homes[NGINX] = _Home(world.setting.place("gpg-b"), world.peers[NGINX].port)
    except Missing as missing:
        world.setting.tell(str(missing))
        return []
    world.service.warm([lookup(world.one.fingerprint)])
    times: dict[str, list[float]] = {name: [] for name in homes}
    try:
        for home in homes.values():
            home.receive(world.one.fingerprint)  # starts its dirmngr, warms the cache
            home.receive(world.one.fingerprint)
        for number in range(world.setting.scaled(20, 60)):
            order = list(homes) if number % 2 else list(homes)[::-1]
            for name in order:
                times[name].append(homes[name].receive(world.one.fingerprint))
    finally:
        for home in homes.values():
            home.end()
    workload = "gpg --recv-keys, wall time"
    rows = [Row(workload, name, p50=median(t), p99=percentile(t, 0.99)) for name, t in times.items()]
    if NGINX in times:
        slower = median(a / b for a, b in zip(times[OURS], times[NGINX], strict=True))
        rows[0] = Row(
            workload,
            OURS,
            Figure(slower, "× nginx", most=NOISE),
            p50=rows[0].p50,
            p99=rows[0].p99,
            note="1.05 is noise",
        )
    return rows


class _Home:
    """A home directory of gpg's with a dirmngr of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.chmod(0o700)
        self._folder = folder
        server = ["--keyserver", f"hkp://127.0.0.1:{port}", "--recv-keys"]
        self._command = [program("gpg"), "--homedir", str(folder), "--batch", "--quiet", *server]

    def receive(self, fingerprint: str) -> float:
        """Milliseconds."""
        began = time.perf_counter()
        done = subprocess.run([*self._command, fingerprint], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"gpg: {done.stderr}")
        return 1000 * (time.perf_counter() - began)

    def end(self) -> None:
        """End its daemons."""
        command = [program("gpgconf"), "--homedir", str(self._folder), "--kill", "all"]
        subprocess.run(command, capture_output=True, check=False)
