"""The administrator's lists over a million entries of real size: processor time of a step, first and deep ones."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.figures import OURS, Figure, Row, percentile
from bench.world import World
from keyserver.changes import Changes
from keyserver.model import Kind, Selection, Source, Voucher
from keyserver.query import name_of
from keyserver.store.listing import Budget, Filter, Lifetimes, Listing, Place, Sort, Status
from keyserver.store.sqlite import SqliteStore, schema
from keyserver.store.sqlite.listing import page
from keyserver.store.sqlite.migration import migrate
from keyserver.store.vouchers import written

OCTETS = 5 << 10
_BEFORE = 2  # version of the schema
_ASKED = 40  # of each list, from different places
_DAY = 86400
_TERMS = Lifetimes(_DAY, 180 * _DAY, {"third": 2 * _DAY}, 3600)
_FIRST = ("anna", "bob", "carla", "dmitri", "eva", "farid", "gül", "hugo", "ines", "jörg")
_LAST = ("fischer", "garcia", "huang", "ivanova", "jansen", "kowalski", "larsen", "müller", "novak", "okafor")


def lists(world: World) -> list[Row]:
    """Every list of the page, each from the start and from places spread over it."""
    setting = world.setting
    entries = setting.scaled(20_000, 1_000_000)
    path = setting.place("listings") / "cache.db"
    build(path, entries, setting.tell)
    setting.tell(f"{entries:,} entries of {OCTETS:,} octets, {path.stat().st_size / 1e9:.1f} GB")
    times = measured(path, entries)
    flat = [t for each in times.values() for t in each]
    workload = f"lists of {entries:,} entries, first and deep pages, processor time"
    worst = max(times, key=lambda name: percentile(times[name], 0.99))
    found = [
        Row(f"{workload}: median", OURS, Figure(median(flat), "ms", most=20.0), p50=median(flat)),
        Row(f"{workload}: p99", OURS, Figure(percentile(flat, 0.99), "ms", most=100.0), note=f"worst: {worst}"),
    ]
    for name, each in times.items():
        found.append(Row(f"list: {name}", OURS, None, p50=median(each), p99=percentile(each, 0.99)))
    return found


def build(path: Path, entries: int, tell: Callable[[str], None] = lambda _: None) -> None:
    """A cache of three upstreams and of mail, with domains of every size, as the release before these lists has left
    it; brought forward, and its texts indexed."""
    schema.create_file(path)
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, schema.STEPS[:_BEFORE])
    for pragma in ("cache_size=-1000000", "synchronous=OFF", "journal_mode=OFF", "foreign_keys=OFF"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    began = time.monotonic()
    db.execute("BEGIN")
    _load(db, entries)
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode=WAL").fetchall()
    db.close()
    tell(f"loaded in {time.monotonic() - began:.0f} s")
    began, worked = time.monotonic(), time.process_time()
    asyncio.run(_bring_forward(path, tell))
    tell(
        f"forward and indexed in {time.monotonic() - began:.0f} s, {time.process_time() - worked:.0f} s of a processor"
    )


async def _bring_forward(path: Path, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    store = SqliteStore(path, {}, Changes(), 1 << 40)
    await store.open()
    tell(f"opened in {time.monotonic() - began:.0f} s")
    while await store.index_text(1000):
        pass
    await store.close()


def _load(db: sqlite3.Connection, entries: int) -> None:
    now, chosen = int(time.time()), random.Random(0)
    block = chosen.randbytes(2 * OCTETS)
    names = []
    for id_ in range(1, entries + 1):
        identity, address = _somebody(id_, chosen)
        fingerprint = hashlib.sha1(b"%d" % id_, usedforsecurity=False).hexdigest().upper()
        at, share, vouchers = now - 2 * _DAY + id_ * 2 * _DAY // entries, chosen.random(), ""
        source, origin, rank = "keyserver", ("first", "second", "third")[id_ % 3], 2
        if share > 0.995:
            source, origin, rank = "local", "administrator", 0
        elif share > 0.9:
            source, origin, rank = "mailflow", address.rpartition("@")[2], 3
            vouchers = written([Voucher(address, authenticated=share < 0.99, held=share > 0.985, seen_at=1)])
        db.execute(
            "INSERT INTO entry VALUES (?, ?, 'openpgp', ?, ?, ?, ?, 0, ?, 0, '', ?, ?, ?)",
            (id_, fingerprint, source, origin, at, rank, source == "mailflow" and share > 0.985,
             json.dumps([identity]), identity.casefold(), vouchers or "[]"),
        )  # fmt: skip
        start = chosen.randrange(OCTETS)
        db.execute("INSERT INTO copy VALUES (?, ?)", (id_, block[start : start + OCTETS]))
        for type_, value in (("fpr", fingerprint), ("kid", fingerprint[-16:]), ("addr", address)):
            names.append((name_of(Kind.OPENPGP, type_, value), rank, at, id_))
    names.sort()
    db.executemany("INSERT INTO name VALUES (?, ?, ?, ?)", names)
    for source in Source:
        db.execute("INSERT INTO tally SELECT ?1, count(*) FROM entry WHERE source = ?1", (str(source),))


def _somebody(number: int, chosen: random.Random) -> tuple[str, str]:
    """An identity: a quarter in one domain, the rest in many, some of them rare."""
    first, last = chosen.choice(_FIRST), chosen.choice(_LAST)
    domain = "large.example" if chosen.random() < 0.27 else f"d{int(50_000 * chosen.random() ** 2)}.example"
    plain = hashlib.sha1(b"%d" % number, usedforsecurity=False).hexdigest()[:6]
    address = f"{first}.{last}.{plain}@{domain}"
    return f"{first.title()} {last.title()} <{address}>", address


@dataclass(frozen=True)
class _Asked:
    what: Filter = field(default_factory=Filter)
    sort: Sort = Sort.CACHED
    descending: bool = True


def _questions(now: int) -> Mapping[str, _Asked]:
    def of(**words: object) -> Filter:
        return Filter(Selection(**words))  # type: ignore[arg-type]

    found = {f"by {sort}": _Asked(sort=sort, descending=sort is Sort.CACHED) for sort in Sort}
    found |= {f"by {sort}, the other way": _Asked(sort=sort, descending=sort is not Sort.CACHED) for sort in Sort}
    for name, what in {
        "an upstream": of(upstream="second"),
        "mail flow": of(source=Source.MAILFLOW),
        "a rare domain": of(domain="d49999.example"),
        "a common domain": of(domain="d1.example"),
        "the largest domain": of(domain="large.example"),
        "an absent domain": of(domain="absent.example"),
        "text: a person": of(text="anna.fischer.00"),
        "text: common": of(text="larsen"),
        "text: absent": of(text="nobody.at.all"),
        "text: absent, of common pieces": of(text="fischer.larsen.anna"),
        "text: two characters": of(text="ev"),
        "fingerprint's beginning": of(text="4a0c"),
        "held": Filter(held=True),
        "blocked": Filter(status=Status.BLOCKED),
        "X.509": of(kind=Kind.X509),
        "expired": Filter(status=Status.EXPIRED),
        "fresh, not of an upstream": Filter(unwanted=Selection(upstream="first"), status=Status.FRESH),
        "expires in the next hour": Filter(expires_from=now, expires_before=now + 3600),
        "cached in one hour": Filter(cached_from=now - _DAY, cached_before=now - _DAY + 3600),
        "text in the largest domain": of(text="novak", domain="large.example"),
        "common text that a filter leaves nothing of": Filter(Selection(text="example"), held=True, approved=True),
        "nothing, gone over": Filter(unwanted=Selection(kind=Kind.OPENPGP)),
    }.items():
        for sort in (Sort.CACHED, Sort.EXPIRES, Sort.ADDRESS):
            found[f"{name}, by {sort}"] = _Asked(what, sort, sort is Sort.CACHED)
    return found


def measured(path: Path, entries: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each step, by list."""
    now, chosen = int(time.time()), random.Random(1)
    times: dict[str, list[float]] = {}
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        for name, asked in _questions(now).items():
            listing = Listing(asked.what, now, _TERMS, asked.sort, asked.descending)
            starts = [None, *(_place(db, listing, chosen.randrange(1, entries)) for _ in range(_ASKED))]
            page(db, listing, None, Budget(time.monotonic))  # what is not in the system's cache is not meant
            times[name] = [_step(db, listing, after) for after in starts]
    finally:
        db.close()
    return times


def _step(db: sqlite3.Connection, listing: Listing, after: Place | None) -> float:
    began = time.thread_time()
    page(db, listing, after, Budget(time.monotonic))
    return 1000 * (time.thread_time() - began)


def _place(db: sqlite3.Connection, listing: Listing, number: int) -> Place:
    """Where an entry of that number stands."""
    columns = "source, origin, at, id, address, fingerprint"
    row = db.execute(f"SELECT {columns} FROM entry WHERE id >= ?", (number,)).fetchone()
    source, origin, at, id_, address, fingerprint = row
    ttl = _TERMS.of(Source(source), origin)
    places: Mapping[Sort, Place] = {
        Sort.CACHED: (at, id_),
        Sort.EXPIRES: (2**53 if ttl is None else at + ttl, at, id_),
        Sort.ADDRESS: (address, id_),
        Sort.SOURCE: (source, origin, at, id_),
        Sort.FINGERPRINT: (fingerprint, source, origin),
    }
    return places[listing.sort]
