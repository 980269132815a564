"""Databases of every schema version that has landed, made by the releases that had them: they open, are brought
forward, answer as before, and work on. `scripts/keep-database` has made them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import lzma
import sqlite3
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from databases.asking import CONFIG, VIEWS, Answers, answers
from databases.make import FACTS, KEPT
from keyserver.app import opened
from keyserver.app.context import CannotStart
from keyserver.app.listening import Listeners, open_all
from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.model import Entry, Failed
from keyserver.store.base import Store
from keyserver.store.opening import open_store
from keyserver.store.postgres import schema as postgres_schema
from keyserver.store.sqlite import migration
from keyserver.store.sqlite import schema as sqlite_schema
from support.listed import listed
from support.postgres import fresh, shared
from support.running import read_reply
from support.upstreams import Told

LATEST = {"sqlite": len(sqlite_schema.STEPS), "postgres": len(postgres_schema.STEPS)}
NEVER_LANDED = {("sqlite", 4), ("sqlite", 5), ("sqlite", 6)}  # they came in one commit with 7
KEPT_ONES = sorted(
    (kind, int(number)) for kind, _, number in (file.stem.partition("-") for file in KEPT.glob("*.json"))
)
NOT_OF_AN_ADDRESS = {("sqlite", 1)}
"""It was not kept of whom mail had shown a certificate, and for which address it was approved: what came by mail waits
to be seen or approved again, so that the search for it goes on, and fails."""


Schema: TypeAlias = list[tuple[str, ...]]


class Still(Clocks):
    """Stands where it is, whatever a database's clock says."""

    def heard(self, at: float, counted: float) -> None:
        """Not ours."""


@asynccontextmanager
async def brought_here(kind: str, version: int, folder: Path) -> AsyncIterator[str]:
    """The kept database, as the release that made it left it: its URL."""
    if kind == "sqlite":
        path = folder / "keyserver.db"
        path.write_bytes(lzma.decompress((KEPT / f"sqlite-{version}.db.xz").read_bytes()))
        yield f"sqlite:///{path}"
    else:
        with fresh() as name:
            shared().load(name, gzip.decompress((KEPT / f"postgres-{version}.sql.gz").read_bytes()))
            yield shared().url(name)


@asynccontextmanager
async def serving(url: str, folder: Path, at: int) -> AsyncIterator[tuple[Store, list[str]]]:
    """This release on the database at that time, with its upstream gone: its store, and what it said when ready."""
    tree = tomllib.loads(CONFIG.format(port=9)) | {
        "server": {"workers": 0, "state_dir": str(folder)},
        "hkp": {"listen": ["127.0.0.1:0"]},
        "ldap": {"listen": []},
        "admin": {"listen": ""},
    }
    tree["cache"]["database"] = url
    clocks = Still(lambda: at, asyncio.get_running_loop().time, lambda: 0.0)
    config = Config.model_validate(tree)
    ready: list[str] = []
    async with opened(config, clocks, lambda section, spec: Told(spec, otherwise=Failed("gone"))) as parts:
        listeners = Listeners(clocks.monotonic)
        await open_all(parts, listeners, ready.append)
        try:
            yield parts.store, ready
        finally:
            await listeners.close()


async def said(ready: list[str], terms: list[str]) -> Answers:
    """What the listeners say of each term."""
    ends = [await asyncio.open_connection("127.0.0.1", int(line.rpartition(":")[2])) for line in ready]

    async def get(target: str, listener: int) -> tuple[int, dict[str, str], bytes]:
        reader, writer = ends[listener]
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await read_reply(reader)

    try:
        return await answers(get, terms)
    finally:
        for _, writer in ends:
            writer.close()


def schema_of(kind: str, url: str) -> Schema:
    """Every table with its columns, every index, every function and trigger."""
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            columns = (
                "SELECT m.type, m.name, m.tbl_name, group_concat(c.name || c.type || c.'notnull')"
                " FROM sqlite_master AS m LEFT JOIN pragma_table_info(m.name) AS c"
                " GROUP BY m.type, m.name ORDER BY m.type, m.name"
            )
            return [tuple(map(str, row)) for row in db.execute(columns)]
    name = url.partition("?")[0].rpartition("/")[2]
    columns = "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default"
    found = shared().sql(
        f"{columns} FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2",
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        "SELECT proname, md5(prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1, 2",
        "SELECT tgname, tgrelid::regclass FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
        database=name,
    )
    return [tuple(line.split("\t")) for line in found.splitlines()]


@pytest.fixture(scope="module")
def made_today(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Schema]]:
    """The schema of each kind where this release has made it all."""
    with fresh() as name:
        urls = {"sqlite": f"sqlite:///{tmp_path_factory.mktemp('today')}/keyserver.db", "postgres": shared().url(name)}
        for url in urls.values():
            asyncio.run(opened_once(url))
        yield {kind: schema_of(kind, url) for kind, url in urls.items()}


async def opened_once(url: str) -> None:
    """Made where it was not."""
    store = await open_store(url, {}, Changes(), 1 << 30)
    await store.close()


def facts_of(entry: Entry) -> list[str]:
    values = (getattr(entry, fact) for fact in FACTS)
    return [str(list(value) if isinstance(value, tuple) else value) for value in values]


def as_answered_today(kept: dict[str, Any], which: tuple[str, int]) -> Answers:
    """What the release that made it answered, but for what a later one has changed on purpose."""
    answered: Answers = kept["answers"]
    if which in NOT_OF_AN_ADDRESS:
        by_mail = {f"0x{fingerprint}" for fingerprint, _, source, *_ in kept["entries"] if source == "mailflow"}
        waits = [term for term in answered if term in by_mail or term.endswith("@partner.example")]
        answered |= {term: dict.fromkeys(VIEWS, "500") for term in waits if not term.startswith("smime ")}
    return answered


def test_every_version_that_has_landed_is_kept() -> None:
    missing = {(kind, n) for kind, latest in LATEST.items() for n in range(1, latest)} - NEVER_LANDED - set(KEPT_ONES)
    assert not missing, "scripts/keep-database makes them, from the last commit of that version"


@pytest.mark.parametrize(("kind", "version"), KEPT_ONES)
async def test_it_opens_is_brought_forward_and_answers_the_same(
    kind: str, version: int, tmp_path: Path, made_today: Mapping[str, Schema]
) -> None:
    kept = json.loads((KEPT / f"{kind}-{version}.json").read_text())
    terms = [term for term in kept["answers"] if not term.startswith("smime ")]
    async with brought_here(kind, version, tmp_path) as url:
        async with serving(url, tmp_path, kept["at"]) as (store, ready):
            found = await said(ready, terms)
            entries, stats = await listed(store), await store.stats()
            tokens = await store.administration.tokens()
        assert found == as_answered_today(kept, (kind, version))
        assert sorted(facts_of(entry) for entry in entries) == kept["entries"]
        assert [token.name for token in tokens] == kept["tokens"]
        assert stats.healthy == "" and sum(stats.entries.values()) == len(entries)
        assert schema_of(kind, url) == made_today[kind]


class Newer:
    """Releases after this one, as far as their schema goes."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url

    async def start(self, ahead: int) -> None:
        """A release that is so many versions ahead opens the database."""
        if self.kind == "sqlite":
            path = Path(self.url.removeprefix("sqlite:///"))
            steps = (*sqlite_schema.STEPS, *((f"CREATE TABLE later_{n} (x)",) for n in range(ahead)))
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
                migration.migrate(db, path, steps)
        else:
            db = await asyncpg.connect(self.url)
            further = ((f"CREATE TABLE later_{n} (x int)",) for n in range(ahead))
            await postgres_schema.bring_forward(db, (*postgres_schema.STEPS, *further))
            await db.close()


@pytest.mark.parametrize(("kind", "allowed"), [("sqlite", 0), ("postgres", 1)])
async def test_a_downgrade_beyond_what_a_rolling_upgrade_needs_is_refused(
    kind: str, allowed: int, tmp_path: Path
) -> None:
    """Nodes of two releases are on one PostgreSQL meanwhile; nobody shares a file with another release."""
    version = max(number for of, number in KEPT_ONES if of == kind)
    at = json.loads((KEPT / f"{kind}-{version}.json").read_text())["at"]
    async with brought_here(kind, version, tmp_path) as url:
        for ahead in range(allowed + 1):
            await Newer(kind, url).start(ahead)
            async with serving(url, tmp_path, at) as (store, _):
                assert await listed(store)
        await Newer(kind, url).start(allowed + 1)
        before = schema_of(kind, url)
        with pytest.raises(CannotStart) as refused:
            async with serving(url, tmp_path, at):
                pass
        said = str(refused.value)
        assert f"newer release (schema version {LATEST[kind] + allowed + 1}" in said and "\n" not in said
        assert f"this one knows {LATEST[kind]}" in said and "restore a backup" in said
        assert schema_of(kind, url) == before, "it was left as it is"
