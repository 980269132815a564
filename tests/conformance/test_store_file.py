"""The SQLite file itself: modes, versions, damage, full disks, killed processes, query plans."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from keyserver.changes import Changes
from keyserver.model import Change, Kind, Selection, Source, Voucher
from keyserver.store.base import Store, Stored, StoreError, StoreRefused
from keyserver.store.sqlite import SqliteStore, migration, reading, schema
from keyserver.store.sqlite import log as sqlite_log
from keyserver.store.sqlite import store as sqlite_store
from keyserver.store.sqlite.near import ELSEWHERE, Near
from keyserver.store.sqlite.session import connect, run
from support.listed import listed
from tests.conformance.conftest import HYGIENE, Backend, Made, addr, said

ROOT = Path(__file__).parents[2]
ALICE = Made(1, ("Alice <alice@example.org>",))
NOW = 1_800_000_000

PREAMBLE = """
import asyncio, sys
from pathlib import Path
from keyserver.changes import Changes
from keyserver.model import Selection, Source
from keyserver.store.base import Stored, StoreError, StoreRefused
from keyserver.store.sqlite import SqliteStore, migration, reading, schema
from tests.conformance.conftest import HYGIENE, Made, said
store = SqliteStore(Path(sys.argv[1]), HYGIENE, Changes(), 1 << 30)
"""


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    return Backend("sqlite", tmp_path)


def child(script: str, path: Path) -> subprocess.Popen[str]:
    """A process of its own that runs `script`, with `store` on `path` at hand."""
    command = [sys.executable, "-c", PREAMBLE + script, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def fill(store: SqliteStore, count: int = 20, ballast: int = 4000) -> None:
    finds = [Made(n, (f"u{n}@example.org",), ballast=ballast).find() for n in range(count)]
    await store.put(finds, [said(Made(n).fpr, True, NOW) for n in range(count)], await store.begin(), NOW)


# --- the file


async def test_directory_and_file_are_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "deep" / "keyserver.db"
    before = os.umask(0)
    try:
        store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
        await store.open()
        await fill(store)
        files = list(path.parent.iterdir())
        await store.close()
    finally:
        os.umask(before)
    assert len(files) == 3  # the log and its index too
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in [path])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_open_to_others_is_closed_to_them(backend: Backend) -> None:
    async with backend.opened():
        pass
    backend.path.chmod(0o644)
    async with backend.opened():
        assert stat.S_IMODE(backend.path.stat().st_mode) == 0o600


async def test_the_file_has_what_the_design_counts_on(backend: Backend) -> None:
    async with backend.opened():
        with contextlib.closing(sqlite3.connect(backend.path)) as db:
            facts = {p: db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_size", "journal_mode", "user_version")}
            assert facts == {"page_size": 8192, "journal_mode": "wal", "user_version": len(schema.STEPS)}


@pytest.mark.parametrize("where", ["/proc/keyserver/keyserver.db", "/dev/null/keyserver.db", "/"])
async def test_an_impossible_place_is_refused_in_one_line(where: str) -> None:
    store = SqliteStore(Path(where), HYGIENE, Changes(), 1 << 30)
    with pytest.raises(StoreRefused, match="cannot open the cache database") as refused:
        await store.open()
    assert "\n" not in str(refused.value)
    await store.close()


# --- versions


async def test_an_older_version_is_led_forward_and_keeps_its_rows(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
    steps = (
        *schema.STEPS,
        ("ALTER TABLE entry ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",),
        ("CREATE TABLE t (x)",),
    )
    db = await connect(backend.path, writes=True)
    await run(db, lambda c: migration.migrate(c, backend.path, steps))
    assert await run(db, lambda c: c.execute("SELECT DISTINCT colour FROM entry").fetchall()) == [("red",)]
    assert await run(db, lambda c: c.execute("PRAGMA user_version").fetchone()[0]) == len(schema.STEPS) + 2
    await db.close()


async def test_before_senders_were_kept_nothing_was_approved_and_what_was_held_waits_on(backend: Backend) -> None:
    backend.path.parent.mkdir()
    schema.create_file(backend.path)
    db = await connect(backend.path, writes=True)
    await run(db, lambda c: migration.migrate(c, backend.path, schema.STEPS[:1]))
    rows = (("mailflow", "a.example", 3, 0, 1), ("mailflow", "b.example", 1, 1, 0), ("keyserver", "one", 1, 1, 0))
    for n, (source, origin, rank, approved, held) in enumerate(rows, 1):
        made = Made(n, ("ann@a.example", "bea@b.example", "eve@evil.a.example"))
        values = (n, made.fingerprint, source, origin, rank, approved, held, json.dumps(made.texts))
        sql = "INSERT INTO entry VALUES (?, ?, 'openpgp', ?, ?, 7, ?, ?, ?, 0, '', ?, '')"
        await run(db, lambda c, values=values, sql=sql: c.execute(sql, values))  # type: ignore[misc]
        await run(db, lambda c, n=n, made=made: c.execute("INSERT INTO copy VALUES (?, ?)", (n, made.octets)))  # type: ignore[misc]
        names = [(name, rank, n) for name in made.names]
        sql = "INSERT INTO name VALUES (?, ?, 7, ?)"
        await run(db, lambda c, names=names, sql=sql: c.executemany(sql, names))  # type: ignore[misc]
    await db.close()
    async with backend.opened() as (store, _):
        entries = {e.origin: e for e in await listed(store)}
        assert entries["a.example"].vouchers == (Voucher("ann@a.example", held=True, seen_at=7),)
        assert entries["b.example"].vouchers == entries["one"].vouchers == ()
    with contextlib.closing(sqlite3.connect(backend.path)) as plain:
        found = plain.execute("SELECT e.rank, e.approved, e.held, min(n.rank), max(n.rank)"
                              " FROM entry AS e JOIN name AS n ON n.entry = e.id GROUP BY e.id").fetchall()  # fmt: skip
    assert found == [(3, 0, 1, 3, 3), (3, 0, 0, 3, 3), (2, 0, 0, 2, 2)]


async def test_a_step_that_fails_leaves_the_older_version(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
    db = await connect(backend.path, writes=True)
    with pytest.raises(sqlite3.OperationalError):
        await run(db, lambda c: migration.migrate(c, backend.path, (*schema.STEPS, ("DROP TABLE record", "nonsense"))))
    await db.close()
    async with backend.opened() as (store, _):
        assert (await store.stats()).records_found == 20


@pytest.mark.parametrize("in_log", [False, True])
async def test_a_newer_version_is_refused_untouched(backend: Backend, in_log: bool) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
    with contextlib.closing(sqlite3.connect(backend.path)) as db:
        db.execute(f"PRAGMA user_version={len(schema.STEPS) + 1}")
        db.commit()
        if in_log:  # another process has it open, and its change stands in the log only
            await _refused(backend, "newer release")
    before = backend.path.read_bytes()
    await _refused(backend, "newer release")
    assert backend.path.read_bytes() == before
    assert [file.name for file in backend.path.parent.iterdir()] == [backend.path.name]


async def test_another_programs_database_is_refused_untouched(backend: Backend) -> None:
    backend.path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(backend.path)) as db:
        db.execute("CREATE TABLE bookmarks (url)")
        db.commit()
    before = backend.path.read_bytes()
    await _refused(backend, "another program")
    assert backend.path.read_bytes() == before


async def _refused(backend: Backend, why: str) -> None:
    store, _ = backend.make()
    try:
        with pytest.raises(StoreRefused, match=why) as refused:
            await store.open()
    finally:
        await store.close()
    assert "\n" not in str(refused.value)


# --- damage


@pytest.mark.parametrize("damage", [b"this is no database, but somebody's diary\n" * 500, b"short"])
async def test_a_file_that_is_no_database_is_refused_untouched(backend: Backend, damage: bytes) -> None:
    backend.path.parent.mkdir()
    backend.path.write_bytes(damage)
    await _refused(backend, "not an SQLite database, or damaged")
    assert backend.path.read_bytes() == damage


async def test_a_schema_that_is_damaged_is_refused_untouched(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
    octets = bytearray(backend.path.read_bytes())
    octets[100:8192] = os.urandom(8092)
    backend.path.write_bytes(octets)
    await _refused(backend, "cannot open the cache database")
    assert backend.path.read_bytes() == octets


async def test_damage_further_inside_says_so_and_deletes_nothing(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store, 500)
    octets = bytearray(backend.path.read_bytes())
    rotten = range(100 * 8192, len(octets), 15 * 8192)
    for start in rotten:
        octets[start : start + 8192] = b"\xff" * 8192
    backend.path.write_bytes(octets)
    async with backend.opened() as (store, _):
        failed = good = 0
        for n in range(500):
            try:
                good += len((await store.look(Made(n).fpr)).entries)
            except StoreError as error:
                assert str(backend.path) in str(error)
                failed += 1
        assert failed
        assert good  # what can be read is answered
        assert "nothing was deleted" in (await store.stats()).healthy
    after = backend.path.read_bytes()
    assert len(after) >= len(octets)
    assert all(after[start : start + 8192] == b"\xff" * 8192 for start in rotten)


# --- a disk that is full, a file that may not be written


async def test_a_full_disk_fails_puts_and_nothing_else_and_heals_by_itself(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[aiosqlite.Connection] = []

    async def connecting(path: Path, *, writes: bool, immutable: bool = False) -> aiosqlite.Connection:
        connection = await connect(path, writes=writes, immutable=immutable)
        writers.extend([connection] if writes else [])
        return connection

    monkeypatch.setattr(sqlite_store, "connect", connecting)
    async with backend.opened() as (store, heard):
        (writer,) = writers
        await fill(store)
        heard.clear()
        await _pages(writer, "page_count")
        with pytest.raises(StoreError, match="full"):
            for n in range(100, 200):
                await store.put([Made(n, ballast=50_000).find()], [], await store.begin(), NOW)
        assert (await store.look(Made(3).fpr)).entries
        assert await store.begin() == 0
        assert "full" in (await store.stats()).healthy
        certificates = (await store.stats()).certificates
        assert (
            len([c for c in heard if not c.everything]) == certificates - 20
        )  # nothing was published that is not there
        await _pages(writer, str(2**30))
        assert (await store.stats()).healthy == ""  # without waiting for the next put
        assert await store.put([ALICE.find(origin="x")], [], await store.begin(), NOW) == (Stored.NEW,)


async def _pages(writer: aiosqlite.Connection, most: str) -> None:
    """Let the file grow to `most` pages and no further."""

    def limit(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0] if most == "page_count" else most
        db.execute(f"PRAGMA max_page_count={pages}")

    await run(writer, limit)


FULL = """
import resource
async def main():
    await store.open()
    begun = await store.begin()
    done = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, resource.RLIM_INFINITY))
    while not (healthy := (await store.stats()).healthy):  # which may make room once, by shortening the log
        try:
            await store.put([Made(done, ballast=20_000).find()], [], begun, 1)
            done += 1
        except StoreError as error:
            refused = error
    print("refused:", refused)
    assert 50 < done < 1000, done
    for n in range(done):
        assert (await store.look(Made(n).fpr)).entries, n
    print("healthy:", healthy)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await store.put([Made(5000).find()], [], begun, 1) == (Stored.NEW,)
    print("healed:", repr((await store.stats()).healthy), done)
    await store.close()
asyncio.run(main())
"""


def test_a_file_that_cannot_grow_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "k.db"
    out, err = child(FULL, path).communicate(timeout=60)
    assert err == ""
    refused, healthy, healed = out.splitlines()
    assert refused.startswith("refused: ")
    assert "cannot write" in healthy
    assert healed.startswith("healed: ''")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM entry").fetchone()[0] == int(healed.split()[-1]) + 1


READ_ONLY = """
import concurrent.futures.thread, os
async def main():
    if os.geteuid() == 0:  # to root no file is read-only
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        await store.open()
    except StoreRefused as error:
        print("refused:", error)
        return
    print("looked:", len((await store.look(Made(3).fpr)).entries))
    try:
        await store.put([Made(900).find()], [], await store.begin(), 1)
    except StoreError as error:
        print("put:", error)
    await store.purge_expired({}, 0, 10, 1)  # nothing to be written is no sign that writing works
    print("healthy:", (await store.stats()).healthy)
    await store.close()
asyncio.run(main())
"""


def as_somebody(script: str, path: Path) -> list[str]:
    """The lines that a script prints."""
    out, err = child(script, path).communicate(timeout=60)
    assert err == ""
    return out.splitlines()


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that another user can reach (pytest's own is closed to them)."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


async def test_a_file_that_may_only_be_read_still_answers(public: Path) -> None:
    path = public / "k.db"
    store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
    await store.open()
    await fill(store)
    await store.close()
    path.chmod(0o444)
    looked, put, healthy = as_somebody(READ_ONLY, path)
    assert looked == "looked: 1"
    assert "readonly" in put
    assert "readonly" in healthy


async def test_a_directory_that_may_not_be_written_is_refused_in_one_line(public: Path) -> None:
    public.chmod(0o555)
    (line,) = as_somebody(READ_ONLY, public / "k.db")
    assert line.startswith("refused: cannot open the cache database")
    assert "Permission denied" in line
    public.chmod(0o777)


async def test_a_read_only_directory_still_answers(public: Path) -> None:
    """As on a read-only file system: SQLite can make none of the files that it wants beside the database."""
    path = public / "k.db"
    store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
    await store.open()
    await fill(store)
    await store.close()
    path.chmod(0o444)
    public.chmod(0o555)
    try:
        looked, put, healthy = as_somebody(READ_ONLY, path)
    finally:
        public.chmod(0o777)
    assert looked == "looked: 1"
    assert "readonly" in put
    assert "cannot write" in healthy


async def test_a_read_only_directory_with_a_log_is_refused(public: Path) -> None:
    """What a crash left in the log belongs to the database: without it, it may be torn."""
    path = public / "k.db"
    store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
    await store.open()
    await fill(store)
    log = path.with_name("k.db-wal")
    octets, kept = path.read_bytes(), log.read_bytes()
    await store.close()
    path.write_bytes(octets)
    log.write_bytes(kept)
    path.chmod(0o444)
    log.chmod(0o444)
    public.chmod(0o555)
    try:
        (line,) = as_somebody(READ_ONLY, path)
    finally:
        public.chmod(0o777)
    assert line.startswith("refused: cannot open the cache database")
    assert "k.db-wal is in use or left of a crash" in line


# --- deleted or replaced while it is open


@pytest.mark.parametrize("what", ["k.db", "k.db-wal"])
@pytest.mark.parametrize("how", ["deleted", "replaced", "moved away and back"])
async def test_a_database_that_is_gone_takes_nothing(tmp_path: Path, what: str, how: str) -> None:
    """Every way of writing refuses; nothing that was refused is there when the file comes back."""
    path, new = tmp_path / "k.db", Made(900)
    store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
    await store.open()
    await fill(store)
    begun = await store.begin()
    file, away = tmp_path / what, tmp_path / "away"
    if how == "deleted":
        file.unlink()
    else:
        file.rename(away)
    if how == "replaced":
        file.write_bytes(away.read_bytes())
    for write in (
        store.put([new.find()], [], begun, NOW),
        store.delete(Made(3).fingerprint, NOW),
        store.block(Made(3).fingerprint, NOW),
        store.purge(Selection(source=Source.KEYSERVER), NOW),
        store.purge_all(NOW),
        store.poll(),
    ):
        with pytest.raises(StoreError, match=r"was (deleted|replaced) while it was open"):
            await write
    assert "while it was open" in (await store.stats()).healthy
    assert (await store.look(Made(3).fpr)).entries, "lookups go on"
    if how == "moved away and back":
        away.rename(file)
        assert (await store.stats()).healthy == ""
        assert not (await store.look(new.fpr)).entries
        assert await store.put([new.find()], [], begun, NOW) == (Stored.NEW,)
    await store.close()


# --- kill -9

PUTTING = """
async def main():
    await store.open()
    begun = await store.begin()
    async def one(n):
        find = Made(n, (f"u{n}@example.org",), ("r",), ballast=3000).find()
        await store.put([find], [said(Made(n).fpr, True, 1)], begun, 1)
        print(n, flush=True)
        if n % 7 == 0:
            await store.delete(Made(n).fingerprint, 1)
            print(-n, flush=True)
    for n in range(1, 100_000, 4):
        await asyncio.gather(*(one(n + k) for k in range(4)))
asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 30, 120])
async def test_kill_9_loses_nothing_that_put_returned_for(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "k.db"
    process = child(PUTTING, path)
    assert process.stdout is not None
    said_so = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    rest, err = await asyncio.to_thread(process.communicate)
    assert err == ""
    done = [int(line) for line in (*said_so, *rest.split("\n")) if line.endswith("\n") or line.strip("-").isdigit()]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    store = SqliteStore(path, HYGIENE, Changes(), 1 << 30)
    await store.open()
    deleted = {-n for n in done if n < 0}
    assert deleted or lines == 1
    for n in done:
        shelf = await store.certificate(Made(abs(n)).fingerprint)
        assert shelf.revocations
        assert bool(shelf.entries) or n % 7 == 0
        if abs(n) in deleted:
            assert not shelf.entries
    stats = await store.stats()
    assert stats.certificates == len(await listed(store)) == stats.entries[Source.KEYSERVER]
    await store.close()


# --- the log


async def write(store: Store, count: int, first: int = 0) -> AsyncIterator[None]:
    """Puts of some 150 KB of log each."""
    for n in range(first, first + count):
        await store.put([Made(n, (f"u{n}@example.org",), ballast=60_000).find()], [], await store.begin(), NOW)
        yield


def log_of(backend: Backend) -> tuple[int, int]:
    """Pages in the log and those of them that are in the file, too, after moving what can be moved."""
    with contextlib.closing(sqlite3.connect(backend.path)) as db:
        db.execute("SELECT count(*) FROM entry").fetchone()
        return tuple(db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1:])


async def test_the_writer_moves_no_log(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "ROWS", 1 << 30)
    async with backend.opened() as (store, _):
        size = backend.path.stat().st_size
        async for _ in write(store, 100):
            pass
        assert backend.path.stat().st_size == size
        assert Path(f"{backend.path}-wal").stat().st_size > 10 << 20


async def test_the_log_stays_bounded(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "MOST", 4 << 20)
    log = Path(f"{backend.path}-wal")
    async with backend.opened() as (store, _):
        sizes = [log.stat().st_size async for _ in write(store, 400)]  # 60 MB
    assert max(sizes) < 24 << 20


async def test_the_log_stays_bounded_under_large_puts_without_a_pause(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an import makes them: the writer is never idle, and each transaction takes longer than one waits for it."""
    monkeypatch.setattr(sqlite_log, "MOST", 2 << 20)
    log, sizes = Path(f"{backend.path}-wal"), []
    async with backend.opened() as (store, _):

        async def puts(first: int) -> None:
            for start in range(first, first + 8_000, 1_000):
                finds = [Made(n, ballast=4000).find() for n in range(start, start + 300)]
                await store.put(finds, [], 0, NOW)
                sizes.append(log.stat().st_size)

        await asyncio.gather(*map(puts, (0, 100_000, 200_000)))
    assert max(sizes) < 20 << 20, "72 MB were written"


async def test_a_log_that_a_reader_held_is_moved_when_it_lets_go(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_log, "MOST", 1 << 20)
    async with backend.opened() as (store, _):
        await fill(store, 1)
        reader = sqlite3.connect(backend.path)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entry").fetchone()
        async for _ in write(store, 120, 1):
            pass
        pages, moved = log_of(backend)
        assert moved < pages
        reader.close()
        async for _ in write(store, 120, 200):
            await asyncio.sleep(0.02)
            if log_of(backend)[0] < 200:
                break
        else:
            raise AssertionError("the log went on growing")


# --- speed by construction


async def test_each_lookup_is_an_index_seek(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
        db = await connect(backend.path, writes=False)
        for sql, values, seek in (
            (reading.CLAIMS, ("x", 9), "SEARCH n USING PRIMARY KEY (name=?)"),
            (reading.ENTRIES, ("x", 9), "SEARCH e USING INDEX entry_rank (fingerprint=?)"),
            (reading.REVOCATION, ("x",), "(fingerprint=?)"),
            (reading.RECORDS, ("x", 9), "SEARCH record USING PRIMARY KEY (name=?)"),
        ):
            rows = await run(db, lambda c, s=sql, v=values: c.execute(f"EXPLAIN QUERY PLAN {s}", v).fetchall())
            plan = [row[3] for row in rows]
            assert any(seek in step for step in plan), plan
            assert not any("SCAN" in step or "TEMP B-TREE" in step for step in plan), plan
        await db.close()


async def test_what_runs_in_the_background_reads_no_whole_table(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
        plans: list[str] = []

        def traced(db: sqlite3.Connection) -> None:
            statements: list[str] = []
            db.set_trace_callback(statements.append)
            reading.due(db, {"one": 5, None: 7}, 10)
            cutoffs = {(Source.KEYSERVER, "one"): 1, (Source.KEYSERVER, None): 2, (Source.MAILFLOW, None): 3}
            reading.expired(db, cutoffs, 4, 10)
            db.set_trace_callback(None)
            for sql in statements:
                if sql.startswith("SELECT"):
                    plans.extend(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))

        db = await connect(backend.path, writes=False)
        await run(db, traced)
        await db.close()
        assert len(plans) > 8
        assert not [step for step in plans if "TEMP B-TREE FOR ORDER BY" in step]
        assert not [step for step in plans if "SCAN" in step]


async def test_a_short_look_is_no_hop_and_a_long_one_is_one(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
        hops = 0
        original = aiosqlite.Connection._execute

        async def counted(*arguments: object) -> object:
            nonlocal hops
            hops += 1
            return await original(*arguments)

        monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
        assert (await store.look(addr("u3@example.org"))).entries
        assert hops == 0
        await store.put([ALICE.find()], [said(ALICE.fpr, True, 1)], 0, 1)
        assert hops == 1
        large = Made(90, ("large@example.org",), ballast=reading.SHORT.octets)
        many = [Made(n, ("many@example.org",)) for n in range(91, 91 + reading.SHORT.certificates)]
        several = [Made(99, ("several@example.org",)).find(origin=f"u{n}") for n in range(reading.SHORT.entries)]
        await store.put([made.find() for made in (large, *many)] + several, [], 0, 1)
        for who, entries in (("large", 1), ("many", len(many)), ("several", len(several))):
            hops = 0
            assert len((await store.look(addr(f"{who}@example.org"))).entries) == entries
            assert hops == 1


async def test_a_look_that_read_from_the_disk_sends_the_next_ones_to_their_thread(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await fill(store)
    near = Near(backend.path, lambda: 0)
    near.open(immutable=False)
    name = addr("u3@example.org")
    assert near.look(name) is not None
    assert near.look(name) is not None
    counts = iter((0, 8))
    slow = Near(backend.path, lambda: next(counts, 8))
    slow.open(immutable=False)
    assert slow.look(name) is not None
    assert [slow.look(name) for _ in range(ELSEWHERE)] == [None] * ELSEWHERE
    assert slow.look(name) is not None
    for one in (near, slow):
        one.close()


async def test_hygiene_runs_on_the_writers_thread_never_on_the_loops(backend: Backend) -> None:
    threads: list[str] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads.append(threading.current_thread().name)
            return function(*arguments)

        return noted

    own = HYGIENE[Kind.OPENPGP]
    names = ("merge", "revocations", "merge_revocations", "index")
    hygiene = {Kind.OPENPGP: replace(own, **{name: noting(getattr(own, name)) for name in names})}
    store = SqliteStore(backend.path, hygiene, Changes(), 1 << 30)
    await store.open()
    for revocation in ("r1", "r2"):
        find = Made(1, (f"{revocation}@example.org",), (revocation,)).find(replace=False)
        await store.put([find], [], 0, NOW)
    await store.close()
    assert len(threads) == 2 + 1 + 1 + 1  # revocations twice; merge, index of the merged copy, merge_revocations
    assert threading.main_thread().name not in threads


async def test_puts_that_wait_go_together_and_each_has_its_own_verdict(backend: Backend) -> None:
    """One of them cannot be written and one is refused: the others are there, and published before they return."""

    def read_badly(octets: bytes) -> bytes:
        if b"u7@" in octets:
            raise ValueError("this one")
        return own.revocations(octets)

    own, heard, changes = HYGIENE[Kind.OPENPGP], list[Change](), Changes()
    changes.subscribe(heard.append)
    store = SqliteStore(backend.path, {Kind.OPENPGP: replace(own, revocations=read_badly)}, changes, 1 << 30)
    await store.open()

    async def one(n: int) -> tuple[Stored, ...] | ValueError:
        made = Made(n, (f"u{n}@example.org",))
        try:
            verdict = await store.put([made.find()], [said(made.fpr, True, NOW)], 0, NOW)
        except ValueError as error:
            return error
        published = set().union(*(change.names for change in heard))
        assert verdict != (Stored.NEW,) or made.names <= published
        return verdict

    good = await asyncio.gather(*(one(n) for n in range(20, 50)))
    assert good == [(Stored.NEW,)] * 30
    assert len(heard) == 1, "those that waited went together"
    await store.delete(Made(9).fingerprint, NOW)
    mixed = await asyncio.gather(*(one(n) for n in range(20)))
    assert isinstance(mixed.pop(7), ValueError)
    assert mixed.pop(8) == (Stored.DELETED,)
    assert mixed == [(Stored.NEW,)] * 18
    assert (await store.stats()).certificates == 48
    assert (await store.stats()).healthy == ""
    task = asyncio.create_task(one(60))
    await asyncio.sleep(0)
    task.cancel()
    await store.close()  # what is under way is finished, whoever has gone
    async with backend.opened() as (again, _):
        assert (await again.look(Made(60).fpr)).entries


async def test_unknown_text_of_any_kind_harms_nothing(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        odd = Made(6, ("\udcff\x00 %'\";--", "Ünï <u@example.org>"))
        await store.put([odd.find(detail="\x00'")], [], 0, NOW)
        (entry,) = (await store.look(odd.fpr)).entries
        assert set(entry.identities) == set(odd.texts)
        assert await store.search("%'\";--", Kind.OPENPGP, 5) == (odd.fingerprint,)
        assert await store.search("'", Kind.X509, 5) == ()


# --- a newer rule of names


def as_an_older_release_left_it(path: Path) -> None:
    """No certificate of the file is indexed under an address."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM name WHERE instr(name, ':addr:')")
        db.execute("DELETE FROM tally WHERE what = 'rule of names'")
        db.execute("UPDATE entry SET identities = '[]', folded = ''")


async def test_entries_of_an_older_release_are_found_by_what_is_read_in_them_today(backend: Backend) -> None:
    """What comes once is indexed again at the start; what a keyserver sent, when it sends the same octets again."""
    kinds = {Source.LOCAL: 1, Source.MAILFLOW: 2, Source.KEYSERVER: 3}
    made = {source: Made(n, (f"u{n}@example.org",)) for source, n in kinds.items()}
    many = [Made(n, (f"u{n}@example.org",)).find(Source.LOCAL) for n in range(10, 260)]
    async with backend.opened() as (store, _):
        finds = [one.find(source) for source, one in made.items()]
        await store.put(finds + many, [], await store.begin(), NOW)
        before = [await store.look(one.fpr) for one in made.values()]
    as_an_older_release_left_it(backend.path)
    async with backend.opened() as (store, _):
        assert [await store.look(one.fpr) for one in made.values()] != before, "the listing's texts are gone"
        found = {s: len((await store.look(addr(f"u{n}@example.org"))).entries) for s, n in kinds.items()}
        assert found == {Source.LOCAL: 1, Source.MAILFLOW: 1, Source.KEYSERVER: 0}
        assert len((await store.look(addr("u259@example.org"))).entries) == 1
        again = made[Source.KEYSERVER].find(Source.KEYSERVER)
        assert await store.put([again], [], await store.begin(), NOW + 5) == (Stored.SAME,)
        (entry,) = (await store.look(addr("u3@example.org"))).entries
        assert entry.cached_at == NOW + 5
        found = await listed(store, Selection(source=Source.LOCAL, text="u1@example.org"))
        assert [e.fingerprint for e in found] == [made[Source.LOCAL].fingerprint]
        assert (await store.stats()).entries == {"local": 251, "mailflow": 1, "keyserver": 1}


async def test_names_are_gone_over_once_and_by_one_process_for_all(backend: Backend) -> None:
    one = Made(1, ("u1@example.org",))
    async with backend.opened() as (store, _):
        await store.put([one.find(Source.LOCAL)], [], await store.begin(), NOW)
    as_an_older_release_left_it(backend.path)
    async with backend.opened(), backend.opened() as (store, _):
        assert (await store.look(addr("u1@example.org"))).entries
    with contextlib.closing(sqlite3.connect(backend.path)) as db, db:
        db.execute("DELETE FROM name WHERE instr(name, ':addr:')")
    async with backend.opened() as (store, _):
        assert not (await store.look(addr("u1@example.org"))).entries, "done is done"
