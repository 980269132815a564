"""What a listing asks, as SQLite is told it. It never chooses an index by itself here: a scan would be its choice."""

from __future__ import annotations

from keyserver.store.sifting import Dialect
from keyserver.store.sqlite import trigrams

DIALECT = Dialect(
    true="1",
    contains="instr({}, {}) > 0",
    domain="instr(n.name, '@') > 0 AND substr(n.name, instr(n.name, '@') + 1)",
    named="EXISTS (SELECT 1 FROM name AS n INDEXED BY name_entry WHERE n.entry = e.id AND {})",
    by=" INDEXED BY {}",
    join="CROSS JOIN",
    among="json_each(:ids) AS j",
    tally="SELECT what, n FROM tally",
    containing=trigrams.finding,
)

WAITING_NAMED = (
    "EXISTS (SELECT 1 FROM (SELECT json_extract(value, '$[0]') AS name FROM json_each(e.names)) AS n WHERE {})"
)
"""Of `undo_entry AS e`, which keeps its names beside it."""
