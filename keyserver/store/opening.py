"""From a database's URL to an open store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Kind
from keyserver.store.base import Store, StoreRefused
from keyserver.store.sqlite import SqliteStore

_SQLITE = "sqlite:///"


async def open_store(url: str, hygiene: Mapping[Kind, Hygiene], changes: Changes, max_size: int) -> Store:
    """The store at `url`, opened; max_size in octets. Raises StoreRefused.

    url: `sqlite:///var/keyserver.db` (below the working directory) or `sqlite:////path`."""
    if not url.startswith(_SQLITE):
        scheme = url.partition(":")[0]  # no more of it: it may hold a password
        raise StoreRefused(f"cannot open the cache database: {scheme} is not built yet, accepted is {_SQLITE}path")
    store = SqliteStore(Path(url.removeprefix(_SQLITE)), hygiene, changes, max_size)
    await store.open()
    return store
