"""What an administrator at work costs the hits beside, and what open streams and the page's first view take."""

from __future__ import annotations

import gzip
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection

from bench.figures import OURS, Figure, Load, Row, contest, p99_ratio, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.service import Service, fill, lookup
from bench.upstream import Scripted
from bench.world import World

STREAMS = 32
SLOW = 4.0  # seconds that the upstream of the streams takes: so they are open most of the time
_PAUSE = 0.02  # between two looks of somebody who does not pause: a browser and a hand take longer
_TERMS = ("of-a-thousand-1", "example", "nobody.at.all", "00", "of-a-thousand-777")


@dataclass
class _Visitor:
    """A browser's connection to the admin listener."""

    service: Service
    events: int = 0
    asked: int = 0
    failed: list[str] = field(default_factory=list)

    def get(self, path: str, each: Callable[[bytes], None] = lambda _line: None) -> bytes:
        """One answer; `each` line of it as it comes."""
        connection = HTTPConnection("127.0.0.1", self.service.admin_port, timeout=60)
        headers = {"Authorization": f"Bearer {self.service.token}", "Accept-Encoding": "gzip"}
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        if reply.status != 200:
            self.failed.append(f"{path}: {reply.status}")
        lines = []
        for line in reply:
            each(line)
            lines.append(line)
        connection.close()
        self.asked += 1
        return b"".join(lines)

    def stream(self, address: str) -> None:
        """A lookup as it happens."""

        def count(line: bytes) -> None:
            self.events += line.startswith(b"event:")

        self.get(f"/api/v1/lookup/stream?q={address}", count)


def _streaming(visitor: _Visitor, numbers: Iterator[int]) -> None:
    """Watch one lookup of an address that was never asked for."""
    visitor.stream(f"slow{next(numbers)}@absent.example")


@contextmanager
def _visiting(work: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Each in a thread, again and again, until the block ends."""
    over = threading.Event()

    def again(one: Callable[[], None]) -> None:
        while not over.is_set():
            one()

    threads = [threading.Thread(target=again, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def beside(world: World) -> list[Row]:
    """Hits while an administrator searches and streams without pause."""
    setting, service = world.setting, world.service
    path = lookup(world.one.fingerprint)
    service.warm([path])
    load = Wrk(setting.place("wrk-admin"), [path], connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    visitor, number = _Visitor(service), iter(range(1 << 30))

    def search() -> None:
        for term in _TERMS:
            visitor.get(f"/cache?q={term}")
            visitor.get("/")
            time.sleep(_PAUSE)

    def stream() -> None:
        visitor.stream(f"beside{next(number)}@absent.example")
        time.sleep(_PAUSE)

    def disturbed() -> Load:
        with _visiting([search, stream]):
            return load(service.port, service.running)

    rounds = contest(
        {"alone": lambda: load(service.port, service.running), "beside": disturbed}, setting.rounds, warm=["beside"]
    )
    workload = f"hits beside an administrator who searches and streams, {BUSY} connections"
    note = f"{visitor.asked / (setting.rounds + 1) / setting.seconds:.0f} pages and lookups a second"
    if visitor.failed:
        note += f"; {len(visitor.failed)} failed, such as {visitor.failed[0]}"
    rate = Figure(ratio(rounds, "beside", "alone"), "× hits alone", least=0.9)
    late = Figure(p99_ratio(rounds, "beside", "alone"), "× hits alone", most=1.5)
    return [
        row(workload, OURS, rounds["beside"], rate, note),
        Row(f"{workload}: p99", OURS, late),
        row(workload, f"{OURS}: hits alone", rounds["alone"]),
    ]


def streams(world: World) -> list[Row]:
    """Processor time with 32 open streams."""
    setting = world.setting
    with ExitStack() as stack:
        folder = setting.place("streams")
        upstream = Scripted(stack, folder / "upstream", SLOW, setting.cpus.load)
        fill(folder, [world.one])
        service = Service(stack, folder, upstream.url, setting.cpus.server, setting.settings)
        visitors = [_Visitor(service) for _ in range(STREAMS)]
        number = iter(range(1 << 30))
        work = [partial(_streaming, one, number) for one in visitors]
        seconds = 2 * SLOW if setting.quick else 5 * SLOW
        with _visiting(work):
            time.sleep(SLOW / 2)
            before, begun, events = service.running.cpu(), time.monotonic(), sum(v.events for v in visitors)
            time.sleep(seconds)
            used, passed = service.running.cpu() - before, time.monotonic() - begun
            events = sum(v.events for v in visitors) - events
    failed = sum(len(v.failed) for v in visitors)
    note = f"{events / passed:.0f} events/s, {sum(v.asked for v in visitors)} lookups"
    note += f"; {failed} failed" if failed else ""
    figure = Figure(100 * used / passed, "% of a processor", most=5.0)
    return [Row(f"{STREAMS} open streams", OURS, figure, note=note)]


def weight(world: World) -> list[Row]:
    """What a browser loads before it shows the overview for the first time."""
    visitor = _Visitor(world.service)
    page = visitor.get("/")
    shown = gzip.decompress(page) if page.startswith(b"\x1f\x8b") else page
    assets = sorted(set(re.findall(rb'(?:src|href)="(/static/[^"]+)"', shown)))
    octets = [len(page), *(len(visitor.get(asset.decode())) for asset in assets)]
    figure = Figure(sum(octets) / 1000, "KB", most=60.0)
    return [Row("the page's first view with all assets, compressed", OURS, figure, note=f"{len(assets)} assets")]
