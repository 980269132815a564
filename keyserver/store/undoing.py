"""How an undo goes on, whatever the store. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from keyserver.model import Source

Cutoffs: TypeAlias = Mapping[tuple[Source, str | None], int]
"""As for `Store.purge_expired`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One batch of an undo."""

    restored: int  # entries
    deleted: int  # entries that the whole delete took
    done: bool


def expired(source: Source, origin: str, at: int, cutoffs: Cutoffs) -> bool:
    """Does it lie before its cutoff?"""
    cutoff = cutoffs.get((source, origin), cutoffs.get((source, None)))
    return cutoff is not None and at < cutoff
