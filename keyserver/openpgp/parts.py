"""A clean certificate taken apart and put together: the one canonical order, and how much of each part is kept.

Everything here depends on the set of packets alone, never on their order or on time, so that equal sets give equal
octets (and ETags), and the parts kept of a union are among those kept of its parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from keyserver.model import Malformed
from keyserver.openpgp import packets, signatures
from keyserver.openpgp.limits import Limits
from keyserver.openpgp.packets import PublicKey
from keyserver.openpgp.signatures import Signature


@dataclass(slots=True, eq=False)
class Component:
    """A user ID or subkey with the primary's signatures over it, each identity once."""

    tag: int
    body: bytes
    signatures: dict[bytes, Signature] = field(default_factory=dict)  # changed by `add` only
    _key: PublicKey | None = None
    _ordered: tuple[tuple[Signature, ...], tuple[Signature, ...]] | None = None

    def add(self, signature: Signature) -> None:
        """One more signature over it."""
        add(signature, self.signatures)
        self._ordered = None

    def key(self) -> PublicKey:
        """The subkey that it is, read once. Raises Malformed for one that is none."""
        if self._key is None:
            self._key = packets.parse_key(self.body)
        return self._key

    def with_only(self, chosen: Iterable[Signature]) -> Component:
        """The same with these of its signatures."""
        return Component(self.tag, self.body, {s.identity: s for s in chosen}, self._key)

    def of_revocations(self) -> tuple[Signature, ...]:
        """Its revocations, in the order in which they are kept."""
        return (self._ordered or self._order())[0]

    def of_self(self) -> tuple[Signature, ...]:
        """Its self-signatures, newest first."""
        return (self._ordered or self._order())[1]

    def _order(self) -> tuple[tuple[Signature, ...], tuple[Signature, ...]]:
        revocations: list[Signature] = []
        others: list[Signature] = []
        for signature in self.signatures.values():
            (revocations if signature.type in signatures.REVOCATIONS else others).append(signature)
        for some in (revocations, others):
            if len(some) > 1:
                some.sort(key=signatures.keep_order)
        self._ordered = (tuple(revocations), tuple(others))
        return self._ordered


@dataclass(slots=True, eq=False)
class CertificateParts:
    """A certificate: the primary's own signatures, revocations claimed by designated revokers, components."""

    key: PublicKey
    direct: Component
    claimed: dict[bytes, Signature] = field(default_factory=dict)
    components: dict[tuple[int, bytes], Component] = field(default_factory=dict)

    @classmethod
    def of(cls, key: PublicKey) -> CertificateParts:
        """The bare primary."""
        return cls(key, Component(packets.PUBLIC_KEY, key.body))


def add(signature: Signature, to: dict[bytes, Signature]) -> None:
    """Of two packets that say the same, one stays by an intrinsic order, whichever came first."""
    old = to.get(signature.identity)
    if old is None or signatures.variant_order(signature) < signatures.variant_order(old):
        to[signature.identity] = signature


def read(octets: bytes) -> CertificateParts:
    """Octets that `write` made. Nothing is verified; raises Malformed for what is no certificate at all."""
    parts: CertificateParts | None = None
    here: Component | None = None
    for tag, start, end in packets.walk(octets, Limits().packets):
        body = octets[start:end]
        if parts is None or here is None:
            parts = CertificateParts.of(packets.parse_key(body))
            here = parts.direct
        elif tag != packets.SIGNATURE:
            here = parts.components[tag, body] = Component(tag, body)
        else:
            signature = signatures.parse(body)
            if here is parts.direct and not signature.by(parts.key):
                add(signature, parts.claimed)
            else:
                here.add(signature)
    if parts is None:
        raise Malformed("no certificate")
    return parts


def bounded(parts: CertificateParts, limits: Limits) -> CertificateParts:
    """The part that is kept, chosen by intrinsic orders; components without any signature vanish."""
    kept = CertificateParts(parts.key, _bounded(parts.direct, limits))
    claims = sorted(parts.claimed.values(), key=signatures.keep_order)[: limits.claimed]
    kept.claimed = {s.identity: s for s in claims}
    living = [c for c in parts.components.values() if c.signatures]
    user_ids = sorted((c for c in living if c.tag == packets.USER_ID), key=lambda c: c.body)
    subkeys = sorted((c for c in living if c.tag == packets.SUBKEY), key=_subkey_order)
    for component in (*user_ids[: limits.user_ids], *subkeys[: limits.subkeys]):
        kept.components[component.tag, component.body] = _bounded(component, limits)
    return kept


def _bounded(component: Component, limits: Limits) -> Component:
    if len(component.signatures) < min(limits.revocations, limits.self_signatures):
        return component
    return component.with_only(
        component.of_revocations()[: limits.revocations] + component.of_self()[: limits.self_signatures]
    )


def write(parts: CertificateParts) -> bytes:
    """Primary, its revocations, direct-key signatures, user IDs (the one marked primary first), subkeys by age."""
    version = parts.key.version
    out = [packets.packet(packets.PUBLIC_KEY, parts.key.body, version)]
    _write(parts.direct.of_revocations(), version, out)
    _write(sorted(parts.claimed.values(), key=signatures.keep_order), version, out)
    _write(parts.direct.of_self(), version, out)
    components = parts.components.values()
    for component in (
        *sorted((c for c in components if c.tag == packets.USER_ID), key=user_id_order),
        *sorted((c for c in components if c.tag == packets.SUBKEY), key=_subkey_order),
    ):
        out.append(packets.packet(component.tag, component.body, version))
        _write(component.of_revocations(), version, out)
        _write(component.of_self(), version, out)
    return b"".join(out)


def _write(some: Iterable[Signature], version: int, out: list[bytes]) -> None:
    out.extend(packets.packet(packets.SIGNATURE, signature.body, version) for signature in some)


def user_id_order(component: Component) -> tuple[bool, int, bytes]:
    """By the newest self-signature: marked primary first, then newest, then by octets."""
    own = component.of_self()
    return (not own[0].primary, -own[0].made, component.body) if own else (True, 1, component.body)


def _subkey_order(component: Component) -> tuple[bytes, bytes]:
    return (component.body[1:5], component.body)
