"""What can be done with one kind of certificate: pure functions, made once for each kind and handed to whoever works.

The composition root picks them from `openpgp` and `smime`; store, resolver, mail flow and administration take a mapping
of kind to `Hygiene`."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from keyserver.model import Certificate, Name, Proof, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Hygiene:
    """The functions of one kind. Octets are clean ones, but for `clean` and `intermediates`; times are Unix seconds."""

    clean: Callable[[bytes, int], list[Certificate | Refused]]
    """(what somebody sent, now) -> what became of every certificate in it; a function that a process can import."""
    clean_brief: Callable[[bytes, int], list[Certificate | Refused] | None] | None = None
    """The same for what takes 2 ms at most, None for the rest."""
    prove: Callable[[bytes, int], Proof]
    """(octets, now) -> what they show by their own signatures, and by the revocation lists in force (X.509 only)."""
    index: Callable[[bytes], tuple[frozenset[Name], tuple[str, ...]]]
    """Octets -> (names to index under, identities for listings)."""
    merge: Callable[[Sequence[bytes], bytes], bytes]
    """(copies, revocations) -> octets; commutative, associative, idempotent."""
    revocations: Callable[[bytes], bytes]
    """The verified revocations of a certificate as octets of their own; b"" for none."""
    merge_revocations: Callable[[bytes, bytes], bytes]
    cut: Callable[[bytes, Container[str]], bytes] | None = None
    """A copy without the user IDs that say one of these texts; None where a copy cannot be cut."""
    learn: Callable[[bytes, Proof, int], None] = lambda octets, proof, now: None
    """Hears what a certificate proved when it was cleaned (`Proofs.learn`)."""
    intermediates: Callable[[bytes], list[bytes]] = lambda octets: []
    """CA certificates in what an upstream sent (X.509 only)."""
    chained: Callable[[bytes, Sequence[bytes], int], bool] = lambda octets, intermediates, now: False
    """Does the chain of (certificate, intermediates, now) lead to a trust anchor (X.509 only)?"""
