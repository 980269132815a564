"""The keys to which a mail for one address may be encrypted, each in a certificate that holds nothing else. Pure.

For programs that would choose a revoked or expired subkey, or another than we meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keyserver.model import Validity
from keyserver.openpgp import packets
from keyserver.openpgp.parts import CertificateParts, Component, read, write
from keyserver.openpgp.proof import counting, is_revoked, judge, usable_now
from keyserver.openpgp.userid import address_of


@dataclass(frozen=True, slots=True)
class Recipient:
    """One key for encryption."""

    octets: bytes  # the primary key, one user ID and, where it is no primary key itself, this subkey
    fingerprint: str
    version: int
    algorithm: int  # OpenPGP public-key algorithm number
    is_primary: bool


def recipients(octets: bytes, address: str, now: int) -> list[Recipient]:
    """From the clean octets of a certificate: the keys of now, the newest first; none where it does not prove this
    normalised address now. The primary key is one only where no subkey is."""
    parts = read(octets)
    proof = judge(parts, now)
    user_id = next(_naming(parts, address, now), None)
    if user_id is None or proof.validity is not Validity.VALID or not proof.can_encrypt:
        return []
    living = {s.fingerprint for s in proof.subkeys if usable_now(s, now)}
    subkeys = [c for c in parts.components.values() if c.tag == packets.SUBKEY and _fingerprint(c) in living]
    if not subkeys:
        return [Recipient(_only(parts, user_id), proof.fingerprint, proof.version, proof.algorithm, True)]
    subkeys.sort(key=lambda c: (-c.key().created, c.body))
    return [
        Recipient(_only(parts, user_id, _lived(c, now)), _fingerprint(c), c.key().version, c.key().algorithm, False)
        for c in subkeys
    ]


def _naming(parts: CertificateParts, address: str, now: int) -> Iterator[Component]:
    """User IDs with this address that stand now, each with the one self-signature that counts; the newest first."""
    found = []
    for component in parts.components.values():
        if component.tag == packets.USER_ID and address_of(component.body) == address:
            counts, alive = counting(component, now)
            if counts is not None and alive and not is_revoked(component, counts, now, final=False):
                found.append((-counts.made, component.body, component.with_only([counts])))
    yield from (component for _, _, component in sorted(found, key=lambda one: one[:2]))


def _lived(component: Component, now: int) -> Component:
    counts, _ = counting(component, now)
    assert counts is not None  # or it would not be usable
    return component.with_only([counts])


def _only(parts: CertificateParts, *components: Component) -> bytes:
    """The primary key with nothing but these."""
    kept = CertificateParts.of(parts.key)
    kept.components = {(c.tag, c.body): c for c in components}
    return write(kept)


def _fingerprint(component: Component) -> str:
    return component.key().fingerprint.hex().upper()
