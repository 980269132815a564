"""Signature packets, their subpackets, and what they hash (RFC 9580 sections 5.2.3, 5.2.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keyserver.model import Malformed
from keyserver.openpgp.packets import PublicKey

CERTIFICATIONS = frozenset({0x10, 0x11, 0x12, 0x13})
BINDING, BACK_SIGNATURE, DIRECT = 0x18, 0x19, 0x1F
KEY_REVOCATION, SUBKEY_REVOCATION, CERTIFICATION_REVOCATION = 0x20, 0x28, 0x30
REVOCATIONS = frozenset({KEY_REVOCATION, SUBKEY_REVOCATION, CERTIFICATION_REVOCATION})

SHA1 = 2
STRENGTH = {1: 16, 2: 20, 3: 20, 8: 32, 9: 48, 10: 64, 11: 28, 12: 32, 14: 64}  # octets of a digest (section 9.5)
CERTIFY, SIGN, ENCRYPT = 0x01, 0x02, 0x0C  # key flags (section 5.2.3.29)
SOFT_REASONS = frozenset({1, 3, 32})  # superseded, retired, user ID no longer valid (section 5.2.3.31)

_MOST_SUBPACKETS = 128  # per area
_KNOWN = frozenset({2, 3, 4, 5, 6, 7, 9, 11, 12, 16, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 39})
_SALTS = {8: 16, 9: 24, 10: 32, 11: 16, 12: 16, 14: 32}  # section 9.5


@dataclass(slots=True, eq=False)
class Signature:
    """One signature: what it says, and its packet body untouched."""

    body: bytes
    version: int
    type: int
    algorithm: int
    hash: int
    identity: bytes  # all that is signed: two packets that agree here say the same
    material: int  # where the algorithm's own part begins
    left16: bytes
    salt: bytes
    created: int | None = None
    lifetime: int = 0  # seconds after `created`; 0: for ever
    key_lifetime: int | None = None  # seconds after the key's creation; 0: for ever; None: not said
    flags: int | None = None
    primary: bool = False
    reason: int | None = None
    flaw: str = ""  # why it can never be valid
    issuers: tuple[bytes, ...] = ()  # fingerprints and key IDs, hints only
    revokers: tuple[bytes, ...] = ()  # fingerprints of designated revokers
    embedded: tuple[tuple[int, int], ...] = ()  # begin and end of embedded signatures' bodies
    unhashed: tuple[int, int] = (0, 0)  # begin and end of the area that is not signed

    @property
    def hard(self) -> bool:
        """Of a revocation: for all time, whatever its date (section 5.2.3.31)."""
        return self.reason not in SOFT_REASONS

    @property
    def made(self) -> int:
        """Creation time; 0 where it has none (such a signature never verifies)."""
        return self.created or 0

    def trailer(self) -> bytes:
        """What is hashed last (section 5.2.4)."""
        if self.version == 3:
            return self.body[2:7]
        return self.identity + bytes((self.version, 0xFF)) + len(self.identity).to_bytes(4, "big")

    def by(self, key: PublicKey) -> bool:
        """May this key have made it? True too where no issuer is named."""
        issuers = self.issuers
        return not issuers or key.key_id in issuers or key.fingerprint in issuers


def parse(body: bytes) -> Signature:
    """A v3, v4 or v6 signature packet. Raises Malformed."""
    version = body[0] if body else 0
    if version == 3:
        return _parse_v3(body)
    if version == 4:
        start, width = 6, 2
    elif version == 6:
        start, width = 8, 4
    else:
        raise Malformed(f"a version {version} signature")
    hashed_end = start + int.from_bytes(body[start - width : start], "big")
    loose = hashed_end + width
    loose_end = loose + int.from_bytes(body[hashed_end:loose], "big")
    material = loose_end + 2
    if material >= len(body):
        raise Malformed("a signature is cut off")
    salt = b""
    if version == 6:
        salt = body[material + 1 : material + 1 + body[material]]
        material += 1 + body[material]
    left16 = body[loose_end : loose_end + 2]
    signature = Signature(
        body, version, body[1], body[2], body[3], body[:hashed_end], material, left16, salt, unhashed=(loose, loose_end)
    )
    if version == 6 and len(salt) != _SALTS.get(body[3]):
        signature.flaw = "a salt of another length than its hash demands"
    for kind, critical, at, end in subpackets(body, start, hashed_end):
        _hashed_subpacket(signature, kind, critical, at, end)
    for kind, _, at, end in subpackets(body, loose, loose_end):
        _issuer_or_embedded(signature, kind, at, end)
    if signature.created is None:
        signature.flaw = "no creation time"
    return signature


def subpackets(body: bytes, at: int, end: int) -> Iterator[tuple[int, bool, int, int]]:
    """Type, critical bit, begin and end of each subpacket's data (section 5.2.3.7). Raises Malformed."""
    count = 0
    while at < end:
        length = body[at]
        if length < 192:
            at += 1
        elif length < 255:
            length = (length - 192 << 8) + (body[at + 1] if at + 1 < end else 0) + 192
            at += 2
        else:
            length = int.from_bytes(body[at + 1 : at + 5], "big")
            at += 5
        stop = at + length
        count += 1
        if length < 1 or stop > end or count > _MOST_SUBPACKETS:
            raise Malformed("a signature's subpackets are broken or too many")
        yield body[at] & 0x7F, body[at] > 0x7F, at + 1, stop
        at = stop


def _hashed_subpacket(signature: Signature, kind: int, critical: bool, at: int, end: int) -> None:
    """Takes what matters from one signed subpacket; of several the last counts (section 5.2.3.9)."""
    body, length = signature.body, end - at
    if kind in (2, 3, 9):
        if length != 4:
            raise Malformed("a time in a signature has not 4 octets")
        value = int.from_bytes(body[at:end], "big")
        if kind == 2:
            signature.created = value
        elif kind == 3:
            signature.lifetime = value
        else:
            signature.key_lifetime = value
    elif kind == 27:
        signature.flags = body[at] if length else 0
    elif kind in (16, 32, 33):
        _issuer_or_embedded(signature, kind, at, end)
    elif kind == 25:
        signature.primary = length > 0 and body[at] != 0
    elif kind == 29:
        signature.reason = body[at] if length else None
    elif kind == 12:
        if length in (22, 34) and body[at] & 0x80:
            signature.revokers += (body[at + 2 : end],)
    elif critical and kind not in _KNOWN:
        signature.flaw = f"unknown critical subpacket {kind}"  # section 5.2.3.7; notations (20) are all unknown to us


def _issuer_or_embedded(signature: Signature, kind: int, at: int, end: int) -> None:
    """The three subpackets that may stand in the unsigned area and still be of use: hints and a signed thing."""
    if kind == 16 and end - at == 8:
        signature.issuers += (signature.body[at:end],)
    elif kind == 33 and end - at in (21, 33):
        signature.issuers += (signature.body[at + 1 : end],)
    elif kind == 32:
        signature.embedded += ((at, end),)


def _parse_v3(body: bytes) -> Signature:
    """Section 5.2.2: no subpackets, so no expiration, no flags, no reason."""
    if len(body) < 20 or body[1] != 5:
        raise Malformed("a version 3 signature is cut off")
    identity = b"\x03" + body[2:7] + body[15:17]
    return Signature(
        body,
        3,
        body[2],
        body[15],
        body[16],
        identity,
        material=19,
        left16=body[17:19],
        salt=b"",
        created=int.from_bytes(body[3:7], "big"),
        issuers=(body[7:15],),
    )


def without_embedded(signature: Signature, bad: list[tuple[int, int]]) -> Signature | None:
    """The same signature without these embedded signatures, cut out of its unsigned area; None where one is signed.

    Nothing signed changes, and what stays is the original octets. Without this, junk added to a binding in transit
    would either pass for a back-signature or cost us the binding.
    """
    start, end = signature.unhashed
    if any(not start <= at < end for at, _ in bad):
        return None
    body, kept, before, cut = signature.body, [], start, frozenset(bad)
    for kind, _, at, stop in subpackets(body, start, end):
        if kind != 32 or (at, stop) not in cut:
            kept.append(body[before:stop])
        before = stop
    area = b"".join(kept)
    width = 2 if signature.version == 4 else 4
    return parse(body[: start - width] + len(area).to_bytes(width, "big") + area + body[end:])


def variant_order(signature: Signature) -> tuple[bool, int, bytes]:
    """Of packets that say the same the smallest is kept: with its back-signature, then shorter, then by octets."""
    back_signed = signature.type == BINDING and bool(signature.embedded)
    return (not back_signed, len(signature.body), signature.body)


def keep_order(signature: Signature) -> tuple[int, int, int, bytes]:
    """An order by what is signed alone, whose first n of a union are found among the first n of its parts.

    Revocations: hard before soft, oldest hard, newest soft. Others: newest, then the stronger hash."""
    if signature.type in REVOCATIONS:
        hard = signature.hard
        return (0 if hard else 1, signature.made if hard else -signature.made, 0, signature.identity)
    return (0, -signature.made, -STRENGTH.get(signature.hash, 0), signature.identity)
