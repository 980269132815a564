"""Answers what a listing asks of SQLite."""

from __future__ import annotations

import json
import sqlite3
from typing import TypeVar

from keyserver.store.sifting import Asking, Values

T = TypeVar("T")


def answer(db: sqlite3.Connection, asking: Asking[T]) -> T:
    """What it comes to."""
    try:
        sql, values = next(asking)
        while True:
            sql, values = asking.send(db.execute(sql, bindable(values)).fetchall())
    except StopIteration as done:
        result: T = done.value
        return result


def bindable(values: Values) -> dict[str, str | int]:
    """As SQLite takes them: a list of numbers as JSON."""
    return {name: json.dumps(value) if isinstance(value, list) else value for name, value in values.items()}
