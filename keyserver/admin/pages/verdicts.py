"""The sentence that stands first: what clients get, and why (not). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from keyserver.admin.explaining import ForAddress
from keyserver.admin.resources import CertificateResource, EntryResource, LookupResult
from keyserver.model import PASSED_OVER, Step, Validity, View

_OF = re.compile(r"([0-9A-F]{16,64}): (.*)", re.DOTALL)
_UNUSABLE = {
    Validity.EXPIRED: "it has expired",
    Validity.REVOKED: "it is revoked",
    Validity.UNVERIFIABLE: "what it says of itself cannot be verified here",
}


@dataclass(frozen=True, slots=True)
class Withheld:
    """A certificate that is known and kept from clients."""

    fingerprint: str
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence: `head` what, `why` the reason. tone: good, warn or bad."""

    tone: str
    head: str
    why: str
    withheld: tuple[Withheld, ...] = ()


def of_lookup(found: LookupResult) -> Verdict:
    """What a client of the default view would have."""
    withheld = _withheld(found.steps)
    number = len(found.certificates)
    answered = "1 certificate is answered" if number == 1 else f"{number} certificates are answered"
    if found.verdict == "usable":
        return Verdict("good", f"Found: {answered}", found.reason, withheld)
    if number:
        unusable = sorted({_unusable(c.validity, c.can_encrypt) for c in found.certificates})
        return Verdict("bad", f"Not usable: {answered}, and nobody can encrypt", " and ".join(unusable), withheld)
    if withheld:
        known = "one certificate is" if len(withheld) == 1 else f"{len(withheld)} certificates are"
        whys = "; ".join(dict.fromkeys(one.why for one in withheld))
        return Verdict("bad", f"Not found for clients: {known} known and kept back", whys, withheld)
    if found.verdict == "unknown":
        return Verdict("warn", "Not known: an upstream could not be asked", found.reason)
    return Verdict("bad", "Not found", found.reason)


def of_certificate(shown: CertificateResource, addresses: Sequence[ForAddress] = ()) -> Verdict:
    """What clients of the default view get of one certificate, for its addresses too."""
    if shown.blocked:
        return Verdict("bad", "Not answered", "an administrator has blocked it: it is neither cached nor answered")
    answered = [entry for entry in shown.entries if entry.answered]
    if not answered:
        return Verdict("bad", "Not answered", _reasons(shown.entries))
    addresses = [one for one in addresses if View().name in one.views]
    if addresses and not any(one.answered or one.searched_first for one in addresses):
        whys = dict.fromkeys(one.reason for one in addresses)
        return Verdict("warn", "Answered by fingerprint, for no address", "; ".join(whys))
    if shown.validity != Validity.VALID or not shown.can_encrypt:
        return Verdict("warn", "Answered, but nobody can encrypt to it", _unusable(shown.validity, shown.can_encrypt))
    if addresses and not any(one.answered for one in addresses):
        return Verdict("warn", "Answered by fingerprint; for addresses after a search", addresses[0].reason)
    return Verdict("good", "Answered", answered[0].reason)


def _reasons(entries: Sequence[EntryResource]) -> str:
    if len(entries) == 1:
        return f"its only entry: {entries[0].reason}"
    return "; ".join(dict.fromkeys(entry.reason for entry in entries))


def _unusable(validity: str, can_encrypt: bool) -> str:
    why = _UNUSABLE.get(Validity(validity))
    return why or ("" if can_encrypt else "it has no key to encrypt to")


def _withheld(steps: Sequence[Step]) -> tuple[Withheld, ...]:
    """Which are kept back, each once with its last reason."""
    found: dict[str, str] = {}
    for step in steps:
        match = _OF.fullmatch(step.why) if step.what == PASSED_OVER else None
        if match is not None:
            found[match[1]] = match[2]
    return tuple(Withheld(fingerprint, why) for fingerprint, why in found.items())
