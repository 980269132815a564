"""Local certificates that are asked for again beside hot hits, at the pace of a hundred thousand a day."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.certificates import many
from bench.figures import OURS, Figure, Load, Row, contest, cpu_ratio, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.service import Service, database, fill, lookup
from bench.world import World
from keyserver.model import Source

A_DAY = 100_000  # certificates
RATE = 2  # questions in a second that the upstream is asked at most; a day's are 1.16
ALONE = f"{OURS}: nothing is asked again"
ROUND = 20  # seconds: what has its turn is asked for every ten
_SPAN = 4.9  # seconds, in which as many are asked as the rate allows in five
_DAY = 86400


def beside(world: World) -> list[Row]:
    """As many certificates in an hour, which is the shortest interval, as are asked for in an hour of such a day."""
    setting = world.setting
    count, interval = A_DAY // 24, _DAY // 24
    made, paths = many("lasting-", count), [lookup(world.one.fingerprint)]
    load = Wrk(setting.place("wrk-lasting"), paths, connections=BUSY, seconds=ROUND, cpus=setting.cpus.load)
    filled, services = setting.place("lasting"), dict[str, Service]()
    fill(filled, [world.one])
    fill(filled, made, source=Source.LOCAL)
    with ExitStack() as stack:
        url, asked = stack.enter_context(_upstream({one.fingerprint: one.octets for one in made}))
        for name, seconds in ((OURS, interval), (ALONE, 30 * _DAY)):
            folder = setting.place(f"lasting-{len(services)}")
            shutil.copy(database(filled), database(folder))
            settings = {"policy.revocation_interval": f'"{seconds}s"', **setting.settings}
            keys = f'rate = "{RATE}/s"\n'
            services[name] = Service(stack, folder, url, setting.cpus.server, settings, keys=keys)
            services[name].warm(paths * 3)
        time.sleep(ROUND)  # until the round has its place, and the first have been asked for
        began, before = time.monotonic(), len(asked)

        def one(name: str) -> Load:
            return load(services[name].port, services[name].running)

        rounds = contest({name: partial(one, name) for name in services}, min(setting.rounds, 4))
        lasted, times = time.monotonic() - began, asked[before:]
    figure = Figure(1 / cpu_ratio(rounds, OURS, ALONE), "× the hits of a second of CPU", least=0.99)
    pace = len(times) / lasted
    note = f"{ratio(rounds, OURS, ALONE):.3f} × the rate; {pace:.2f} asked a second ({A_DAY / _DAY:.2f} are a day's)"
    workload = f"hot hits beside {count:,} local certificates that are asked for again in {interval:,} s"
    most = max((sum(t <= other < t + _SPAN for other in times) for t in times), default=0)
    return [
        row(workload, OURS, rounds[OURS], figure, note),
        row(workload, ALONE, rounds[ALONE]),
        Row("questions to their upstream in five seconds", OURS, Figure(most / (5 * RATE), "× its rate", most=1.0)),
    ]


@contextmanager
def _upstream(bodies: Mapping[str, bytes]) -> Iterator[tuple[str, list[float]]]:
    """Its URL, and when it was asked: a thread of ours, as it is asked seldom."""
    asked: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(time.monotonic())
            body = bodies.get(self.path.rpartition("search=0x")[2].partition("&")[0])
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "application/pgp-keys")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"hkp://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
