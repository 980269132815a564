"""What a store knows of one name at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyserver.model import Entry, Record


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the store knows about one name, read at one instant."""

    entries: tuple[Entry, ...] = ()
    """All entries of every certificate indexed under the name; blocked certificates are left out."""
    revocations: Mapping[str, bytes] = field(default_factory=dict)
    """Fingerprint -> revocations, which are kept apart from entries."""
    records: tuple[Record, ...] = ()
    """What upstreams said to the query of that name."""
    begun: int = -1
    """The deletion counter at that instant, as `Store.begin` gives it (`look` only; -1: the store was not asked)."""
    answering: Mapping[str, str] = field(default_factory=dict)
    """View -> fingerprint of the certificate that answered last for this address (`History.answers`; `look` only)."""
