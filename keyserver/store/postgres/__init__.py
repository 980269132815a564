"""The cache in PostgreSQL."""

from keyserver.store.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
