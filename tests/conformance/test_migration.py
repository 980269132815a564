"""A database of an older release is brought forward: same contents, whatever interrupts it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from keyserver.changes import Changes
from keyserver.model import Kind, Selection, Source, Voucher
from keyserver.store.sqlite import SqliteStore, migration, schema
from keyserver.store.sqlite.session import connect, run
from support.listed import listed
from tests.conformance.conftest import HYGIENE, Made, addr, said

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000
OLD = 2
"""The version before listings had indexes of their own."""

TABLES = ("entry", "copy", "name", "revocation", "record", "block", "deletion", "change", "tally")
NEW_COUNTS = "what LIKE 'upstream %' OR what LIKE 'text index%' OR what IN ('held', 'approved')"


def store_on(path: Path) -> SqliteStore:
    return SqliteStore(path, HYGIENE, Changes(), 1 << 30)


async def fill(store: SqliteStore, many: int) -> None:
    """Entries of every source, held and approved ones, with and without addresses, and some that are gone."""
    for start in range(0, many, 100):
        finds = []
        for n in range(start, min(many, start + 100)):
            texts = (f"Ünï {n} <u{n}@d{n % 7}.example>", f"second <a{n}@z.example>") if n % 5 else ("nobody",)
            made = Made(n, texts, ("r",) if n % 11 == 0 else (), kind=Kind.X509 if n % 6 == 0 else Kind.OPENPGP)
            source = (Source.KEYSERVER, Source.MAILFLOW, Source.LOCAL)[n % 3]
            origin = {Source.KEYSERVER: f"up {n % 2}", Source.MAILFLOW: f"d{n % 7}.example"}.get(
                source, "administrator"
            )
            behind = (Voucher(f"u{n}@d{n % 7}.example", held=n % 2 == 0, approved=n % 4 == 0, seen_at=NOW),)
            finds.append(made.find(source, origin, vouchers=behind if source is Source.MAILFLOW else ()))
        await store.put(finds, [said(addr(f"u{start}@d0.example"), True, NOW)], await store.begin(), NOW + start)
    await store.block(Made(3).fingerprint, NOW)
    await store.delete(Made(5).fingerprint, NOW)
    await store.purge(Selection(domain="d4.example"), NOW)


async def an_old_one(new: Path, old: Path) -> None:
    """What `new` holds, in a file as release `OLD` has left it."""
    schema.create_file(old)
    db = await connect(old, writes=True)
    await run(db, lambda c: migration.migrate(c, old, schema.STEPS[:OLD]))
    await db.close()
    with contextlib.closing(sqlite3.connect(old)) as plain:
        plain.execute("ATTACH ? AS new", (str(new),))
        for table in TABLES:
            columns = ", ".join(row[1] for row in plain.execute(f"PRAGMA main.table_info({table})"))
            plain.execute(f"DELETE FROM main.{table}")
            plain.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
        plain.execute(f"DELETE FROM main.tally WHERE {NEW_COUNTS}")
        plain.execute("DELETE FROM main.sqlite_sequence")
        plain.execute("INSERT INTO main.sqlite_sequence SELECT * FROM new.sqlite_sequence")
        plain.commit()


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that says something, and the schema."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        found = {table: sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in TABLES}
        found["tally"] = [row for row in found["tally"] if row[1]]
        found["schema"] = sorted(db.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall(), key=repr)
        found["version"] = db.execute("PRAGMA user_version").fetchall()
    return found


@pytest.fixture
async def both(tmp_path: Path) -> tuple[Path, Path]:
    """A database of this release, and the same as the older one has left it."""
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    store = store_on(new)
    await store.open()
    await fill(store, 600)
    await store.close()
    await an_old_one(new, old)
    return new, old


async def test_what_an_older_release_left_is_as_if_this_one_had_written_it(both: tuple[Path, Path]) -> None:
    new, old = both
    store = store_on(old)
    await store.open()
    stats, entries = await store.stats(), await listed(store)
    text = await listed(store, Selection(text="ünï 138"))
    await store.close()
    assert contents(old) == contents(new)
    assert len(entries) == sum(stats.entries.values())
    assert stats.held and stats.approved and sum(stats.upstreams.values()) == stats.entries["keyserver"]
    assert [e.identities for e in text] == [("second <a138@z.example>", "Ünï 138 <u138@d5.example>")]


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlite3
from keyserver.store.sqlite import migration
migration.BATCH = 100
def migrate(path, left):
    db = sqlite3.connect(path, isolation_level=None)
    def count(sql):
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    db.set_trace_callback(count)
    migration.migrate(db, path)
    print("done", left, flush=True)
for path, left in zip(sys.argv[1::2], sys.argv[2::2]):
    if not os.fork():
        migrate(Path(path), int(left))
        os._exit(0)
    os.wait()
"""


def migrated_until_killed(statements: Mapping[Path, int]) -> str:
    """What processes said, one for each file, that were killed before they ran so many statements; the logs are left
    as they were."""
    words = [str(word) for pair in statements.items() for word in pair]
    command = [sys.executable, "-c", KILLED, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True).stdout


async def test_kill_9_at_any_point_costs_at_most_a_step(both: tuple[Path, Path], tmp_path: Path) -> None:
    new, old = both
    wanted = contents(new)
    whole = tmp_path / "whole.db"
    shutil.copy(old, whole)
    statements = 10_000 - int(migrated_until_killed({whole: 10_000}).split()[1])
    assert statements > 40, "steps and batches"
    assert contents(whole) == wanted
    versions = set()
    killed = {tmp_path / f"killed-{point}.db": point for point in range(2, statements, 8)}
    for path in killed:
        shutil.copy(old, path)
    assert migrated_until_killed(killed) == ""
    for path, point in killed.items():
        with contextlib.closing(sqlite3.connect(path)) as db:
            versions.add(db.execute("PRAGMA user_version").fetchone()[0])
        store = store_on(path)
        await store.open()
        await store.close()
        assert contents(path) == wanted, point
    assert versions >= set(range(OLD, len(schema.STEPS))), "it was killed in every step"


async def test_going_over_all_entries_goes_on_where_it_was_left(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, old = both
    monkeypatch.setattr(migration, "BATCH", 100)
    db = await connect(old, writes=True)
    batches: list[str] = []

    def broken(c: sqlite3.Connection, most: int) -> None:
        def count(sql: str) -> None:
            batches.extend([sql] if sql.startswith("UPDATE entry SET address") else [])

        c.set_trace_callback(count)
        c.set_progress_handler(lambda: len(batches) > most, 1)
        try:
            migration.migrate(c, old)
        finally:
            c.set_progress_handler(None, 0)
            c.set_trace_callback(None)

    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await run(db, lambda c: broken(c, 3))
    first = len(batches)
    batches.clear()
    await run(db, lambda c: broken(c, 1000))
    await db.close()
    assert (first, len(batches)) == (4, 3), "three of six batches were done, and are not done again"


async def test_a_large_one_says_what_is_done_to_it(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, old = both
    monkeypatch.setattr(migration, "TOLD", 100)
    monkeypatch.setattr(migration, "BATCH", 10)
    with caplog.at_level(logging.WARNING):
        store = store_on(old)
        await store.open()
        await store.close()
    said_so = [record.getMessage() for record in caplog.records if record.name == "keyserver.store"]
    steps = [line.partition(" of ")[0].rpartition(" ")[2] for line in said_so if "step" in line]
    assert steps == [str(number) for number in range(3, len(schema.STEPS) + 1)]
    assert any(line.startswith("200 ") for line in said_so)
    caplog.clear()
    store = store_on(old)
    await store.open()
    await store.close()
    assert not caplog.records
