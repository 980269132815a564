"""Verifying what has arrived of one certificate, under a budget (RFC 9580 section 5.2)."""

from __future__ import annotations

from collections import deque

from keyserver.model import Malformed
from keyserver.openpgp import packets, signatures
from keyserver.openpgp.assembly import OVER_KEY, OVER_USER_IDS, Assembly, Place
from keyserver.openpgp.parts import CertificateParts, add
from keyserver.openpgp.signatures import Signature
from keyserver.openpgp.verify import Exhausted, Target, VerificationBudget, Verifier, verifiable, weakness

_OPENING_COST, _LOADING_COST = 10, 100  # nominal µs: preparing a component, loading a subkey's numbers


def verify(arrival: Assembly, answer: VerificationBudget) -> tuple[CertificateParts, int]:
    """The parts that verify, and how many signatures were not looked at because the budget ended."""
    key = arrival.key
    if not verifiable(key):
        return _unverified(arrival), 0
    budget = VerificationBudget(arrival.limits.cost, answer)
    work = _Work(arrival, Verifier(key, budget), budget)
    try:
        work.in_place()
        work.elsewhere()
        work.claimed()
    except Exhausted:
        pass
    return work.parts, work.left if budget.left < 0 or answer.left < 0 else 0


def _unverified(arrival: Assembly) -> CertificateParts:
    """As it came, where it stood: nothing here is proved, and nothing is found by it (proof.judge)."""
    parts = CertificateParts.of(arrival.key)
    for place in (arrival.primary, *arrival.places.values()):
        if place.component.tag != packets.PUBLIC_KEY:
            parts.components[place.component.tag, place.component.body] = place.component
        else:
            parts.direct = place.component
        for signature in place.candidates:
            if not signature.flaw:
                place.component.add(signature)
    return parts


def unproved(arrival: Assembly) -> str:
    """Why nothing of a certificate verifies, in words for people."""
    own = (s for place in (arrival.primary, *arrival.places.values()) for s in place.candidates)
    reasons = {reason for signature in own if (reason := weakness(signature))}
    if not reasons:
        return "nothing in it is signed by its primary key"
    return f"no self-signature in it counts: {', '.join(sorted(reasons)[:4])}"


class _Work:
    """The verification of one certificate."""

    def __init__(self, arrival: Assembly, verifier: Verifier, budget: VerificationBudget) -> None:
        self.parts = CertificateParts.of(arrival.key)
        self.parts.direct = arrival.primary.component
        self._arrival = arrival
        self._verifier = verifier
        self._budget = budget
        self._hashed = arrival.key.hashed
        self.left = len(arrival.astray) + sum(len(p.candidates) for p in self._places())

    def _places(self) -> list[Place]:
        return [self._arrival.primary, *self._arrival.places.values()]

    def in_place(self) -> None:
        """Every signature where it stands, one of each component in turn, so that a flood over one user ID does not
        use up what the others need. What does not even look right there may be misplaced."""
        queues = deque((place, deque(place.candidates)) for place in self._places() if place.candidates)
        while queues:
            place, candidates = queues.popleft()
            signature = candidates.popleft()
            if candidates and len(place.component.signatures) < self._arrival.limits.good:
                queues.append((place, candidates))
            if not self._try(signature, place) and signature.type not in OVER_KEY:
                self._arrival.astray.append(signature)
                self.left += 1
            self.left -= 1

    def elsewhere(self) -> None:
        """Misplaced signatures, tried over every component of their kind; the left 16 bits tell most apart."""
        for signature in self._arrival.astray:
            if self._verifier.admits(signature):
                wanted = packets.USER_ID if signature.type in OVER_USER_IDS else packets.SUBKEY
                for (tag, _), place in self._arrival.places.items():
                    if tag == wanted and self._try(signature, place):
                        break
            self.left -= 1

    def claimed(self) -> None:
        """Key revocations by a designated revoker (section 5.2.3.23), which only that one's certificate could check."""
        if not self._arrival.strangers:
            return
        revokers = {
            r for c in (self.parts.direct, *self.parts.components.values()) for s in c.of_self() for r in s.revokers
        }
        names = revokers | {r[-8:] if len(r) == 20 else r[:8] for r in revokers}
        for signature in self._arrival.strangers:
            if names.intersection(signature.issuers) and not signature.flaw:
                add(signature, self.parts.claimed)

    def _try(self, signature: Signature, place: Place) -> bool:
        """Verify one signature over one component; True where it need not be tried elsewhere."""
        if not self._verifier.admits(signature):
            return True
        if place.target is None and not self._open(place):
            return True
        assert place.target is not None
        digest = self._verifier.digest(signature, place.target)
        if digest is None:
            return False
        what = signature.identity + signature.body[signature.material :]
        good = place.tried.get(what)
        if good is None:
            good = place.tried[what] = self._verifier.check(signature, digest)
        kept = self._with_back_signature(signature, place) if good and signature.embedded else signature
        if good and kept is not None:
            component = place.component
            component.add(kept)
            if component.tag != packets.PUBLIC_KEY:
                self.parts.components[component.tag, component.body] = component
        return True

    def _open(self, place: Place) -> bool:
        """Prepare what signatures over this component hash; False for a subkey that is none."""
        self._budget.charge(_OPENING_COST)
        tag, body = place.component.tag, place.component.body
        if tag == packets.PUBLIC_KEY:
            place.target = Target(self._hashed)
        elif tag == packets.USER_ID:
            v4 = self._hashed + b"\xb4" + len(body).to_bytes(4, "big") + body
            place.target = Target(v4, self._hashed + body)
        else:
            try:
                subkey = place.component.key()
            except Malformed:
                return False
            if subkey.version != self.parts.key.version:
                return False
            place.subkey, place.target = subkey, Target(self._hashed + subkey.hashed)
        return True

    def _with_back_signature(self, signature: Signature, place: Place) -> Signature | None:
        """The binding with embedded signatures that verify only; None where a bad one is signed and cannot be cut.

        So an embedded signature in a clean binding *is* a back-signature. Where the subkey's algorithm is not ours,
        it stays as it is and proves nothing (proof._standing)."""
        subkey = place.subkey
        if signature.type != signatures.BINDING or subkey is None:
            return signature
        if not verifiable(subkey) and subkey.algorithm not in packets.ENCRYPTING_ONLY:
            return signature
        bad = [span for span in signature.embedded if not self._agrees(signature.body, span, place)]
        return signatures.without_embedded(signature, bad) if bad else signature

    def _agrees(self, body: bytes, span: tuple[int, int], place: Place) -> bool:
        """Is this a back-signature by the subkey (section 5.2.1.9)? Embedded signatures inside it are not followed."""
        assert place.target is not None and place.subkey is not None
        try:
            back = signatures.parse(body[span[0] : span[1]])
            if not verifiable(place.subkey):
                return False
            if place.verifier is None:
                self._budget.charge(_LOADING_COST)
                place.verifier = Verifier(place.subkey, self._budget)
        except Malformed:
            return False
        if back.type != signatures.BACK_SIGNATURE or not place.verifier.admits(back):
            return False
        digest = place.verifier.digest(back, place.target)
        return digest is not None and place.verifier.check(back, digest)
