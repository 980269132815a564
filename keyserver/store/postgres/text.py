"""What PostgreSQL takes as text: no NUL, no lone surrogates; and no key that is too long for an index."""

from __future__ import annotations

from collections.abc import Iterable

from keyserver.store.standing import storable

MOST = 2000  # octets of a name: an index refuses a key above 2,704


def text(value: str) -> str:
    """Hostile text as both sides can hold it."""
    return storable(value.replace("\0", "\ufffd"))


def fits(name: str) -> bool:
    """Can it be in an index, as it is? Anything else is never put, and so never found."""
    return len(name.encode("utf-8", "replace")) <= MOST and text(name) == name


def fitting(names: Iterable[str]) -> list[str]:
    """Those that fit, sorted: whoever locks several rows takes them in one order."""
    return sorted(name for name in names if fits(name))
