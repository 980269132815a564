"""What PostgreSQL takes as text: no NUL, no lone surrogates."""

from __future__ import annotations

from collections.abc import Iterable

from keyserver.store.names import fits
from keyserver.store.standing import storable


def text(value: str) -> str:
    """Hostile text as both sides can hold it."""
    return storable(value)


def fitting(names: Iterable[str]) -> list[str]:
    """Those that fit, sorted: whoever locks several rows takes them in one order."""
    return sorted(name for name in names if fits(name))
