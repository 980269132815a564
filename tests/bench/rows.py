"""The SQLite store with few rows and with very many: a look-up by fingerprint."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.figures import OURS, Figure, Row, percentile
from bench.world import World
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Certificate, Find, Kind, Name, Proof, Source, Validity
from keyserver.query import name_of
from keyserver.store.sqlite import SqliteStore

FEW = 10_000
_BATCH = 2_000
LOOKS = 3_000
_OCTETS = 400  # of each copy: small rows, so that a million of them are made in some minutes


def lookups(world: World) -> list[Row]:
    """Both stores looked into by turns, each warmed by as many looks before."""
    setting = world.setting
    many = setting.scaled(30_000, 1_000_000)
    times = asyncio.run(compare(setting.place("rows"), many, setting.rounds))
    ratios = [median(b) / median(a) for a, b in zip(times[FEW], times[many], strict=True)]
    workload = "look-up by fingerprint in the SQLite store, one thread hop included"
    figure = Figure(median(ratios), f"× {FEW:,} rows", most=3.0)
    flat = {rows: [t for one in rounds for t in one] for rows, rounds in times.items()}
    return [
        Row(
            workload,
            f"{OURS}: {rows:,} rows",
            figure if rows == many else None,
            None,
            percentile(t, 0.5),
            percentile(t, 0.99),
        )
        for rows, t in flat.items()
    ]


async def compare(folder: Path, many: int, rounds: int) -> dict[int, list[list[float]]]:
    """Milliseconds of each look, by rows and round."""
    stores = {rows: _store(folder / f"{rows}.db") for rows in (FEW, many)}
    times: dict[int, list[list[float]]] = {rows: [] for rows in stores}
    try:
        for rows, store in stores.items():
            await store.open()
            await _build(store, rows)
        for number in range(rounds + 1):
            for rows, store in stores.items():
                looked = await _look(store, rows, number)
                if number:  # the first round warms the system's cache
                    times[rows].append(looked)
    finally:
        for store in stores.values():
            await store.close()
    return times


async def build(path: Path, rows: int) -> None:
    """A database with so many entries."""
    store = _store(path)
    await store.open()
    try:
        await _build(store, rows)
    finally:
        await store.close()


def _store(path: Path) -> SqliteStore:
    return SqliteStore(path, stand_ins(), Changes(), 1 << 40)


def stand_ins() -> Mapping[Kind, Hygiene]:
    """By which a store takes stand-ins for certificates as they are."""
    own = replace(
        hygiene_of()[Kind.OPENPGP],
        merge=lambda copies, _: copies[0],
        revocations=lambda _: b"",
        merge_revocations=lambda a, _: a,
        index=_index,
    )
    return {Kind.OPENPGP: own}


async def _build(store: SqliteStore, rows: int) -> None:
    now = int(time.time())
    for start in range(0, rows, _BATCH):
        finds = [Find(c, Source.KEYSERVER, "bench") for c in certificates(range(start, min(rows, start + _BATCH)))]
        await store.put(finds, [], await store.begin(), now)


async def _look(store: SqliteStore, rows: int, seed: int) -> list[float]:
    chosen = random.Random(seed)
    times = []
    for _ in range(LOOKS):
        name = name_of(Kind.OPENPGP, "fpr", fingerprint(chosen.randrange(rows)))
        began = time.perf_counter()
        shelf = await store.look(name)
        times.append(1000 * (time.perf_counter() - began))
        if len(shelf.entries) != 1:
            raise RuntimeError(f"{name}: {len(shelf.entries)} entries")
    return times


def certificates(numbers: Sequence[int]) -> Iterator[Certificate]:
    """Stand-ins of the right shape: nothing but the store sees them."""
    for number in numbers:
        own = fingerprint(number)
        octets = own.encode() + bytes(_OCTETS - 40)
        yield Certificate(
            octets,
            Proof(
                kind=Kind.OPENPGP,
                version=4,
                fingerprint=own,
                key_id=own[-16:],
                algorithm=22,
                bits=255,
                created=0,
                expires=None,
                validity=Validity.VALID,
                can_encrypt=True,
                user_ids=(),
                subkeys=(),
                strong=frozenset(),
                weak=frozenset(),
                index=_index(octets)[0],
                newest=0,
                turns=None,
            ),
        )


def fingerprint(number: int) -> str:
    """Of the stand-in of this number."""
    return hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest().upper()


def _index(octets: bytes) -> tuple[frozenset[Name], tuple[str, ...]]:
    """Fingerprint, key ID and an address, as of a common certificate."""
    own = octets[:40].decode()
    address = f"{own[:12].lower()}@bench.example"
    names = {"fpr": own, "kid": own[-16:], "addr": address}
    return frozenset(name_of(Kind.OPENPGP, type_, value) for type_, value in names.items()), (f"<{address}>",)
