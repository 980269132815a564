"""Copies of one certificate become one: commutative, associative, idempotent. Nothing is verified here.

Only octets that `clean` or these functions made may come in. Time does not enter: an expired or revoked element stays,
or a stale upstream would bring it back alive.
"""

from __future__ import annotations

from collections.abc import Sequence

from keyserver.openpgp.limits import Limits
from keyserver.openpgp.parts import CertificateParts, Component, add, bounded, read, write
from keyserver.openpgp.verify import verifiable


def merge(copies: Sequence[bytes], revocations: bytes = b"") -> bytes:
    """The union of some copies, with those of `revocations` that concern what is in them.

    A user ID or subkey that only `revocations` knows is not added: what was deleted must not come back by way of its
    revocation. Empty copies are passed over; without any, b"". Raises ValueError for copies of different primaries.
    """
    distinct = sorted({copy for copy in copies if copy})
    if not distinct or (len(distinct) == 1 and not revocations):
        return distinct[0] if distinct else b""
    whole = _union(distinct)
    if revocations:
        _absorb(whole, read(revocations), known_only=True)
    return write(bounded(whole, Limits()))


def revocations(octets: bytes) -> bytes:
    """What must outlive the rest: the primary with its revocations, and components with only theirs; b"" for none.

    Those claimed by designated revokers are left out, as are all of a certificate that we cannot verify."""
    if not octets:
        return b""
    parts = read(octets)
    if not verifiable(parts.key):
        return b""
    kept = CertificateParts(parts.key, _only_revocations(parts.direct))
    for place, component in parts.components.items():
        rest = _only_revocations(component)
        if rest.signatures:
            kept.components[place] = rest
    return write(kept) if kept.direct.signatures or kept.components else b""


def merge_revocations(a: bytes, b: bytes) -> bytes:
    """The union of two such collections; either may be empty. Raises ValueError for different primaries."""
    distinct = sorted({some for some in (a, b) if some})
    return write(bounded(_union(distinct), Limits())) if distinct else b""


def _union(copies: Sequence[bytes]) -> CertificateParts:
    whole = read(copies[0])
    for copy in copies[1:]:
        _absorb(whole, read(copy), known_only=False)
    return whole


def _absorb(whole: CertificateParts, other: CertificateParts, *, known_only: bool) -> None:
    if whole.key.body != other.key.body:
        raise ValueError("copies of different certificates cannot be merged")
    for signature in other.direct.signatures.values():
        whole.direct.add(signature)
    for signature in other.claimed.values():
        add(signature, whole.claimed)
    for place, component in other.components.items():
        mine = whole.components.get(place)
        if mine is None:
            if not known_only:
                whole.components[place] = component
            continue
        for signature in component.signatures.values():
            mine.add(signature)


def _only_revocations(component: Component) -> Component:
    return component.with_only(component.of_revocations())
