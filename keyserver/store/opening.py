"""From a database's URL to an open store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keyserver.changes import Changes
from keyserver.config.database import SQLITE, is_postgres, wrong_with
from keyserver.hygiene import Hygiene
from keyserver.model import Kind
from keyserver.store.base import Store, StoreRefused
from keyserver.store.postgres import PostgresStore
from keyserver.store.sqlite import SqliteStore


async def open_store(
    url: str, hygiene: Mapping[Kind, Hygiene], changes: Changes, max_size: int, password: str | None = None
) -> Store:
    """The store at `url`, opened; max_size in octets. Raises StoreRefused, without a password in its text.

    url: as `cache.database`; password: of PostgreSQL's user, which the URL never holds."""
    store = _store(url, hygiene, changes, max_size, password)
    await store.open()
    return store


def _store(
    url: str, hygiene: Mapping[Kind, Hygiene], changes: Changes, max_size: int, password: str | None
) -> SqliteStore | PostgresStore:
    if wrong := wrong_with(url):
        raise StoreRefused(f"cannot open the cache database: {wrong}")
    if is_postgres(url):
        return PostgresStore(url, hygiene, changes, max_size, password)
    return SqliteStore(Path(url.removeprefix(SQLITE)), hygiene, changes, max_size)
