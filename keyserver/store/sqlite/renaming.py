"""Names that a newer rule reads in certificates which are stored already: entries get them, and lose none.

What a keyserver sent is searched again when somebody asks for such a name, and gets it then (`filing`); what was
imported or came by mail comes once, so a new release goes over those entries when it opens the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from keyserver.hygiene import Hygiene
from keyserver.model import Kind, Name, Source
from keyserver.store.names import fits
from keyserver.store.sqlite import trigrams
from keyserver.store.sqlite.schema import FIRST_ADDRESS
from keyserver.store.sqlite.writing import Writing

RULE = 1
"""Counts up whenever certificates prove addresses that they did not prove before."""

_RULE = "rule of names"  # its row among the counts
_BATCH = 100  # entries in one transaction: some 20 ms in which other writers wait


def begin(writing: Writing) -> int | None:
    """Where to begin; None where all is done."""
    row = writing.db.execute("SELECT n FROM tally WHERE what = ?", (_RULE,)).fetchone()
    return None if row and row[0] >= RULE else 0


def go_on(writing: Writing, after: int, hygiene: Mapping[Kind, Hygiene]) -> int | None:
    """Go over the next entries; where to go on, None at the end."""
    rows = writing.db.execute(
        "SELECT e.id, e.fingerprint, e.kind, e.source, e.at, c.octets FROM entry AS e JOIN copy AS c ON c.entry = e.id"
        " WHERE e.id > ? AND e.source <> ? ORDER BY e.id LIMIT ?",
        (after, str(Source.KEYSERVER), _BATCH),
    ).fetchall()
    for row, fingerprint, kind, source, at, octets in rows:
        try:
            names, identities = hygiene[Kind(kind)].index(octets)
        except Exception:  # noqa: S112 - one copy that cannot be read any more must not keep the service from starting
            continue
        if add(writing, row, names, 0 if source == Source.LOCAL else 3, at):
            writing.touch(fingerprint)
            folded = "\n".join(identities).casefold().encode("utf-8", "replace").decode()
            writing.db.execute(
                "UPDATE entry SET identities = ?, folded = ? WHERE id = ?", (json.dumps(identities), folded, row)
            )
            trigrams.changed(writing.db, row)
    if len(rows) == _BATCH:
        return int(rows[-1][0])
    writing.db.execute("INSERT INTO tally VALUES (?1, ?2) ON CONFLICT DO UPDATE SET n = ?2", (_RULE, RULE))
    return None


def add(writing: Writing, row: int, names: Iterable[Name], rank: int, at: int) -> bool:
    """Index an entry under names that it is not yet found by; were there any?"""
    known = {name for (name,) in writing.db.execute("SELECT name FROM name WHERE entry = ?", (row,))}
    new = sorted(set(filter(fits, names)) - known)
    writing.db.executemany("INSERT INTO name VALUES (?, ?, ?, ?)", [(name, rank, at, row) for name in new])
    if new:
        writing.db.execute(FIRST_ADDRESS + " WHERE id = ?", (row,))
    writing.names.update(new)
    return bool(new)
