"""Nodes on one PostgreSQL, on the same machine, beside one node with SQLite or alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from http.client import HTTPConnection
from statistics import median

from bench import rows
from bench.certificates import Made, many
from bench.child import Child
from bench.client import Client, Wanted
from bench.figures import OURS, Figure, Load, Row, contest, cpu_ratio, percentile, ratio, row
from bench.hits import BUSY
from bench.load import Wrk
from bench.misses import AT_ONCE, each_once
from bench.service import UPSTREAM, Service, fill, fill_store, lookup
from bench.world import DELAY, KEY, World
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.model import Change, Find, Kind, Source
from keyserver.query import name_of
from keyserver.store.postgres import PostgresStore

SQLITE, POSTGRES = f"{OURS}: SQLite", f"{OURS}: PostgreSQL"
RATE = 200  # looks per second
WRITERS = 16
UNSEEN = 1.0  # seconds after which what was deleted must not be answered anywhere
_LOAD = 200  # certificates in one put: it must end within the time that a store gives it
_ANALYZED = (2_000, 20_000, 200_000)  # certificates
_WEEK = 7 * 86400
_APART = 10_000_000  # numbers of the certificates of two writing processes


def hot_hits(world: World) -> list[Row]:
    """What memory answers does not touch the database."""
    setting, paths = world.setting, [lookup(world.one.fingerprint)]
    servers = _pair(world, "hot", [world.one])
    load = Wrk(setting.place("wrk-cluster"), paths, connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    for server in servers.values():
        server.warm(paths * 3)
    loads = contest(
        {name: partial(load, server.port, server.running) for name, server in servers.items()}, setting.rounds
    )
    figure = Figure(ratio(loads, POSTGRES, SQLITE), "× SQLite", least=0.97)
    return _both(f"one key of {KEY:,} octets, {BUSY} kept connections", loads, figure)


def known(world: World) -> list[Row]:
    """Hits that only the store knows: each certificate is asked for once."""
    setting = world.setting
    each = RATE * setting.seconds
    made = many("known-", each * (setting.rounds + 1), KEY)
    servers = _pair(world, "known", made)
    paths = [lookup(one.fingerprint) for one in made]
    turns = {name: iter(range(0, len(paths), each)) for name in servers}

    def ask(name: str) -> Load:
        start, server = next(turns[name]), servers[name]
        before = server.running.cpu()
        wanted = Wanted(server.port, 5.0 * setting.seconds, 8, (), paths[start : start + each], 1, rate=RATE)
        seen = Client(wanted, setting.cpus.load).result()
        cpu = server.running.cpu() - before
        return Load(seen.misses, seen.seconds, seen.miss_p50, seen.miss_p99, cpu, seen.errors)

    # connections and plans are made in the first round, which is not measured
    loads = contest({name: partial(ask, name) for name in servers}, setting.rounds, warm=tuple(servers))
    workload = f"hits of {KEY:,} octets known only to the store, {RATE}/s"
    ours = loads[POSTGRES]
    p50 = Figure(median(load.p50 for load in ours), "ms", most=3.0)
    p99 = Figure(median(load.p99 for load in ours), "ms", most=10.0)
    return [
        row(f"{workload}: p50", SQLITE, loads[SQLITE]),
        row(f"{workload}: p50", POSTGRES, ours, p50),
        row(f"{workload}: p99", POSTGRES, ours, p99),
    ]


def miss_cpu(world: World) -> list[Row]:
    """Processor time of the service, not of PostgreSQL, for a miss."""
    setting = world.setting
    each = setting.scaled(50, 300)
    servers = _pair(world, "miss", [world.one])
    paths = [lookup(made.fingerprint) for made in world.misses(each * (setting.rounds + 1), "cluster-miss")]
    loads = each_once(world, servers, paths, each)
    figure = Figure(cpu_ratio(loads, POSTGRES, SQLITE), "× SQLite's CPU", most=1.3)
    return _both(f"misses, {AT_ONCE} at once, upstream of {DELAY * 1000:.0f} ms: CPU of the service", loads, figure)


def deletes(world: World) -> list[Row]:
    """From the moment at which one node has said that it is deleted until another does not answer it any more."""
    setting = world.setting
    made = many("gone-", setting.scaled(20, 200))
    url = _filled(world, made)
    one, two = (_service(world, world.stack, f"delete-{name}", url) for name in ("one", "two"))
    times = []
    for here in made:
        two.warm([lookup(here.fingerprint)] * 2)
        times.append(1000 * _unseen(one, two, here.fingerprint))
    workload = "deleted on one node, still answered on another"
    figures = {"p50": (0.5, 20.0), "p99": (0.99, 300.0), "worst": (1.0, 1000 * UNSEEN)}
    return [
        Row(f"{workload}: {name}", POSTGRES, Figure(percentile(times, share), "ms", most=most))
        for name, (share, most) in figures.items()
    ]


def _unseen(one: Service, two: Service, fingerprint: str) -> float:
    """Seconds until it was last answered; 0 where it was not. Raises RuntimeError where that does not end."""
    deleting = HTTPConnection("127.0.0.1", one.admin_port, timeout=30)
    headers = {"Authorization": f"Bearer {one.token}", "Host": "localhost"}
    deleting.request("DELETE", f"/api/v1/cache/{fingerprint}?undo=0", headers=headers)
    reply = deleting.getresponse()
    reply.read()
    over = answered = time.perf_counter()
    if reply.status >= 400:
        raise RuntimeError(f"the delete was answered {reply.status}")
    deleting.close()
    asking = HTTPConnection("127.0.0.1", two.port, timeout=30)
    while True:
        asking.request("GET", lookup(fingerprint))
        reply = asking.getresponse()
        reply.read()
        if reply.status != 200:
            asking.close()
            return answered - over
        answered = time.perf_counter()
        if answered - over > 10 * UNSEEN:
            raise RuntimeError(f"{fingerprint} was deleted {answered - over:.1f} s ago, and is still answered")
        time.sleep(0.001)


def puts(world: World) -> list[Row]:
    """Writers of one process, and the same number in two; a node that only listens hears of every change."""
    setting = world.setting
    lost: list[int] = []

    def one(processes: int) -> Load:
        url = world.postgres.url(world.postgres.create(), loopback=True)
        seen = asyncio.run(write_all(url, processes, setting.seconds))
        lost.append(seen[1])
        return seen[0]

    single, double = f"{OURS}: one node", f"{OURS}: two nodes"
    loads = contest({single: partial(one, 1), double: partial(one, 2)}, setting.rounds)
    figure = Figure(ratio(loads, double, single), "× one node", least=0.8)
    workload = f"puts of small certificates, {WRITERS} writers"
    return [
        row(workload, single, loads[single]),
        row(workload, double, loads[double], figure),
        Row("changes that another node did not hear of", POSTGRES, Figure(sum(lost), "changes", most=0)),
    ]


async def write_all(url: str, processes: int, seconds: int) -> tuple[Load, int]:
    """The load of all writers, and how many changes a node beside them did not hear of."""
    heard: set[str] = set()

    def hear(change: Change) -> None:
        heard.update(name.rpartition(":")[2] for name in change.names)
        if change.everything:
            heard.add("everything")

    changes = Changes()
    changes.subscribe(hear)
    store = PostgresStore(url, rows.stand_ins(), changes, 1 << 40)
    await store.open()
    try:
        each = WRITERS // processes
        children = [
            Child(
                "bench.writer", {"url": url, "writers": each, "seconds": seconds, "first": 10_000_000 * n}, frozenset()
            )
            for n in range(processes)
        ]
        answers = [asyncio.create_task(asyncio.to_thread(child.answer)) for child in children]
        while not all(task.done() for task in answers):
            await store.poll()
            await asyncio.sleep(0.1)
        await store.poll()
        seen = [await task for task in answers]
    finally:
        await store.close()
    times = [t for one in seen for t in one["times"]]
    wrote = [number for n, one in enumerate(seen) for number in range(_APART * n, _APART * n + one["puts"])]
    lost = 0 if "everything" in heard else sum(rows.fingerprint(number) not in heard for number in wrote)
    took = max(one["seconds"] for one in seen)
    return Load(len(wrote), took, percentile(times, 0.5), percentile(times, 0.99)), lost


def million(world: World) -> list[Row]:
    """Looks at a steady rate into very many certificates, alone and while a tenth of them is purged."""
    count = world.setting.certificates or world.setting.scaled(30_000, 1_000_000)
    url = world.postgres.url(world.postgres.create(), loopback=True)
    began = time.monotonic()
    database = url.rpartition("/")[2]
    asyncio.run(load_many(url, count, lambda: world.postgres.sql("ANALYZE", database=database)))
    world.setting.tell(f"{count:,} certificates put in {time.monotonic() - began:.0f} s")
    world.postgres.sql("VACUUM ANALYZE", database=database)
    idle, busy, batches = asyncio.run(beside_purge(url, count, world.setting.seconds * world.setting.rounds))
    workload = f"a look into {count:,} certificates, {RATE}/s"
    p99, beside = percentile(idle, 0.99), percentile(busy, 0.99)
    purged = f"{count // 10:,} expired entries purged beside it"
    return [
        Row(f"{workload}: p99", POSTGRES, Figure(p99, "ms", most=10.0), p50=percentile(idle, 0.5), p99=p99),
        Row(
            f"{workload}, {purged}",
            POSTGRES,
            Figure(beside / p99, "× idle p99", most=2.0),
            p50=percentile(busy, 0.5),
            p99=beside,
            note=f"{len(busy):,} looks; batches: p99 {percentile(batches, 0.99):.0f} ms",
        ),
    ]


async def load_many(url: str, count: int, analyze: Callable[[], object]) -> None:
    """A tenth of them long ago. analyze: as autovacuum would within a minute or two; plans that were made for empty
    tables would read them whole until then."""
    store = PostgresStore(url, rows.stand_ins(), Changes(), 1 << 40)
    await store.open()
    now = int(time.time())

    try:
        for start in range(0, count, _LOAD):
            if start in _ANALYZED:
                await asyncio.to_thread(analyze)
            old = start >= count - count // 10
            numbers = range(start, min(start + _LOAD, count))
            finds = [Find(one, Source.KEYSERVER, UPSTREAM) for one in rows.certificates(numbers)]
            await store.put(finds, [], await store.begin(), now - _WEEK if old else now)
    finally:
        await store.close()


async def beside_purge(url: str, count: int, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of looks alone, of looks beside the purge, and of the purge's batches. The purge is in a process of
    its own."""
    store = PostgresStore(url, rows.stand_ins(), Changes(), 1 << 40)
    await store.open()
    try:
        await _looks(store, count, asyncio.create_task(asyncio.sleep(2)))  # connections, plans
        idle = await _looks(store, count, asyncio.create_task(asyncio.sleep(seconds)))
        child = Child("bench.writer", {"url": url, "purge": True, "before": int(time.time()) - _WEEK // 2}, frozenset())
        purging = asyncio.create_task(asyncio.to_thread(child.answer))
        busy = await _looks(store, count, purging)
        return idle, busy, (await purging)["times"]
    finally:
        await store.close()


async def _looks(store: PostgresStore, count: int, until: asyncio.Task[object]) -> list[float]:
    """Milliseconds of each look at RATE, from its due time, at certificates that stay."""
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def look(number: int, due: float) -> None:
        name = name_of(Kind.OPENPGP, "fpr", rows.fingerprint(number * 7919 % (count - count // 10)))
        found = await store.look(name)
        times.append(1000 * (loop.time() - due))
        if len(found.entries) != 1:
            raise RuntimeError(f"{name}: {len(found.entries)} entries")

    due, number, under_way = loop.time(), 0, set[asyncio.Task[None]]()
    while not until.done():
        under_way = {task for task in under_way if not task.done() or task.result()}
        under_way.add(asyncio.create_task(look(number, due)))
        number, due = number + 1, due + 1 / RATE
        await asyncio.sleep(due - loop.time())
    await asyncio.gather(*under_way)
    return times


def _pair(world: World, name: str, made: Sequence[Made]) -> dict[str, Service]:
    """A service with SQLite and one with PostgreSQL, both fresh, which know these certificates."""
    folder = world.setting.place(f"cluster-{name}-sqlite")
    fill(folder, made)
    sqlite = Service(world.stack, folder, world.upstream.url, world.setting.cpus.server, world.setting.settings)
    return {SQLITE: sqlite, POSTGRES: _service(world, world.stack, f"cluster-{name}-postgres", _filled(world, made))}


def _filled(world: World, made: Sequence[Made]) -> str:
    """The URL of a database that has these certificates."""
    url = world.postgres.url(world.postgres.create(), loopback=True)
    asyncio.run(fill_store(PostgresStore(url, hygiene_of(), Changes(), 1 << 40), made))
    return url


def _service(world: World, stack: ExitStack, name: str, url: str) -> Service:
    folder = world.setting.place(name)
    settings = {
        **world.setting.settings,
        "cache.database": f'"{url}"',
        "server.state_dir": f'"{folder}"',
        "server.node": f'"{name}"',
    }
    return Service(stack, folder, world.upstream.url, world.setting.cpus.server, settings)


def _both(workload: str, loads: Mapping[str, Sequence[Load]], figure: Figure) -> list[Row]:
    return [row(workload, SQLITE, loads[SQLITE]), row(workload, POSTGRES, loads[POSTGRES], figure)]
