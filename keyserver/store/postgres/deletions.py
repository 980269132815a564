"""The deletes on record, inside a transaction; what each reaches is `deletion`'s to say."""

from __future__ import annotations

from keyserver.store.deletion import KEEP
from keyserver.store.postgres.connections import Connection


async def count(db: Connection) -> int:
    """The deletion counter, with the server's timeline above it (`functions.GENERATION`)."""
    found: int = await db.fetchval("SELECT generation_1()")
    return found


async def note(db: Connection, now: int, what: str) -> None:
    """Write down what was deleted, as `deletion` says it. Its transaction holds the deletes' lock alone."""
    await db.execute("DELETE FROM deletion WHERE at < $1", now - KEEP)
    await db.execute(
        "WITH next AS (UPDATE counter SET deletions = deletions + 1 RETURNING deletions)"
        " INSERT INTO deletion (id, at, what) SELECT deletions, $1, $2 FROM next",
        now,
        what,
    )
