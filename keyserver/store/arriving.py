"""Finds on their way into a store: one call of `Store.put`, read before its transaction begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keyserver.hygiene import Hygiene
from keyserver.model import Find, Kind, Name, Record, Source
from keyserver.store.base import Stored
from keyserver.store.deletion import Later
from keyserver.store.names import fits


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
    who: str = ""  # as `history.WHO`; what is written together is of one hand


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of one call."""

    answers: tuple[Stored, ...]
    records: tuple[Record, ...]
    """Those that may stand."""
    room: int
    """Octets that are left."""


def settle(
    one: Put,
    incoming: Sequence[Incoming],
    later: Later,
    room: int,
    row: int,
    put: Callable[[Incoming, int], Stored],
) -> Settled:
    """Put each find (`put` is told how much room is left), and say which records may stand.

    row: octets that an entry takes besides its certificate."""
    answers: list[Stored] = []
    gone: set[Name] = set()  # names of what was refused, whose records would hide that nothing is here
    for arrival in incoming:
        certificate = arrival.find.certificate
        stored = put(arrival, room)
        answers.append(stored)
        if stored is Stored.NEW:
            room -= len(certificate.octets) + row
        if stored in (Stored.DELETED, Stored.FULL):
            gone |= certificate.proof.index
    records = tuple(r for r in one.records if fits(r.name) and not later.hit_name(r.name) and r.name not in gone)
    return Settled(tuple(answers), records, room)


def refusal(find: Find, later: Later, *, blocked: bool, full: bool) -> Stored | None:
    """Why a find is not taken; None where it is. full: there is no room for another entry."""
    if blocked:
        return Stored.BLOCKED
    if later.hit(find):
        return Stored.DELETED
    return Stored.FULL if full else None
