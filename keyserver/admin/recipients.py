"""Lists of recipients as people have them: CSV files, and whatever they paste."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from keyserver.admin.problems import Unusable

COLUMNS = frozenset({"address", "email", "e-mail", "mail"})
"""Names of a column with addresses; else it is the first one."""

_SEPARATORS = ",;\t"
_PIECES = re.compile(r"[,;\t\r\n]+")


def decoded(octets: bytes) -> str:
    """A file's text: UTF-8, with or without a byte order mark. Raises Unusable."""
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("the list is not UTF-8 text") from None


def from_csv(text: str) -> list[str]:
    """What stands in the column of addresses (RFC 4180, also with semicolons or tabs). Raises Unusable."""
    rows = _rows(text)
    column = _column(rows)
    if column is not None:
        rows = rows[1:]
    return [cell for row in rows if len(row) > (column or 0) and (cell := row[column or 0].strip())]


def pasted(text: str) -> list[str]:
    """CSV where the first line names a column of addresses; else all with an `@` between commas, semicolons and tabs.

    A line without one counts as a whole, so that somebody sees what was not understood."""
    if _column(_rows(text)) is not None:
        return from_csv(text)
    found: list[str] = []
    for line in text.splitlines():
        pieces = [piece.strip().strip(" \"'").strip() for piece in _PIECES.split(line)]  # white space of any kind
        found += [piece for piece in pieces if "@" in piece] or [line.strip()]
    return [piece for piece in found if piece]


def _rows(text: str) -> list[list[str]]:
    text = text.removeprefix("\ufeff")
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=head.count)
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if _filled(row)]
    except csv.Error as problem:
        raise Unusable(f"the list is not CSV: {problem}") from None


def _filled(row: Iterable[str]) -> bool:
    return any(cell.strip() for cell in row)


def _column(rows: Sequence[Sequence[str]]) -> int | None:
    """Which column the first row calls one of addresses."""
    names = [cell.strip().casefold() for cell in rows[0]] if rows else []
    return next((number for number, name in enumerate(names) if name in COLUMNS), None)
