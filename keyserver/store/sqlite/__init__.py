"""The store in one SQLite file."""

from keyserver.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
