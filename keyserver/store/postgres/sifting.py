"""A selection as a condition on `entry AS e`, with numbered values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from keyserver.model import Selection, Source
from keyserver.store.listing import Needle, needle
from keyserver.store.postgres.text import text

Value: TypeAlias = str | int | bool | list[str] | list[int] | None

NAMED = "e.id IN (SELECT n.entry FROM name AS n WHERE {})"
"""An entry has a name of which this is true; `n.name` is the name."""
WAITING_NAMED = "EXISTS (SELECT 1 FROM unnest(e.names) AS n (name) WHERE {})"
"""The same of `undo_entry AS e`."""

AFTER_ALL = "\U0010ffff"
"""Behind every character of a text."""


class Values:
    """The values of a statement, in order."""

    def __init__(self, *first: Value) -> None:
        self.all: list[Value] = list(first)

    def __call__(self, value: Value) -> str:
        """Its place in the statement."""
        self.all.append(text(value) if isinstance(value, str) else value)
        return f"${len(self.all)}"


def selected(what: Selection, bound: Values, named: str = NAMED) -> Iterator[str]:
    """What a selection names, each by itself."""
    if what.source is not None:
        yield f"e.source = {bound(str(what.source))}"
    if what.upstream is not None:
        yield f"e.source = '{Source.KEYSERVER}' AND e.origin = {bound(what.upstream)}"
    if what.kind is not None:
        yield f"e.kind = {bound(str(what.kind))}"
    if what.domain is not None:
        domain = "strpos(n.name, '@') > 0 AND substr(n.name, strpos(n.name, '@') + 1)"
        yield named.format(f"{domain} = {bound(what.domain.lower())}")
    if what.text is not None:
        yield " OR ".join(_texts(needle(what.text), bound, named))


def condition(what: Selection, bound: Values, named: str = NAMED) -> str:
    """All that a selection names."""
    return " AND ".join(f"({part})" for part in selected(what, bound, named)) or "true"


def _texts(term: Needle, bound: Values, named: str) -> Iterator[str]:
    """The ways in which an entry can be meant by a text."""
    if not term.inside:
        ranges = [f"n.name >= {bound(name)} AND n.name < {bound(name + AFTER_ALL)}" for name in term.prefixes]
        yield named.format(f"({' OR '.join(ranges)})")
        return
    yield f"strpos(e.folded, {bound(term.text)}) > 0"
    if term.digits:
        yield f"e.fingerprint >= {bound(term.digits)} AND e.fingerprint < {bound(term.digits + 'G')}"
    if term.names:
        yield named.format(f"n.name = ANY({bound(list(term.names))})")
