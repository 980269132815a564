"""Hits beside the peers: one key, a thousand, a connection per request; and known negatives beside hits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.figures import OURS, Figure, Row, compared, contest, ratio, row
from bench.load import Wrk
from bench.peers import CONSTANT, NGINX, NO_PUSH, SKS, TUNED, VARNISH
from bench.service import lookup
from bench.world import World

BUSY = 32  # connections


def one_key(world: World) -> list[Row]:
    """Kept connections, one key of 5 KiB."""
    workload = f"one key of {len(world.body):,} octets, {BUSY} kept connections"
    asked = {NGINX: 2.0, TUNED: 1.3, CONSTANT: 0.75}
    return _beside(world, workload, [world.one.fingerprint], asked, (NGINX, TUNED, CONSTANT, VARNISH, SKS))


def thousand_keys(world: World) -> list[Row]:
    """Kept connections, 1,000 keys of 8 KiB."""
    workload = f"1,000 keys of 8 KiB, {BUSY} kept connections"
    searches = [made.fingerprint for made in world.thousand]
    return _beside(world, workload, searches, {NGINX: 1.8}, (NGINX, TUNED, NO_PUSH, VARNISH))


def connections(world: World) -> list[Row]:
    """A connection per request, as gpg makes them."""
    workload = f"a connection per request, HTTP/1.0 as gpg, {BUSY} at once"
    rows = (NGINX, TUNED, VARNISH)
    return _beside(world, workload, [world.one.fingerprint], {NGINX: 0.95}, rows, as_gpg=True)


def negatives(world: World) -> list[Row]:
    """Addresses known to be absent, beside hits."""
    setting, service = world.setting, world.service
    hit, absent = lookup(world.one.fingerprint), [lookup(address) for address in world.absent]
    service.warm([hit])
    service.warm(absent, expected=404)
    wrk = partial(Wrk, connections=BUSY, seconds=setting.seconds, cpus=setting.cpus.load)
    hits, misses = wrk(setting.place("wrk-hit"), [hit]), wrk(setting.place("wrk-absent"), absent)
    known = f"{len(absent):,} known-absent addresses"
    rounds = contest(
        {
            "hot hits": lambda: hits(service.port, service.running),
            known: lambda: misses(service.port, service.running, expect_errors=True),
        },
        setting.rounds,
        warm=("hot hits", known),
    )
    figure = Figure(ratio(rounds, known, "hot hits"), "× hot hits", least=1.0)
    workload = f"{known}, {BUSY} kept connections"
    return [row(workload, OURS, rounds[known], figure), row(workload, f"{OURS}: hot hits", rounds["hot hits"])]


def _beside(
    world: World,
    workload: str,
    searches: Sequence[str],
    asked: dict[str, float],
    others: Sequence[str],
    as_gpg: bool = False,
) -> list[Row]:
    """Us and some peers, everything warm, in interleaved rounds."""
    setting, service = world.setting, world.service
    paths = [lookup(search) for search in searches]
    load = Wrk(
        setting.place(f"wrk-{len(searches)}-{as_gpg}"),
        paths,
        connections=BUSY,
        seconds=setting.seconds,
        cpus=setting.cpus.load,
        as_gpg=as_gpg,
    )
    service.warm(paths)
    contestants = {OURS: partial(load, service.port, service.running)}
    for name in others:
        if name in world.peers:
            peer = world.peers[name]
            if name not in (SKS, CONSTANT):
                peer.warm(paths)
            contestants[name] = partial(load, peer.port, peer.running)
    return compared(workload, contest(contestants, setting.rounds, warm=(OURS,)), asked)
