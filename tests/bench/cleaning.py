"""Hygiene: what a certificate costs, and what hostile ones do to memory and to hits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import hostile
from bench.certificates import Made, make
from bench.client import Client, Wanted
from bench.figures import OURS, Figure, Row, percentile
from bench.machine import Cpus
from bench.service import Service, fill, lookup
from bench.setting import Setting
from bench.upstream import Scripted
from bench.world import World
from keyserver import openpgp
from keyserver.model import Cut
from keyserver.openpgp.keyring import Splitter
from support.openpgp import new_key

KEYRINGS = ("debian-keyring.gpg", "debian-maintainers.gpg", "debian-nonupload.gpg", "debian-role-keys.gpg")
"""Debian's keyrings (package debian-keyring)."""

MB = 1_000_000
_CLEANED = 20.0  # seconds that a hostile input may take to be answered, one way or another


def debian(world: World) -> list[Row]:
    """Processor time to clean each certificate of Debian's keyrings, in this process."""
    setting = world.setting
    octets = list(_debian())[:: setting.scaled(4, 1)]
    if not octets:
        setting.tell("no /usr/share/keyrings/debian-*.gpg (Debian package debian-keyring): their rows are left out")
        return []
    now = int(time.time())
    openpgp.clean(octets[0], now)
    times = []
    for one in octets:
        began = time.process_time()
        openpgp.clean(one, now)
        times.append(1000 * (time.process_time() - began))
    workload = f"cleaning a certificate of Debian's keyrings ({len(octets):,}): processor time"
    return [
        Row(f"{workload}, median", OURS, Figure(percentile(times, 0.5), "ms", most=1.5)),
        Row(
            f"{workload}, p99", OURS, Figure(percentile(times, 0.99), "ms", most=10), note=f"worst {max(times):.1f} ms"
        ),
    ]


def memory(world: World) -> list[Row]:
    """Resident memory after each hostile input, default limits, nothing pinned."""
    worst, highest = (0, ""), 0
    with ExitStack() as stack:
        service, upstream, _ = _fresh(world.setting, stack, "hostile")
        for name, made in hostile.all_inputs().items():
            upstream.put(made.fingerprint, made.octets)
            with _Peak(service) as peak:
                status, took = _asked(service, made.fingerprint)
            after = service.running.memory()
            upstream.put(made.fingerprint, b"")
            worst, highest = max(worst, (after, name)), max(highest, peak.most)
            world.setting.tell(
                f"hostile: {name} ({len(made.octets) / MB:.1f} MB): {status} in {took:.2f} s, "
                f"then {after / MB:.0f} MB (at most {peak.most / MB:.0f})"
            )
    note = f"most after: {worst[1]}; at most {highest / MB:.0f} MB while one was cleaned"
    workload = f"memory of all processes after each of {len(hostile.INPUTS)} hostile inputs"
    return [Row(workload, OURS, Figure(worst[0] / MB, "MB", most=250), note=note)]


def waiting(world: World) -> list[Row]:
    """The longest time that a hit waits while a hostile certificate of 1 MiB is cleaned; nothing pinned."""
    setting = world.setting
    tries = setting.scaled(2, 8)
    worst, took = [], []
    with ExitStack() as stack:
        service, upstream, hit = _fresh(setting, stack, "waiting")
        path = lookup(hit.fingerprint)
        _asked(service, "0" * 40)  # the first miss loads what misses need
        quiet = Client(Wanted(service.port, 1.5, 1, [path], pause=0.001)).result().hit_worst
        for number in range(tries):
            key = new_key(seed=f"waited for {number}")
            made = Made(hostile.false_signatures(key), key.fingerprint)
            upstream.put(made.fingerprint, made.octets)
            client = Client(Wanted(service.port, 1.5, 1, [path], pause=0.001))
            time.sleep(0.3)
            took.append(_asked(service, made.fingerprint)[1])
            worst.append(client.result().hit_worst)
    note = f"worst of {len(worst)}, each taking {1000 * percentile(took, 0.5):.0f} ms; without it {quiet:.1f} ms"
    workload = "longest wait of a hit while 1 MiB of false signatures is cleaned"
    return [Row(workload, OURS, Figure(max(worst), "ms", most=20), note=note)]


def _debian() -> Iterator[bytes]:
    """Every certificate of the keyrings that are here."""
    for name in KEYRINGS:
        file = Path("/usr/share/keyrings") / name
        if file.exists():
            splitter = Splitter(16 << 20)
            pieces = [*splitter.feed(file.read_bytes()), *splitter.end()]
            yield from (piece.octets for piece in pieces if isinstance(piece, Cut))


def _fresh(setting: Setting, stack: ExitStack, name: str) -> tuple[Service, Scripted, Made]:
    """A service of its own with one key in it, warm, and an upstream without delay."""
    folder = setting.place(name)
    anywhere = Cpus(frozenset(), frozenset())
    upstream = Scripted(stack, setting.folder / f"{name}-upstream", 0, anywhere.load)
    hit = make("hit", 5145)
    fill(folder, [hit])
    service = Service(stack, folder, upstream.url, anywhere.server, setting.settings)
    service.warm([lookup(hit.fingerprint)])
    return service, upstream, hit


def _asked(service: Service, fingerprint: str) -> tuple[int, float]:
    """The status that a miss ends with, and seconds."""
    began = time.monotonic()
    status, _ = service.get(lookup(fingerprint))
    if status == 500:  # by the deadline; the search goes on behind it, and the next look waits for its end
        while status == 500 and time.monotonic() - began < _CLEANED:
            time.sleep(0.5)
            status, _ = service.get(lookup(fingerprint))
    return status, time.monotonic() - began


class _Peak:
    """Watches the memory of a service while a block runs."""

    def __init__(self, service: Service) -> None:
        self._running = service.running
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most = 0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, self._running.memory())
