"""One certificate as its packets arrive: what may be the primary key's own work is kept, the rest forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyserver.model import Malformed
from keyserver.openpgp import packets, signatures
from keyserver.openpgp.limits import Limits
from keyserver.openpgp.packets import PublicKey
from keyserver.openpgp.parts import Component
from keyserver.openpgp.signatures import Signature
from keyserver.openpgp.verify import Target, Verifier

OVER_USER_IDS = signatures.CERTIFICATIONS | {signatures.CERTIFICATION_REVOCATION}
OVER_SUBKEYS = frozenset({signatures.BINDING, signatures.SUBKEY_REVOCATION})
OVER_KEY = frozenset({signatures.DIRECT, signatures.KEY_REVOCATION})

_IGNORED = frozenset({packets.MARKER, packets.TRUST, packets.PADDING})
_CRITICAL = 40  # packet types below it that we do not know reject what holds them (section 4.3)


@dataclass(slots=True)
class Place:
    """A user ID or subkey (or the primary) as it arrived, with the signatures that claim to be over it."""

    component: Component
    candidates: list[Signature] = field(default_factory=list)
    target: Target | None = None
    subkey: PublicKey | None = None
    verifier: Verifier | None = None  # of the subkey, for its back-signature
    tried: dict[bytes, bool] = field(default_factory=dict)  # what is signed and the signature itself -> good?


class Assembly:
    """One certificate under way: feed it packet by packet, then verify it (checks.py)."""

    def __init__(self, key: PublicKey, limits: Limits) -> None:
        self.key = key
        self.limits = limits
        self.refusal = ""
        self.primary = Place(Component(packets.PUBLIC_KEY, key.body))
        self.places: dict[tuple[int, bytes], Place] = {}
        self.astray: list[Signature] = []  # not behind a component of their kind
        self.strangers: list[Signature] = []  # key revocations by others
        self._here: Place | None = self.primary
        self._skip = False  # behind something unknown
        self._unsigned = limits.unsigned
        self._room = limits.candidates
        self._key_id = key.key_id

    def take(self, tag: int, octets: bytes, start: int, end: int) -> None:
        """One packet behind the primary key."""
        if tag == packets.SIGNATURE:
            if not self._skip and end - start <= self.limits.signature:
                self._signature(octets, start, end)
        elif tag in (packets.USER_ID, packets.SUBKEY):
            self._drop_unsigned()
            most = self.limits.user_id if tag == packets.USER_ID else self.limits.key
            self._skip = end - start > most
            if not self._skip:
                body = octets[start:end]
                self._here = self.places.setdefault((tag, body), Place(Component(tag, body)))
        elif tag == packets.USER_ATTRIBUTE:
            self._here, self._skip = None, False  # dropped, but what stands behind it may belong elsewhere
        elif tag >= _CRITICAL:
            self._here, self._skip = None, True
        elif tag not in _IGNORED:
            self.refusal = f"a packet of type {tag}, which no certificate has"

    def _drop_unsigned(self) -> None:
        """Forget the last component if no signature followed it, once enough of that sort are held."""
        here = self._here
        if here is not None and here is not self.primary and not here.candidates:
            self._unsigned -= 1
            if self._unsigned < 0:
                self.places.pop((here.component.tag, here.component.body), None)

    def _signature(self, octets: bytes, start: int, end: int) -> None:
        """Sort out third-party signatures as cheaply as possible: they are nearly all of a poisoned certificate."""
        if end - start < 12:
            return
        named = octets.find(self._key_id, start, end) >= 0  # fingerprints end or begin with the key ID
        type_ = octets[start + 2] if octets[start] == 3 else octets[start + 1]
        stranger = type_ == signatures.KEY_REVOCATION and len(self.strangers) < self.limits.strangers
        if (not named and not stranger and _names_issuer_last(octets, start, end)) or self._room <= 0:
            return
        try:
            signature = signatures.parse(octets[start:end])
        except Malformed:
            return
        if signature.by(self.key):
            self._own(signature)
        elif stranger:
            self.strangers.append(signature)

    def _own(self, signature: Signature) -> None:
        here = self._here
        self._room -= 1
        if signature.type in OVER_KEY:
            self.primary.candidates.append(signature)
        elif signature.type in OVER_USER_IDS or signature.type in OVER_SUBKEYS:
            wanted = packets.USER_ID if signature.type in OVER_USER_IDS else packets.SUBKEY
            fits = here is not None and here.component.tag == wanted
            (here.candidates if here is not None and fits else self.astray).append(signature)


def _names_issuer_last(octets: bytes, start: int, end: int) -> bool:
    """Is the unsigned area of a v4 signature just an issuer key ID, as most programs write it?"""
    loose = start + 6 + int.from_bytes(octets[start + 4 : start + 6], "big")
    return octets[start] == 4 and octets[loose : loose + 4] == b"\x00\x0a\x09\x10" and loose + 12 <= end
