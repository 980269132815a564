"""Hostile octets in, clean certificates out: every signature that stays was made by the primary key and verified.

What is dropped: third-party signatures, user attributes, unknown packets, whatever does not verify. What refuses the
whole input: secret keys. Packet bodies are never re-encoded.
"""

from __future__ import annotations

from keyserver.model import Certificate, Malformed, Refused
from keyserver.openpgp import packets
from keyserver.openpgp.assembly import Assembly
from keyserver.openpgp.checks import unproved, verify
from keyserver.openpgp.limits import BRIEF, Limits
from keyserver.openpgp.merge import merge
from keyserver.openpgp.parts import bounded, write
from keyserver.openpgp.proof import judge, prove
from keyserver.openpgp.verify import VerificationBudget


def clean(octets: bytes, now: int, limits: Limits = Limits()) -> list[Certificate | Refused]:
    """Every certificate in binary packets (several may follow one another), or why it was not let in.

    `now` only decides what the certificates prove, never what is kept. Never raises: what stood before a fatal octet
    is still returned, and the refusal behind it is `fatal`, as it is for secret keys, of which nothing is returned.
    """
    if len(octets) > limits.octets:
        return [Refused(f"an answer of {len(octets)} octets; at most {limits.octets} are read", fatal=True)]
    found: dict[str, Certificate] = {}
    refused: list[Refused] = []
    budget = VerificationBudget(limits.answer_cost)
    current: Assembly | None = None
    arrived = 0
    try:
        for tag, start, end in packets.walk(octets, limits.packets):
            if tag in (packets.SECRET_KEY, packets.SECRET_SUBKEY):
                return [Refused("it contains a secret key; nobody should send that to a keyserver", fatal=True)]
            if tag == packets.PUBLIC_KEY:
                _finish(current, now, budget, found, refused)
                current = None
                if arrived >= limits.certificates:
                    refused.append(Refused(f"more than {limits.certificates} certificates in one answer"))
                    break
                arrived += 1
                current = _begin(octets[start:end], limits, refused)
            elif current is not None:
                current.take(tag, octets, start, end)
    except Malformed as error:
        refused.append(Refused(str(error), fatal=True))
    _finish(current, now, budget, found, refused)
    if not found and not refused:
        refused.append(Refused("no certificate in it", fatal=True))
    return [*found.values(), *refused]


def clean_brief(octets: bytes, now: int) -> list[Certificate | Refused] | None:
    """As `clean`, where that surely takes no more than 2 ms and refuses nothing; else None, soon."""
    if len(octets) > BRIEF.octets or _foreign(octets):
        return None
    found = clean(octets, now, BRIEF)
    return None if any(isinstance(item, Refused) for item in found) else found


def _foreign(octets: bytes) -> bool:
    """Is it no certificate of few packets, or names a domain beyond ASCII, of which a few would take 2 ms?"""
    try:
        return any(
            tag == packets.USER_ID and not octets[octets.rfind(b"@", start, end) : end].isascii()
            for tag, start, end in packets.walk(octets, BRIEF.packets)
        )
    except Malformed:
        return True


def _begin(body: bytes, limits: Limits, refused: list[Refused]) -> Assembly | None:
    """A new certificate, unless its primary key is none that we take."""
    try:
        if len(body) > limits.key:
            raise Malformed(f"a key packet of {len(body)} octets; at most {limits.key} are accepted")
        key = packets.parse_key(body)
        if key.algorithm in packets.ENCRYPTING_ONLY:
            raise Malformed(f"a primary key of algorithm {key.algorithm}, which cannot sign")
    except Malformed as error:
        refused.append(Refused(str(error)))
        return None
    return Assembly(key, limits)


def _finish(
    arrival: Assembly | None,
    now: int,
    budget: VerificationBudget,
    found: dict[str, Certificate],
    refused: list[Refused],
) -> None:
    """Verify what has arrived of one certificate, and note what became of it."""
    if arrival is None:
        return
    limits, fingerprint = arrival.limits, arrival.key.fingerprint.hex().upper()
    try:
        if arrival.refusal:
            raise Malformed(arrival.refusal)
        verified, unseen = verify(arrival, budget)
        parts = bounded(verified, limits)
        if unseen:
            why = f"its signatures cost too much to verify; {unseen} of them were not looked at"
            refused.append(Refused(why, fingerprint, fatal=True))
            if not parts.direct.signatures and not parts.components:
                return
        if not parts.direct.signatures and not parts.components:
            raise Malformed(unproved(arrival))
        if parts.key.version == 6 and not parts.direct.signatures:
            raise Malformed("a version 6 certificate without a direct-key signature")
        octets = write(parts)
        if len(octets) > limits.certificate:
            raise Malformed(f"{len(octets)} octets after cleaning; at most {limits.certificate} are accepted")
    except Malformed as error:
        refused.append(Refused(str(error), fingerprint, fatal=bool(arrival.refusal)))
        return
    if earlier := found.get(fingerprint):
        octets = merge([earlier.octets, octets])
        found[fingerprint] = Certificate(octets, prove(octets, now))
    else:
        found[fingerprint] = Certificate(octets, judge(parts, now))
