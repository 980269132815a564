"""From what the store knows to what this view may be told. Pure: the cache rules 4, 6, 8, 9, 10 and 12 meet here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keyserver.hygiene import Hygiene
from keyserver.model import Answered, Certificate, Entry, Kind, Name, Proof, Source, Validity, View
from keyserver.policy import FOREVER, MAX_ANSWER, Freshness, OnRecord, Terms, backed, judge, keeps, order_key
from keyserver.query import ByAddress, ByText, Query
from keyserver.store.snapshot import Snapshot
from keyserver.tripwire import HELD, remembered, settled
from keyserver.usable import withheld


@dataclass(frozen=True, slots=True)
class Selected:
    """What may be answered."""

    certificates: tuple[Answered, ...]
    alone: bool  # some certificate is a hit by itself (rule 10)
    until: int  # the first instant at which anything behind it turns
    stale: bool  # some entry is past its ttl
    passed_over: tuple[tuple[str, str], ...]  # (fingerprint, why it is not answered)
    withheld: tuple[str, ...] = ()  # "fingerprint: why" of those that this view keeps back though they answer the query
    held: tuple[str, ...] = ()  # fingerprints: another one answered for the address before
    first: str = ""  # fingerprint of that one, answered or not

    @property
    def all_expired(self) -> bool:
        """Has all that is known expired by itself (rule 12, last sentence)?"""
        return bool(self.certificates) and all(
            a.certificate.proof.validity is Validity.EXPIRED for a in self.certificates
        )


def proves(proof: Proof, query: Query) -> bool:
    """Does this certificate prove what was asked (rule 8)?

    One that is on a revocation list answers only by its own name: no octet of it tells who asks that it is revoked."""
    if proof.barred:
        return query.name in proof.strong
    if isinstance(query, ByText):
        texts = [u.text for u in proof.user_ids] + ([proof.x509.common_name] if proof.x509 else [])
        return any(query.text in text.casefold() for text in texts)
    return query.name in proof.names


def select(
    snapshot: Snapshot,
    query: Query,
    view: View,
    now: int,
    terms: Terms,
    hygiene: Mapping[Kind, Hygiene],
    believed: OnRecord | None,
    *,
    stale: bool = False,
) -> Selected:
    """Judge, merge and order every certificate in a snapshot.

    `believed`: an entry that is no hit by itself answers only by a finished search: a keyserver entry when its own
    upstream has said found, others when anybody has said anything final. None believes everything that is known,
    for when the upstreams could not be asked. `stale` admits entries within `serve_stale` past their ttl.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in snapshot.entries:
        groups.setdefault(entry.fingerprint, []).append(entry)
    address = query.address if isinstance(query, ByAddress) else None
    answered: list[Answered] = []
    passed: list[tuple[str, str]] = []
    kept_back: list[str] = []
    before = remembered(snapshot.answering, view)
    unfound: Answered | None = None  # the remembered one, where no search has found it
    alone, until, any_stale = False, FOREVER, False
    for fingerprint, entries in groups.items():
        own = hygiene[entries[0].kind]
        usable: list[Entry] = []
        reason = ""
        turns = FOREVER
        for entry in entries:
            verdict = judge(entry, view, now, terms, address)
            if not verdict.answerable or (verdict.freshness is Freshness.STALE and not stale):
                reason = verdict.reason
            elif (spoken := _spoken(entry, query, view, now, terms, own)) is None:
                reason = "it names addresses that its origin may not speak for, and cannot be cut"
            else:
                usable.append(spoken)
                turns = min(turns, verdict.until)
                any_stale = any_stale or verdict.freshness is Freshness.STALE
        merged = merged_of(usable, snapshot.revocations.get(fingerprint, b""), own, now)
        if merged is None or not proves(merged.proof, query):
            if merged is not None and (barred := merged.proof.barred):
                kept_back.append(f"{fingerprint}: {barred}")
                reason = reason or barred
            passed.append((fingerprint, reason or "it does not prove the query now"))
            continue
        by_itself = _by_itself(query, merged.proof, usable, own, now)
        if not by_itself and believed is not None:
            whole = Answered(merged, tuple(usable))
            usable = [e for e in usable if backed(e, believed, address)]
            merged = merged_of(usable, snapshot.revocations.get(fingerprint, b""), own, now)
            if merged is None or not proves(merged.proof, query):
                if fingerprint == before and not withheld(whole.certificate.proof, view):
                    unfound = whole
                    until = min(until, turns, whole.certificate.proof.turns or FOREVER)
                passed.append((fingerprint, "it claims the address, but no search for this query has found it"))
                continue
            turns = min(turns, believed.until)
        until = min(until, turns, merged.proof.turns or FOREVER)
        if reason := withheld(merged.proof, view):
            passed.append((fingerprint, reason))
            kept_back.append(f"{fingerprint}: {reason}")
            continue
        alone = alone or by_itself
        answered.append(Answered(merged, tuple(usable)))
    answered.sort(key=lambda a: order_key(a, terms, address))
    first, held = ("", []) if address is None else settled(answered, before, view, terms, address)
    for one in held:
        answered.remove(one)
        passed.append((one.certificate.fingerprint, HELD))
        kept_back.append(f"{one.certificate.fingerprint}: {HELD}")
    if held and unfound is not None and first == before:  # all others are held, and this one answers on
        passed = [(fingerprint, why) for fingerprint, why in passed if fingerprint != before]
        answered = [unfound]
    return Selected(
        tuple(answered[:MAX_ANSWER]),
        alone,
        until,
        any_stale,
        tuple(passed),
        tuple(kept_back),
        tuple(one.certificate.fingerprint for one in held),
        first,
    )


def _spoken(entry: Entry, query: Query, view: View, now: int, terms: Terms, own: Hygiene) -> Entry | None:
    """The entry with a copy that says only what its origin may speak for (rule 6); None where it cannot be cut.

    What an upstream sent stays whole for a question by fingerprint or key ID."""
    claimed = isinstance(query, ByAddress | ByText)
    if not claimed and entry.source is not Source.MAILFLOW:
        return entry

    claims = own.prove(entry.octets, now).claims
    asked = query.address if isinstance(query, ByAddress) else None
    gone = {claim.text for claim in claims if not keeps(entry, claim, view, terms, asked)}
    if not gone:
        return entry
    if own.cut is None:  # to an address and to a fingerprint it answers whole: mail that names others is held
        return None if isinstance(query, ByText) else entry
    return replace(entry, octets=own.cut(entry.octets, gone))


def merged_of(entries: Sequence[Entry], revocations: bytes, own: Hygiene, now: int) -> Certificate | None:
    """The merge of some entries' copies and every revocation known (rule 9), proved now; None without entries."""
    if not entries:
        return None
    if len(entries) == 1 and not revocations:
        octets = entries[0].octets
    else:
        octets = own.merge([e.octets for e in entries], revocations)
    return Certificate(octets, own.prove(octets, now))


def merged_all(snapshot: Snapshot, fingerprint: str, hygiene: Mapping[Kind, Hygiene], now: int) -> Certificate | None:
    """The same for all that is known of one certificate; None where nothing is cached."""
    if not snapshot.entries:
        return None
    own = hygiene[snapshot.entries[0].kind]
    return merged_of(snapshot.entries, snapshot.revocations.get(fingerprint, b""), own, now)


def _by_itself(query: Query, proof: Proof, usable: Sequence[Entry], own: Hygiene, now: int) -> bool:
    if query.name in proof.strong:
        return True
    return any(e.source is Source.LOCAL and proves(own.prove(e.octets, now), query) for e in usable)


def names_behind(query: Query, certificates: Sequence[Answered]) -> frozenset[Name]:
    """Every name an answer depends on."""
    return frozenset({query.name}).union(*(a.certificate.proof.names for a in certificates))
