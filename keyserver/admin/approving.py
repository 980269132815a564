"""An approval is for one entry and one address: which ones may be meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from keyserver.model import Entry, Proof, Source


@dataclass(frozen=True, slots=True)
class EntryChoice:
    """One entry and one address that an approval may mean."""

    fingerprint: str
    source: str
    origin: str
    address: str


def choices(
    entries: Iterable[tuple[Entry, Proof]], address: str | None, source: Source | None, upstream: str | None
) -> Iterator[tuple[Entry, EntryChoice]]:
    """What may be meant: entries of this source and upstream (an upstream's name alone means its own entries), each
    with every address that it names, or with the one that is given."""
    for entry, proof in entries:
        if source is not None and entry.source is not source:
            continue
        if upstream is not None and (entry.source, entry.origin) != (Source.KEYSERVER, upstream):
            continue
        for named in sorted({user_id.address for user_id in proof.user_ids if user_id.address}):
            if address is None or named == address:
                yield entry, EntryChoice(entry.fingerprint, entry.source.value, entry.origin, named)
