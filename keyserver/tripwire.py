"""Is a certificate held because another one answered before it (`on_change`)? Pure: lookups, searches, mail ask here.

Remembered is, for each address and view, which certificate answered first. Who says what happens when another one
would: the rule for the address's domain, else the view, else whoever brought it, else the global setting. What an
administrator says passes: local entries, approvals for the address, certificates pinned for its domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keyserver.model import Answered, Entry, OnChange, Source, View
from keyserver.policy import Terms, approved_for

HELD = "held: another certificate than before answers for it"


def remembered(answering: Mapping[str, str], view: View) -> str:
    """The certificate that answered last for this view, of `Snapshot.answering`; empty where none is known.

    What stands behind an address with a tag, asked for by that for the first time, goes by what the view itself
    answered. What only a domain's owner has a word in does not: whoever else may have answered there before."""
    before = answering.get(view.memory, "")
    if before or not view.no_mailflow:
        return before
    return answering.get(replace(view, no_mailflow=False).memory, "")


def on_change(entry: Entry, view: View, terms: Terms, address: str) -> OnChange:
    """What holds for a certificate that this entry brings."""
    rule = terms.rule(address)
    spec = terms.upstreams.get(entry.origin) if entry.source is Source.KEYSERVER else None
    words = (rule and rule.on_change, view.on_change, spec and spec.on_change)
    return next((word for word in words if word), terms.on_change)


def is_admitted(fingerprint: str, entries: Iterable[Entry], terms: Terms, address: str) -> bool:
    """Has an administrator said that this certificate may answer for the address?"""
    rule = terms.rule(address)
    if rule is not None and fingerprint in rule.pinned:
        return True
    return any(entry.source is Source.LOCAL or approved_for(entry, address) for entry in entries)


def is_held(entries: Sequence[Entry], before: str, view: View, terms: Terms, address: str) -> bool:
    """Is the certificate of these entries, by which it would answer, held? `before`: the one that is remembered.

    One of several origins that may bring another certificate is enough to have it answered."""
    fingerprint = entries[0].fingerprint
    if not before or fingerprint == before or is_admitted(fingerprint, entries, terms, address):
        return False
    return all(on_change(entry, view, terms, address) is OnChange.HOLD for entry in entries)


def settled(
    answered: Sequence[Answered], before: str, view: View, terms: Terms, address: str
) -> tuple[str, list[Answered]]:
    """Which certificate is remembered after this answer, and which of what would be answered, in its order, are held.

    It is the first that need not wait for the one of before: what an administrator has approved takes its place at
    once, and where none was remembered, the same answer the first question as the next."""
    first = next((one for one in answered if not is_held(one.entries, before, view, terms, address)), None)
    now = before if first is None else first.certificate.fingerprint
    return now, [one for one in answered if is_held(one.entries, now, view, terms, address)]


def waits(
    entry: Entry,
    others: Iterable[Entry],
    answering: Mapping[str, str],
    views: Iterable[View],
    terms: Terms,
    address: str,
) -> bool:
    """Is a certificate that this entry brings anew held in one of these views? `others`: all other entries there."""
    mine = [other for other in others if other.fingerprint == entry.fingerprint]
    if is_admitted(entry.fingerprint, mine, terms, address):
        return False
    return any(is_held((entry,), remembered(answering, view), view, terms, address) for view in views)
