"""The history: what it costs a miss, and questions to one of very many events."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from bench.certificates import Made, many
from bench.figures import OURS, Figure, Row, cpu_ratio, percentile, row
from bench.misses import AT_ONCE, each_once
from bench.service import UPSTREAM, Service, database, fill
from bench.world import DELAY, World
from keyserver.model import Kind
from keyserver.query import name_of
from keyserver.store.sqlite.session import keyed

OFF = f"{OURS}: no history"
KNOWN = 1000  # cached certificates; a tenth of the events is theirs
OTHERS = 1_000_000  # that others are of, at most
LOOKS = 200  # of each kind in a round
_SPAN = 365 * 86400  # seconds that the events are spread over
_SETTINGS = {"history.keep": '"3650d"', "history.max_size": '"1 TiB"', "cache.ttl": '"999d"'}  # nothing goes
_COPIES = 10  # past ones of each cached certificate


def miss_cpu(world: World) -> list[Row]:
    """Processor time of a miss with a history and without one, both on SQLite."""
    setting, cpus = world.setting, world.setting.cpus.server
    each = setting.scaled(50, 300)
    servers: dict[str, Service] = {}
    paths = [f"/pks/lookup?op=get&search=0x{m.fingerprint}" for m in world.misses(each * (setting.rounds + 1), "noted")]
    with ExitStack() as stack:
        for name, settings in ((OURS, {}), (OFF, {"history.keep": '"0"'})):
            place = setting.place(f"noted-{len(servers)}")
            servers[name] = Service(stack, place, world.upstream.url, cpus, {**settings, **setting.settings})
        _until_off(servers[OFF])
        loads = each_once(world, {**servers}, paths, each)
    figure = Figure(cpu_ratio(loads, OURS, OFF), "× the CPU without a history", most=1.05)
    workload = f"misses, {AT_ONCE} at once, upstream of {DELAY * 1000:.0f} ms: CPU of all processes"
    return [row(workload, OURS, loads[OURS], figure), row(workload, OFF, loads[OFF])]


def _until_off(service: Service) -> None:
    """Until nothing is recorded, which begins with the first tidying. Raises RuntimeError where that does not come."""
    for _ in range(600):
        with closing(sqlite3.connect(database(service.folder))) as db:
            if not db.execute("SELECT active FROM history").fetchone()[0]:
                return
        time.sleep(0.1)
    raise RuntimeError("the history is not off")


def questions(world: World) -> list[Row]:
    """What was answered at a time, and what changed, asked by the API one at a time on a kept connection."""
    setting = world.setting
    count = setting.events or setting.scaled(100_000, 1_000_000)
    folder, made = setting.place("history"), many("noted-", KNOWN)
    with ExitStack() as stack:
        began = time.monotonic()
        fill(folder, made)
        with ExitStack() as first:
            _service(world, first, folder)  # the settings are on record
        since = int(time.time()) - _SPAN
        _load(database(folder), made, count, since)
        size = database(folder).stat().st_size / 1e9
        setting.tell(f"{count:,} events, {size:.1f} GB, made in {time.monotonic() - began:.0f} s")
        asking = _Asking(_service(world, stack, folder), made, since)
        times, cpu = asking.rounds(setting.rounds)
    found = []
    for kind, each in times.items():
        workload = f"{kind}, {count:,} events"
        p50, p99 = percentile(each, 0.5), percentile(each, 0.99)
        found.append(
            Row(f"{workload}: median", OURS, Figure(p50, "ms", most=20.0), p50=p50, p99=p99, cpu=1e6 * cpu[kind])
        )
        found.append(Row(f"{workload}: p99", OURS, Figure(p99, "ms", most=100.0)))
    return found


def _service(world: World, stack: ExitStack, folder: Path) -> Service:
    setting = world.setting
    settings = {**_SETTINGS, **setting.settings}
    return Service(stack, folder, world.upstream.url, setting.cpus.server, settings)


def _load(path: Path, made: Sequence[Made], count: int, since: int) -> None:
    """So many events between that time and now, numbered in their order; a word of the upstream for each cached
    certificate's address, and for a tenth as many questions as there are events that nobody knows."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("cache_size=-1000000", "synchronous=OFF", "journal_mode=OFF", "temp_store=MEMORY"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    index = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'event_entry'").fetchone()[0]
    db.execute("BEGIN")
    db.execute("DROP INDEX event_entry")
    db.execute("DELETE FROM event WHERE number > 0")
    db.execute("UPDATE event SET at = ?1, last = ?1", (since - 1,))
    db.execute("UPDATE past_settings SET at = ?", (since - 1,))
    others = min(OTHERS, count // 10)
    db.execute("CREATE TEMP TABLE one (number INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL)")
    db.executemany("INSERT INTO one (fingerprint) VALUES (?)", [(one.fingerprint,) for one in made])
    series = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
    db.execute(f"INSERT INTO one (fingerprint) {series} SELECT hex(randomblob(20)) FROM n", (others,))
    db.execute(
        "INSERT INTO event (at, last, what, fingerprint, kind, source, origin, cached)"
        f" {series}, t AS (SELECT i, ?2 + i * {_SPAN} / ?1 AS at FROM n)"
        " SELECT t.at, t.at, CASE WHEN i % 3 THEN 'renewed' ELSE 'merged' END, one.fingerprint, 'openpgp', 'keyserver',"
        " ?3, t.at FROM t JOIN one ON one.number ="
        f" CASE WHEN i % 10 THEN {KNOWN} + 1 + (i * 7919) % ?4 ELSE 1 + (i / 10) % {KNOWN} END",
        (count, since, UPSTREAM, others),
    )
    (key,) = db.execute("SELECT key FROM history").fetchone()
    now, rng = int(time.time()), random.Random(count)
    words = [(keyed(key, name_of(Kind.OPENPGP, "addr", m.addresses[0])), UPSTREAM, since, now, "found") for m in made]
    words += [(rng.randbytes(16), UPSTREAM, since + n % _SPAN, now, "absent") for n in range(count // 10)]
    db.executemany("INSERT OR REPLACE INTO word VALUES (?, ?, ?, ?, ?, NULL)", sorted(words))
    for number, one in enumerate(made):
        digest, events = number.to_bytes(16, "big"), [count * n // _COPIES for n in range(_COPIES)]
        db.execute("INSERT INTO past_copy VALUES (?, ?)", (digest, one.octets))
        db.executemany(
            "INSERT INTO past_span VALUES (?, 'keyserver', ?, ?, ?)",
            [(one.fingerprint, UPSTREAM, event, digest) for event in events],
        )
        changed = [since + _SPAN * n // _COPIES + number for n in range(_COPIES)]
        db.executemany(
            "INSERT INTO event (at, last, what, kind, fingerprint, address, facts)"
            " VALUES (?1, ?1, 'replaced', 'openpgp', ?2, ?3, ?4)",
            [(at, one.fingerprint, one.addresses[0], _facts(at)) for at in changed],
        )
    db.execute(index)
    given = "(SELECT seq FROM sqlite_sequence WHERE name = 'event')"
    db.execute(f"UPDATE history SET events = (SELECT count(*) FROM event) - {given}")
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    db.close()


def _facts(at: int) -> str:
    return json.dumps({"view": "default", "old": "0" * 40, "since": at - 1})


@dataclass(frozen=True, slots=True)
class _Asking:
    """An administrator who asks about cached certificates, each time about another."""

    service: Service
    made: Sequence[Made]
    since: int

    def rounds(self, rounds: int) -> tuple[Mapping[str, list[float]], Mapping[str, float]]:
        """Milliseconds of each answer, by kind; and seconds of processor time of one. The first round warms."""
        rng, times, cpu = random.Random(rounds), dict[str, list[float]](), dict[str, list[float]]()
        connection = HTTPConnection("127.0.0.1", self.service.admin_port, timeout=60)
        headers = {"Authorization": f"Bearer {self.service.token}"}
        for number in range(rounds + 1):
            for kind, paths in self._paths(rng).items():
                before, each = self.service.running.cpu(), list[float]()
                for path in paths:
                    began = time.perf_counter()
                    connection.request("GET", path, headers=headers)
                    reply = connection.getresponse()
                    octets = reply.read()
                    each.append(1000 * (time.perf_counter() - began))
                    _check(path, reply.status, octets)
                if number:
                    times.setdefault(kind, []).extend(each)
                    cpu.setdefault(kind, []).append((self.service.running.cpu() - before) / len(paths))
        connection.close()
        return times, {kind: median(each) for kind, each in cpu.items()}

    def _paths(self, rng: random.Random) -> dict[str, list[str]]:
        some = [rng.choice(self.made) for _ in range(LOOKS)]
        return {
            "what was answered at a time": [
                f"/api/v1/lookup?q={one.addresses[0]}&at={self.since + rng.randrange(_SPAN // 10, _SPAN)}"
                for one in some
            ],
            "history of an address": [f"/api/v1/history?q={one.addresses[0]}" for one in some],
            "history of a certificate": [f"/api/v1/history?q={one.fingerprint}" for one in some],
            "the latest of the history": ["/api/v1/history"] * LOOKS,
        }


def _check(path: str, status: int, octets: bytes) -> None:
    """Raises RuntimeError for another answer than the one that is measured."""
    answer = json.loads(octets) if status == 200 else {}
    if answer.get("state") != "found" and not answer.get("events"):
        raise RuntimeError(f"{path}: {status} {octets[:300]!r}")
