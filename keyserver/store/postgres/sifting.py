"""What a listing asks, as PostgreSQL is told it, with numbered values; and answers to it."""

from __future__ import annotations

import re
from typing import TypeAlias, TypeVar

from keyserver.model import Selection
from keyserver.store import sifting
from keyserver.store.postgres.connections import Connection
from keyserver.store.postgres.text import text
from keyserver.store.sifting import Asking, Dialect, selected

T = TypeVar("T")
Value: TypeAlias = str | int | bool | list[str] | list[int] | None

NAMED = "e.id IN (SELECT n.entry FROM name AS n WHERE {})"
"""An entry has a name of which this is true; `n.name` is the name. For who wants all such entries."""
WAITING_NAMED = "EXISTS (SELECT 1 FROM unnest(e.names) AS n (name) WHERE {})"
"""The same of `undo_entry AS e`."""

_NAME = re.compile(r"(?<!:):([a-z]\w*)")
_WORD = re.compile(r"[0-9a-z]{3}")
"""What any server's pg_trgm makes trigrams of, whatever its locale."""
_LIKE = re.compile(r"[\\%_]")


def _containing(needle: str, most: int) -> Asking[list[int] | None]:
    """By the index that `schema` makes where the server has pg_trgm."""
    if not _WORD.search(needle):
        return None
    if not (yield "SELECT 1 WHERE to_regclass('entry_folded') IS NOT NULL", {}):
        return None
    pattern = "%" + _LIKE.sub(r"\\\g<0>", text(needle)) + "%"
    rows = yield "SELECT id FROM entry WHERE folded LIKE :pattern LIMIT :most", {"pattern": pattern, "most": most}
    return [row[0] for row in rows]


DIALECT = Dialect(
    true="true",
    contains="strpos({}, {}) > 0",
    domain="strpos(n.name, '@') > 0 AND substr(n.name, strpos(n.name, '@') + 1)",
    # OFFSET keeps PostgreSQL from making a table of all such names first, where few entries are looked at.
    named="EXISTS (SELECT 1 FROM name AS n WHERE n.entry = e.id AND {} OFFSET 0)",
    by="",
    join="JOIN",
    among="unnest(:ids) AS j (value)",
    tally="SELECT what, sum(n)::bigint AS n FROM (TABLE tally UNION ALL TABLE delta) AS t GROUP BY what",
    containing=_containing,
)


class Values:
    """The values of a statement, in order."""

    def __init__(self, *first: Value) -> None:
        self.all: list[Value] = list(first)

    def __call__(self, value: Value) -> str:
        """Its place in the statement."""
        self.all.append(text(value) if isinstance(value, str) else value)
        return f"${len(self.all)}"

    def number(self, sql: str, values: sifting.Values) -> str:
        """SQL with its values' places for their names, each of a type that nothing has to be guessed from."""
        known: dict[str, str] = {}

        def place(found: re.Match[str]) -> str:
            name = found[1]
            if name not in known:
                known[name] = f"{self(values[name])}::{_type(values[name])}"
            return known[name]

        return _NAME.sub(place, sql)


def _type(value: sifting.Value) -> str:
    return "text" if isinstance(value, str) else "bigint" if isinstance(value, int) else "bigint[]"


def condition(what: Selection, bound: Values, named: str = NAMED) -> str:
    """All that a selection names."""
    values: dict[str, sifting.Value] = {}
    parts = [f"({part})" for part in selected(DIALECT, what, "w", values, named)]
    return bound.number(" AND ".join(parts) or DIALECT.true, values)


async def answer(db: Connection, asking: Asking[T]) -> T:
    """What it comes to."""
    try:
        sql, values = next(asking)
        while True:
            bound = Values()
            numbered = bound.number(sql, values)
            sql, values = asking.send(await db.fetch(numbered, *bound.all))
    except StopIteration as done:
        result: T = done.value
        return result
