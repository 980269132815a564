"""Finds on their way into a store: one call of `Store.put`, read before its transaction begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyserver.hygiene import Hygiene
from keyserver.model import Find, Kind, Record, Source


@dataclass(frozen=True, slots=True)
class Incoming:
    """A find with what its kind's hygiene says of it before the transaction begins."""

    find: Find
    hygiene: Hygiene
    revocations: bytes

    @classmethod
    def of(cls, find: Find, hygiene: Mapping[Kind, Hygiene]) -> Incoming:
        """Parses the certificate: not on the loop's thread."""
        proof = find.certificate.proof
        own = hygiene[proof.kind]
        return cls(find, own, own.revocations(find.certificate.octets) if proof.revocations else b"")

    @property
    def durable(self) -> bool:
        """Must it survive a power cut? Yes, if searching again may not bring it back."""
        return self.find.source is not Source.KEYSERVER or bool(self.revocations)


@dataclass(frozen=True, slots=True)
class Put:
    """One call of `Store.put`."""

    finds: Sequence[Find]
    records: Sequence[Record]
    begun: int
    now: int
